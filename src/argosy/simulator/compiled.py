"""How the gateway's functions are compiled: once, kept on disk, anew when a text in them changes.

numba keeps a function's machine code until its own file changes, and does not look at the files of
what it calls. A changed policy would go on being simulated as it was. So the stamp of each function
here is made from all texts that can be in it. Floating point is as CPython's: no fast math.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from numba import njit
from numba.extending import register_jitable

import argosy

Rows: TypeAlias = Any  # an array with named fields; no type checker knows these
Row: TypeAlias = Any  # one of it
Numbers: TypeAlias = Any  # an array of one type
Bits: TypeAlias = Any  # 64 of them, unsigned
Text = TypeVar("Text", bound=Callable[..., Any])
_HOUSE = Path(argosy.__file__).parent
TEXTS = (  # files, and folders with all that is in them
    "fleet/share.py",
    "policies/admission",
    "policies/rates.py",
    "policies/routing",
    "simulator/compiled.py",
    "simulator/gateway",
    "simulator/handle.py",
)


def digest_of(texts: Iterable[str], house: Path = _HOUSE) -> str:
    """Of the contents of these files and folders of the package, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for text in sorted(texts):
        path = house / text
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(house).as_posix().encode() + b"\0")
            digest.update(file.read_bytes())
    return digest.hexdigest()


_DIGEST = digest_of(TEXTS)


def compiled(function: Text, digest: str = _DIGEST) -> Text:
    """The function as machine code; a division by 0 gives inf or nan, as in numpy."""
    return stamped(njit(cache=True, error_model="numpy")(function), digest)


def stamped(dispatcher: Any, digest: str) -> Any:  # noqa: ANN401 (numba's own)
    """What is kept of it on disk counts for these texts alone."""
    cache = getattr(dispatcher, "_cache", None)  # none where numba is told to compile nothing
    file = getattr(cache, "_cache_file", None)
    if file is not None:
        file._source_stamp = (file._source_stamp, digest)
    return dispatcher


def inner(function: Text) -> Text:
    """The same of what only compiled functions call: not kept, for it is a part of its callers."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    inner_one: Any = njit(**options)(function)
    return inner_one


def shared(*texts: Callable[..., Any]) -> None:
    """Functions of the policies that compiled ones may call by name."""
    for text in texts:
        register_jitable(text)
