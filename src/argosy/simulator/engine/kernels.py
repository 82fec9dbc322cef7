"""How the functions of this package are compiled; a compiled driver does well to use the same.

No reference counts: nothing here allocates, arrays outlive the calls that use them, and counting
the State's arrays at each call cost seven eighths of the time (measured 2026-11). `inlined` is for
what every step passes through: the State is fifteen arrays, 105 words to copy at each call, and
without the copies all is six times as fast. `merged` is for what has one caller: it is compiled
with that caller only, which halves the time that compiling takes.

All are cached on disk. numba notices a change of the function's own file alone; the stamp here
covers the whole package, whose functions are put into each other across files. Who puts them into
kernels of another package has to do the same for its own.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _digest(folder: Path) -> str:
    """Of the contents of a folder's Python files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


_DIGEST = _digest(Path(__file__).parent)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:  # noqa: ANN401
    compiler: Any = numba.njit  # whose types do not know all that it takes
    dispatcher = compiler(cache=True, _nrt=False, **options)(function)
    cache = getattr(dispatcher, "_cache", None)  # none where numba is told to compile nothing
    file = getattr(cache, "_cache_file", None)
    if file is not None:
        file._source_stamp = (file._source_stamp, _DIGEST)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Compiled, called."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Compiled, put whole into each caller by LLVM."""
    return _compiled(function, forceinline=True)


def merged(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Put whole into each caller before that is compiled."""
    return _compiled(function, inline="always")
