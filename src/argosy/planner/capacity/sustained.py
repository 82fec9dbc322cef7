"""What one replica sustains of a trace's own requests, in tokens: what an autoscaler is told.

Two rates are found by trying them (`sustain.py`): with the requests as they are, and with answers
half as long. From both follows how long a prompt's token and an answer's token keep a replica busy
when it works as hard as the SLO lets it.
"""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.fleet.demand import Slo
from argosy.planner.capacity.lengths import LengthClass
from argosy.planner.capacity.sustain import Limits, OneReplica
from argosy.policies.autoscaling import Sustains
from argosy.simulator.scenario import Group, Scenario
from argosy.simulator.traces import Lognormal, Lognormals, Trace, Window
from argosy.simulator.traces.window import window_of

REQUESTS = 4_000  # of a try
SEED = 21
_SHARE_MIN = 0.05  # of a request's time, that its prompt or its answer takes at least
_ALONE_PER_S = 1e-3  # of a replica that keeps its SLO at no rate: a request at a time, about


class Sample:
    """A trace's requests in Poisson arrivals at any rate: what `OneReplica.rate` asks of."""

    def __init__(self, prompt: NDArray[np.int32], output: NDArray[np.int32]) -> None:
        chance = np.random.default_rng(SEED)
        self._unit_s = np.cumsum(chance.exponential(size=prompt.size))
        self._columns: dict[str, object] = {"prompt_tokens": prompt, "output_tokens": output}
        laws = (
            Lognormal(tokens_mean=float(a.mean()), tokens_p95=float(a.mean()))
            for a in (prompt, output)
        )
        lengths = Lognormals(**dict(zip(("prompt", "output"), laws, strict=True)))
        self.asked = LengthClass(
            model="", lengths=lengths, chats=None, tokens_in=float(prompt.mean()),
            tokens_out=float(output.mean()), members=(),
        )  # fmt: skip

    def window(self, requests_per_s: float) -> Window:
        columns = {**self._columns, "arrival_s": self._unit_s / requests_per_s}
        return window_of(columns, rows=self._unit_s.size)


def sustained(scenario: Scenario, trace: Trace) -> dict[str, Sustains]:
    """By deployment, from the trace's first requests; a model that none asks for from 512 tokens.

    Shared prefixes are not counted: what caches spare makes replicas do more than is said here.
    """
    window = next(trace.windows())
    found: dict[str, Sustains] = {}
    for place, name in enumerate(scenario.models):
        own = window.model == trace.models.index(name) if name in trace.models else slice(None)
        prompt, output = window.prompt_tokens[own], window.output_tokens[own]
        for group in scenario.groups:
            if group.model == place:
                found[group.name] = sustains_of(group, scenario.slos[place], (prompt, output))
    return found


def sustains_of(group: Group, slo: Slo, lengths: Sequence[NDArray[np.int32]]) -> Sustains:
    """Of one replica of a group, for such prompts and answers."""
    prompt, output = _fitting(lengths, group)
    one = OneReplica(group.perf, replace(group.engine, prefix_cache=False))
    limits = Limits(ttft_s_p95=slo.ttft_s_p95, itl_s_p99=slo.itl_s_p99)
    busy_s = []
    for answers in (output, np.maximum(output // 2, 1)):
        rate = one.rate(Sample(prompt, answers), limits).requests_per_s  # type: ignore[arg-type]  # it asks for these two alone
        busy_s.append(1.0 / max(rate, _ALONE_PER_S))
    spared = float(output.mean()) - float(np.maximum(output // 2, 1).mean())
    token_s = (busy_s[0] - busy_s[1]) / spared if spared > 0 else 0.0
    share = token_s * float(output.mean()) / busy_s[0]
    share = min(1 - _SHARE_MIN, max(_SHARE_MIN, share))
    return Sustains(
        prefill_tokens_per_s=float(prompt.mean()) / ((1 - share) * busy_s[0]),
        decode_tokens_per_s=float(output.mean()) / (share * busy_s[0]),
    )


def _fitting(
    lengths: Sequence[NDArray[np.int32]], group: Group
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """As many as are tried, of those that fit into the context; again and again, if need be."""
    prompt, output = lengths
    fits = prompt.astype(np.int64) + output <= min(group.context_tokens, group.perf.kv_tokens)
    prompt, output = prompt[fits], output[fits]
    if not prompt.size:
        prompt, output = np.array([512], np.int32), np.array([128], np.int32)
    return np.resize(prompt, REQUESTS), np.resize(output, REQUESTS)
