"""How pools are used before something and after it, as bars: for offers and for what-ifs."""

from collections.abc import Iterable

from argosy.cli.planning import page as html
from argosy.cli.planning.words import number


def moved_bars(
    pools: Iterable[tuple[str, str, float, float]], *, before: str, after: str
) -> list[html.Bar]:
    """Two bars for each pool (name, chip, chips in use before, and after)."""
    return [
        bar
        for pool, chip, chips_before, chips_after in pools
        for bar in (
            html.Bar(
                name=pool,
                under=f"{chip}, {before}",
                pieces=((html.REST, chips_before),),
                value=f"{number(chips_before)} chips",
            ),
            html.Bar(
                name="",
                under=after,
                pieces=(("var(--accent)", chips_after),),
                value=f"{number(chips_after)} chips",
            ),
        )
    ]
