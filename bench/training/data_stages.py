"""How fast each stage of a preparation is on one core, in MB of what goes into it, by CPU time."""

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from argosy.training.data.builtin import builtin_lines
from argosy.training.data.clean import cleaned, why_dropped
from argosy.training.data.extract import from_html, from_rst, texts
from argosy.training.data.near import WordHashes, near_duplicates, signature
from argosy.training.data.pack import packed
from argosy.training.data.recipe import Cleaning
from argosy.training.data.shards import write_shards
from argosy.training.data.tokens import described, encoded, load, loaded, trained

Row = tuple[str, str, float]  # stage, unit, per CPU second


def measured() -> list[Row]:
    """Each stage once, over some of the text that Python has (1 MB)."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # before the tokenizer's first call: one core
    raw = [*texts(builtin_lines(1_000_000), "jsonl")]
    size = sum(len(text.encode()) for text in raw) / 1e6
    pages = [_page(text) for text in raw]
    pages_size = sum(map(len, pages)) / 1e6
    rules, words = Cleaning(), WordHashes()
    rows: list[Row] = []

    def per_second(stage: str, amount: float, run: Callable[[], object], unit: str = "MB") -> None:
        start = time.process_time()
        run()
        rows.append((stage, unit, amount / (time.process_time() - start)))

    per_second("HTML to text", pages_size, lambda: [*map(from_html, pages)])
    per_second("rst to text", size, lambda: [*map(from_rst, raw)])
    per_second("clean, rules", size, lambda: [why_dropped(cleaned(one), rules) for one in raw])
    per_second("MinHash signatures", size, lambda: [signature(one, words) for one in raw])
    signatures = np.random.default_rng(0).integers(0, 2**32, size=(20_000, 120), dtype=np.uint32)
    per_second("LSH", 0.02, lambda: near_duplicates(signatures, 0.8), "million documents")
    made: list[bytes] = []
    per_second("BPE training, 4,096", size, lambda: made.append(trained(raw, 4096)))
    about, tokenizer = described(made[0], is_trained=True), loaded(made[0])
    ids: list[bytes] = []
    per_second("BPE encoding", size, lambda: ids.append(encoded(raw, tokenizer, about)))
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder) / "ids"
        entry.write_bytes(ids[0])
        tokens = load(entry, about.vocab_size).lengths.sum() / 1e6
        rows.append((*rows[-1][:1], "million tokens", rows[-1][2] * float(tokens) / size))
        lengths = np.array([random.Random(n).randint(20, 3000) for n in range(20_000)])
        per_second(
            "packing", float(lengths.sum()) / 1e6, lambda: packed(lengths, 513), "million tokens"
        )
        ids_ = np.zeros((20_000, 513), dtype=np.uint16)
        starts = np.zeros(ids_.shape, dtype=np.bool_)
        per_second(
            "shards",
            ids_.size / 1e6,
            lambda: write_shards(Path(folder), [(ids_, starts)], 4096),
            "million tokens",
        )
    return rows


def _page(text: str) -> str:
    """As much markup as documentation has."""
    paragraphs = text.replace("&", "&amp;").replace("<", "&lt;").split("\n\n")
    inside = "".join(
        f'<p class="body" id="p{at}"><span class="pre">{one}</span> <a href="#x">link</a></p>\n'
        for at, one in enumerate(paragraphs)
    )
    return f"<html><head><title>x</title></head><body><nav>menu</nav>{inside}</body></html>"
