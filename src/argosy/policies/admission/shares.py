"""The arithmetic of the fair queue: parts of the slots, who may hold one, when to come back. Pure.

One text with two bodies, as `policies/routing/places.py`: run live, compiled by the simulator.
"""

from collections.abc import Sequence

RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX = 1.0, 60.0
_ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996


def part_of(slots: int, share: float) -> int:
    """A share of the slots; at least one, and no cap on a single slot."""
    return max(1, int(slots * share + _ROUNDING)) if slots > 1 else slots


def may_hold(held: Sequence[int], held_max: Sequence[int], rank: int) -> bool:
    """True while a tier and those above it leave a slot to it.

    Both are by rank: slots of a tier and those below it.
    """
    if held[0] >= held_max[0]:
        return False
    return not (rank and (held[1] >= held_max[1] or (rank > 1 and held[2] >= held_max[2])))


def retry_after_s(ahead_tokens: float, tokens_per_s: float) -> float:
    """Until so much would be served at that rate, within reason."""
    if tokens_per_s * RETRY_AFTER_S_MAX <= ahead_tokens:
        return RETRY_AFTER_S_MAX
    return max(RETRY_AFTER_S_MIN, ahead_tokens / tokens_per_s)
