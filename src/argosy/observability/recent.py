"""The last minute of one replica: tokens per second and TTFT quantiles, in bounded memory."""

from collections import deque
from collections.abc import Sequence

_WINDOW_S = 60.0
_KEPT = 4096  # requests; past that the window is shorter than a minute


class Recent:
    """Requests that ended within the last minute. The caller gives the time."""

    def __init__(self) -> None:
        self._ended: deque[tuple[float, int, float | None]] = deque(maxlen=_KEPT)
        self.requests_finished = 0

    def add(self, now_s: float, *, tokens_out: int, ttft_s: float | None) -> None:
        """One request has ended."""
        self.requests_finished += 1
        self._ended.append((now_s, tokens_out, ttft_s))

    def tokens_out_per_s(self, now_s: float) -> float:
        """Tokens of requests that ended within the window, over the window."""
        self._forget(now_s)
        return sum(tokens for _, tokens, _ in self._ended) / _WINDOW_S

    def ttft_s(self, now_s: float, quantile: float) -> float | None:
        """That quantile of the streams' TTFT; None without a stream."""
        return nearest_rank(sorted(self.all_ttft_s(now_s)), quantile)

    def all_ttft_s(self, now_s: float) -> list[float]:
        """Each stream's TTFT."""
        self._forget(now_s)
        return [ttft for _, _, ttft in self._ended if ttft is not None]

    def _forget(self, now_s: float) -> None:
        while self._ended and self._ended[0][0] < now_s - _WINDOW_S:
            self._ended.popleft()


def nearest_rank(ranked: Sequence[float], quantile: float) -> float | None:
    """That quantile of sorted values; None without one."""
    if not ranked:
        return None
    return ranked[min(len(ranked) - 1, int(quantile * len(ranked)))]
