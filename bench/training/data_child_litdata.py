"""LitData's reader, in its own Python: `make TOKENS FOLDER` or `read FOLDER SECONDS`.

In the dataset's own process, without a DataLoader: its quickest. Samples are taken as they come,
neither joined to batches nor widened to int64, which ours are.
"""

import json
import sys
import time
from pathlib import Path

import litdata
import numpy as np
import torch
from litdata import StreamingDataset, TokensLoader


def rows(pair: tuple[str, int, int]):
    path, first, last = pair
    tokens = np.load(path, mmap_mode="r")
    for row in tokens[first:last]:
        yield torch.from_numpy(row.astype(np.int32))


def make(path: str, folder: str) -> None:
    tokens = np.load(path, mmap_mode="r")
    pairs = [(path, at, min(len(tokens), at + 1000)) for at in range(0, len(tokens), 1000)]
    litdata.optimize(
        rows,
        pairs,
        folder,
        num_workers=1,
        chunk_bytes="64MB",
        item_loader=TokensLoader(block_size=tokens.shape[1]),
    )
    Path(folder, "block").write_text(str(tokens.shape[1]))


def read(folder: str, seconds: float) -> dict[str, float]:
    block = int(Path(folder, "block").read_text())
    dataset = StreamingDataset(folder, item_loader=TokensLoader(block_size=block), shuffle=True)
    for _ in dataset:
        pass
    tokens = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        for number, sample in enumerate(dataset):
            tokens += sample.numel()
            if number % 512 == 0 and time.perf_counter() - wall >= seconds:
                break
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
    else:
        print(json.dumps(read(sys.argv[2], float(sys.argv[3]))))
