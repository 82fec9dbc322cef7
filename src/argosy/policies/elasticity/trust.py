"""Which delta is not believed: a chip that computes wrongly in silence shows here. Pure.

By size: norms are compared as norm / sqrt(steps), with the median of all islands' recent ones and
of its own; both must be far exceeded, so that an island that always differs is believed. A small
delta is: the learning rate falls, and a lease may be short; only one of zero, after steps, is not.

By direction: honest cosines with the others are about `usual`, those of turned deltas about
-usual, both with a spread. How much better the second explains an island's last cosines is a sum
over its deltas (the CUSUM of Page 1954); beyond `evidence_max` its last is refused. Where honest
deltas go one way (0.13 to 0.33: docs/TRAINING_PARITY.md) one turned delta is enough. Near an
optimum they are noise about 0.05 (-0.13 to 0.2 in bench.training.churn): no honest one is refused
there, and a chip that turns signs is found after some tens of deltas, which do as little harm.

Who went against the others before is not believed where no other is there to compare with, and is
the one that is wrong where it and another go against each other.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

import msgspec

from argosy.policies.elasticity.views import DeltaSeen, ElasticitySettings

_SIGMA_OF_MAD = 1.4826  # of a normal distribution
_ALIKE = 1e-6  # relative: rounding of the same cosine


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing speaks against it."""


class Distrust(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse it; its blocks are to be leased anew.

    `senseless`: what its island trained after it makes no sense either. `against`: only this delta
    is taken back. `turned`: one of many that went against the others; its island begins anew, and
    ends where that does not help.
    """

    kind: Literal["senseless", "against", "turned"]
    reason: str


class TrustState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered from round to round."""

    recent: tuple[DeltaSeen, ...] = ()  # believed, the newest last
    rounds_doubted: int = 0  # in a row, of which nothing was believed
    # By island: deltas that went against the others while some other was believed, less those
    # since that went along.
    times_against: tuple[tuple[str, int], ...] = ()


def judge(
    state: TrustState,
    deltas: Sequence[DeltaSeen],
    products: Sequence[Sequence[float]],
    settings: ElasticitySettings,
) -> tuple[TrustState, tuple[Trusted | Distrust, ...]]:
    """Of a whole round, in the order given; `products` are the scalar ones of each with each.

    Where nothing is believed for more than `rounds_doubted_max` rounds, the usual has changed, and
    all that is finite is: nobody could else end a run whose norms have changed.
    """
    recent, before = state.recent, dict(state.times_against)
    seen, words = _verdicts(deltas, products, recent, before, settings)
    doubted = 0
    if deltas and not any(isinstance(word, Trusted) for word in words):
        doubted = state.rounds_doubted + 1
    if doubted > settings.rounds_doubted_max:
        doubted, recent = 0, ()
        seen, words = _verdicts(deltas, products, recent, {}, settings)
    believed = [one for one, word in zip(seen, words, strict=True) if isinstance(word, Trusted)]
    kept = (*recent, *believed)[-settings.seen_max :]
    times, words = _counted(before, seen, words, settings)
    return TrustState(recent=kept, rounds_doubted=doubted, times_against=times), words


def _counted(
    times: dict[str, int],
    seen: Sequence[DeltaSeen],
    words: Sequence[Trusted | Distrust],
    settings: ElasticitySettings,
) -> tuple[tuple[tuple[str, int], ...], tuple[Trusted | Distrust, ...]]:
    """How often each has gone against the others; beyond `against_max` it has `turned`.

    Not where nobody was believed: of two alone it cannot be said which is right.
    """
    told = list(words)
    is_any_believed = any(isinstance(word, Trusted) for word in words)
    for at, (delta, word) in enumerate(zip(seen, words, strict=True)):
        before = times.get(delta.island, 0)
        if isinstance(word, Trusted):
            if delta.cosine is not None and delta.cosine > 0:
                times[delta.island] = max(0, before - 1)
        elif word.kind == "against" and is_any_believed:
            times[delta.island] = before + 1
            if before >= settings.against_max:
                reason = f"{word.reason}. It was so {before + 1} times"
                told[at] = Distrust(kind="turned", reason=reason)
    return tuple((island, count) for island, count in times.items() if count), tuple(told)


def _verdicts(
    deltas: Sequence[DeltaSeen],
    products: Sequence[Sequence[float]],
    recent: Sequence[DeltaSeen],
    times_against: Mapping[str, int],
    settings: ElasticitySettings,
) -> tuple[list[DeltaSeen], tuple[Trusted | Distrust, ...]]:
    """Whoever goes against the others most is refused first, and has no vote about the rest.

    Before that, whoever did so in earlier rounds. Of two islands alone a cosine is one of both, and
    without earlier rounds nobody can say which is right.
    """
    words: list[Trusted | Distrust] = [size_trust(delta, recent, settings) for delta in deltas]
    seen = list(deltas)
    while True:
        left = [at for at, word in enumerate(words) if isinstance(word, Trusted)]
        for at in left:
            cosine = cosine_with_others(deltas, products, at, left)
            seen[at] = msgspec.structs.replace(seen[at], cosine=cosine)
        evidence = {at: against(seen[at], recent, settings) for at in left}
        doubted = [at for at in left if evidence[at] > settings.evidence_max]
        if not doubted:
            break
        are_two_alone = len({deltas[at].island for at in left}) == 2
        if are_two_alone:
            doubted = [at for at in left if evidence[at] > 0]
        times = {at: times_against.get(deltas[at].island, 0) for at in doubted}
        worst = [at for at in doubted if times[at] == max(times.values())]
        most = max(evidence[at] for at in worst)
        for at in worst:
            if are_two_alone or evidence[at] >= most * (1 - _ALIKE):
                words[at] = _against(seen[at], evidence[at], settings)
    for at in left:
        if seen[at].cosine is None and times_against.get(deltas[at].island):
            words[at] = _alone(deltas[at])
    return seen, tuple(words)


def size_trust(
    delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings
) -> Trusted | Distrust:
    """By its norm and those that were believed in recent rounds, its own island's among them."""
    if not math.isfinite(delta.norm):
        return Distrust(kind="senseless", reason=f"the delta of {delta.island} is not finite")
    own = [_norm_of_step(seen) for seen in recent if seen.island == delta.island]
    all_of = [_norm_of_step(seen) for seen in recent]
    if len(all_of) < settings.seen_min:
        return Trusted()
    if delta.norm == 0:
        return Distrust(
            kind="senseless",
            reason=f"the delta of {delta.island} is zero after {delta.steps} steps",
        )
    usual = max(median(all_of), median(own) if own else 0.0)
    ratio = _norm_of_step(delta) / usual if usual > 0 else 1.0
    if ratio <= settings.norm_ratio_max:
        return Trusted()
    return Distrust(
        kind="senseless",
        reason=f"the delta of {delta.island} has a norm of {delta.norm:.3g} after "
        f"{delta.steps} steps, {ratio:.2g} times what is usual for all and for it; believed "
        f"is {settings.norm_ratio_max:g} times",
    )


def against(delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings) -> float:
    """Nats by which its island's cosines, this the last, speak for turned signs.

    0 where this one goes along with the others, or it is not known yet what is usual.
    """
    own = [one.cosine for one in recent if one.island == delta.island and one.cosine is not None]
    known = [one.cosine for one in recent if one.island != delta.island and one.cosine is not None]
    if delta.cosine is None or delta.cosine >= 0 or len(known) < settings.seen_min:
        return 0.0
    usual = median(known)
    if usual <= 0:
        return 0.0
    spread = max(
        settings.cosine_noise,
        usual * settings.cosine_spread_min,
        _SIGMA_OF_MAD * median(abs(cosine - usual) for cosine in known),
    )
    evidence = 0.0
    for cosine in (*own, delta.cosine):  # log likelihood: turned over honest, both of one spread
        evidence = max(0.0, evidence - 2 * usual * cosine / spread**2)
    return evidence


def cosine_with_others(
    deltas: Sequence[DeltaSeen], products: Sequence[Sequence[float]], at: int, left: Sequence[int]
) -> float | None:
    """With the sum of the other islands' directions: neither size nor number outvotes anyone.

    `left` are those that have a vote. None: no other island has.
    """
    own = deltas[at].island
    others = [one for one in left if deltas[one].island != own and deltas[one].norm > 0]
    votes = Counter(deltas[one].island for one in others)
    share = {one: 1.0 / (votes[deltas[one].island] * deltas[one].norm) for one in others}
    dot = sum(share[one] * products[at][one] for one in others)
    square = sum(share[a] * share[b] * products[a][b] for a in others for b in others)
    length = deltas[at].norm * math.sqrt(max(0.0, square))
    return dot / length if length > 0 else None


def _against(delta: DeltaSeen, evidence: float, settings: ElasticitySettings) -> Distrust:
    return Distrust(
        kind="against",
        reason=f"the delta of {delta.island} has a cosine of {delta.cosine:.2f} with the others: "
        f"it goes against them. With its last ones that speaks by {evidence:.0f} nats for turned "
        f"signs; believed is up to {settings.evidence_max:g}",
    )


def _alone(delta: DeltaSeen) -> Distrust:
    return Distrust(
        kind="against",
        reason=f"the delta of {delta.island} is of a round without others to compare with, and "
        "its last ones went against the others",
    )


def _norm_of_step(seen: DeltaSeen) -> float:
    return seen.norm / math.sqrt(max(1, seen.steps))
