"""Runs in DynoSim's own environment: python dynosim_child.py requests.jsonl replicas core."""

import json
import os
import sys
import tempfile
from pathlib import Path

BLOCK_TOKENS = 512


def main(path: str, replicas: int, core: int) -> None:
    """Its offline replay, round robin, default timing; every prompt is another's."""
    os.sched_setaffinity(0, {core})
    from dynamo.replay import run_trace_replay

    trace = Path(tempfile.mkdtemp()) / "trace.jsonl"
    with Path(path).open() as asked, trace.open("w") as out:
        for number, line in enumerate(asked):
            row = json.loads(line)
            blocks = -(-row["prompt"] // BLOCK_TOKENS)
            first = number * 1000
            out.write(
                json.dumps(
                    {
                        "timestamp": row["at_s"] * 1000.0,
                        "input_length": row["prompt"],
                        "output_length": row["output"],
                        "hash_ids": list(range(first, first + blocks)),
                    }
                )
                + "\n"
            )
    report = run_trace_replay(
        str(trace), num_workers=replicas, router_mode="round_robin", trace_block_size=BLOCK_TOKENS
    )
    summary = report.summary
    trace.unlink()
    print(
        json.dumps(
            {
                "took_s": summary["wall_time_ms"] / 1000.0,  # its own count, without the reading
                "finished": summary["completed_requests"],
                "ttft_s_mean": summary["mean_ttft_ms"] / 1000.0,
            }
        )
    )


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
