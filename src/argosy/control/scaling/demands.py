"""Counts that only grow become demand by steps of time: what the autoscaling policy reads.

    counts at 9.8 s, at 20.1 s -> what came between them, spread evenly over that time
                               -> steps of 10 s (`recent`), whole minutes of them (`history`)

A snapshot that does not come is made up for by the next one, over the time between: never a spike.
A gateway that was begun anew counts from 0, which shows; one that is silent is waited for up to
`SILENT_S`, and what it tells later is put where it belongs. Every request that was counted is in
one step: the steps' sums are the counts' differences.

Steps begin at multiples of 10 s of Unix time, as the simulator's do of its own.
"""

import math
from array import array
from collections.abc import Iterator, Sequence

import msgspec

from argosy.control.scaling.signals import Signals
from argosy.observability.counts import Asked
from argosy.policies.admission.bounds import BYTES_PER_TOKEN
from argosy.policies.autoscaling import Demand

STEP_S, RECENT_STEPS = 10.0, 30
MINUTE_S, MINUTE_STEPS = 60.0, 6
KEPT_MINUTES = 15 * 1440  # all that the policy ever looks at
SILENT_S = 30.0  # a gateway that says nothing for so long is no longer waited for
GONE_S = 86_400.0  # and after so long it is a stranger
YOUNG_S = 120.0  # of a gateway that is heard for the first time: older counts are not spread
WHAT = tuple(name for name in Demand.__struct_fields__ if name not in ("step_s", "until_s"))
_NOTHING = (0,) * len(WHAT)
_PRIOR_TOKENS = 1_000.0  # of 4 bytes, as if they had been seen
_ROUNDED = 1e-6  # of a request: what is six by the clock is not to be five
_BYTES_MAX = 4e6  # of prompts: then what was learned counts for half


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's counts when they were last whole."""

    at_s: float
    began_s: float | None
    asked: dict[str, Asked]


class Line(msgspec.Struct, kw_only=True):
    """One model's steps and minutes."""

    steps: dict[int, list[int]] = {}  # by number: the late ones, by `WHAT`
    minutes: list[bytes] = []  # as they are stored: by `WHAT`, 8 bytes each
    tokens: float = _PRIOR_TOKENS  # of prompts whose bytes are known
    bytes: float = _PRIOR_TOKENS * BYTES_PER_TOKEN


class Kept(msgspec.Struct, kw_only=True):
    """All of it, to be stored."""

    first_minute: int | None = None  # that is kept
    next_minute: int = 0  # that has not ended
    until_step: int = 0
    first_step: int = 0
    lines: dict[str, Line] = {}
    heard: dict[str, Heard] = {}  # by source


class Demands:
    """Of all models."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept or Kept()
        self._minutes = {name: _unpacked(line) for name, line in self._kept.lines.items()}

    # What is told.

    @property
    def until_s(self) -> float:
        """When the last whole step ended; 0 before there was one."""
        return self._kept.until_step * STEP_S

    def recent(self, model: str) -> Demand:
        """The last whole steps."""
        kept = self._kept
        begin = max(kept.first_step, kept.until_step - RECENT_STEPS)
        steps = self._kept.lines[model].steps if model in kept.lines else {}
        rows = [steps.get(step, _NOTHING) for step in range(begin, kept.until_step)]
        columns = zip(*rows, strict=True) if rows else ((),) * len(WHAT)
        return _demand(STEP_S, kept.until_step, list(columns))

    def history(self, model: str, minutes: int | None = None) -> Demand:
        """The last so many whole minutes; None: all that are kept."""
        until, kept = self._kept.next_minute, self._minutes.get(model)
        count = until - (until if self._kept.first_minute is None else self._kept.first_minute)
        count = count if minutes is None else min(count, minutes)
        if kept is None:
            return _demand(MINUTE_S, until, [(0,) * count] * len(WHAT))
        return _demand(MINUTE_S, until, [tuple(one[len(one) - count :]) for one in kept])

    def save(self) -> Kept:
        """To be encoded at once: it goes on changing."""
        for name, line in self._kept.lines.items():
            line.minutes = [one.tobytes() for one in self._minutes[name]]
        return self._kept

    # What is heard.

    def hear(self, signals: Signals) -> None:
        """The counts of one gateway; in the order of time, for each."""
        kept, before = self._kept, self._kept.heard.get(signals.source)
        if before is not None and signals.at_s <= before.at_s:
            return
        if not signals.is_whole and before and signals.at_s - before.at_s < SILENT_S:
            return  # with the next whole one, over the time until then
        since_s, old = _since(signals, before)
        if kept.first_minute is None:
            kept.first_step = kept.until_step = math.ceil(since_s / STEP_S)
            kept.first_minute = kept.next_minute = math.ceil(kept.first_step / MINUTE_STEPS)
        for model, asked in signals.asked.items():
            self._count(model, _came(self._line(model), asked, old.get(model, Asked())),
                        since_s, signals.at_s)  # fmt: skip
        kept.heard[signals.source] = Heard(
            at_s=signals.at_s, began_s=signals.began_s, asked=signals.asked
        )
        self._advance()

    def _line(self, model: str) -> Line:
        line = self._kept.lines.get(model)
        if line is None:
            line = self._kept.lines[model] = Line()
            count = self._kept.next_minute - (self._kept.first_minute or 0)
            self._minutes[model] = [array("q", bytes(8 * count)) for _ in WHAT]
        return line

    def _count(self, model: str, came: Sequence[int], since_s: float, until_s: float) -> None:
        line, kept = self._kept.lines[model], self._kept
        for place, count in enumerate(came):
            if not count:
                continue
            for step, part in spread(count, since_s, until_s):
                line.steps.setdefault(step, [0] * len(WHAT))[place] += part
                minute = step // MINUTE_STEPS
                if kept.first_minute is not None and kept.first_minute <= minute < kept.next_minute:
                    self._minutes[model][place][minute - kept.first_minute] += part

    def _advance(self) -> None:
        """The steps and minutes that have ended, for all gateways that are not silent."""
        kept = self._kept
        newest_s = max(one.at_s for one in kept.heard.values())
        for source in [name for name, one in kept.heard.items() if one.at_s < newest_s - GONE_S]:
            del kept.heard[source]
        alive_s = [one.at_s for one in kept.heard.values() if one.at_s > newest_s - SILENT_S]
        kept.until_step = max(kept.until_step, int(min(alive_s) / STEP_S))
        until = max(kept.next_minute, kept.until_step // MINUTE_STEPS)
        for model, line in kept.lines.items():
            self._end_minutes(model, line, until)
            oldest = min(until * MINUTE_STEPS, kept.until_step - RECENT_STEPS)
            for step in [step for step in line.steps if step < oldest]:
                del line.steps[step]
        kept.next_minute = until
        self._forget()

    def _end_minutes(self, model: str, line: Line, until: int) -> None:
        minutes = self._minutes[model]
        for minute in range(self._kept.next_minute, until):
            begin = minute * MINUTE_STEPS
            rows = [line.steps.get(step, _NOTHING) for step in range(begin, begin + MINUTE_STEPS)]
            for place, column in enumerate(zip(*rows, strict=True)):
                minutes[place].append(sum(column))

    def _forget(self) -> None:
        kept = self._kept
        spare = kept.next_minute - (kept.first_minute or 0) - KEPT_MINUTES
        if spare < 60:  # an hour at a time
            return
        kept.first_minute = kept.next_minute - KEPT_MINUTES
        for minutes in self._minutes.values():
            for one in minutes:
                del one[:spare]


def spread(count: int, since_s: float, until_s: float) -> Iterator[tuple[int, int]]:
    """What came between two times, evenly, as whole numbers by steps; their sum is `count`."""
    given, begin, last = 0, int(since_s / STEP_S), math.ceil(until_s / STEP_S) - 1
    for step in range(begin, last):
        share = ((step + 1) * STEP_S - since_s) / (until_s - since_s)
        so_far = int(count * share + _ROUNDED)
        if so_far > given:
            yield step, so_far - given
            given = so_far
    if count > given:
        yield max(begin, last), count - given


def _since(signals: Signals, before: Heard | None) -> tuple[float, dict[str, Asked]]:
    """Since when these counts are news, and what they were then."""
    at_s, began_s = signals.at_s, signals.began_s
    if before is None:
        if began_s is not None and at_s - began_s <= YOUNG_S:
            return min(began_s, at_s), {}
        return at_s, signals.asked  # of who knows how long: it begins here
    is_anew = began_s is not None and before.began_s is not None and began_s > before.at_s
    if is_anew or _has_fallen(before.asked, signals.asked):
        since_s = before.at_s if began_s is None else max(before.at_s, min(began_s, at_s))
        return since_s, {}
    return before.at_s, before.asked


def _has_fallen(before: dict[str, Asked], now: dict[str, Asked]) -> bool:
    """Some count is less than it was: it was begun anew."""
    for model, old in before.items():
        new = now.get(model, Asked())
        if any(getattr(new, name) < getattr(old, name) for name in Asked.__struct_fields__):
            return True
    return False


def _came(line: Line, new: Asked, old: Asked) -> tuple[int, ...]:
    """By `WHAT`; prompts in tokens, by what a byte of late ones came to."""
    line.bytes += new.read_bytes - old.read_bytes
    line.tokens += new.read_tokens - old.read_tokens
    if line.bytes > _BYTES_MAX:
        line.bytes, line.tokens = line.bytes / 2, line.tokens / 2
    per_byte = line.tokens / line.bytes
    return (
        new.requests - old.requests,
        int((new.prompt_bytes - old.prompt_bytes) * per_byte),
        new.batch_requests - old.batch_requests,
        int((new.batch_prompt_bytes - old.batch_prompt_bytes) * per_byte),
        new.answered - old.answered,
        new.output_tokens - old.output_tokens,
    )


def _demand(step_s: float, until: int, columns: Sequence[Sequence[int]]) -> Demand:
    fields = dict(zip(WHAT, map(tuple, columns), strict=True))
    return Demand(step_s=step_s, until_s=until * step_s, **fields)


def _unpacked(line: Line) -> list["array[int]"]:
    packed = line.minutes or [b""] * len(WHAT)
    return [array("q", one) for one in packed]
