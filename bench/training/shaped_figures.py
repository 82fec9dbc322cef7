"""What the study of `shaped.py` says in numbers: its ways' names, its curves, its table. Pure."""

from itertools import pairwise

import msgspec

NAMES = ("amber", "basalt")
CONTEXT = 256

Curve = list[list[float]]  # seconds, tokens, loss; from 0 on


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One of data parallelism."""

    name: str
    blocks: int  # of a step of all ranks
    is_all: bool = False  # all tokens of the islands; else as many as their time has room for
    lr: float | None = None  # None: that of the islands
    is_halved: bool = False  # gradients travel as float16


def way_of(text: str) -> Way:
    """As `shaped.py` tells how to write it. Raises ValueError."""
    blocks, *rest = text.split(",")
    asked = {name: value for name, _, value in (one.partition("=") for one in rest)}
    return Way(
        name=text,
        blocks=int(blocks.removesuffix(":all")),
        is_all=blocks.endswith(":all"),
        lr=float(asked["lr"]) if "lr" in asked else None,
        is_halved="fp16" in asked,
    )


def per_token(links: dict[str, dict[str, int]], blocks: int) -> float:
    """Bytes up and down of an island's or rank's link, their mean, over the tokens of all."""
    total = sum(sum(links[name].values()) for name in NAMES)
    return round(total / len(NAMES) / (blocks * CONTEXT), 1)


def loss_at(curve: Curve, at_s: float) -> float:
    """Of the last point until then."""
    return [loss for when_s, _, loss in curve if when_s <= at_s + 0.5][-1]


def seconds_to(curve: Curve, loss: float) -> float | None:
    """Between two points on the straight line; None: it did not get there."""
    for (from_s, _, before), (at_s, _, now) in pairwise(curve):
        if now <= loss < before:
            return round(from_s + (before - loss) / (before - now) * (at_s - from_s), 1)
    return None


def told(name: str, found: dict) -> str:
    """A line of progress."""
    return (
        f"{name}: loss {found['loss']:.3f} after {found['ended_s']:.0f} s and {found['tokens']:,} "
        f"tokens; {found['bytes_per_token']:,.0f} bytes a token; others used "
        f"{found['others_cores']:.2f} cores"
    )


def table(report: dict) -> None:
    """What came out."""
    islands = report["islands"]
    heads = f"{'s':>6} {'tokens':>9} {'loss':>7} {'then':>7} {'to theirs':>9} {'B/token':>8}"
    print(f"{'way':20} {heads}")
    rows = [("islands", islands | {"loss_at_equal_time": islands["loss"]})]
    rows += [(row["way"]["name"], row) for row in report["data_parallel"]]
    for name, row in rows:
        reached = row.get("seconds_to_islands_loss")
        print(
            f"{name:20} {row['ended_s']:6.0f} {row['tokens']:9,} {row['loss']:7.3f} "
            f"{row['loss_at_equal_time']:7.3f} {'-' if reached is None else f'{reached:.0f} s':>9} "
            f"{row['bytes_per_token']:8,.0f}"
        )
