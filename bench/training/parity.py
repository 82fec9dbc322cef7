"""Whether training between islands learns as well as synchronous data parallelism; what is sent.

Real gradients of a 1.05 M parameter Llama on real text in one process and one thread; virtual time.
Ways and their names: bench/training/parity_ways.py.

    python -m bench.training.parity prepare TEXT_FOLDER WORK      # ids of all *.txt under it, BPE
    python -m bench.training.parity warm WORK                     # the common warm start
    python -m bench.training.parity run WORK OUT.jsonl [seeds=1,2,3] [tokens=N] NAME...
    python -m bench.training.parity table OUT.jsonl

docs/TRAINING_PARITY.md has the method and the results.
"""

import json
import sys
import time
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
import torch

from bench.training.parity_inner import STEP_TOKENS, VOCABULARY, Inner, Schedule, Text
from bench.training.parity_time import Islands, Way
from bench.training.parity_ways import LR, Sync, way_of

WARM_STEPS, WARM_BATCHES = 500, 3
TOKENS = 345_600
SEEDS = (1, 2, 3)


def main() -> None:
    torch.set_num_threads(1)
    command, *rest = sys.argv[1:]
    match command:
        case "prepare":
            prepare(Path(rest[0]), Path(rest[1]))
        case "warm":
            warm(Path(rest[0]), int(rest[1]) if rest[1:] else WARM_STEPS)
        case "run":
            work, out, *names = rest
            seeds, tokens = SEEDS, TOKENS
            if names[0].startswith("seeds="):
                seeds = tuple(int(s) for s in names.pop(0).removeprefix("seeds=").split(","))
            if names[0].startswith("tokens="):
                tokens = int(names.pop(0).removeprefix("tokens="))
            for seed in seeds:
                for name in names:
                    if not is_done(Path(out), name, seed, tokens):
                        run(Path(work), Path(out), name, seed, tokens)
        case "table":
            table(Path(rest[0]))
        case _:
            sys.exit(__doc__)


def prepare(source: Path, work: Path) -> None:
    """Byte-level BPE trained on the text itself; ids in the order of the files' names."""
    from tokenizers import ByteLevelBPETokenizer

    work.mkdir(parents=True, exist_ok=True)
    texts = [path.read_text(errors="replace") for path in sorted(source.rglob("*.txt"))]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, show_progress=False)
    ids = np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(texts)])
    np.save(work / "ids.npy", ids)
    print(f"{len(texts)} files, {sum(map(len, texts))} characters, {ids.size} tokens")


def warm(work: Path, steps: int) -> None:
    """Synchronous steps at a constant rate after a short warmup."""
    text = Text(work / "ids.npy")
    inner, batches = Inner(0), text.batches(0)
    schedule = Schedule(lr=LR, warmup_share=0.05, is_constant=True)
    for step in range(steps):
        these = [batches[step * WARM_BATCHES + n] for n in range(WARM_BATCHES)]
        loss = inner.step(these, schedule.at(step / steps))
        if step % 50 == 0:
            print(step, f"{loss:.3f}", flush=True)
    inner.save(work / "warm.npz")
    print(f"validation loss {inner.loss(text.validation):.4f}")


def warm_steps(work: Path) -> int:
    """Of the warm start that is there."""
    with np.load(work / "warm.npz") as saved:
        return round(float(saved["steps"][0]))


def run(work: Path, out: Path, name: str, seed: int, tokens: int) -> None:
    """One way and seed, appended to `out` as a line."""
    way = way_of(name)
    text = Text(work / "ids.npy")
    batches = text.batches(seed, skip=warm_steps(work) * WARM_BATCHES)
    start = Inner(0)
    start.load(work / "warm.npz")
    begun_s = time.process_time()
    train = _sync if isinstance(way, Sync) else _islands
    trained = train(way, start, batches, text, tokens)  # type: ignore[arg-type]
    line = {
        "name": name,
        "seed": seed,
        "tokens_asked": tokens,
        "warm_steps": warm_steps(work),
        "way": msgspec.to_builtins(way),
        "loss_warm": start_loss(work, text),
        **trained,
        "cpu_s": time.process_time() - begun_s,
    }
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(name, seed, f"{line['loss']:.4f}", f"{line['cpu_s']:.0f} CPU s", flush=True)


def is_done(out: Path, name: str, seed: int, tokens: int) -> bool:
    """So that what was cut off goes on where it was."""
    lines = out.read_text().splitlines() if out.exists() else []
    done = [(one["name"], one["seed"], one["tokens_asked"]) for one in map(json.loads, lines)]
    return (name, seed, tokens) in done


def start_loss(work: Path, text: Text) -> float:
    inner = Inner(0)
    inner.load(work / "warm.npz")
    return inner.loss(text.validation)


def _sync(way: Sync, inner: Inner, batches, text: Text, tokens: int) -> dict[str, object]:
    schedule = Schedule(lr=way.inner_lr, end=way.lr_end)
    inner.set_betas(way.betas)
    count = tokens // (STEP_TOKENS * way.batches)
    second_s, curve = way.seconds(inner.now.size), []
    for step in range(count):
        these = [batches[step * way.batches + n] for n in range(way.batches)]
        inner.step(these, schedule.at(step / count))
        if step % max(1, count // 6) == 0 and step:
            seen = (step + 1) * way.batches * STEP_TOKENS
            curve.append((seen, (step + 1) * second_s, inner.loss(text.validation)))
    trained = count * way.batches * STEP_TOKENS
    sent = 2 * way.bytes_each_way(inner.now.size) * count
    return {
        "loss": inner.loss(text.validation),
        "tokens": trained,
        "virtual_s": count * second_s,
        "bytes_per_token": sent / trained,
        "curve": curve,
    }


def _islands(way: Way, start: Inner, batches, text: Text, tokens: int) -> dict[str, object]:
    steps = tokens // STEP_TOKENS
    islands = Islands(way, start, batches, Schedule(lr=way.inner_lr, end=way.lr_end), steps)
    looker, curve, looked, virtual_s = Inner(0), [], 0, 0.0
    for done, virtual_s in islands.run():
        if done - looked > tokens / 6:
            looker.now[:] = islands.outer.published()
            curve.append((done, virtual_s, looker.loss(text.validation)))
            looked = done
    looker.now[:] = islands.outer.parameters()
    true_loss = looker.loss(text.validation)
    looker.now[:] = islands.outer.published()
    trained = islands.done_steps * STEP_TOKENS
    return {
        "loss": true_loss,
        "loss_published": looker.loss(text.validation),
        "tokens": trained,
        "virtual_s": virtual_s,
        "rounds": len(islands.updates),
        "bytes_per_token": max(islands.bytes) / trained,
        "waited_s": islands.waited_s,
        "deltas": islands.norms,
        "curve": curve,
    }


def table(out: Path) -> None:
    """Means over seeds; the gap is to the best `sync` of the same warm start, tokens and seed."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for study in sorted({(line["warm_steps"], line["tokens_asked"]) for line in lines}):
        these = [one for one in lines if (one["warm_steps"], one["tokens_asked"]) == study]
        best, base = _best_sync(these)
        print(f"warm start of {study[0]} steps, then {study[1]} tokens; gaps are to {best}")
        for name in dict.fromkeys(line["name"] for line in these):
            _row([one for one in these if one["name"] == name], base)


def _best_sync(these: list[dict]) -> tuple[str, dict[int, float]]:
    """Of the usual batches: of those with most seeds the lowest; its losses by seed."""
    losses: dict[str, dict[int, float]] = {}
    for one in these:
        if one["way"].get("batches") == Sync().batches:
            losses.setdefault(one["name"], {})[one["seed"]] = one["loss"]
    return min(losses.items(), key=lambda way: (-len(way[1]), fmean(way[1].values())))


def _row(these: list[dict], base: dict[int, float]) -> None:
    gaps = [100 * (one["loss"] / base[one["seed"]] - 1) for one in these if one["seed"] in base]
    mean = sum(one["loss"] for one in these) / len(these)
    gap = f"{sum(gaps) / len(gaps):+.2f} %" if gaps else "?"
    each = " ".join(f"{one:+.2f}" for one in gaps)
    one = these[0]
    print(
        f"  {one['name']:32} loss {mean:.4f}  gap {gap} ({each})  "
        f"bytes/token {one['bytes_per_token']:.1f}  virtual s {one['virtual_s']:.0f}  "
        f"rounds {one.get('rounds', '-')}"
    )


if __name__ == "__main__":
    main()
