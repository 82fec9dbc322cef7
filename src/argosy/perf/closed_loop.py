"""What a load test sees: so many clients, each sending its next request when its last is answered.

A recurrence in virtual time over the same step times as the simulator's, without its events: all
clients start at once, prompts wait in one queue, steps mix them with decoding up to the step's
token limit (or stop decoding, as an engine that gives prefill its own steps does). While nobody
waits, steps up to the next finished answer are one arithmetic series. Lengths are spread evenly
over [1 - spread, 1] of the nominal by the golden ratio: no chance, same bytes. 2 us a request.

Decoding requests wait in a ring of buckets, one for each step to come: `first[step % size]` is the
first that ends then, `following[request]` the next in its bucket, -1 none.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Knots = tuple[Array, Array, float, float]  # tokens, seconds, per context token, per pair
_GOLDEN = 0.6180339887498949
_ANSWER_SHIFT = 7  # an answer's length follows another request's share, so that both vary apart
# Places in the state: seconds and tokens, then counts.
_NOW, _CONTEXTS, _HELD, _TTFT, _TPOT, _DONE = range(6)
_STEP, _ISSUED, _HEAD, _ACTIVE, _FINISHED = range(5)


class Load(NamedTuple):
    """One load test on one replica (disaggregated: on one decoding replica and its share)."""

    clients: int
    input_tokens: float
    output_tokens: float
    spread: float  # lengths lie in [1 - spread, 1] of the above
    requests: int  # in all; benchmarks send about ten for each client
    unmeasured: int  # the first so many only warm up


class Limits(NamedTuple):
    """Of the engine."""

    step_tokens: float
    requests: int
    kv_tokens: float
    mixes: bool  # prefill and decode share a step


class PrefillPool(NamedTuple):
    """What computes prompts for one decoding replica, elsewhere."""

    prompt_s: float  # of one prompt of the nominal length alone, transfer of its KV left out
    queued_s: float  # that it adds to a full step of such prompts
    pair_share: float  # of both that grows with the square of the prompt
    share: float  # prefill replicas for each decoding replica
    transfer_s: float  # of one prompt's KV


class _Run(NamedTuple):
    """Everything that a loop changes."""

    amounts: Array
    counts: Counts
    first: Counts
    following: Counts
    since: Array  # when each request arrived, then when its first token came


@numba.njit(cache=True)
def mixed_loop(knots: Knots, load: Load, limits: Limits) -> tuple[float, float]:
    """Mean TTFT and mean TPOT, in seconds, of prefill and decode in one place."""
    run = _new_run(load)
    amounts, counts = run.amounts, run.counts
    counts[_ISSUED] = min(load.clients, load.requests)
    while counts[_FINISHED] < load.requests:
        tokens, pairs, ended, done = _take_prompts(run, load, limits)
        if tokens > 0.0:
            decoding = counts[_ACTIVE] if limits.mixes else 0
            context_s = knots[2] * amounts[_CONTEXTS] if limits.mixes else 0.0
            linear_s = _linear(knots[0], knots[1], tokens + decoding)
            amounts[_NOW] += linear_s + knots[3] * pairs + context_s
            steps = 1 if limits.mixes else 0
        else:
            steps = _steps_alone(run, knots, np.inf)
        if steps > 0:
            _finish(run, load, steps)
            counts[_ISSUED] = min(counts[_FINISHED] + load.clients, load.requests)
        if tokens > 0.0:
            for request in range(counts[_HEAD], counts[_HEAD] + ended):
                if request >= load.unmeasured:
                    amounts[_TTFT] += amounts[_NOW] - run.since[request]
                _decode(run, load, request, amounts[_NOW])
            counts[_HEAD] += ended
            amounts[_DONE] = done
    measured = load.requests - load.unmeasured
    return amounts[_TTFT] / measured, amounts[_TPOT] / measured


@numba.njit(cache=True)
def split_loop(knots: Knots, load: Load, limits: Limits, pool: PrefillPool) -> tuple[float, float]:
    """Mean TTFT and mean TPOT, in seconds, where other replicas prefill: one queue before them."""
    run = _new_run(load)
    amounts, counts = run.amounts, run.counts
    free_at = 0.0
    while counts[_FINISHED] < load.requests:
        free_at = _send_to_pool(run, load, pool, free_at)
        _join(run, load, limits, pool)
        waits = counts[_HEAD] < counts[_ISSUED]
        if counts[_ACTIVE] == 0:
            amounts[_NOW] = run.since[counts[_HEAD]] + pool.transfer_s
            continue
        until = np.inf
        if waits and counts[_ACTIVE] < limits.requests:
            until = float(run.since[counts[_HEAD]]) + pool.transfer_s
        _finish(run, load, _steps_alone(run, knots, until))
    measured = load.requests - load.unmeasured
    return amounts[_TTFT] / measured, amounts[_TPOT] / measured


@numba.njit(cache=True, inline="always")
def _new_run(load: Load) -> _Run:
    size = int(load.output_tokens) + 2
    return _Run(
        np.zeros(6),
        np.zeros(5, np.int64),
        np.full(size, -1, np.int64),
        np.full(load.requests, -1, np.int64),
        np.zeros(load.requests),
    )


@numba.njit(cache=True, inline="always")
def _take_prompts(run: _Run, load: Load, limits: Limits) -> tuple[float, float, int, float]:
    """Tokens and pairs that the next step prefills, prompts it ends, tokens done of the next."""
    amounts, counts = run.amounts, run.counts
    budget = limits.step_tokens - (counts[_ACTIVE] if limits.mixes else 0)
    budget = max(budget, 1.0)
    tokens, pairs, ended, done = 0.0, 0.0, 0, amounts[_DONE]
    place = counts[_HEAD]
    most = limits.requests - counts[_ACTIVE]
    while place < counts[_ISSUED] and tokens < budget and ended < most:
        length = _length(place, load.input_tokens, load.spread)
        if done == 0.0:
            whole = length + _answer(place, load)
            is_alone = counts[_ACTIVE] + ended == 0
            if amounts[_HELD] + whole > limits.kv_tokens and not is_alone:
                break
            amounts[_HELD] += whole
        take = min(length - done, budget - tokens)
        pairs += take * (done + 0.5 * take)
        tokens += take
        done += take
        if done < length - 1e-9:
            break
        ended += 1
        place += 1
        done = 0.0
    return tokens, pairs, ended, done


@numba.njit(cache=True, inline="always")
def _send_to_pool(run: _Run, load: Load, pool: PrefillPool, free_at: float) -> float:
    """Every client without a request sends one; `since` becomes when its prefill is done."""
    amounts, counts = run.amounts, run.counts
    to_issue = min(counts[_FINISHED] + load.clients, load.requests)
    now = amounts[_NOW]
    while counts[_ISSUED] < to_issue:
        request = counts[_ISSUED]
        share = _length(request, load.input_tokens, load.spread) / load.input_tokens
        longer = share * (1.0 - pool.pair_share + pool.pair_share * share)
        start = max(now, free_at)
        free_at = start + pool.queued_s * longer / pool.share
        run.since[request] = start + pool.prompt_s * longer
        if request >= load.unmeasured:
            amounts[_TTFT] += run.since[request] - now
        counts[_ISSUED] += 1
    return free_at


@numba.njit(cache=True, inline="always")
def _join(run: _Run, load: Load, limits: Limits, pool: PrefillPool) -> None:
    """Prefilled requests begin to decode, in order, as memory allows."""
    amounts, counts = run.amounts, run.counts
    while counts[_HEAD] < counts[_ISSUED] and counts[_ACTIVE] < limits.requests:
        request = int(counts[_HEAD])
        if run.since[request] + pool.transfer_s > amounts[_NOW]:
            break
        whole = _length(request, load.input_tokens, load.spread) + _answer(request, load)
        if amounts[_HELD] + whole > limits.kv_tokens and counts[_ACTIVE] > 0:
            break
        amounts[_HELD] += whole
        _decode(run, load, request, float(run.since[request]))
        counts[_HEAD] += 1


@numba.njit(cache=True, inline="always")
def _decode(run: _Run, load: Load, request: int, first_token_s: float) -> None:
    """The request, its first token being out, decodes from the next step on."""
    place = (run.counts[_STEP] + _decoded(request, load) - 1) % run.first.shape[0]
    run.following[request] = run.first[place]
    run.first[place] = request
    run.since[request] = first_token_s
    run.amounts[_CONTEXTS] += _length(request, load.input_tokens, load.spread)
    run.counts[_ACTIVE] += 1


@numba.njit(cache=True, inline="always")
def _steps_alone(run: _Run, knots: Knots, until: float) -> int:
    """Steps without prefill, to the next end of an answer or to `until`: time moves on."""
    amounts, counts = run.amounts, run.counts
    active, size = float(counts[_ACTIVE]), run.first.shape[0]
    linear_s = _linear(knots[0], knots[1], active)
    step_s = linear_s + knots[2] * amounts[_CONTEXTS]
    steps = 1
    while run.first[(counts[_STEP] + steps) % size] < 0 and amounts[_NOW] + steps * step_s < until:
        steps += 1
    grown = steps * amounts[_CONTEXTS] + active * (0.5 * steps * (steps - 1))
    amounts[_NOW] += steps * linear_s + knots[2] * grown
    return steps


@numba.njit(cache=True, inline="always")
def _finish(run: _Run, load: Load, steps: int) -> None:
    """So many steps were decoded: contexts grow, answers that end leave, clients ask again."""
    amounts, counts = run.amounts, run.counts
    amounts[_CONTEXTS] += float(counts[_ACTIVE]) * steps
    counts[_STEP] += steps
    place = counts[_STEP] % run.first.shape[0]
    request = int(run.first[place])
    run.first[place] = -1
    while request >= 0:
        length, whole = _length(request, load.input_tokens, load.spread), _decoded(request, load)
        if request >= load.unmeasured:
            amounts[_TPOT] += (amounts[_NOW] - run.since[request]) / (whole - 1)
        amounts[_CONTEXTS] -= length + whole - 1
        amounts[_HELD] -= length + _answer(request, load)
        counts[_ACTIVE] -= 1
        counts[_FINISHED] += 1
        following = counts[_FINISHED] + load.clients - 1
        if following < load.requests:
            run.since[following] = amounts[_NOW]
        request = int(run.following[request])


@numba.njit(cache=True)
def _linear(xs: Array, ys: Array, tokens: float) -> float:
    count = xs.shape[0]
    if count == 1 or tokens <= xs[0]:
        return ys[0]
    place = 1
    while place < count - 1 and xs[place] < tokens:
        place += 1
    slope = (ys[place] - ys[place - 1]) / (xs[place] - xs[place - 1])
    return ys[place - 1] + slope * (tokens - xs[place - 1])


@numba.njit(cache=True)
def _length(request: int, nominal: float, spread: float) -> float:
    share = (request * _GOLDEN) % 1.0
    return max(1.0, np.floor(nominal * (1.0 - spread * share)))


@numba.njit(cache=True)
def _answer(request: int, load: Load) -> float:
    return _length(request + _ANSWER_SHIFT, load.output_tokens, load.spread)


@numba.njit(cache=True, inline="always")
def _decoded(request: int, load: Load) -> int:
    """Tokens of the answer; two at least, so that there is a time between tokens."""
    return max(2, int(_answer(request, load)))
