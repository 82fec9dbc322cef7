"""One decision on all models under way: what each asks for, what was known, what is to be told."""

import msgspec

from argosy.fleet.config import Fleet
from argosy.policies.autoscaling import Ask, Decision, Given, ModelView, ScaleState
from argosy.policies.capacity import Placing, World, decided


class ModelDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model that has a deployment with `autoscale`."""

    model: str
    decision: Decision
    given: Given | None = None  # what it was decided from; where its targets are new here
    placing: Placing | None = None  # and where it has several deployments


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model whose need is known."""

    before: ScaleState
    after: ScaleState
    view: ModelView
    ask: Ask


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """All that is asked for at one time."""

    fleet: Fleet
    world: World
    asked: dict[str, Asking]  # by model
    done: tuple[ModelDecision, ...]  # where the rule was not asked, or is another one

    @property
    def size(self) -> int:
        """Deployments to decide on, of models that have a choice."""
        counts = (len(one.ask.parts) for one in self.asked.values())
        return sum(count for count in counts if count > 1)

    def decided(self) -> tuple[Decision, ...]:
        """How many replicas of each deployment, by model. Pure."""
        return decided([one.ask for one in self.asked.values()], self.world)
