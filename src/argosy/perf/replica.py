"""What a replica of a model on chips can do: step times, memory, power, and how sure we are.

`replica()` is what the simulator and the planner ask. It joins what a step asks of a chip
(`work`), what the chip reaches of its datasheet (`roofline`, `calibration`), what near measurements
correct (`answers`) and what fits (`memory`), and reduces it to a `StepTime`.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.architectures import Architecture
from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import Layout
from argosy.perf.answers import Answers, answers_shipped
from argosy.perf.calibration import Calibration, Interval
from argosy.perf.case import Case, Part
from argosy.perf.chip_peaks import peaks_of
from argosy.perf.energy import power_w_at, power_w_idle, used_shares
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.groups import Rung, efficiency_of
from argosy.perf.memory import plan_memory, weights_bytes
from argosy.perf.refusal import DoesNotFit, refuse_memory, refuse_unknown_figures
from argosy.perf.roofline import (
    IDEAL,
    Efficiency,
    Peaks,
    context_s_per_token,
    pair_s,
    tokens_s,
)
from argosy.perf.step_time import StepTime
from argosy.perf.work import Work, work

Array = NDArray[np.float64]
# Between these the line is straight; the bend of a roofline lies within a factor of 1.2 of one.
KNOTS_TOKENS: tuple[float, ...] = tuple(
    dict.fromkeys(float(round(2 ** (half / 2))) for half in range(31))
)
_DECODED_MAX = 1024.0  # steps of fewer tokens mostly decode, of 8 times as many mostly prefill
_PREFILLED_MIN = 8192.0
_USUAL_TOKENS = 1024  # of prompt and answer, where neighbours are asked for decoding
_USUAL_CLIENTS = 32
_OVERHEAD_S_MIN = 0.002
_BUSY_REQUESTS, _BUSY_CONTEXT = 256.0, 1536.0


class ReplicaModel(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as the simulator and the planner see it."""

    step_time: StepTime
    kv_tokens: int  # capacity, of the whole replica
    chips: int
    weights_bytes: float  # of the model, one copy
    overhead_s: float  # per request, before its first step: HTTP, tokenizer
    rung: Rung
    uncalibrated: bool  # no measurement of this chip was ever seen
    interval: Interval  # at 32 requests of 1024 + 1024 tokens
    power_w_idle: float | None  # of all its chips, loaded but without a request
    power_w_busy: float | None  # of all its chips at 256 requests; None: the chip's is not known


class _Physics(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica's times are computed from."""

    asked: Work
    peaks: Peaks
    reached: Efficiency


def replica(
    architecture: Architecture,
    chip: Chip,
    layout: Layout,
    engine: EngineSettings,
    calibration: Calibration | None = None,
    kv_tokens: int = 1024,
) -> ReplicaModel | DoesNotFit:
    """The replica, or why there can be none. `kv_tokens` is the least it must hold."""
    answers = answers_shipped() if calibration is None else Answers(calibration)
    plan = plan_memory(architecture, chip, layout, engine)
    peaks = peaks_of(architecture, chip, layout)
    if plan is None or peaks is None:
        return refuse_unknown_figures(architecture, chip, layout)
    if plan.kv_tokens < kv_tokens:
        return refuse_memory(architecture, chip, layout, engine, kv_tokens)
    physics = _Physics(
        asked=work(architecture, layout),
        peaks=peaks,
        reached=efficiency_of(architecture, chip, layout, engine.name, answers.learned),
    )
    usual = Case(
        model=architecture,
        chip=chip,
        engine="vllm" if engine.name == "llama.cpp" else engine.name,
        decode=Part(layout=layout),
        input_tokens=_USUAL_TOKENS,
        output_tokens=_USUAL_TOKENS,
        clients=_USUAL_CLIENTS,
    )
    step_time = _step_time(physics, answers, usual)
    answer = answers.of([usual])[0]
    return ReplicaModel(
        step_time=step_time,
        kv_tokens=plan.kv_tokens,
        chips=layout.chips,
        weights_bytes=weights_bytes(architecture, layout),
        overhead_s=_overhead_s(answers, usual, step_time),
        rung=answer.rung,
        uncalibrated=answer.uncalibrated,
        interval=answer.interval,
        power_w_idle=power_w_idle(chip, layout),
        power_w_busy=_power_w_busy(physics, chip, layout, step_time),
    )


def _step_time(physics: _Physics, answers: Answers, usual: Case) -> StepTime:
    """Physics, corrected by neighbours knot by knot; rising, and never below the roofline."""
    knots = np.array(KNOTS_TOKENS)
    factors = _factors(answers, usual, knots)
    asked, peaks, reached = physics.asked, physics.peaks, physics.reached
    seconds = np.array([float(tokens_s(asked, peaks, reached, knot)) for knot in knots]) * factors
    floor = np.array([float(tokens_s(asked, peaks, IDEAL, knot)) for knot in knots])
    rising = np.maximum.accumulate(np.maximum(seconds, floor))
    decoding = float(np.interp(_USUAL_CLIENTS, knots, factors))
    context = float(context_s_per_token(asked, peaks, reached)) * decoding
    pair = float(pair_s(asked, peaks, reached)) * float(factors[-1])
    return StepTime(
        knots_tokens=KNOTS_TOKENS,
        knots_s=tuple(float(value) for value in rising),
        context_s_per_token=max(context, float(context_s_per_token(asked, peaks, IDEAL))),
        pair_s=max(pair, float(pair_s(asked, peaks, IDEAL))),
    )


def _factors(answers: Answers, usual: Case, knots: Array) -> Array:
    """Neighbours' corrections: TPOT's where a step decodes, TTFT's where it prefills."""
    clients = [int(knot) for knot in knots if knot <= _DECODED_MAX]
    decode = [msgspec.structs.replace(usual, clients=count) for count in clients]
    prefill = msgspec.structs.replace(usual, clients=4, input_tokens=int(_PREFILLED_MIN))
    corrections = answers.corrections([*decode, prefill])
    xs = [*clients, _PREFILLED_MIN]
    ys = [*corrections[:-1, 1], corrections[-1, 0]]
    return np.exp(np.interp(np.log(knots), np.log(xs), ys))


def _overhead_s(answers: Answers, usual: Case, step_time: StepTime) -> float:
    """What one lone short request waits beside its own prefill."""
    alone = msgspec.structs.replace(usual, clients=1)
    tokens = 0.9 * _USUAL_TOKENS
    own = step_time.step_s(tokens=tokens, pairs=tokens * tokens / 2)
    return max(_OVERHEAD_S_MIN, answers.of([alone])[0].ttft_s - own)


def joules_per_token(
    architecture: Architecture,
    chip: Chip,
    layout: Layout,
    model: ReplicaModel,
    *,
    requests: float,
    context_tokens: float,
) -> float | None:
    """Of the chips, for an output token while so many requests decode, each over such a context.

    None where the chip's power is not known. Errors: see `energy`.
    """
    peaks = peaks_of(architecture, chip, layout)
    if peaks is None:
        return None
    step_s = model.step_time.step_s(tokens=requests, contexts=requests * context_tokens)
    asked = work(architecture, layout)
    compute, memory = used_shares(
        asked, peaks, requests=requests, context_tokens=context_tokens, step_s=step_s
    )
    watts = power_w_at(chip, layout, compute_share=compute, memory_share=memory)
    return None if watts is None else watts * step_s / requests


def _power_w_busy(
    physics: _Physics, chip: Chip, layout: Layout, step_time: StepTime
) -> float | None:
    step_s = step_time.step_s(tokens=_BUSY_REQUESTS, contexts=_BUSY_REQUESTS * _BUSY_CONTEXT)
    compute, memory = used_shares(
        physics.asked,
        physics.peaks,
        requests=_BUSY_REQUESTS,
        context_tokens=_BUSY_CONTEXT,
        step_s=step_s,
    )
    return power_w_at(chip, layout, compute_share=compute, memory_share=memory)
