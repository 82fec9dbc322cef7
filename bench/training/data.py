"""Packed tokens per second and core, ours beside LitData's and MosaicML's; resume; preparation.

    python -m bench.training.data [--rounds 5] [--seconds 2] [--out FILE]

The same 10 million ids of two bytes in blocks of 1,025, shuffled, page cache warm, each reader in a
process of its own, in its quickest way: no DataLoader, no processes. Rounds are interleaved and the
ratio is of CPU seconds, so that what else the machine does falls on all alike.
"""

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from argosy.training.data.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    Packing,
    Tokenizer,
    encode,
    sha256,
)
from argosy.training.data.shards import write_shards, write_whole
from bench.training.data_peers import ALL, PeerFailedError, ask, installed
from bench.training.data_stages import measured

_BLOCKS, _CONTEXT, _VOCAB = 10_000, 1024, 50_000
_OURS = "data_child_ours.py"
_RESUMES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=None, help="figures as JSON")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="argosy-bench-data-"))
    try:
        figures = {
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "reading": _reading(work, asked.rounds, asked.seconds),
            "resume_ms": _resume(work),
            "stages": [list(row) for row in measured()],
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _show(figures)
    if asked.out is not None:
        asked.out.write_text(json.dumps(figures, indent=1) + "\n")


def _reading(work: Path, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Million tokens per CPU second and per second, medians over the rounds, by reader."""
    tokens = np.random.default_rng(0).integers(0, _VOCAB, size=(_BLOCKS, _CONTEXT + 1))
    np.save(work / "tokens.npy", tokens.astype(np.uint16))
    _dataset(work / "ours", tokens)
    readers = {"Argosy": (Path(sys.executable), _OURS, work / "ours")}
    for peer in ALL:
        try:
            python = installed(peer)
            folder = work / peer.script
            ask(python, peer.script, "make", str(work / "tokens.npy"), str(folder))
            readers[peer.name] = (python, peer.script, folder)
        except PeerFailedError as error:
            print(f"{peer.name}: {error}", file=sys.stderr)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, (python, script, folder) in readers.items():
            said = ask(python, script, "read", str(folder), str(seconds))
            millions = said["tokens"] / 1e6
            found[name].append((millions / said["cpu_s"], millions / said["wall_s"]))
            print(f"{name}: {found[name][-1][0]:.1f} M/CPU s", file=sys.stderr)
    ours = statistics.median(one for one, _ in found["Argosy"])
    return {
        name: {
            "million_tokens_per_cpu_s": round(statistics.median(one for one, _ in rows), 2),
            "million_tokens_per_s": round(statistics.median(one for _, one in rows), 2),
            "ours_is_times": round(ours / statistics.median(one for one, _ in rows), 1),
        }
        for name, rows in found.items()
    }


def _resume(work: Path) -> dict[str, float]:
    """A new process each: from nothing open to the batch at a position by chance, imports apart."""
    chance = np.random.default_rng(1)
    found = [
        ask(Path(sys.executable), _OURS, "resume", str(work / "ours"), str(position))["wall_s"]
        for position in chance.integers(0, 10 * _BLOCKS, size=_RESUMES)
    ]
    return {"median": round(1e3 * statistics.median(found), 2), "max": round(1e3 * max(found), 2)}


def _dataset(out: Path, ids: np.ndarray) -> None:
    """The same ids as a dataset of ours."""
    starts = np.zeros(ids.shape, dtype=np.bool_)
    starts[:, 0] = True
    shards = write_shards(out, [(ids, starts)], _VOCAB)
    write_whole(out / "tokenizer.json", b"{}")
    packing = Packing(
        documents=len(ids),
        segments=len(ids),
        documents_longer_than_a_block=0,
        fillings=0,
        tokens_dropped=0,
    )
    tokenizer = Tokenizer(
        file="tokenizer.json",
        sha256=sha256(b"{}"),
        vocab_size=_VOCAB,
        end_token="none",
        end_id=0,
        is_trained=False,
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        corpus="bench",
        context_tokens=_CONTEXT,
        blocks=len(ids),
        tokens=ids.size,
        dtype="uint16",
        tokenizer=tokenizer,
        shards=tuple(shards),
        sources=(),
        packing=packing,
        seed=0,
        recipe_sha256="0" * 64,
        inputs_sha256="0" * 64,
    )
    write_whole(out / MANIFEST_FILE, encode(manifest))


def _show(figures: dict) -> None:
    print(f"\n{'READER':16}{'M tokens/CPU s':>16}{'M tokens/s':>12}{'ours is':>10}")
    for name, row in figures["reading"].items():
        print(
            f"{name:16}{row['million_tokens_per_cpu_s']:16,.1f}"
            f"{row['million_tokens_per_s']:12,.1f}{row['ours_is_times']:9.1f}x"
        )
    print(
        f"\nresume: {figures['resume_ms']['median']} ms, at most {figures['resume_ms']['max']} ms"
    )
    print("\nSTAGE, one core")
    for stage, unit, rate in figures["stages"]:
        print(f"{stage:22}{rate:10,.2f} {unit}/s")


if __name__ == "__main__":
    main()
