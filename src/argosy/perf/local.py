"""What was measured of replicas on this very machine: a calibration for one deployment.

Made by `argosy calibrate --local` (measured in `cli/measuring_local.py`, fitted in `local_fit.py`),
kept in the user's state folder, read by `argosy simulate`. It holds for this machine, this
model, so many threads and slots, and for nothing else.
"""

from pathlib import Path

import msgspec

from argosy.fleet.config import LlamaCppEngine, SimulatedEngine
from argosy.perf.calibration import Interval
from argosy.perf.replica import ReplicaModel
from argosy.perf.step_time import StepTime

FILE = "local-calibration.json"  # in the state folder
PREFILL_TOKENS_MAX = 1024  # of one step, as the llama.cpp replica is started


class Residuals(msgspec.Struct, frozen=True, kw_only=True):
    """Relative errors of the fitted step times, of the points that it was fitted to."""

    points: int
    median: float
    p90: float


class LocalCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the replicas of one deployment."""

    deployment: str
    engine: str  # "llama.cpp"
    engine_version: str
    model: str
    replicas: int  # that were up, this one included
    threads: int  # of each
    slots: int
    context_tokens: int
    prefill_tokens_max: int = PREFILL_TOKENS_MAX
    step_time: StepTime  # while the other replicas are idle, on average
    pace: float = 1.0  # that average over the fastest: much above 1 on an unsteady machine
    slowdown: float  # factor on it while all the others are busy; 1 at least, on average
    overhead_s: float  # of a request, before its first step: HTTP, template, tokenizer
    interval: Interval
    residuals: Residuals
    measured_on: str  # ISO date
    cpu: str
    cores: int
    load_before: float  # of the machine, without what was measured
    seconds: float  # that measuring took

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What it holds for: model, slots, context and replicas together."""
        return self.model, self.slots, self.context_tokens, self.replicas

    def replica_model(self) -> ReplicaModel:
        """As the simulator takes it. Chips and their power are not known."""
        return _model(
            self.step_time, self.context_tokens * self.slots, self.overhead_s, self.interval
        )


class LocalCalibrations(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that were made on this machine."""

    deployments: tuple[LocalCalibration, ...] = ()

    def of(self, model: str, engine: LlamaCppEngine, replicas: int) -> LocalCalibration | None:
        """The one for so many such replicas; None: they were never measured."""
        wanted = (model, engine.slots, engine.context_tokens, replicas)
        for one in self.deployments:
            is_alike = engine.threads is None or one.threads == engine.threads
            if one.key == wanted and is_alike:
                return one
        return None

    def with_(self, made: LocalCalibration) -> "LocalCalibrations":
        """These and a new one, which takes the place of one for the same."""
        kept = tuple(one for one in self.deployments if one.key != made.key)
        return LocalCalibrations(deployments=(*kept, made))


class UnreadableLocalCalibrationError(ValueError):
    """A file that holds no local calibrations."""


def load_local(path: Path) -> LocalCalibrations:
    """Those in the file; none where there is no file. Raises UnreadableLocalCalibrationError."""
    if not path.exists():
        return LocalCalibrations()
    try:
        return msgspec.json.decode(path.read_bytes(), type=LocalCalibrations)
    except msgspec.DecodeError as error:
        raise UnreadableLocalCalibrationError(
            f"{path} holds no local calibration: {error}. Make it anew: argosy calibrate --local"
        ) from error


def save_local(path: Path, calibrations: LocalCalibrations) -> None:
    """Write the file whole, beside and then over the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(calibrations), indent=1))
    beside.replace(path)


def of_given_rates(engine: SimulatedEngine) -> ReplicaModel:
    """A simulated replica, whose rates the fleet file gives.

    It decodes each request at its rate however many there are. Nearly so here: it also reads
    prompts beside each other and beside decoding, where a step of a `StepTime` does one after the
    other.
    """
    token_s, prompt_s = 1.0 / engine.decode_tokens_per_s, 1.0 / engine.prefill_tokens_per_s
    slots = float(engine.slots)
    step_time = StepTime(
        knots_tokens=(1.0, slots + 1.0, slots + 2.0),
        knots_s=(token_s, token_s, token_s + prompt_s),
        context_s_per_token=0.0,
        pair_s=0.0,
    )
    sure = Interval(tpot_low=1.0, tpot_high=1.0, ttft_low=1.0, ttft_high=1.0)
    return _model(step_time, engine.context_tokens * engine.slots, 0.0, sure)


def _model(
    step_time: StepTime, kv_tokens: int, overhead_s: float, interval: Interval
) -> ReplicaModel:
    return ReplicaModel(
        step_time=step_time,
        kv_tokens=kv_tokens,
        chips=1,
        weights_bytes=0.0,
        overhead_s=overhead_s,
        rung="telemetry",
        uncalibrated=False,
        interval=interval,
        power_w_idle=None,
        power_w_busy=None,
    )
