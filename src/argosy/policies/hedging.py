"""When a request may be asked of a second replica while the first is still silent. Pure.

A hedge buys a shorter tail with work that is thrown away, so it is for few: the enterprise tier,
after a time that most answers do not take, and of no more than a share of the requests.
"""

import msgspec

HEDGES_AT_ONCE = 8.0  # saved up in quiet times


class HedgeBudget(msgspec.Struct):
    """How many hedges are left; changed in place."""

    share_max: float  # of the requests that could be hedged
    left: float = 1.0

    def add_request(self) -> None:
        """One that could be hedged was sent."""
        self.left = min(HEDGES_AT_ONCE, self.left + self.share_max)

    def take(self) -> bool:
        """True, and one fewer: hedge. False: the share is used up."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True
