"""Step times held against Splitwise's: Llama-2-70B on A100 and H100 in 2023, never fitted."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import replica

_CHIPS = {"a100-80gb": "A100-80GB", "h100-80gb": "H100-SXM"}


def splitwise_errors(folder: Path) -> list[tuple[str, int, float, float]]:
    """By chip: its name, rows, median error of token time and of prompt time."""
    text = gzip.decompress((folder / "splitwise_time_power.csv.gz").read_bytes()).decode()
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["model"] == "llama2-70b"]
    model, engine = architecture("Llama-2-70B"), EngineSettings()
    found: list[tuple[str, int, float, float]] = []
    for own, name in _CHIPS.items():
        errors: list[tuple[float, float]] = []
        for tp in (2, 4, 8):
            made = replica(model, chip(name), Layout(tp=tp), engine, kv_tokens=0)
            if isinstance(made, DoesNotFit):
                continue
            for row in rows:
                if (row["hardware"], row["tensor_parallel"]) != (own, str(tp)):
                    continue
                batch, prompt = int(row["batch_size"]), int(row["prompt_size"])
                context = prompt + int(row["token_size"]) / 2
                token_s = made.step_time.step_s(tokens=batch, contexts=batch * context)
                prompt_s = made.step_time.step_s(
                    tokens=batch * prompt, pairs=batch * prompt * prompt / 2
                )
                errors.append(
                    (
                        abs(token_s * 1e3 / float(row["token_time"]) - 1),
                        abs(prompt_s * 1e3 / float(row["prompt_time"]) - 1),
                    )
                )
        token, prompt = np.median(np.array(errors), axis=0)
        found.append((name, len(errors), float(token), float(prompt)))
    return found
