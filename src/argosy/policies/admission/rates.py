"""Tokens over time: what a tenant has reserved, and what is served lately."""

import math

RESERVED_BURST_S = 10.0  # a tenant that was idle may use so many seconds of its rate at once
DRAIN_S = 30.0  # a token served so long ago counts 1/e
_KNOWN_AFTER_S = 1.0


class TokenBucket:
    """Fills at a rate, up to `RESERVED_BURST_S` of it; each start takes its predicted cost.

    It may be overdrawn by one request: then nothing is reserved until it is above 0 again.
    """

    def __init__(self, tokens_per_s: float, *, now_s: float) -> None:
        self.tokens_per_s = tokens_per_s
        self._full = tokens_per_s * RESERVED_BURST_S
        self._tokens = self._full
        self._at_s = now_s

    def has_tokens(self, now_s: float) -> bool:
        """True while the tenant is within its rate."""
        self._fill(now_s)
        return self._tokens > 0

    def take(self, tokens: float, now_s: float) -> None:
        """Use `tokens`; fewer than 0 are given back."""
        self._fill(now_s)
        self._tokens = min(self._full, self._tokens - tokens)

    def set_rate(self, tokens_per_s: float, now_s: float) -> None:
        """Another rate from now on."""
        self._fill(now_s)
        self.tokens_per_s = tokens_per_s
        self._full = tokens_per_s * RESERVED_BURST_S
        self._tokens = min(self._full, self._tokens)

    def _fill(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s > 0:
            self._tokens = min(self._full, self._tokens + passed_s * self.tokens_per_s)
            self._at_s = now_s


class DrainRate:
    """Predicted tokens of the works that ended, per second, over about `DRAIN_S`.

    Predicted, not true, for they are set against the predicted tokens of those that wait.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._at_s = 0.0
        self._tokens = 0.0

    def add(self, tokens: float, now_s: float) -> None:
        """A work of so many predicted tokens has ended."""
        if self._began_s is None:
            self._began_s = self._at_s = now_s
        self._tokens = self._decayed(now_s) + tokens
        self._at_s = max(self._at_s, now_s)

    def tokens_per_s(self, now_s: float) -> float | None:
        """None until it has been measured for a second."""
        if self._began_s is None or now_s - self._began_s < _KNOWN_AFTER_S:
            return None
        seen_s = DRAIN_S * -math.expm1((self._began_s - now_s) / DRAIN_S)
        return self._decayed(now_s) / seen_s

    def _decayed(self, now_s: float) -> float:
        return self._tokens * math.exp(min(0.0, (self._at_s - now_s) / DRAIN_S))
