"""`argosy plan offer --html`: an offer's worth on one page: the price, and the demand curve."""

from html import escape

from argosy.cli.planning import offer as pages
from argosy.cli.planning import page as html
from argosy.cli.planning.moves import moved_bars
from argosy.cli.planning.offer import OfferReport
from argosy.cli.planning.svg import curve
from argosy.cli.planning.words import figure


def offer_html(report: OfferReport) -> str:
    """The whole file."""
    title = f"{report.chips:,} {report.chip} in {report.region}"
    return html.page(
        f"{report.fleet}: {title}",
        [
            html.head(f"{title}: what are they worth?", pages.headline(report)),
            _tiles(report),
            _curve(report),
            _displaced(report),
            _losses(report),
            html.section("How it was found", html.items(pages.notes(report))),
        ],
    )


def _tiles(report: OfferReport) -> str:
    found = [(f"{figure(report.break_even_usd)} USD", "per chip-hour is the break-even price")]
    low, high = report.break_even_usd_low, report.break_even_usd_high
    if low is not None and high is not None and figure(low) != figure(high):
        found.append((f"{figure(low)} to {figure(high)}", "with the rates' 80 % interval"))
    if report.price_usd is not None:
        verdict = "worth it" if report.is_worth_it else "not worth it"
        found.append((verdict, f"at {report.price_usd:,.2f} USD per chip-hour"))
        found.append((f"{report.chips_worth or 0:,}", "chips are worth renting at that price"))
    worth = next((one for one in report.curve if one.chips == report.chips), None)
    if worth is not None:
        told = f"{worth.value_usd_per_hour:,.0f} USD"
        found.append((told, "an hour is what they save at price 0"))
    return html.tiles(found)


def _curve(report: OfferReport) -> str:
    """Break-even of so many chips, with its range, and the price that is asked for."""
    if not report.curve:
        return ""
    points = [(float(one.chips), one.break_even_usd) for one in report.curve]
    band = [
        (float(one.chips), one.break_even_usd_low, one.break_even_usd_high)
        for one in report.curve
        if one.break_even_usd_low is not None and one.break_even_usd_high is not None
    ]
    steps = [(float(one.chips), one.marginal_usd) for one in report.curve]
    level = None
    if report.price_usd is not None:
        level = report.price_usd, f"asked: {report.price_usd:,.2f}"
    picture = curve(
        points, band=band, steps=steps, level=level, unit_x="chips", unit_y="USD per chip-hour"
    )
    key = [("all or none, with the rates' 80 % interval", "var(--accent)")]
    told = (
        "A price below the blue line pays for so many together; one below the steps pays for the "
        "last of them too, which is how many to rent at that price."
    )
    heads = (
        "Chips",
        "Nodes",
        "Break-even, USD/chip-h",
        "The last of them",
        "Worth, USD/h",
        "Open, +-",
    )
    return html.section(
        "Price against how many are worth renting",
        html.legend(key, [("the last of them: the demand curve", False)]),
        picture,
        html.note(told),
        html.table(heads, pages.curve_rows(report)),
        html.note(pages.bids_text(report)),
    )


def _displaced(report: OfferReport) -> str:
    if not report.displaced:
        return html.section("What it displaces", html.text("Nothing: no plan would use it."))
    chips = moved_bars(
        (
            (one.pool, one.chip, one.chips_mean_without, one.chips_mean_with)
            for one in report.displaced
        ),
        before="without the offer",
        after="with it",
    )
    heads = ("Pool", "Chip", "Chips in use", "With it", "USD/h", "With it")
    return html.section(
        "What it displaces",
        html.bars(chips),
        html.table(heads, pages.displaced_rows(report)),
        html.note(
            f"All of the offer is paid {pages.paid_text(report)} per chip-hour. Chips in use on "
            "average; those of the offer that serve nothing are not counted."
        ),
    )


def _losses(report: OfferReport) -> str:
    said = pages.survival_text(report)
    rows = pages.losses_rows(report)
    if not rows and not said:
        return ""
    heads = ("Lost", "", "Still served without it", "With it")
    return html.section(
        "What it does to a loss",
        f"<p>{escape(said)}</p>" if said else "",
        html.table(heads, rows),
    )
