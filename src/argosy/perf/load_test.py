"""TTFT and TPOT of many cases at once, by physics alone: no residual, no interval.

The cases' constants (work, peaks, limits) are computed once; efficiencies come per question, so
that a fit can try thousands. 0.1 ms a case.
"""

import numpy as np
from numpy.typing import NDArray

from argosy.perf.case import Case
from argosy.perf.chip_peaks import peaks_of
from argosy.perf.closed_loop import Limits, Load, PrefillPool, mixed_loop, split_loop
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.memory import plan_memory
from argosy.perf.roofline import Efficiency, Peaks, context_s_per_token, pair_s, tokens_s
from argosy.perf.work import Work, stack, work

Array = NDArray[np.float64]
_KNOTS: Array = np.array([2.0**power for power in range(15)])
_STEP_TOKENS = 8192.0  # of a step: what vLLM, SGLang and TensorRT-LLM take by default or near it
_REQUESTS_MAX = 4096
_SPREAD = 0.2  # InferenceX draws lengths from [0.8, 1] of the nominal
# Benchmarks send ten for each client. With many clients fewer say as much, and cost less.
_REQUESTS_PER_CLIENT = ((512, 10), (2048, 5), (10**9, 3))  # (clients up to, requests each)
# What a table that does not say is taken to mean: few clients want a short TPOT, and their recipes
# have one prefill replica for several that decode; many clients the other way round. A guess.
_FEW_CLIENTS = 512
_REPLICAS_FEW, _REPLICAS_MANY = (1, 4), (4, 1)  # prefill, decode
_RAMPED_SPREAD = 0.1  # stands for clients that start one after the other
_RAMPED_UNMEASURED = 2
_TRANSFER_S = 0.01  # KV to the decoding replica: tens of MB a prompt over hundreds of GB/s


class UnknownFigures(ValueError):
    """A chip of which the catalogue knows too little."""


class LoadTests:
    """So many cases, made ready."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        self._decode = stack([work(case.model, case.decode.layout) for case in cases])
        self._prefill = stack(
            [work(case.model, (case.prefill or case.decode).layout) for case in cases]
        )
        self._peaks = Peaks(*(np.array(field) for field in zip(*map(_peaks, cases), strict=True)))
        self._kv_tokens = [_kv_tokens(case) for case in cases]

    def seconds(self, efficiency: Efficiency, ttft_s_fixed: Array) -> Array:
        """Mean TTFT and mean TPOT of each case: (cases, 2), in seconds."""
        linear, context, pair = _times(self._decode, self._peaks, efficiency)
        prefill_linear, _, prefill_pair = _times(self._prefill, self._peaks, efficiency)
        found = np.empty((len(self.cases), 2))
        for place, case in enumerate(self.cases):
            knots = (_KNOTS, linear[place], float(context[place]), float(pair[place]))
            if case.prefill is None:
                load, limits = _load(case, 1), _limits(case, self._kv_tokens[place])
                found[place] = mixed_loop(knots, load, limits)
                continue
            pool = _pool(case, prefill_linear[place], float(prefill_pair[place]))
            load = _load(case, _replicas(case)[1])
            limits = _limits(case, self._kv_tokens[place])
            found[place] = split_loop(knots, load, limits, pool)
        found[:, 0] += ttft_s_fixed
        return found


def _times(asked: Work, peaks: Peaks, efficiency: Efficiency) -> tuple[Array, Array, Array]:
    linear = np.stack([np.asarray(tokens_s(asked, peaks, efficiency, knot)) for knot in _KNOTS], 1)
    context = np.broadcast_to(context_s_per_token(asked, peaks, efficiency), linear.shape[:1])
    pair = np.broadcast_to(pair_s(asked, peaks, efficiency), linear.shape[:1])
    return np.ascontiguousarray(linear), context, pair


def _peaks(case: Case) -> Peaks:
    peaks = peaks_of(case.model, case.chip, case.decode.layout)
    if peaks is None:
        raise UnknownFigures(f"the catalogue has no peak or bandwidth of {case.chip.name}")
    return peaks


def _kv_tokens(case: Case) -> float:
    """What the model of memory allows; never less than two requests, since the test was run.

    Of a disaggregated deployment no limit: its layouts are too roughly known to find one.
    """
    if case.prefill is not None:
        return np.inf
    plan = plan_memory(case.model, case.chip, case.decode.layout, EngineSettings())
    least = 2 * (case.input_tokens + case.output_tokens)
    return float(max(least, 0 if plan is None else plan.kv_tokens))


def _replicas(case: Case) -> tuple[int, int]:
    """Of prefill and of decode, guessed where not known."""
    usual = _REPLICAS_FEW if case.clients <= _FEW_CLIENTS else _REPLICAS_MANY
    prefill = None if case.prefill is None else case.prefill.replicas
    return prefill or usual[0], case.decode.replicas or usual[1]


def _load(case: Case, replicas: int) -> Load:
    clients = max(1, round(case.clients / replicas))
    rounds = next(each for most, each in _REQUESTS_PER_CLIENT if clients <= most)
    skipped = _RAMPED_UNMEASURED if case.is_ramped else 0
    return Load(
        clients=clients,
        input_tokens=float(case.input_tokens),
        output_tokens=float(case.output_tokens),
        spread=_RAMPED_SPREAD if case.is_ramped else _SPREAD,
        requests=clients * (rounds + skipped),
        unmeasured=clients * skipped,
    )


def _limits(case: Case, kv_tokens: float) -> Limits:
    return Limits(
        step_tokens=_STEP_TOKENS,
        requests=_REQUESTS_MAX,
        kv_tokens=kv_tokens,
        mixes=case.engine != "sglang",
    )


def _pool(case: Case, linear: Array, pair: float) -> PrefillPool:
    """One prompt's prefill, and how many replicas do it for each that decodes."""
    nominal = float(case.input_tokens)
    alone_s = float(np.interp(nominal, _KNOTS, linear))
    full_s = float(np.interp(_STEP_TOKENS, _KNOTS, linear)) * nominal / _STEP_TOKENS
    pairs_s = pair * nominal * nominal / 2
    return PrefillPool(
        prompt_s=alone_s + pairs_s,
        queued_s=min(alone_s, full_s) + pairs_s,
        pair_share=pairs_s / (alone_s + pairs_s),
        share=_replicas(case)[0] / _replicas(case)[1],
        transfer_s=_TRANSFER_S,
    )
