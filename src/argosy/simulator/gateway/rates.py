"""What answers teach, as `gateway/rates.py` keeps it, on arrays; the arithmetic is the policies'.

Sums and beliefs are by replica, priors by pool. A replica that left stays a member of its pool.
"""

from argosy.policies.rates import (
    SLOPE_MIN,
    SLOPE_SHARE_MIN,
    add_to,
    estimate,
    fade,
    is_time_to_look,
)
from argosy.simulator.compiled import Row, compiled, inner
from argosy.simulator.gateway.state import Gateway
from argosy.simulator.gateway.texts import held_and_decoded, learn_finished, learn_first_token


@compiled
def join(gateway: Gateway, replica: int) -> None:
    """Keep its view's rates from now on; what is known of it stays known."""
    row = gateway.replicas[replica]
    pool = gateway.pools[row.pool]
    if not row.is_member:
        row.is_member = True
        row.fresh_at = pool.count
        gateway.members[pool.first + pool.members] = replica
        pool.members += 1
    _believe(gateway, replica)


@compiled
def observe(gateway: Gateway, request: int, read_bytes: int, tokens_out: int, now_s: float) -> None:
    """A request ended well on its replica, having had `read_bytes` read before its first token."""
    placed = gateway.placed[request]
    replica = placed.replica
    sums, believed = gateway.sums[replica], gateway.believed[replica]
    if placed.has_first and not placed.turns_waited > 0.0:
        bytes_ = float(max(0, read_bytes))
        if learn_first_token(sums, believed, placed.ttft_s, bytes_):
            _observed(gateway, replica)
    held_s, decode_s = held_and_decoded(
        now_s - placed.now_s,
        placed.ttft_s,
        placed.has_first,
        placed.turns_waited,
        believed.base_s,
    )
    if learn_finished(sums, believed, held_s, decode_s, tokens_out):
        _observed(gateway, replica)


@inner
def _observed(gateway: Gateway, replica: int) -> None:
    row = gateway.replicas[replica]
    pool = gateway.pools[row.pool]
    pool.count += 1
    row.fresh_at = pool.count
    _believe(gateway, replica)
    if is_time_to_look(pool.count):
        _refresh(gateway, row.pool)


@inner
def _refresh(gateway: Gateway, number: int) -> None:
    """The pool's prior anew, and with it all that leans on it."""
    pool, pooled = gateway.pools[number], gateway.pooled[0]
    _clear(pooled)
    members = gateway.members[pool.first : pool.first + pool.members]
    for replica in members:
        row = gateway.replicas[replica]
        missed = pool.count - row.fresh_at
        if missed > 0:
            fade(gateway.sums[replica], missed)
            row.fresh_at = pool.count
        add_to(pooled, gateway.sums[replica])
    _fill_in(gateway.priors[number], estimate(pooled, gateway.defaults[number], SLOPE_MIN))
    for replica in members:
        _believe(gateway, replica)


@inner
def _believe(gateway: Gateway, replica: int) -> None:
    row = gateway.replicas[replica]
    believed = gateway.believed[replica]
    prior = gateway.priors[row.pool]
    slope_min = SLOPE_SHARE_MIN * prior.prefill_s_per_byte
    _fill_in(believed, estimate(gateway.sums[replica], prior, slope_min))
    view = gateway.views[row.row]
    view.base_s = believed.base_s
    view.prefill_s_per_byte = believed.prefill_s_per_byte
    view.service_s = believed.service_s


@inner
def _fill_in(learned: Row, estimated: tuple[float, float, float, float]) -> None:
    learned.base_s, learned.prefill_s_per_byte, learned.service_s, learned.token_s = estimated


@inner
def _clear(sums: Row) -> None:
    sums.firsts = sums.weight = sums.wx = sums.wy = sums.wxx = sums.wxy = 0.0
    sums.ends = sums.held_s = sums.tokens = sums.decode_s = 0.0
