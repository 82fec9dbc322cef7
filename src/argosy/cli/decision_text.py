"""One routing decision as a person reads it: the candidates with their scores, and why that one.

Says what the decision holds and what follows from it; takes none.
"""

import typer

from argosy.cli.tables import print_table
from argosy.gateway.explain import Routing
from argosy.policies.routing import Decision, ReplicaView, Score
from argosy.policies.routing.predicted import TIE_S, TIE_SHARE

_PARTS = ("wait", "queued", "prompt", "base", "price", "total")  # seconds
_HEADINGS = ("", "replica", "load", *_PARTS, "spared")
LEGEND = (
    "load: requests in flight per slot; spared: prompt bytes counted as cached; the rest: seconds"
)


def print_decision(routing: Routing, *, number: int, count: int) -> None:
    """To stdout."""
    decided = routing.decision
    which = f"Decision {number} of {count}" if count > 1 else "Decision"
    asked = f"policy {decided.policy}, prompt of {decided.request.prompt_bytes} bytes"
    typer.echo(f"{which} after {routing.after_s:.3f} s: {asked}")
    if decided.scores:
        print_table(_HEADINGS, [_row(score, decided) for score in _ranked(decided)])
    for line in _words(routing):
        typer.echo(line)


def _ranked(decided: Decision) -> list[Score]:
    """The chosen one first, then by what was predicted."""
    return sorted(
        decided.scores,
        key=lambda score: (score.replica != decided.chosen, score.total_s, score.replica),
    )


def _row(score: Score, decided: Decision) -> tuple[object, ...]:
    return (
        "->" if score.replica == decided.chosen else "",
        score.replica,
        score.load,
        *(getattr(score, f"{part}_s") for part in _PARTS),
        score.spared_bytes,
    )


def _words(routing: Routing) -> list[str]:
    decided = routing.decision
    words = [f"No replica: {decided.reason}."]
    if decided.chosen is not None:
        words = [f"Chosen {decided.chosen}: {decided.reason}."]
        if decided.policy == "predicted":
            words += _ties(decided)
        else:
            words.append("The scores are what `predicted` would have compared.")
    words += _left_out(decided)
    words += _unspared(decided)
    if routing.replays:
        words.append(f"Replayed through {decided.policy}: the same answer.")
    else:
        words.append(f"REPLAYED THROUGH {decided.policy}: ANOTHER ANSWER. This is a bug in Argosy.")
    return words


def _ties(decided: Decision) -> list[str]:
    """Where not the prediction alone decided."""
    least_s = min(score.total_s for score in decided.scores)
    equals = [s for s in decided.scores if s.total_s <= least_s * TIE_SHARE + TIE_S]
    if len(equals) < 2:
        return []
    least = min(score.load for score in equals)
    last = [score.replica for score in equals if score.load == least]
    margin = f"{TIE_SHARE - 1:.0%} and {TIE_S * 1000:g} ms"
    told = f"{len(equals)} predictions are equal within {margin}"
    if len(last) == 1:
        return [f"{told}; {last[0]} has the least load of these."]
    return [f"{told}; the {len(last)} with the least load ({', '.join(last)}) take turns."]


def _left_out(decided: Decision) -> list[str]:
    """The replicas that were no candidates."""
    able = {score.replica for score in decided.scores}
    out = [view for view in decided.replicas if view.replica not in able]
    if not out:
        return []
    return ["No candidates: " + ", ".join(_why_out(view, decided) for view in out) + "."]


def _why_out(view: ReplicaView, decided: Decision) -> str:
    whys: list[str] = []
    if view.replica in decided.tried:
        whys.append("has been tried")
    if not view.is_ready:
        whys.append("is not trusted now")
    return f"{view.replica} ({' and '.join(whys) or 'others are better'})"


def _unspared(decided: Decision) -> list[str]:
    """Caches that did not count, because whoever has them is too busy."""
    cached = decided.request.cached
    lost = [s for s in decided.scores if cached.get(s.replica) and not s.spared_bytes]
    bound = decided.tuning.affinity_load_max
    return [
        f"The {cached[score.replica]} prompt bytes cached on {score.replica} do not count: its "
        f"load is more than {bound:g} above the least."
        for score in lost
    ]
