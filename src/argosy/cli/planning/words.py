"""Numbers of a plan as a person reads them: money, shares, rates, counts."""

from collections.abc import Sequence

_NOTHING = 5e-6  # a solver's zero


def percent_or_none(share: float | None) -> str:
    """A dash for what nobody asked for."""
    return "-" if share is None else percent(share)


def usd(value: float) -> str:
    """1,234 USD; 12.34 M USD; 1.234 B USD."""
    return f"{money(value)} USD"


def money(value: float) -> str:
    """The same without the unit, for a column that has it on top."""
    size = abs(value)
    if size < 1e6:
        return f"{value:,.0f}" if size >= 100 or not size else f"{value:,.2f}"
    unit, word = next((pair for pair in _LARGE if size >= pair[0]), _LARGE[-1])
    return f"{figure(value / unit, 4)} {word}"


_LARGE = ((1e12, "T"), (1e9, "B"), (1e6, "M"))


def money_or_none(value: float | None) -> str | None:
    """As `money`."""
    return None if value is None else money(value)


def price(value: float | None) -> str | None:
    """Of a chip-hour."""
    return None if value is None else f"{value:,.2f}"


def figure(value: float, digits: int = 3) -> str:
    """So many significant digits, never in powers of ten."""
    if abs(value) < _NOTHING:
        return "0"
    decimals = 0
    while decimals < 6 and abs(value) * 10**decimals < 10 ** (digits - 1):
        decimals += 1
    return f"{value:,.{decimals}f}"


def number(value: float) -> str:
    """A count that may be an average."""
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:,.1f}"


def tokens(count: float) -> str:
    """12 B; 1,957 B; 3.2 M."""
    unit, word = (1e9, "B") if count >= 1e9 else (1e6, "M")
    return f"{figure(count / unit)} {word}"


def percent(share: float) -> str:
    """Never 100 % of what is not all, nor 0 % of what is not nothing."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share > 1:
        return f"{share:.0%}"
    if share < 0.0005:
        return "<0.1%"
    shown = min(share, 0.9994)
    return f"{shown:.1%}"


def some(names: Sequence[str], most: int = 3) -> str:
    """a, b, c and 4 more."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def plural(count: float, noun: str) -> str:
    """1 node, 2 nodes: the noun alone."""
    return noun if count == 1 else f"{noun}s"
