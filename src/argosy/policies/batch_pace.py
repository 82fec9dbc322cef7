"""How many requests of one batch run at once: more while they go well, fewer when pushed back.

As TCP does it: the limit grows by one an answer until the first push-back, is halved by each (one
halving for all requests that were under way together), and then grows by one a round. Pure.
"""

import msgspec

BACK_OFF_S, BACK_OFF_S_MAX = 0.25, 60.0
RETRY_AFTER_S_MAX = 600.0  # a server that says more is asked again after this


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one batch. Times are the caller's clock."""

    limit: float = 2.0  # requests at once; its whole part counts
    slow_from: float = float("inf")  # from here on the limit grows by one a round
    pushbacks: int = 0  # in a row
    shrunk_at_s: float = float("-inf")
    not_before_s: float = float("-inf")  # nothing is sent earlier


def went_well(pace: Pace, *, sent_at_s: float, limit_max: int) -> Pace:
    """An answer came that was no push-back."""
    if sent_at_s < pace.shrunk_at_s:
        return pace  # it says how things were before
    step = 1.0 if pace.limit < pace.slow_from else 1.0 / pace.limit
    limit = min(float(limit_max), pace.limit + step)
    return msgspec.structs.replace(pace, limit=limit, pushbacks=0)


def pushed_back(
    pace: Pace, *, sent_at_s: float, now_s: float, retry_after_s: float | None, chance: float
) -> Pace:
    """429, 503 or no connection. `chance` in [0, 1) spreads the pause by up to a half."""
    is_news = sent_at_s >= pace.shrunk_at_s
    pushbacks = pace.pushbacks + 1 if is_news else pace.pushbacks
    backing_off_s = min(BACK_OFF_S_MAX, BACK_OFF_S * 2.0 ** min(max(0, pushbacks - 1), 10))
    asked_s = min(RETRY_AFTER_S_MAX, retry_after_s or 0.0)
    pause_s = max(backing_off_s, asked_s) * (1.0 + chance / 2)
    half = max(1.0, pace.limit / 2)
    return Pace(
        limit=half if is_news else pace.limit,
        slow_from=half if is_news else pace.slow_from,
        pushbacks=pushbacks,
        shrunk_at_s=now_s if is_news else pace.shrunk_at_s,
        not_before_s=max(pace.not_before_s, now_s + pause_s),
    )
