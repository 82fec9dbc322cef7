"""Text that is wherever Python is: its language reference and the standard library's docstrings.

About 5 MB that depend on the build of Python: for tests and first steps, where there is no network.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import msgspec

_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "lib2to3", "dist-packages"})


def builtin_lines(bytes_max: int | None) -> bytes:
    """As .jsonl, in an order that is always the same; documents until `bytes_max` are reached."""
    lines: list[bytes] = []
    total = 0
    for name, text in _texts():
        lines.append(msgspec.json.encode({"name": name, "text": text}))
        total += len(lines[-1])
        if bytes_max is not None and total >= bytes_max:
            break
    return b"\n".join(lines) + b"\n"


def _texts() -> Iterator[tuple[str, str]]:
    for name in sorted(topics):
        yield f"topics/{name}", topics[name]
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(library).parts):
            continue
        text = _docstrings(path)
        if text:
            yield str(path.relative_to(library)), text


def _docstrings(path: Path) -> str:
    """Of a module, each under the line that it describes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in the library's own strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, OSError, ValueError):
        return ""
    pieces = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node)
            if told:
                pieces.append(f"{_heading(node, path)}\n\n{told}")
    return "\n\n".join(pieces)


def _heading(node: ast.AST, path: Path) -> str:
    match node:
        case ast.FunctionDef(name=name, args=args) | ast.AsyncFunctionDef(name=name, args=args):
            return f"def {name}({ast.unparse(args)})"
        case ast.ClassDef(name=name):
            return f"class {name}"
        case _:
            return f"module {path.stem}"
