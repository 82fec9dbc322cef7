"""MosaicML's reader, in its own Python: `make TOKENS FOLDER` or `read FOLDER SECONDS`.

In the dataset's own process, without a DataLoader: its quickest. Samples are taken as they come.
"""

import json
import sys
import time

import numpy as np
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory


def make(path: str, folder: str) -> None:
    tokens = np.load(path, mmap_mode="r")
    with MDSWriter(out=folder, columns={"tokens": f"ndarray:uint16:{tokens.shape[1]}"}) as writer:
        for row in tokens:
            writer.write({"tokens": np.array(row)})


def read(folder: str, seconds: float) -> dict[str, float]:
    clean_stale_shared_memory()
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=8)
    for number, _ in enumerate(dataset):
        if number == 2000:  # warm: a whole epoch would take it long
            break
    tokens = 0
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        for number, sample in enumerate(dataset):
            tokens += sample["tokens"].size
            if number % 64 == 0 and time.perf_counter() - wall >= seconds:
                break
    return {
        "tokens": tokens,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
    else:
        print(json.dumps(read(sys.argv[2], float(sys.argv[3]))))
