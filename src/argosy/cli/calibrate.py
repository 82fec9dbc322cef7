"""`argosy calibrate`: makes the performance model's calibration, and checks it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from argosy.cli.running import refuse
from argosy.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.perf.calibration import Calibration
    from argosy.perf.check import Check, Errors

_REFUSED_SHOWN = 5
_REPORT = Path("docs/accuracy.md")


def calibrate(
    rows: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MY.csv]",
            help="Your own load tests, put on top of the shipped; with --local, a fleet file.",
        ),
    ] = None,
    *,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Time the llama.cpp replicas of this machine: two to three minutes."
        ),
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer its rows and print the errors; changes nothing."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use this calibration, not the shipped one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write the calibration; without MY.csv, over the shipped one.",
        ),
    ] = None,
    measurements: Annotated[
        Path, typer.Option(metavar="DIR", help="The measurements to make the shipped one from.")
    ] = Path("measurements"),
    report: Annotated[
        bool, typer.Option("--report", help="Besides, write its accuracy to docs/accuracy.md.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Calibrate the performance model on measured load tests, or check it against some.

    With MY.csv: puts its rows on top of the shipped calibration (seconds). With --check: prints how
    wrong the answers to a file's rows are. With neither: makes the shipped calibration anew, same
    measurements same bytes (six to ten minutes).

    Try:

      argosy calibrate --check measurements/silicon_ttft_tpot.csv.gz

      argosy calibrate MY.csv --out mine.json

      argosy calibrate --local

      argosy calibrate --report
    """
    if local:
        _measure_local(rows)
        return
    from argosy.perf.calibration import UnreadableCalibration
    from argosy.perf.measured_rows import UnreadableTable

    try:
        if check is not None:
            _check(check, calibration, as_json=as_json)
        elif rows is not None:
            _add(rows, calibration, out)
        else:
            _make(measurements, out, report=report)
    except (UnreadableTable, UnreadableCalibration, FileNotFoundError) as error:
        refuse(str(error))


def _measure_local(file: Path | None) -> None:
    """What the llama.cpp deployments of a fleet do here, kept for `argosy simulate`."""
    from argosy.cli.fetch import local_weights
    from argosy.cli.files import read_fleet
    from argosy.cli.measuring_local import MeasuringError, calibrate_local
    from argosy.cli.state import default_state_dir
    from argosy.launchers.local import ReplicaEndedError
    from argosy.launchers.port import LaunchError
    from argosy.perf.local import FILE, UnreadableLocalCalibrationError

    fleet, state = read_fleet(file), default_state_dir()
    try:
        made = calibrate_local(fleet, weights=local_weights(fleet), state=state, say=_progress())
    except (
        MeasuringError, LaunchError, ReplicaEndedError, UnreadableLocalCalibrationError
    ) as error:  # fmt: skip
        refuse(str(error))
    for one in made:
        step = one.step_time
        typer.echo(
            f"{one.model}: {step.step_s(tokens=1) * 1000:.1f} ms a step of one token, "
            f"{step.step_s(tokens=256) * 1000:.0f} ms of 256; kept in {state / FILE}"
        )


def _check(file: Path, calibration: Path | None, *, as_json: bool) -> None:
    from argosy.perf.answers import Answers
    from argosy.perf.check import check
    from argosy.perf.measured_rows import read_table

    measured, refused = read_table(file)
    found = check(measured, refused, Answers(_calibration(calibration)))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(flat(found)), indent=2).decode())
    else:
        _print_check(found)
    if found.errors is None:
        refuse(f"{file}: none of its {found.rows_refused} rows can be answered")


def _add(rows: Path, calibration: Path | None, out: Path | None) -> None:
    from argosy.perf.fit.telemetry import with_telemetry
    from argosy.perf.measured_rows import UnreadableTable, read_table

    if out is None:
        raise typer.BadParameter("say where the calibration goes: --out mine.json")
    measured, refused = read_table(rows)
    if not measured:
        raise UnreadableTable(
            f"{rows}: none of its {len(refused)} rows can be used; line {refused[0].line}: "
            f"{refused[0].reason}"
        )
    for one in refused[:_REFUSED_SHOWN]:
        typer.echo(f"{rows}:{one.line}  refused: {one.reason}", err=True)
    learned = with_telemetry(_calibration(calibration), measured)
    out.write_bytes(msgspec.json.encode(learned))
    typer.echo(f"{out}: {len(measured)} rows on top, {len(refused)} refused")


def _make(measurements: Path, out: Path | None, *, report: bool) -> None:
    from argosy.perf.calibration import shipped_path
    from argosy.perf.fit.make import make_from_folder

    target = shipped_path() if out is None else out
    made = make_from_folder(measurements, _progress())
    raw = made.encoded()
    is_same = target.exists() and target.read_bytes() == raw
    target.write_bytes(raw)
    typer.echo(f"{target}: {'unchanged' if is_same else 'written'}, {len(raw)} bytes")
    if report:
        from argosy.perf.fit.report import report_text

        _REPORT.write_text(report_text(made, measurements))
        typer.echo(f"{_REPORT}: written")


def _calibration(file: Path | None) -> "Calibration":
    from argosy.perf.calibration import load, shipped

    return shipped() if file is None else load(file)


def _progress() -> "Callable[[str, float], None]":
    """A bar on stderr where it is a terminal; a line for each tenth elsewhere."""
    shown = -1

    def say(what: str, share: float) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            bar = "#" * round(30 * share)
            typer.echo(f"\r[{bar:<30}] {share:4.0%}  {what:<48}", err=True, nl=share >= 1.0)
        elif int(10 * share) > shown:
            shown = int(10 * share)
            typer.echo(f"{share:4.0%}  {what}", err=True)

    return say


def flat(found: "Check") -> dict[str, object]:
    """The check with its overall errors on the top level."""
    overall = {} if found.errors is None else msgspec.structs.asdict(found.errors)
    rest = {
        name: value for name, value in msgspec.structs.asdict(found).items() if name != "errors"
    }
    return {**overall, **rest}


def _print_check(found: "Check") -> None:
    typer.echo(f"{found.rows_answered} rows answered, {found.rows_refused} refused")
    for reason, count in list(found.refused.items())[:_REFUSED_SHOWN]:
        typer.echo(f"  {count} x {reason}")
    if found.rows_measured:
        typer.echo(
            f"  {found.rows_measured} of them are among those that the calibration was made from:"
            " no proof of anything; docs/accuracy.md has errors on rows that were left out"
        )
    if found.errors is None:
        return
    lines = [_cells("all", found.errors)]
    for group in (found.by_way, found.by_chip, found.by_engine):
        lines += [_cells(name, errors) for name, errors in group.items()]
    print_table(
        ["rows of", "rows", *(f"{what} {how}" for what in ("TPOT", "TTFT") for how in _HOW)], lines
    )


_HOW = ("median", "mean", "p90", "inside 80 %")


def _cells(name: str, errors: "Errors") -> list[object]:
    shares = (
        errors.tpot_median_error,
        errors.tpot_mean_error,
        errors.tpot_p90_error,
        errors.tpot_interval_coverage,
        errors.ttft_median_error,
        errors.ttft_mean_error,
        errors.ttft_p90_error,
        errors.ttft_interval_coverage,
    )
    return [name, errors.rows, *(f"{share:.1%}" for share in shares)]
