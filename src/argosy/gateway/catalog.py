"""What is served, as the surfaces need to know it: each model over all its deployments."""

import msgspec

from argosy.engines.registry import adapter
from argosy.fleet.config import Fleet
from argosy.gateway.surfaces.port import Catalog, Served


def catalog_of(fleet: Fleet, *, created_at_s: int) -> Catalog:
    """The models of a fleet by name."""
    return {model.name: _served(fleet, model.name, created_at_s) for model in fleet.models}


def _served(fleet: Fleet, name: str, created_at_s: int) -> Served:
    abilities = [
        adapter(deployment.engine).abilities(deployment.engine)
        for deployment in fleet.deployments
        if deployment.model == name
    ]
    model = fleet.model(name)
    contexts = [able.context_tokens for able in abilities]
    known = [tokens for tokens in contexts if tokens is not None]
    return Served(
        name=name,
        created_at_s=created_at_s,
        system_prompt=model.system_prompt,
        sampling={
            field: msgspec.Raw(msgspec.json.encode(value))
            for field, value in msgspec.structs.asdict(model.sampling).items()
            if value is not None
        },
        context_tokens=max(known) if known and len(known) == len(contexts) else None,
        counts_every_choice=all(able.counts_every_choice for able in abilities),
        embeddings=any(able.embeddings for able in abilities),
        continues=any(able.continuation is not None for able in abilities),
        fallback=model.fallback,
    )
