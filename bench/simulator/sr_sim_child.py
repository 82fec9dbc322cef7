"""Runs in vllm-sr-sim's own environment: python sr_sim_child.py requests.jsonl replicas core."""

import json
import os
import sys
import time
from pathlib import Path


def main(path: str, replicas: int, core: int) -> None:
    """One pool of its H100 profile, round robin."""
    os.sched_setaffinity(0, {core})
    from fleet_sim import H100_80GB, Fleet, FleetConfig, PoolConfig, Request

    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    asked = [
        (row["at_s"], Request(number, row["at_s"], row["prompt"], row["output"]))
        for number, row in enumerate(rows)
    ]
    pool = PoolConfig("all", H100_80GB, replicas, 16_384, lb_strategy="round_robin")
    fleet = Fleet(FleetConfig(pools=[pool], router_type="RandomRouter"))
    begin_s = time.perf_counter()
    result = fleet.run(asked)
    took_s = time.perf_counter() - begin_s
    ttfts_s = [one.ttft for one in result.completed if one.ttft is not None]
    mean_s = sum(ttfts_s) / len(ttfts_s) if ttfts_s else None
    print(json.dumps({"took_s": took_s, "finished": len(result.completed), "ttft_s_mean": mean_s}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
