"""What a run will take, told before it starts: each island tries a few steps, all at once.

Owns the sums; the steps are `training_trial.py`'s, in processes of their own. It is an estimate:
rounds, evaluation and checkpoints take a few percent more, other work on the machine what it likes.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from argosy.cli.running import refuse
from argosy.cli.training_page import duration, size
from argosy.cli.training_running import threads_env
from argosy.cli.training_trial import Asked, Trial
from argosy.fleet.runs import Island, Run

if TYPE_CHECKING:
    from argosy.training.data.reader import Dataset

_TRIAL_S_MAX = 300.0
_TAIL_LINES = 4


def tell_estimate(run: Run, dataset: "Dataset", *, elsewhere: Collection[str] = ()) -> None:
    """Try all islands of this host, print what the run will take. Exits with 1 where one fails.

    To stderr. Of islands elsewhere nothing is known: the run takes so much less time.
    """
    here = tuple(island for island in run.islands if island.name not in elsewhere)
    run = msgspec.structs.replace(run, islands=here)
    if not here:
        return
    typer.echo(f"trying a few steps of {len(run.islands)} islands at once ...", err=True)
    trials = _tried(run, dataset)
    speed = sum(trial.tokens_per_s for trial in trials)
    tokens = run.blocks * run.context_tokens
    lasts_s = tokens / speed
    blocks = dataset.blocks - run.data.validation_blocks
    for island, trial in zip(run.islands, trials, strict=True):
        typer.echo(f"  {_of_island(island, trial)}", err=True)
    told = [
        f"{trials[0].parameters / 1e6:.1f} million parameters",
        f"{tokens / 1e6:.1f} million tokens, {run.blocks / blocks:.2f} times over the data",
        f"{speed:,.0f} tokens/s, so about {duration(lasts_s)}",
        *_bill(run, lasts_s),
    ]
    typer.echo(f"  {'; '.join(told)}", err=True)


def _of_island(island: Island, trial: Trial) -> str:
    kind = f"{island.dtype} on {trial.device}"
    slowed = f", slowed {island.slowdown:g} times" if island.slowdown > 1 else ""
    compiled = f"; not compiled: {trial.compile_refused}" if trial.compile_refused else ""
    speed = f"{trial.tokens_per_s:,.0f} tokens/s, {size(trial.memory_bytes)} of memory"
    return f"{island.name}: {kind}{slowed}: {speed}{compiled}"


def _bill(run: Run, lasts_s: float) -> list[str]:
    prices = [island.price_usd_per_hour for island in run.islands]
    powers = [island.power_w for island in run.islands]
    bill: list[str] = []
    if any(price is not None for price in prices):
        known = sum(price for price in prices if price is not None)
        more = "" if None not in prices else " and what islands without a price cost"
        bill.append(f"{known * lasts_s / 3600:.2f} USD{more}")
    if all(power is not None for power in powers):
        bill.append(f"{sum(p for p in powers if p is not None) * lasts_s / 3.6e6:.2f} kWh")
    return bill


def _tried(run: Run, dataset: "Dataset") -> list[Trial]:
    with tempfile.TemporaryDirectory(prefix="argosy-trial-") as folder:
        started = [_start(run, island, dataset, Path(folder)) for island in run.islands]
        try:
            for island, process in zip(run.islands, started, strict=True):
                _wait_warm(island, process)
            for process in started:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            return [
                _result(island, process)
                for island, process in zip(run.islands, started, strict=True)
            ]
        finally:
            for process in started:
                process.kill()
                process.communicate()


def _start(run: Run, island: Island, dataset: "Dataset", folder: Path) -> "subprocess.Popen[str]":
    path = folder / f"{island.name}.json"
    asked = Asked(
        run=run,
        island=island.name,
        vocabulary=dataset.vocab_size,
        separator=dataset.end_id if run.data.is_document_masked else None,
    )
    path.write_bytes(msgspec.json.encode(asked))
    return subprocess.Popen(
        [sys.executable, "-m", "argosy.cli.training_trial", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **threads_env(island.threads)},
        text=True,
    )


def _wait_warm(island: Island, process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        _failed(island, process)


def _result(island: Island, process: "subprocess.Popen[str]") -> Trial:
    try:
        out, _ = process.communicate(timeout=_TRIAL_S_MAX)
    except subprocess.TimeoutExpired:
        refuse(f"island {island.name} takes more than {_TRIAL_S_MAX:g} s for a few small steps")
    try:
        return msgspec.json.decode(out.strip().encode(), type=Trial)
    except msgspec.DecodeError:
        return _failed(island, process)


def _failed(island: Island, process: "subprocess.Popen[str]") -> Trial:
    process.kill()
    _, err = process.communicate()
    words = "\n".join(err.strip().splitlines()[-_TAIL_LINES:])
    return refuse(f"island {island.name} cannot train a step:\n{words}")
