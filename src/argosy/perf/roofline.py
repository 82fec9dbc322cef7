"""Seconds of a step: a chip's peaks, the shares of them that are reached, fixed costs.

    step_s = fixed + max(compute, memory) of linear layers + the same of routed experts
           + collectives + KV read by decoding requests + pairs of prefilled tokens

Each share is at most 1, so nothing is ever faster than the chip's datasheet. A product of few
rows keeps the arithmetic units partly idle: `n` tokens cost like `n + half_tokens`. Where compute
and memory are of one size they overlap badly: the two are joined by a soft maximum.
"""

from typing import NamedTuple

import numpy as np

from argosy.perf.work import Numbers, Work

_SOFT_MAXIMUM = 4.0  # (a^4 + b^4)^(1/4): 19 % above the maximum where both are equal


class Peaks(NamedTuple):
    """Of one chip, from its datasheet."""

    flops: Numbers  # per second, of the dtype that linear layers compute in
    expert_flops: Numbers  # of the dtype that experts compute in
    attention_flops: Numbers
    memory_bytes_per_s: Numbers
    link_bytes_per_s: Numbers  # one direction, all links of a chip


class Efficiency(NamedTuple):
    """What is reached of the peaks, and what a step costs besides. Shares are in (0, 1]."""

    step_s: Numbers  # scheduling and sampling: every step
    layer_s: Numbers  # launches: every layer
    expert_layer_s: Numbers  # routing, gathering, more launches: every layer with experts, besides
    linear_compute: Numbers
    linear_memory: Numbers
    linear_half_tokens: Numbers
    expert_compute: Numbers
    expert_memory: Numbers
    expert_half_tokens: Numbers
    context_memory: Numbers
    context_compute: Numbers
    pair_compute: Numbers
    reduce_s: Numbers  # each
    link: Numbers
    exchange_s: Numbers  # each
    token_s: Numbers  # sampling, scheduling: per token of the replica, while they are few
    token_s_until: Numbers  # tokens at which the next costs half as much: prefill has many
    slowness: Numbers  # everything, times this: >= what keeps each share below 1


# The datasheet's own floor: all shares 1, all fixed costs 0. No answer is faster.
IDEAL = Efficiency(
    step_s=0.0,
    layer_s=0.0,
    expert_layer_s=0.0,
    linear_compute=1.0,
    linear_memory=1.0,
    linear_half_tokens=0.0,
    expert_compute=1.0,
    expert_memory=1.0,
    expert_half_tokens=0.0,
    context_memory=1.0,
    context_compute=1.0,
    pair_compute=1.0,
    reduce_s=0.0,
    link=1.0,
    exchange_s=0.0,
    token_s=0.0,
    token_s_until=1.0,
    slowness=1.0,
)
_SHARES = tuple(name for name in Efficiency._fields if name.endswith(("_compute", "_memory")))


def held_to_peaks(efficiency: Efficiency) -> Efficiency:
    """The same with `slowness` folded into the rest, and no share above 1."""
    slow = efficiency.slowness
    shares = {
        name: np.minimum(getattr(efficiency, name) / slow, 1.0) for name in (*_SHARES, "link")
    }
    seconds = {
        name: getattr(efficiency, name) * slow
        for name in ("step_s", "layer_s", "expert_layer_s", "reduce_s", "exchange_s", "token_s")
    }
    return efficiency._replace(**shares, **seconds, slowness=1.0)


def tokens_s(work: Work, peaks: Peaks, efficiency: Efficiency, tokens: Numbers) -> Numbers:
    """The part of a step that grows with its tokens only, all decoded, in seconds."""
    each = tokens * work.stage_tokens
    linear = _soft_max(
        work.linear_flops
        * (tokens + efficiency.linear_half_tokens / work.stage_tokens)
        / (peaks.flops * efficiency.linear_compute),
        work.linear_bytes / (peaks.memory_bytes_per_s * efficiency.linear_memory),
    )
    touched = 1.0 - work.experts_idle_share**each
    experts = _soft_max(
        work.expert_flops
        * (tokens + efficiency.expert_half_tokens * touched)
        / (peaks.expert_flops * efficiency.expert_compute),
        work.expert_bytes * touched / (peaks.memory_bytes_per_s * efficiency.expert_memory),
    )
    read = work.token_bytes * tokens / (peaks.memory_bytes_per_s * efficiency.context_memory)
    moved = (work.reduce_bytes + work.exchange_bytes) * tokens
    collectives = (
        work.reduces * efficiency.reduce_s
        + work.exchanges * efficiency.exchange_s
        + moved / (peaks.link_bytes_per_s * efficiency.link)
    )
    launches = work.layers * efficiency.layer_s + work.expert_layers * efficiency.expert_layer_s
    handled = tokens / (1.0 + tokens / efficiency.token_s_until)
    fixed = efficiency.step_s + launches + efficiency.token_s * handled
    return (fixed + linear + experts + read + collectives) * efficiency.slowness


def context_s_per_token(work: Work, peaks: Peaks, efficiency: Efficiency) -> Numbers:
    """Of a decoding request, for each token it attends to."""
    memory = work.context_bytes / (peaks.memory_bytes_per_s * efficiency.context_memory)
    compute = work.context_flops / (peaks.attention_flops * efficiency.context_compute)
    return _soft_max(compute, memory) * efficiency.slowness


def pair_s(work: Work, peaks: Peaks, efficiency: Efficiency) -> Numbers:
    """Of prefill, for each (token, attended token)."""
    peak = peaks.attention_flops * efficiency.pair_compute
    return work.pair_flops / peak * efficiency.slowness


def _soft_max(one: Numbers, other: Numbers) -> Numbers:
    larger = np.maximum(one, other)
    smaller = np.minimum(one, other)
    share = smaller / np.maximum(larger, 1e-30)
    return larger * (1.0 + share**_SOFT_MAXIMUM) ** (1.0 / _SOFT_MAXIMUM)
