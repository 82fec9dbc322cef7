"""How fast a replica is, learned from its answers. Pure: no clock; memory is in the argument.

TTFT is taken to be a line in the uncached prompt bytes that had to be read before it, the
request's own and those queued ahead: `base_s + bytes x prefill_s_per_byte`. The line is fitted by
weighted least squares on running sums that forget half in `HALF_LIFE` observations. Weights are
(predicted for the mean prompt / predicted for this one)^2, so that a tenth too much means the
same for a short prompt as for a long one, and what a replica did when it was faster weighs no more
than what it does now.

A prior (what the pool's replicas have in common) counts as `PRIOR_WEIGHT` observations, at 0 and
at twice the mean bytes: few observations are pulled to it, and prompts that are all of one length
still give a line. An observation far above the prediction counts as `OUTLIER` times it: a pause
moves the estimate a little, a replica that became slow soon. Values that are not finite or
negative are left out.

The simulator compiles the arithmetic (all but `believe` and `together`, which make what they fill
in) over rows of arrays with the fields of `Sums` and `Learned`: one text, two bodies.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

HALF_LIFE = 100  # observations
STALE_HALF_LIFE = 300  # observations of its pool that a replica had no part in
PRIOR_WEIGHT = 3.0  # observations that the prior counts for
OUTLIER, OUTLIER_S = 4.0, 0.05  # no more than this times the prediction, plus that
SLOPE_SHARE_MIN = 0.25  # of its pool's slope, that a replica's may fall to
SLOPE_MIN = 1e-7  # s/byte, that a pool's may fall to: 2.5 million tokens a second
TRUSTED = 8.0  # observations before anything is called an outlier
REFRESH = 32  # observations between two looks at a pool as a whole

_KEEP = 0.5 ** (1 / HALF_LIFE)
_LARGEST = 1e9  # s, bytes and tokens alike: beyond it a caller has made a mistake
_LEAST_S = 1e-4  # added to a prediction by which is divided


class Learned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is believed of a replica. All finite, none negative."""

    base_s: float  # TTFT of an empty prompt on a replica with a free slot
    prefill_s_per_byte: float  # of uncached prompt
    service_s: float  # mean time that a request holds a slot
    token_s: float  # between two output tokens of one request
    observations: float = 0.0  # first tokens, those forgotten taken off


# Before anything was seen: faster than what there is (250,000 prompt tokens of 4 bytes a second),
# so that a pool that nobody has tried is tried, and soon known. With the rates of a usual replica
# 16 fast ones of a simulated fleet stayed idle beside 96 slower ones that were known.
DEFAULT = Learned(base_s=0.01, prefill_s_per_byte=1e-6, service_s=0.5, token_s=0.005)


class Sums(msgspec.Struct, kw_only=True, gc=False):
    """What is remembered of one replica: changed in place, of constant size."""

    firsts: float = 0.0  # first tokens
    weight: float = 0.0  # the sum of weights w; x are bytes, y is TTFT
    wx: float = 0.0
    wy: float = 0.0
    wxx: float = 0.0
    wxy: float = 0.0
    ends: float = 0.0  # whole requests
    held_s: float = 0.0  # slots, by these
    tokens: float = 0.0  # after the first
    decode_s: float = 0.0  # that these took


class Rates(Protocol):
    """What is read of a belief: a `Learned`, or a row of the simulator's."""

    @property
    def base_s(self) -> float: ...
    @property
    def prefill_s_per_byte(self) -> float: ...
    @property
    def service_s(self) -> float: ...
    @property
    def token_s(self) -> float: ...


Estimate = tuple[float, float, float, float]  # base, seconds per byte, service, per token


def first_token(sums: Sums, believed: Rates, *, ttft_s: float, prompt_bytes: float) -> bool:
    """A first token came, of a request that found a free slot; False when left out.

    `prompt_bytes` are those that had to be read before it: uncached, its own and queued ahead.
    """
    if not (0.0 <= ttft_s < _LARGEST and 0.0 <= prompt_bytes < _LARGEST):
        return False
    base_s, slope = believed.base_s + _LEAST_S, believed.prefill_s_per_byte
    expected = base_s + prompt_bytes * slope
    ttft_max = OUTLIER * expected + OUTLIER_S
    if ttft_s > ttft_max and sums.firsts >= TRUSTED:
        ttft_s = ttft_max
    usual = base_s + sums.wx / sums.weight * slope if sums.weight > 0.0 else expected
    ratio = usual / expected
    weight = ratio * ratio
    weighed = weight * prompt_bytes
    sums.firsts = sums.firsts * _KEEP + 1.0
    sums.weight = sums.weight * _KEEP + weight
    sums.wx = sums.wx * _KEEP + weighed
    sums.wy = sums.wy * _KEEP + weight * ttft_s
    sums.wxx = sums.wxx * _KEEP + weighed * prompt_bytes
    sums.wxy = sums.wxy * _KEEP + weighed * ttft_s
    return True


def finished(
    sums: Sums, believed: Rates, *, held_s: float, decode_s: float, tokens_out: int
) -> bool:
    """A request ended: its slot was held so long, `decode_s` of it after the first token."""
    if not (0.0 <= held_s < _LARGEST and 0.0 <= decode_s < _LARGEST and 0 <= tokens_out < 1e9):
        return False
    held_max = OUTLIER * believed.service_s + OUTLIER_S
    if held_s > held_max and sums.ends >= TRUSTED:
        held_s = held_max
    sums.ends = sums.ends * _KEEP + 1.0
    sums.held_s = sums.held_s * _KEEP + held_s
    if tokens_out > 1:
        gaps = tokens_out - 1
        decode_max = OUTLIER * believed.token_s * gaps + OUTLIER_S
        sums.tokens = sums.tokens * _KEEP + gaps
        sums.decode_s = sums.decode_s * _KEEP + min(decode_s, decode_max)
    return True


def held_and_decoded(
    duration_s: float, *, ttft_s: float, has_ttft: bool, turns_waited: float, base_s: float
) -> tuple[float, float]:
    """How long a request held its slot, and how long of that it decoded; both in seconds.

    A wait of so many turns was that many services long, so the slot was held for
    `duration_s / (1 + turns_waited)`. Without a TTFT (a whole answer) all but the base is decoding.
    """
    held_s = duration_s / (1.0 + turns_waited)
    decode_s = duration_s - ttft_s if has_ttft else held_s - base_s
    return held_s, max(0.0, decode_s)


def is_time_to_look(count: int) -> bool:
    """After which of a pool's observations its prior is made anew.

    At first after each: a replica that was never asked would else look as fast as the default, and
    all would go there, away from what their caches hold.
    """
    return count < REFRESH or count % REFRESH == 0


def believe(sums: Sums, prior: Learned, slope_min: float) -> Learned:
    """What follows from the sums and the prior, as `line` says of `slope_min`."""
    base_s, prefill_s_per_byte, service_s, token_s = estimate(sums, prior, slope_min)
    return Learned(
        base_s=base_s,
        prefill_s_per_byte=prefill_s_per_byte,
        service_s=service_s,
        token_s=token_s,
        observations=sums.firsts,
    )


def estimate(sums: Sums, prior: Rates, slope_min: float) -> Estimate:
    """The numbers of `believe`."""
    base_s, prefill_s_per_byte = line(sums, prior, slope_min)
    ends = sums.ends + PRIOR_WEIGHT
    gaps = PRIOR_WEIGHT * (sums.tokens / sums.ends if sums.tokens else 1.0)
    service_s = (sums.held_s + PRIOR_WEIGHT * prior.service_s) / ends
    token_s = (sums.decode_s + gaps * prior.token_s) / (sums.tokens + gaps)
    return base_s, prefill_s_per_byte, service_s, token_s


def line(sums: Sums, prior: Rates, slope_min: float) -> tuple[float, float]:
    """Base and slope of the fit; the base not negative, the slope at least `slope_min`.

    TTFT varies with much besides the prompt, so a fit of few can come out flat or falling. Prompts
    then seem to cost that replica nothing, all that come are sent there, and it takes back what it
    taught only when they are read: in a simulated fleet of 56 replicas one drew 122 requests, and
    5 % of a model's requests waited 50 s.
    """
    count, weight = sums.firsts, sums.weight
    if weight <= 0.0:
        return prior.base_s, prior.prefill_s_per_byte
    base_p, slope_p = prior.base_s, prior.prefill_s_per_byte
    share = count / (count + PRIOR_WEIGHT)
    rest = 1.0 - share
    x = sums.wx / weight
    y = share * (sums.wy / weight) + rest * (base_p + slope_p * x)
    xx = share * (sums.wxx / weight) + rest * 2.0 * x * x
    xy = share * (sums.wxy / weight) + rest * (base_p + slope_p * 2.0 * x) * x
    spread = xx - x * x
    every_prompt_was_empty = spread <= 1e-9 * xx
    slope = slope_p if every_prompt_was_empty else (xy - x * y) / spread
    slope = max(slope, slope_min)
    base_s = y - slope * x
    return (base_s, slope) if base_s >= 0.0 else (0.0, max(slope_min, xy / xx if xx else slope))


def together(many: Iterable[Sums]) -> Sums:
    """The sums of a pool: each replica with the weight of its observations, not of its speed."""
    pooled = Sums()
    for sums in many:
        add_to(pooled, sums)
    return pooled


def add_to(pooled: Sums, sums: Sums) -> None:
    """One replica's part in its pool's sums."""
    scale = sums.firsts / sums.weight if sums.weight > 0.0 else 0.0
    pooled.firsts += sums.firsts
    pooled.weight += sums.firsts if scale else 0.0
    pooled.wx += sums.wx * scale
    pooled.wy += sums.wy * scale
    pooled.wxx += sums.wxx * scale
    pooled.wxy += sums.wxy * scale
    pooled.ends += sums.ends
    pooled.held_s += sums.held_s
    pooled.tokens += sums.tokens
    pooled.decode_s += sums.decode_s


def fade(sums: Sums, missed: int) -> None:
    """Forget for `missed` observations that the pool made elsewhere.

    A replica that looked slow gets no work and so no observations: without this it would look
    slow for ever. What fades is the trust in it, towards the pool's prior.
    """
    keep = 0.5 ** (missed / STALE_HALF_LIFE)
    sums.firsts *= keep
    sums.weight *= keep
    sums.wx *= keep
    sums.wy *= keep
    sums.wxx *= keep
    sums.wxy *= keep
    sums.ends *= keep
    sums.held_s *= keep
    sums.tokens *= keep
    sums.decode_s *= keep
