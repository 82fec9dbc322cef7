"""What one fleet file says otherwise than another, a line each: where, before and after. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from argosy.fleet.config import Fleet


def differences(old: Fleet, new: Fleet) -> tuple[str, ...]:
    """Defaults are not told apart from what is written."""
    return tuple(_differ(msgspec.to_builtins(old), msgspec.to_builtins(new), ""))


def _differ(old: object, new: object, where: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _differ_by_key(old, new, f"{where}." if where else "")
        return
    if isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
        before, after = _by_name(old), _by_name(new)
        if before is not None and after is not None:
            yield from _differ_by_key(
                {f"[{name}]": one for name, one in before.items()},
                {f"[{name}]": one for name, one in after.items()},
                where,
            )
            return
    yield f"{where}: {_shown(old)} -> {_shown(new)}"


def _differ_by_key(
    old: Mapping[str, object], new: Mapping[str, object], where: str
) -> Iterator[str]:
    for key in {**old, **new}:
        if key not in new:
            yield f"- {where}{key}: {_shown(old[key])}"
        elif key not in old:
            yield f"+ {where}{key}: {_shown(new[key])}"
        else:
            yield from _differ(old[key], new[key], f"{where}{key}")


def _by_name(entries: Sequence[object]) -> dict[str, object] | None:
    """By name, or by model and pool; None where they have neither, or it is not unique."""
    named: dict[str, object] = {}
    for entry in entries:
        if not isinstance(entry, Mapping):
            return None
        name = entry.get("name")
        if name is None and {"model", "pool"} <= entry.keys():
            name = f"{entry['model']}@{entry['pool']}"
        if not isinstance(name, str) or name in named:
            return None
        named[name] = entry
    return named


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()
