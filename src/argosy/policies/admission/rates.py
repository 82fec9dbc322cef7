"""Tokens over time: what a tenant has reserved, and what is served lately.

The functions are compiled by the simulator too, over rows of arrays with the fields of the classes.
"""

import math
from typing import Protocol

RESERVED_BURST_S = 10.0  # a tenant that was idle may use so many seconds of its rate at once
DRAIN_S = 30.0  # a token served so long ago counts 1/e
_KNOWN_AFTER_S = 1.0


class Bucket(Protocol):
    """The numbers of a `TokenBucket`."""

    tokens_per_s: float
    full: float
    tokens: float
    at_s: float  # when `tokens` was so


class Drain(Protocol):
    """The numbers of a `DrainRate`."""

    began_s: float  # inf: nothing has ended yet
    at_s: float
    tokens: float


def fill(bucket: Bucket, now_s: float) -> None:
    """What came in since."""
    passed_s = now_s - bucket.at_s
    if passed_s > 0:
        bucket.tokens = min(bucket.full, bucket.tokens + passed_s * bucket.tokens_per_s)
        bucket.at_s = now_s


def has_tokens(bucket: Bucket, now_s: float) -> bool:
    """True while the tenant is within its rate."""
    fill(bucket, now_s)
    return bucket.tokens > 0


def take(bucket: Bucket, tokens: float, now_s: float) -> None:
    """Use `tokens`; fewer than 0 are given back."""
    fill(bucket, now_s)
    bucket.tokens = min(bucket.full, bucket.tokens - tokens)


def decayed(drain: Drain, now_s: float) -> float:
    """Of the tokens that ended, what still counts."""
    return drain.tokens * math.exp(min(0.0, (drain.at_s - now_s) / DRAIN_S))


def add_to_drain(drain: Drain, tokens: float, now_s: float) -> None:
    """A work of so many predicted tokens has ended."""
    if drain.began_s == math.inf:
        drain.began_s = drain.at_s = now_s
    drain.tokens = decayed(drain, now_s) + tokens
    drain.at_s = max(drain.at_s, now_s)


def is_drain_known(drain: Drain, now_s: float) -> bool:
    """Once it has been measured for a second."""
    return now_s - drain.began_s >= _KNOWN_AFTER_S


def drained_tokens_per_s(drain: Drain, now_s: float) -> float:
    """Over about `DRAIN_S`; to be asked once it is known."""
    seen_s = DRAIN_S * -math.expm1((drain.began_s - now_s) / DRAIN_S)
    return decayed(drain, now_s) / seen_s


class TokenBucket:
    """Fills at a rate, up to `RESERVED_BURST_S` of it; each start takes its predicted cost.

    It may be overdrawn by one request: then nothing is reserved until it is above 0 again.
    """

    def __init__(self, tokens_per_s: float, *, now_s: float) -> None:
        self.tokens_per_s = tokens_per_s
        self.full = tokens_per_s * RESERVED_BURST_S
        self.tokens = self.full
        self.at_s = now_s

    def has_tokens(self, now_s: float) -> bool:
        """True while the tenant is within its rate."""
        return has_tokens(self, now_s)

    def take(self, tokens: float, now_s: float) -> None:
        """Use `tokens`; fewer than 0 are given back."""
        take(self, tokens, now_s)

    def set_rate(self, tokens_per_s: float, now_s: float) -> None:
        """Another rate from now on."""
        fill(self, now_s)
        self.tokens_per_s = tokens_per_s
        self.full = tokens_per_s * RESERVED_BURST_S
        self.tokens = min(self.full, self.tokens)


class DrainRate:
    """Predicted tokens of the works that ended, per second, over about `DRAIN_S`.

    Predicted, not true, for they are set against the predicted tokens of those that wait.
    """

    def __init__(self) -> None:
        self.began_s = math.inf
        self.at_s = 0.0
        self.tokens = 0.0

    def add(self, tokens: float, now_s: float) -> None:
        """A work of so many predicted tokens has ended."""
        add_to_drain(self, tokens, now_s)

    def tokens_per_s(self, now_s: float) -> float | None:
        """None until it has been measured for a second."""
        return drained_tokens_per_s(self, now_s) if is_drain_known(self, now_s) else None
