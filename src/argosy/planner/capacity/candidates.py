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
from argosy.perf.engine_settings import EngineSettings, settings_of

STEP_TOKENS = (256, 512, 1024, 2048, 4096, 8192)  # what is chosen from where nobody says
_PP_TRIED = (2, 4, 8)
_TP_MAX = 64


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """What is no option, and why."""

    model: str
    pool: str
    layout: Layout | None  # None: none on this pool
    reason: str
    near: float | None = None  # how many times as slow as promised it is when it is idle


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's engine would batch on a pool."""

    settings: EngineSettings
    step_tokens: int | None  # None: the planner chooses
    sizes: tuple[int, ...]  # from which it would

    @property
    def step_tokens_least(self) -> int:
        """What fits not even so fits not at all."""
        return self.step_tokens or self.sizes[0]

    def stepping(self, tokens: int) -> EngineSettings:
        """In steps of so many tokens; no more requests than a step can decode."""
        requests = min(self.settings.requests_max, tokens)
        return replace(self.settings, prefill_tokens_max=tokens, requests_max=requests)


def deployments_of(fleet: Fleet, model: str) -> list[Deployment]:
    """Of that model, on engines that are simulated."""
    return [
        one
        for one in fleet.deployments
        if one.model == model and isinstance(one.engine, BatchingEngine)
    ]


def engine_of(fleet: Fleet, model: str, pool: Pool) -> Engine | Refused:
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
    engines = [one.engine for one in (*own, *known) if isinstance(one.engine, BatchingEngine)]
    runs = [one for one in engines if settings_of(one).name in able]
    if runs:
        return _engine(runs[0], settings_of(runs[0]))
    first = known[0].engine
    assert isinstance(first, BatchingEngine), "a deployment that is simulated"
    return _engine(first, replace(settings_of(first), name=able[0]))


def _engine(engine: BatchingEngine, settings: EngineSettings) -> Engine:
    # What the operator says of requests holds: a step must be able to decode them all.
    sizes = tuple(size for size in STEP_TOKENS if size >= engine.requests_max)
    return Engine(
        settings=settings,
        step_tokens=engine.prefill_tokens_max,
        sizes=sizes or STEP_TOKENS[-1:],
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
