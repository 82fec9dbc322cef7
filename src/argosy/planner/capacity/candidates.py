"""Which layouts and engines are tried for a model on a pool's chips, and why others are not.

Dtypes, expert spread and ranks are those of the model's deployments: what quality is good enough is
the operator's choice. Degrees of tensor parallelism are powers of two up to a node; stages of a
pipeline come in where no node holds the model. An engine is the pool's own deployment's, else that
of another deployment of the model which runs on these chips, else what does.
"""

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from argosy.fleet.architectures import Architecture
from argosy.fleet.catalogue import Chip, chip
from argosy.fleet.config import BatchingEngine, Deployment, Fleet, Pool
from argosy.fleet.layout import Layout
from argosy.fleet.software import engines_of
from argosy.perf.chip_peaks import flops_of
from argosy.perf.engine_settings import EngineSettings

_PP_TRIED = (2, 4, 8)
_TP_MAX = 64


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """What is no option, and why."""

    model: str
    pool: str
    layout: Layout | None  # None: none on this pool
    reason: str
    near: float | None = None  # how many times as slow as promised it is when it is idle


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A way to run a model on a pool, not yet tried."""

    layout: Layout
    settings: EngineSettings
    context_tokens: int


def deployments_of(fleet: Fleet, model: str) -> list[Deployment]:
    """Of that model, on engines that are simulated."""
    return [
        one
        for one in fleet.deployments
        if one.model == model and isinstance(one.engine, BatchingEngine)
    ]


def engine_of(fleet: Fleet, model: str, pool: Pool) -> EngineSettings | Refused:
    """How it would batch there."""
    assert pool.chip is not None, "a checked planned pool has a chip"
    of = chip(pool.chip)
    able, known = engines_of(of), deployments_of(fleet, model)
    if not able:
        told = f"no engine runs on {of.name} of {of.maker}"
        return Refused(model=model, pool=pool.name, layout=None, reason=told)
    if not known:
        told = f"{model} has no deployment on vllm, sglang or trtllm that says how it is served"
        return Refused(model=model, pool=pool.name, layout=None, reason=told)
    own = [one for one in known if one.pool == pool.name]
    runs = [one for one in (*own, *known) if settings_of(one).name in able]
    if runs:
        return settings_of(runs[0])
    return replace(settings_of(known[0]), name=able[0])


def settings_of(deployment: Deployment) -> EngineSettings:
    """How its engine batches."""
    engine = deployment.engine
    assert isinstance(engine, BatchingEngine)
    return EngineSettings(
        name=str(engine.__struct_config__.tag),  # type: ignore[arg-type]  # a tag is such a name
        requests_max=min(engine.requests_max, engine.prefill_tokens_max),
        prefill_tokens_max=engine.prefill_tokens_max,
        memory_share=engine.memory_share,
        prefix_cache=engine.prefix_cache,
    )


def layouts_of(
    fleet: Fleet, model: str, pool: Pool, architecture: Architecture
) -> Iterator[Layout | Refused]:
    """What is tried inside a node, the smallest first, and the dtypes that its chips lack."""
    assert pool.chip is not None, "a checked planned pool has a chip"
    of, tried = chip(pool.chip), set[Layout]()
    for kept in _kinds(fleet, model):
        if not _has_dtype(fleet, model, of, kept):
            told = f"{of.name} computes no {kept.dtype}, and no deployment has it on {of.maker}"
            yield Refused(model=model, pool=pool.name, layout=kept, reason=f"{told} chips")
            continue
        for layout in _cuts(kept, pool.nodes.chips_per_node, architecture):
            if layout not in tried:
                tried.add(layout)
                yield layout


def longer(layout: Layout, pool: Pool, architecture: Architecture) -> Iterator[Layout]:
    """Over several nodes, where no node holds it: stages of whole nodes."""
    if layout.dp > 1 or layout.ep > 1:
        return
    widest = list(_cuts(replace(layout, pp=1), pool.nodes.chips_per_node, architecture))[-1]
    for stages in _PP_TRIED:
        if stages <= min(pool.nodes.max, architecture.layers):
            yield replace(widest, pp=stages)


def _kinds(fleet: Fleet, model: str) -> Iterator[Layout]:
    """Layouts of its deployments, each dtype once; those with ranks of experts as they are."""
    seen = set[Layout]()
    for one in deployments_of(fleet, model):
        layout = one.layout
        if layout.dp == layout.ep == 1:
            layout = replace(layout, tp=1, pp=1)
        if layout not in seen:
            seen.add(layout)
            yield layout


def _cuts(kept: Layout, chips_per_node: int, architecture: Architecture) -> Iterator[Layout]:
    if kept.dp > 1 or kept.ep > 1:
        yield kept
        return
    tp = 1
    while tp <= min(chips_per_node, _TP_MAX):
        if architecture.heads % tp == 0:
            yield replace(kept, tp=tp)
        tp *= 2


def _has_dtype(fleet: Fleet, model: str, of: Chip, layout: Layout) -> bool:
    """Whether it computes in it, or keeps weights so on chips of this maker in the fleet."""
    if layout.dtype == "bf16" or flops_of(of, layout.dtype) != flops_of(of, "bf16"):
        return True
    own = {"fp8": of.fp8_flops, "int8": of.int8_ops, "fp4": of.fp4_flops, "int4": None}
    if own[layout.dtype] is not None:
        return True
    makers = {
        chip(str(fleet.pool(one.pool).chip)).maker
        for one in deployments_of(fleet, model)
        if one.layout.dtype == layout.dtype and fleet.pool(one.pool).chip is not None
    }
    return of.maker in makers
