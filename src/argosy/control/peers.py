"""Compares like replicas by what gateways see of them; puts in quarantine who is unlike for long.

Owns the rhythm and what is in quarantine. Who is unlike is `policies/health`'s to say, how many may
be out at once the budget's; that another is ready first, the lifecycle's. What gateways saw also
goes to the controller: whoever answers them is not killed for probes that fail.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from argosy.control.budgeting import budget_view, needed
from argosy.control.controller import Controller
from argosy.control.quarantines import Quarantined, Quarantines
from argosy.control.reconcile import Note
from argosy.control.records import Record
from argosy.control.scaling import Signals
from argosy.control.windows import Windowed, Windows
from argosy.fleet.messages import ReplicaSpec
from argosy.policies.health import (
    BudgetNode,
    BudgetSettings,
    HealthSettings,
    OutSeen,
    PeerSeen,
    PeerSettings,
    PeersState,
    PeersView,
    PutOff,
    Quarantine,
    Release,
    Wish,
    allowed,
    compare,
)

logger = logging.getLogger(__name__)
_LOGGED_PEERS = 50  # of those that one was compared with, in the log
_VERSION = 1
_NOTHING = Windowed()

Hear = Callable[[], Awaitable[Sequence[Signals]]]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how strictly."""

    hear_s: float = 2.0  # from one word of the gateways to the next
    window_s: float = 10.0
    peers: PeerSettings = PeerSettings()
    budget: BudgetSettings = BudgetSettings()
    health: HealthSettings = HealthSettings()


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the next control plane goes on from; what windows said is learned anew."""

    version: int
    quarantines: Quarantines
    state: PeersState


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a quarantine or a release was decided from, for the log."""

    window_s: float
    replicas: tuple[PeerSeen, ...]  # it, or those on it, then those that they were compared with


def like_by_generation(spec: ReplicaSpec) -> str:
    """Replicas of one deployment as it is at one time: a pool is not compared with another."""
    return f"{spec.deployment}/{spec.generation}"


class Peers:
    """Of one run."""

    def __init__(
        self,
        controller: Controller,
        hear: Hear,
        *,
        settings: Settings | None = None,
        saved: bytes | None = None,
        keep: Callable[[bytes], Awaitable[object]] | None = None,
        like: Callable[[ReplicaSpec], str] = like_by_generation,
    ) -> None:
        """Before the controller starts: `saved` was given to `keep` by the control plane before.

        It is called after each change.
        """
        self._controller = controller
        self._hear = hear
        self._settings = settings or Settings()
        self._keep = keep
        self._like = like
        self._wished_s: dict[str, float] = {}  # what the budget has put off, since when
        self._windows = Windows(0.0)
        self._running: asyncio.Task[None] | None = None
        known = _read(saved)
        self._state = known.state
        controller.quarantine(known.quarantines)

    def start(self) -> None:
        """From now on."""
        self._windows = Windows(self._controller.now_s())
        self._running = asyncio.create_task(self._compare_forever())

    def stop(self) -> None:
        """What is in quarantine stays there."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _compare_forever(self) -> None:
        while True:
            try:
                self.hear(await self._hear())
                now_s = self._controller.now_s()
                if now_s - self._windows.began_s >= self._settings.window_s:
                    await self._store(self.compare(now_s))
            except Exception:
                logger.exception("Comparing replicas failed; it is tried again")
            await asyncio.sleep(self._settings.hear_s)

    async def _store(self, has_changed: bool) -> None:
        if has_changed and self._keep is not None:
            await self._keep(self.save())

    def save(self) -> bytes:
        """For the next control plane."""
        state = PeersState(learned=self._state.learned, outs=self._state.outs)
        saved = Saved(version=_VERSION, quarantines=self._controller.quarantines, state=state)
        return msgspec.json.encode(saved)

    # One window.

    def hear(self, signals: Sequence[Signals]) -> None:
        """The newest word of each gateway."""
        self._windows.hear(signals)
        self._controller.witness(self._windows.served_s)

    def compare(self, now_s: float) -> bool:
        """At the end of a window; whether anything goes in or out."""
        window_s = now_s - self._windows.began_s
        view = self._view(self._windows.close(now_s), now_s=now_s, window_s=window_s)
        self._state, verdicts = compare(self._state, view, self._settings.peers)
        back = [one for one in verdicts if isinstance(one, Release)]
        wishes = [one for one in verdicts if isinstance(one, Quarantine)]
        gone, put_off = self._granted(wishes, now_s)
        notes = [_note("release", one, view) for one in back]
        notes += [_note("quarantine", one, view) for one in gone]
        notes += [
            Note(kind="put-off", subject=one.name, reason=f"{why}; it is {one.reason}")
            for one, why in put_off
        ]
        before = self._controller.quarantines
        after = _after(before, back, gone, now_s=now_s, trial_s=self._settings.health.probation_s)
        if after != before or notes:
            self._controller.quarantine(after, notes)
        return after != before

    def _view(
        self, windowed: Mapping[str, Windowed], *, now_s: float, window_s: float
    ) -> PeersView:
        controller = self._controller
        quarantines = controller.quarantines
        return PeersView(
            now_s=now_s,
            window_s=window_s,
            replicas=tuple(
                _seen(
                    record,
                    windowed.get(record.name, _NOTHING),
                    quarantines,
                    now_s=now_s,
                    like=self._like(record.spec),
                )
                for record in controller.records.values()
                if record.row.state == "ready" and record.leaving is None and record.is_ours
            ),
            outs=tuple(
                OutSeen(kind=one.kind, name=one.name, pool=one.pool)
                for one in quarantines.out
                if one.kind != "replica"
            ),
            needed=needed(controller.wanted, self._settings.budget),
        )

    def _granted(
        self, wishes: Sequence[Quarantine], now_s: float
    ) -> tuple[list[Quarantine], list[tuple[Quarantine, str]]]:
        """Those that the budget allows, and those that it puts off for the first time, with why."""
        self._wished_s = {_key(one): self._wished_s.get(_key(one), now_s) for one in wishes}
        controller = self._controller
        cordoned = controller.quarantines.nodes().keys()
        view = budget_view(
            controller.records.values(),
            controller.wanted,
            now_s=now_s,
            served_s={},
            settings=self._settings.budget,
            nodes=tuple(
                BudgetNode(name=node.name, pool=pool, is_cordoned=(pool, node.name) in cordoned)
                for pool, node in controller.watcher.nodes()
            ),
        )
        asked = {_key(one): _wishes(one, self._wished_s[_key(one)]) for one in wishes}
        together = tuple(wish for some in asked.values() for wish in some)
        why_not = _put_off(allowed(view, together, self._settings.budget).put_off, asked)
        granted = [one for one in wishes if _key(one) not in why_not]
        new = [one for one in wishes if self._wished_s[_key(one)] == now_s]
        return granted, [(one, why_not[_key(one)]) for one in new if _key(one) in why_not]


def _wishes(one: Quarantine, since_s: float) -> tuple[Wish, ...]:
    """All or none; a node is cordoned besides."""
    out = Wish(kind="quarantine", replicas=one.replicas, since_s=since_s, reason=one.reason)
    if one.kind != "node":
        return (out,)
    return out, Wish(
        kind="cordon", node=one.name, pool=one.pool, since_s=since_s, reason=one.reason
    )


def _put_off(put_off: Sequence[PutOff], asked: Mapping[str, tuple[Wish, ...]]) -> dict[str, str]:
    """By what was asked for."""
    reasons = [(one.wish, one.reason) for one in put_off]
    return {
        key: reason for key, wishes in asked.items() for wish, reason in reasons if wish in wishes
    }


def _key(one: Quarantine | Release | Quarantined) -> str:
    return f"{one.kind} {one.pool}/{one.name}"


def _seen(
    record: Record, one: Windowed, quarantines: Quarantines, *, now_s: float, like: str
) -> PeerSeen:
    out = quarantines.of(record)
    since_s = record.restarts.ready_since_s
    return PeerSeen(
        replica=record.name,
        deployment=record.spec.deployment,
        like=like,
        pool=record.spec.pool,
        node=record.row.node,
        age_s=0.0 if since_s is None else now_s - since_s,
        out=None if out is None else out.kind,
        running_mean=one.running_mean,
        in_flight_mean=one.in_flight_mean,
        tokens_out=one.tokens_out,
        first_tokens=one.first_tokens,
        ttft_s_p50=one.ttft_s_p50,
        requests_ended=one.requests_ended,
        requests_failed=one.requests_failed,
    )


def _note(kind: str, one: Quarantine | Release, view: PeersView) -> Note:
    on_it = [seen for seen in view.replicas if seen.replica in one.replicas]
    alike = {seen.like for seen in on_it}
    others = [
        seen for seen in view.replicas if seen.like in alike and seen.replica not in one.replicas
    ]
    told = Compared(window_s=view.window_s, replicas=(*on_it, *others[:_LOGGED_PEERS]))
    reason = one.reason if one.kind == "replica" else f"{one.kind} of {one.pool}: {one.reason}"
    if isinstance(one, Release) and one.kind == "replica":
        reason = f"{reason}; on probation"
    return Note(kind=kind, subject=one.name, reason=reason, inputs=msgspec.json.encode(told))


def _after(
    before: Quarantines,
    back: Sequence[Release],
    gone: Sequence[Quarantine],
    *,
    now_s: float,
    trial_s: float,
) -> Quarantines:
    out = {_key(one): one for one in before.out}
    trials = {_key(one): one for one in before.on_trial if one.since_s > now_s - trial_s}
    for one in back:
        old = out.pop(_key(one), None)
        if old is not None and old.kind != "replica":
            trials[_key(one)] = replace(old, since_s=now_s, reason=one.reason)
    for one in gone:
        trials.pop(_key(one), None)
        out[_key(one)] = Quarantined(
            kind=one.kind, name=one.name, pool=one.pool, since_s=now_s, reason=one.reason
        )
    return Quarantines(out=(*out.values(),), on_trial=(*trials.values(),))


def _read(saved: bytes | None) -> Saved:
    """As at the beginning, where nothing was saved or it cannot be read."""
    begin = Saved(version=_VERSION, quarantines=Quarantines(), state=PeersState())
    if saved is None:
        return begin
    try:
        found = msgspec.json.decode(saved, type=Saved)
    except msgspec.MsgspecError as error:
        logger.warning("What was in quarantine cannot be read and is forgotten: %s", error)
        return begin
    return found if found.version == _VERSION else begin
