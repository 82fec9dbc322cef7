"""`argosy catalogue`: chips, their prices, and models; each number with its source.

What is printed is made in `catalogue_pages.py`.
"""

from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
import typer

from argosy.cli.running import refuse
from argosy.cli.state import now_s


def catalogue(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="One chip, or one model, and all about it.", show_default=False
        ),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Models and their dimensions instead of chips.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show what chips can do, what they cost where, and who says so.

    Try:

      argosy catalogue

      argosy catalogue H100-SXM

      argosy catalogue --models
    """
    from argosy.fleet.catalogue import NotInCatalogue

    try:
        if models:
            _models(name, as_json=as_json)
        else:
            _chips(name, today=datetime.fromtimestamp(now_s(), UTC).date(), as_json=as_json)
    except NotInCatalogue as error:
        refuse(str(error))


def _chips(name: str | None, *, today: date, as_json: bool) -> None:
    from argosy.cli import catalogue_pages as pages
    from argosy.fleet.catalogue import chip, chips

    if name is None:
        lines = [pages.chip_line(one, today) for one in chips()]
        if as_json:
            _print_json(lines)
        else:
            pages.print_chips(lines)
        return
    page = pages.chip_page(chip(name), today)
    if as_json:
        _print_json(page)
    else:
        pages.print_chip(page)


def _models(name: str | None, *, as_json: bool) -> None:
    from argosy.cli import catalogue_pages as pages
    from argosy.fleet.architectures import architecture, architectures

    if name is None:
        lines = [pages.model_line(one) for one in architectures()]
        if as_json:
            _print_json(lines)
        else:
            pages.print_models(lines)
        return
    line = pages.model_line(architecture(name))
    if as_json:
        _print_json(line)
    else:
        pages.print_model(line)


def _print_json(what: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(what), indent=2))
