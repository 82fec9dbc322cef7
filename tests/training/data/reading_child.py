"""A reader of its own process: spans on stdin; for each, its blocks' hashes in a line on stdout."""

import hashlib
import sys

from argosy.training.data.reader import Dataset, Reader


def main() -> None:
    reader = Reader.of(Dataset.open(sys.argv[1]), seed=int(sys.argv[2]), held_back=int(sys.argv[3]))
    for line in sys.stdin:
        start, stop = map(int, line.split())
        blocks = reader.read(start, stop)
        names = [hashlib.sha256(block.tobytes()).hexdigest()[:16] for block in blocks]
        sys.stdout.write(" ".join(names) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
