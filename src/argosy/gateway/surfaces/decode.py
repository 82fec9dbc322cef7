"""Bytes to a checked Struct, or a refusal that names the field, what it is and what would work."""

import re
from typing import TypeVar

import msgspec

from argosy.fleet.messages import Refusal, RefusalKind
from argosy.gateway.surfaces.port import Catalog, RefusedError, Served

T = TypeVar("T")
_AT = re.compile(r" - at `\$(?:\.)?(.*?)`$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)


def refused(kind: RefusalKind, message: str, *, param: str | None = None) -> RefusedError:
    """The exception for a request that cannot be honoured."""
    return RefusedError(Refusal(kind=kind, message=message, param=param))


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` as the decoder's type. Raises `RefusedError` naming the place."""
    if not body.strip():
        raise refused("bad_request", "The request has no body; send a JSON object.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), decoder.type) from None
    except msgspec.DecodeError as error:
        raise refused("bad_request", f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError as error:
        raise refused("bad_request", f"The body is not valid UTF-8: {error.reason}.") from None
    except RecursionError:
        raise refused("bad_request", "The body is nested too deeply.") from None


def _invalid(error: str, struct: object) -> RefusedError:
    place = _AT.search(error)
    path = place.group(1) if place else ""
    said = error[: place.start()] if place else error
    unknown = _UNKNOWN_FIELD.match(said)
    if unknown and not path:
        field = unknown.group(1)[:100]
        known = ", ".join(getattr(struct, "__struct_encode_fields__", ()))
        message = f"Unknown parameter: '{field}'. This API takes: {known}."
        return refused("unsupported", message, param=field)
    if missing := re.match(r"^Object missing required field `(.*)`$", said):
        param = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return refused("bad_request", f"Missing required parameter: '{param}'.", param=param)
    if not path:
        return refused("bad_request", f"The body must be a JSON object: {said}.")
    return refused("bad_request", f"Invalid '{path}': {said}.", param=path)


def look_up(catalog: Catalog, model: str) -> Served:
    """The model that a request names. Raises `RefusedError` listing what is served."""
    served = catalog.get(model)
    if served is None:
        names = ", ".join(sorted(catalog))
        message = f"The model '{model[:100]}' does not exist. Served here: {names}."
        raise refused("unknown_model", message, param="model")
    return served


def check_max_tokens(served: Served, value: int | None, *, param: str) -> None:
    """Refuse a limit that no answer of this model can reach."""
    limit = served.context_tokens
    if value is not None and limit is not None and value > limit:
        message = f"{param} = {value} is too large: {served.name} has a context of {limit} tokens."
        raise refused("bad_request", message, param=param)


def raw(value: object) -> msgspec.Raw:
    """A value as it goes into an upstream body."""
    return msgspec.Raw(msgspec.json.encode(value))
