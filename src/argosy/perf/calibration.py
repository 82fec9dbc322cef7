"""What was learned from measurements, as data: efficiencies, offsets, residuals, intervals.

One JSON file, shipped (`data/calibration.json`), made by `argosy calibrate` from `measurements/`.
Offsets are logarithms of how much slower a group is than the general efficiencies say; a group
that was never measured has none, and its answer a wider interval.
"""

from functools import cache
from pathlib import Path

import msgspec

from argosy.perf.nearness import Neighbours


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Four of five measurements lie between answer x low and answer x high."""

    tpot_low: float
    tpot_high: float
    ttft_low: float
    ttft_high: float


class Widths(msgspec.Struct, frozen=True, kw_only=True):
    """How wide an interval must be, by how like the nearest measured case is (0 to 1).

    `factors` has one entry more than `likeness`, which rises: half the interval's logarithm is
    factor x the error that the neighbours had.
    """

    likeness: tuple[float, ...]
    factors: tuple[float, ...]


class WayOfServing(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregated or disaggregated: what was measured of it."""

    neighbours: Neighbours
    widths_ttft: Widths
    widths_tpot: Widths
    half_ttft_of_unseen_chip: float = 0.0  # logarithm that four of five rows of chips that were
    half_tpot_of_unseen_chip: float = 0.0  # left out kept to: the least for a chip without rows


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a performance answer uses beside datasheets and dimensions."""

    made_from: tuple[str, ...]  # files and how many of their rows
    efficiency: dict[str, float]  # the general ones, by field of `Efficiency`
    engines: dict[str, dict[str, float]]  # factors on some of them, and the fixed part of TTFT
    offsets: dict[str, dict[str, float]]  # of a kind of group ("engine", "chip", ...), by its name
    offsets_ttft: dict[str, dict[str, float]]
    chip_factors: dict[str, dict[str, float]]  # on the general ones, from kernel tables
    chips_kernel_tables: tuple[str, ...]
    chips_end_to_end: tuple[str, ...]
    together: WayOfServing
    apart: WayOfServing
    telemetry_together: Neighbours | None = None  # a user's own rows, on top of all the above
    telemetry_apart: Neighbours | None = None

    def engine_factors(self, engine: str) -> dict[str, float]:
        """Of an engine; of vLLM where it was never measured."""
        return self.engines.get(engine, self.engines["vllm"])


class UnreadableCalibration(ValueError):
    """A calibration file that is not one."""


@cache
def shipped() -> Calibration:
    """The calibration that came with this version."""
    return _decoded(shipped_path().read_bytes())


def shipped_path() -> Path:
    """Where its file is."""
    return Path(__file__).parent / "data" / "calibration.json"


def load(path: Path) -> Calibration:
    """A calibration that was made here. Raises `UnreadableCalibration`."""
    try:
        return _decoded(path.read_bytes())
    except msgspec.DecodeError as error:
        raise UnreadableCalibration(
            f"{path} is no calibration: {error}. Make one: argosy calibrate MY.csv --out {path}"
        ) from error


def _decoded(raw: bytes) -> Calibration:
    return msgspec.json.decode(raw, type=Calibration)
