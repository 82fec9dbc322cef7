"""The body that a replica is sent: the client's own bytes, or what its engine wants instead."""

from collections.abc import Mapping

import msgspec

from argosy.gateway.replicas import LiveReplica
from argosy.gateway.surfaces.decode import raw
from argosy.gateway.surfaces.port import AsSent, Prepared

_SAMPLED = frozenset({"/v1/chat/completions", "/v1/completions"})


def body_for(
    prepared: Prepared,
    replica: LiveReplica,
    *,
    asked: str | None,
    sampling: Mapping[str, msgspec.Raw],
    limit_tokens: int | None,
) -> bytes:
    """The client's bytes where nothing in them has to change. `asked`: the model it names."""
    fields = prepared.fields
    if (
        isinstance(fields, AsSent)
        and not sampling
        and limit_tokens is None
        and replica.abilities.keeps_body
        and asked == replica.model
    ):
        return fields.body
    adapted = replica.adapt(dict(fields), replica.model)
    if prepared.path in _SAMPLED:
        adapted = {**sampling, **adapted}
        if limit_tokens is not None:
            adapted.setdefault("max_tokens", raw(limit_tokens))
    return msgspec.json.encode(adapted)
