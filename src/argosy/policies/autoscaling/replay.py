"""What a decision was made from, cut to what decides: it is logged, and decided again from there.

Two weeks of minutes are known at a tick and few are looked at: the late ones, and those around this
time of earlier days. The others are 0 here, which deflates to nothing.
"""

import math

import msgspec
from msgspec.structs import replace

from argosy.policies.autoscaling import loads
from argosy.policies.autoscaling.forecast import read_of
from argosy.policies.autoscaling.rule import USUAL_STEPS, Ask, ScaleState, asked, scale
from argosy.policies.autoscaling.view import Decision, Demand, ModelView, Settings


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `scale`."""

    state: ScaleState  # as it was before, with the minutes learned that had ended
    view: ModelView
    settings: Settings


def given_of(before: ScaleState, after: ScaleState, view: ModelView, settings: Settings) -> Given:
    """The least from which `scale(before, view, settings)`, which made `after`, decides alike."""
    known = after.loads
    assert known is not None, "scale has learned them"
    learned = replace(
        after,
        loads=read_of(known, ahead_steps=after.ahead_steps, late_steps=USUAL_STEPS),
        made=(),
        wanted=before.wanted,
        wanted_whole=before.wanted_whole,
        wanted_lost=before.wanted_lost,
        waited=before.waited,
        removed=before.removed,
        blocked=before.blocked,
        panic_until_s=before.panic_until_s,
    )
    history = view.history
    looked_s = max(settings.idle_s, settings.down_s_max)
    steps = max(loads.ANSWERS_STEPS, loads.LATE_STEPS, math.ceil(looked_s / history.step_s))
    return Given(
        state=learned, view=replace(view, history=_late(history, steps)), settings=settings
    )


def _late(demand: Demand, steps: int) -> Demand:
    """Its last steps."""
    return replace(
        demand,
        requests=demand.requests[-steps:],
        prompt_tokens=demand.prompt_tokens[-steps:],
        batch_requests=demand.batch_requests[-steps:],
        batch_prompt_tokens=demand.batch_prompt_tokens[-steps:],
        answered=demand.answered[-steps:],
        output_tokens=demand.output_tokens[-steps:],
    )


def replayed(given: Given) -> Decision:
    """What the rule decides from this, now."""
    return scale(given.state, given.view, given.settings)[1]


def asked_again(given: Given) -> Ask:
    """What the rule asks for from this, now, where another one says which deployments grow."""
    return asked(given.state, given.view, given.settings)[1]
