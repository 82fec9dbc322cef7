"""Prepares a dataset in a process of its own, to be killed: RECIPE OUT CACHE [bytes of a file]."""

import resource
import sys
from pathlib import Path

from argosy.training.data.manifest import DatasetError
from argosy.training.data.prepare import Preparation
from argosy.training.data.recipe import parse


class Silent:
    def stage(self, name: str, total: int) -> None: ...

    def advance(self) -> None: ...


def main() -> int:
    recipe, out, cache = map(Path, sys.argv[1:4])
    if len(sys.argv) > 4:  # a disk that takes no larger file is as good as a full one
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
    preparation = Preparation(
        parse(recipe.read_text(), source=str(recipe)),
        out=out,
        cache=cache,
        processes=1,
        progress=Silent(),
        chunk_bytes=20_000,
    )
    try:
        preparation.run()
    except DatasetError as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
