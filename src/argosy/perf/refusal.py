"""Why a replica cannot be, and what would: layouts, chips and KV sizes that fit."""

import math

import msgspec

from argosy.fleet.architectures import Architecture
from argosy.fleet.catalogue import Chip, chips
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.memory import kv_bytes_per_chip, plan_memory, weights_bytes_per_chip

_TP_TRIED = (1, 2, 4, 8, 16, 32, 64)
_CHIPS_NAMED = 2


class DoesNotFit(msgspec.Struct, frozen=True, kw_only=True):
    """No such replica; `message` says what was asked, what is true, what would work."""

    model: str
    chip: str
    layout: Layout
    kv_tokens_asked: int
    kv_tokens_possible: int  # on this chip with this layout
    message: str
    tp_that_fits: int | None = None
    chips_that_fit: tuple[str, ...] = ()


def refuse_memory(
    architecture: Architecture, chip: Chip, layout: Layout, engine: EngineSettings, kv_tokens: int
) -> DoesNotFit:
    """The weights and that many tokens of KV are larger than the chips' memory."""
    plan = plan_memory(architecture, chip, layout, engine)
    possible = 0 if plan is None else plan.kv_tokens
    tp = _tp_that_fits(architecture, chip, layout, engine, kv_tokens)
    others = _chips_that_fit(architecture, layout, engine, kv_tokens)
    weights = weights_bytes_per_chip(architecture, layout) * layout.chips
    kv = kv_bytes_per_chip(architecture, layout) * kv_tokens * layout.chips
    memory = (chip.memory_bytes or 0.0) * layout.chips
    spare = 0.0 if plan is None else plan.activation_bytes * layout.chips
    ways = [] if tp is None else [f"{tp * layout.pp * layout.dp} x {chip.name} (tp={tp})"]
    ways += [f"{layout.chips} x {name}" for name in others]
    if possible > 0:
        ways.append(f"kv_tokens <= {possible} on this layout")
    message = (
        f"{architecture.name} ({layout.dtype}) does not fit {layout.chips} x {chip.name}: "
        f"{_gb(weights)} weights + {_gb(kv)} KV ({kv_tokens} tokens) + {_gb(spare)} activations > "
        f"{_gb(memory * engine.memory_share)} ({_gb(memory)} x {engine.memory_share:.2f}).\n"
        f"Fits: {', '.join(ways) if ways else 'no layout tried; take a smaller dtype'}."
    )
    return DoesNotFit(
        model=architecture.name,
        chip=chip.name,
        layout=layout,
        kv_tokens_asked=kv_tokens,
        kv_tokens_possible=possible,
        message=message,
        tp_that_fits=tp,
        chips_that_fit=others,
    )


def refuse_unknown_figures(architecture: Architecture, chip: Chip, layout: Layout) -> DoesNotFit:
    """The catalogue has no peak, bandwidth or memory of this chip."""
    return DoesNotFit(
        model=architecture.name,
        chip=chip.name,
        layout=layout,
        kv_tokens_asked=0,
        kv_tokens_possible=0,
        message=(
            f"{architecture.name} on {chip.name}: the catalogue has no compute, bandwidth or "
            f"memory figure of {chip.name}, so nothing can be said of it.\n"
            f"Measure it where it runs: argosy calibrate MY.csv"
        ),
    )


def _tp_that_fits(
    architecture: Architecture, chip: Chip, layout: Layout, engine: EngineSettings, kv_tokens: int
) -> int | None:
    most = chip.scale_up_chips or 8
    for tp in _TP_TRIED:
        if tp <= layout.tp or architecture.heads % tp:
            continue
        if tp * layout.dp * layout.pp > max(most, 8):
            return None
        wider = msgspec.structs.replace(layout, tp=tp)
        plan = plan_memory(architecture, chip, wider, engine)
        if plan is not None and plan.kv_tokens >= kv_tokens:
            return tp
    return None


def _chips_that_fit(
    architecture: Architecture, layout: Layout, engine: EngineSettings, kv_tokens: int
) -> tuple[str, ...]:
    """The smallest chips that would hold it in the same layout."""
    able: list[tuple[float, str]] = []
    for other in chips():
        plan = plan_memory(architecture, other, layout, engine)
        if plan is not None and plan.kv_tokens >= kv_tokens:
            able.append((other.memory_bytes or math.inf, other.name))
    return tuple(name for _, name in sorted(able)[:_CHIPS_NAMED])


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
