"""Three islands of speeds 4:2:1 in one run, against each of them in a run of its own.

Real processes over TLS: `argosy train` with the reference island, whose steps are paced by sleeping
(0.1, 0.2 and 0.4 s), so that two cores suffice and what is measured is the waiting. The three lone
runs go at the same time, then the one of all three, then again: both meet the same machine.

    python -m bench.training.islands [--seconds 60] [--rounds 2] [--out FILE.json]

Tells the share of its time that the fastest island waited for a block to train on (aim: 5 % at
most), and the run's tokens/s over the sum of the lone ones (aim: 95 % at least). Both are of the
islands' own time, from joining to leaving, the last round included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT, BATCH, STEP_S = 16, 4, 0.1
SLOWDOWNS = {"fast": 1, "middle": 2, "slow": 4}

RUN = """\
run: {name}
model: {{kind: llama, layers: 1, hidden: 16, heads: 1, kv_heads: 1, mlp: 16}}
data: {{path: none, validation_blocks: 8}}
tokens: {tokens}
context_tokens: {context}
batch_blocks: {batch}
outer: {{inner_steps: {inner_steps}, quorum: {quorum}, grace_s_max: 10, fragment_bytes_max: 4096}}
islands:
{islands}
"""


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--inner-steps", type=int, default=30)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="argosy-islands-") as folder:
            rows.append(_round(Path(folder), asked))
        print(f"round {number + 1}: {_told(rows[-1])}", flush=True)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"load": os.getloadavg(), "rounds": rows}, indent=1) + "\n")


def _round(folder: Path, asked) -> dict:
    alone = [_start(folder, name, (name,), asked) for name in SLOWDOWNS]
    lone = {
        name: _ended(folder, process, name) for name, process in zip(SLOWDOWNS, alone, strict=True)
    }
    together = _ended(folder, _start(folder, "together", tuple(SLOWDOWNS), asked), "together")
    ends = {name: one[name] for name, one in lone.items()}
    return {
        "alone_tokens_per_s": {name: _speed(one) for name, one in ends.items()},
        "together_tokens_per_s": {name: _speed(one) for name, one in together.items()},
        "run_over_sum": sum(map(_speed, together.values())) / sum(map(_speed, ends.values())),
        "waited_share": {
            name: one["waited_s"] / (one["wall_s"] - one["joined_s"])
            for name, one in together.items()
        },
        "stopped_share": {
            name: one["stopped_s"] / (one["wall_s"] - one["joined_s"])
            for name, one in together.items()
        },
        "lost_steps": sum(one["lost_steps"] for one in together.values()),
    }


def _start(folder: Path, name: str, islands: tuple[str, ...], asked) -> subprocess.Popen:
    steps = round(asked.seconds * sum(1 / (STEP_S * SLOWDOWNS[one]) for one in islands))
    rows = [f"  - {{name: {one}, threads: 1, slowdown: {SLOWDOWNS[one]}}}" for one in islands]
    file = folder / f"{name}.yaml"
    file.write_text(
        RUN.format(
            name=name,
            tokens=steps * CONTEXT * BATCH,
            context=CONTEXT,
            batch=BATCH,
            inner_steps=asked.inner_steps,
            quorum=1,
            islands="\n".join(rows),
        )
    )
    command = ("train", file, "--inner", "reference", "--step-s", STEP_S, "--no-watch")
    with (folder / f"{name}.err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "argosy.cli.main", *map(str, command), "--state", folder / name],
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
        )


def _ended(folder: Path, process: subprocess.Popen, name: str) -> dict[str, dict]:
    """What each island's life came to, once the run is over."""
    if process.wait():
        sys.exit((folder / f"{name}.err").read_text())
    found = {}
    for log in (folder / name / "runs" / name / "logs").glob("island-*.log"):
        last = [line for line in log.read_text().splitlines() if '"event":"ended"' in line][-1]
        found[log.stem.removeprefix("island-")] = json.loads(last)
    return found


def _speed(ended: dict) -> float:
    return ended["blocks"] * CONTEXT / (ended["wall_s"] - ended["joined_s"])


def _told(row: dict) -> str:
    return (
        f"the fastest waited {row['waited_share']['fast']:.1%}; the run made "
        f"{row['run_over_sum']:.1%} of the islands alone; {row['lost_steps']} steps lost"
    )


if __name__ == "__main__":
    main()
