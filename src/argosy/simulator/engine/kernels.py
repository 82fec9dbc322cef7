"""How the functions of this package are compiled; a compiled driver does well to use the same.

No reference counts: nothing here allocates, arrays outlive the calls that use them, and counting
the State's arrays at each call cost seven eighths of the time (measured 2026-11). `inlined` is for
what every step passes through: without it requests per second are 0.7 to 0.9 of what they are.
`merged` is for what has one caller: it is compiled with that caller only; without either they are
0.6 to 0.7, and compiling takes a fifth longer.

All are cached on disk. numba notices a change of the function's own file alone; the stamp here
covers the whole package, whose functions are put into each other across files. Who puts them into
kernels of another package has to do the same for its own.
"""

from collections.abc import Callable
from typing import Any

import numba

from argosy.simulator.compiled import digest_of, stamped

TEXTS = ("simulator/compiled.py", "simulator/engine", "simulator/handle.py")
_DIGEST = digest_of(TEXTS)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:  # noqa: ANN401
    compiler: Any = numba.njit  # whose types do not know all that it takes
    return stamped(compiler(cache=True, _nrt=False, **options)(function), _DIGEST)


def kernel(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Compiled, called."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Compiled, put whole into each caller by LLVM."""
    return _compiled(function, forceinline=True)


def merged(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Put whole into each caller before that is compiled."""
    return _compiled(function, inline="always")
