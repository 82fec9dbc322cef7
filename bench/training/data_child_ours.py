"""Argosy's reader: `read FOLDER SECONDS` or `resume FOLDER POSITION`; a line of JSON on stdout."""

import json
import sys
import time

from argosy.training.data.reader import Dataset, Reader

BATCH = 8


def main() -> None:
    what, folder, number = sys.argv[1:4]
    print(json.dumps(_read(folder, float(number)) if what == "read" else _resume(folder, number)))


def _read(folder: str, seconds: float) -> dict[str, float]:
    """Batches of 8 blocks as int64, epoch after epoch; the first one warms the page cache."""
    dataset = Dataset.open(folder)
    reader = Reader.of(dataset, seed=1)
    reader.read(0, dataset.blocks)
    reader = Reader.of(dataset, seed=2)
    tokens = position = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        for _ in range(100):
            tokens += reader.read(position, position + BATCH).size
            position += BATCH
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


def _resume(folder: str, position: str) -> dict[str, float]:
    """From nothing open to the batch at that position."""
    wall, cpu = time.perf_counter(), time.process_time()
    Reader.of(Dataset.open(folder), seed=1, held_back=64).read(int(position), int(position) + BATCH)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


if __name__ == "__main__":
    main()
