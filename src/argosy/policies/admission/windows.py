"""The calendar of budgets: minutes, hours, days and months of UTC, and one window without end."""

import math
from datetime import UTC, datetime
from typing import TypeAlias

from argosy.fleet.config import Per

Window: TypeAlias = tuple[int, float]  # Unix seconds: its start, and the start of the next one

_LENGTHS_S = {"minute": 60, "hour": 3600, "day": 86_400}  # Unix days have no leap seconds


def window_at(per: Per, unix_s: float) -> Window:
    """The window that holds this moment."""
    if per == "ever":
        return 0, math.inf
    if per == "month":
        return _month_at(unix_s)
    length_s = _LENGTHS_S[per]
    start_s = int(unix_s // length_s) * length_s
    return start_s, float(start_s + length_s)


def _month_at(unix_s: float) -> Window:
    moment = datetime.fromtimestamp(math.floor(unix_s), tz=UTC)  # a fraction is rounded up
    start = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    year, month_index = divmod(moment.year * 12 + moment.month, 12)
    end = datetime(year, month_index + 1, 1, tzinfo=UTC)
    return int(start.timestamp()), end.timestamp()
