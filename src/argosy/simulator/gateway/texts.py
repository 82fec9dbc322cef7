"""The policies' own functions that the simulator compiles; importing this makes them callable.

What is listed is the live code itself, not a copy: change a formula in `policies/` and both bodies
change.

numba 0.68 gives compiled code no way to name an argument of what it calls (numba/core/typing/
templates.py, `fold_arguments`): those with keyword-only arguments are here under their names, and
are called by position.
"""

from typing import Any

from argosy.fleet.share import slots_of
from argosy.policies import rates
from argosy.policies.admission import bounds, lanes, shares
from argosy.policies.admission import rates as token_rates
from argosy.policies.routing import places, sessions
from argosy.simulator.compiled import shared

shared(
    places.predicted_place,
    places.predict,
    places.spare,
    places.least_loaded_place,
    places.drawn_place,
    places.nth_of,
    places.its_turn,
    places.slots_so_far,
    places.price_usd,
    places.turns_waited,
    sessions.closeness,
    slots_of,
)
shared(
    rates.first_token,
    rates.finished,
    rates.held_and_decoded,
    rates.is_time_to_look,
    rates.estimate,
    rates.line,
    rates.add_to,
    rates.fade,
)
shared(
    bounds.cost_predicted_tokens,
    lanes.charge,
    lanes.settle,
    shares.part_of,
    shares.may_hold,
    shares.retry_after_s,
    token_rates.fill,
    token_rates.has_tokens,
    token_rates.take,
    token_rates.decayed,
    token_rates.add_to_drain,
    token_rates.is_drain_known,
    token_rates.drained_tokens_per_s,
)

own_slots: Any = slots_of
learn_first_token: Any = rates.first_token
learn_finished: Any = rates.finished
held_and_decoded: Any = rates.held_and_decoded
