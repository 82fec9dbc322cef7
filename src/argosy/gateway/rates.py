"""The learned rates of the replicas of one model in one pool, written into their views.

Holds the sums and the views; the arithmetic is `policies/rates.py`. A replica that was never
observed is believed to be like its pool, a pool like `DEFAULT`.
"""

from argosy.policies.rates import (
    DEFAULT,
    SLOPE_MIN,
    SLOPE_SHARE_MIN,
    Learned,
    Sums,
    believe,
    fade,
    finished,
    first_token,
    held_and_decoded,
    is_time_to_look,
    together,
)
from argosy.policies.routing import ReplicaView


class _Known:
    __slots__ = ("believed", "fresh_at", "sums", "view")

    def __init__(self, view: ReplicaView, believed: Learned) -> None:
        self.view = view
        self.sums = Sums()
        self.believed = believed
        self.fresh_at = 0  # the pool's count at its last observation


class PoolRates:
    """What the answers of one (model, pool) have taught. Memory: constant per replica."""

    def __init__(self, prior: Learned = DEFAULT) -> None:
        self._default = prior
        self._prior = prior
        self._known: dict[str, _Known] = {}
        self._count = 0  # observations, of all

    def join(self, view: ReplicaView) -> None:
        """Keep this view's rates from now on; what is known under its name stays known."""
        known = self._known.get(view.replica)
        if known is None:
            known = self._known[view.replica] = _Known(view, self._prior)
            known.fresh_at = self._count
        known.view = view
        self._believe(known)

    def leave(self, replica: str) -> None:
        """Forget it: gone, or back on other hardware. Its view is not touched any more."""
        self._known.pop(replica, None)

    def learned(self, replica: str) -> Learned:
        """What is believed of it; the pool's prior for a stranger."""
        known = self._known.get(replica)
        return self._prior if known is None else known.believed

    def first_token(
        self, replica: str, *, ttft_s: float, prompt_bytes: int, turns_waited: float = 0.0
    ) -> None:
        """A stream's first token came, `ttft_s` after it was sent to the replica.

        `prompt_bytes`: uncached ones, its own and those queued ahead when it was sent.
        `turns_waited`: 0 where a slot was free, else (in flight - slots + 1) / slots; a TTFT that
        holds a wait teaches nothing about reading prompts.
        """
        known = self._known.get(replica)
        if known is None or turns_waited > 0.0:
            return
        if first_token(known.sums, known.believed, ttft_s=ttft_s, prompt_bytes=prompt_bytes):
            self._observed(known)

    def finished(
        self,
        replica: str,
        *,
        duration_s: float,
        tokens_out: int,
        ttft_s: float | None,
        turns_waited: float = 0.0,
    ) -> None:
        """A request ended well, `duration_s` after it was sent; `ttft_s` None: a whole answer."""
        known = self._known.get(replica)
        if known is None:
            return
        held_s, decode_s = held_and_decoded(
            duration_s,
            ttft_s=ttft_s or 0.0,
            has_ttft=ttft_s is not None,
            turns_waited=turns_waited,
            base_s=known.believed.base_s,
        )
        if finished(
            known.sums, known.believed, held_s=held_s, decode_s=decode_s, tokens_out=tokens_out
        ):
            self._observed(known)

    def _observed(self, known: _Known) -> None:
        count = self._count = self._count + 1
        known.fresh_at = count
        self._believe(known)
        if is_time_to_look(count):
            self._refresh()

    def _believe(self, known: _Known) -> None:
        view, believed = (
            known.view,
            believe(known.sums, self._prior, SLOPE_SHARE_MIN * self._prior.prefill_s_per_byte),
        )
        known.believed = believed
        view.base_s = believed.base_s
        view.prefill_s_per_byte = believed.prefill_s_per_byte
        view.service_s = believed.service_s

    def _refresh(self) -> None:
        """The pool's prior anew, and with it all that leans on it."""
        for known in self._known.values():
            if missed := self._count - known.fresh_at:
                fade(known.sums, missed)
                known.fresh_at = self._count
        pooled = together(known.sums for known in self._known.values())
        self._prior = believe(pooled, self._default, SLOPE_MIN)
        for known in self._known.values():
            self._believe(known)
