"""How much of an endpoint's quota is left: a bucket that fills by the second. Pure.

A quota is of any minute. What a full bucket gives at once, and what flows in within the minute
after it, are together no more than the quota, so that who counts in sliding windows has nothing to
refuse. A tenth may come at once: clouds count in windows of 1 to 10 s inside the minute as well.
"""

import msgspec

_MINUTE_S = 60.0
_AT_ONCE = 0.1  # of a minute's quota


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """Of one unit, requests or tokens."""

    size: float
    per_s: float

    def filled(self, left: float, seconds: float) -> float:
        """What is left after so long."""
        return min(self.size, left + max(0.0, seconds) * self.per_s)

    def wait_s(self, left: float, asked: float) -> float:
        """Until so much may be taken; 0: now. What is more than all of it waits for all of it."""
        lacks = min(asked, self.size) - left
        return max(0.0, lacks / self.per_s) if lacks > 0 else 0.0


def bucket(per_min: int) -> Bucket:
    """Of a quota of so many a minute."""
    size = max(1.0, per_min * _AT_ONCE)
    return Bucket(size=size, per_s=max(per_min - size, per_min / 2) / _MINUTE_S)
