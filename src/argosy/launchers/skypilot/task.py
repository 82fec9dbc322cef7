"""What one replica rents and runs, as the task that SkyPilot is given; and such a task read again.

A task bears whose it is in its environment, by which another control plane knows it. Pure.
"""

import shlex

import msgspec
import yaml

from argosy.fleet import command_lines, rented
from argosy.fleet.config import EngineConfig, SglangEngine, VllmEngine
from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.port import LaunchError
from argosy.launchers.skypilot.cell import Cell
from argosy.perf.engine_settings import settings_of

_HOST = "0.0.0.0"
_KEY = "ARGOSY_ENGINE_KEY"
_INSTALLED = "$HOME/argosy-engine"
EXITED = "exited with status"  # the last line of a job that ended, before the number


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a task is."""

    fleet: str = msgspec.field(name="ARGOSY_FLEET")
    pool: str = msgspec.field(name="ARGOSY_POOL")
    replica: str = msgspec.field(name="ARGOSY_REPLICA")
    generation: str = msgspec.field(name="ARGOSY_GENERATION")
    chips: str = msgspec.field(name="ARGOSY_CHIPS")  # variables are text


def task(spec: ReplicaSpec, cell: Cell, *, key: str | None) -> str:
    """As YAML; `key` is what the replica asks of whoever speaks to it. Raises LaunchError."""
    launcher, words = cell.launcher, _command(spec, cell)
    ours = Ours(
        fleet=spec.fleet,
        pool=spec.pool,
        replica=spec.name,
        generation=spec.generation,
        chips=str(spec.chips),
    )
    env = {} if spec.command is None else dict(spec.command.env)
    told: dict[str, object] = {
        "name": cell.cluster(spec.name),
        "resources": _resources(spec, cell),
        "envs": {**env, **msgspec.to_builtins(ours)},
        "run": _run(words, has_key=key is not None and spec.command is None),
    }
    if key is not None:
        told["secrets"] = {_KEY: key}
    if launcher.image is None and spec.command is None:
        package = rented.package(_kind(spec.engine), cell.maker)
        told["setup"] = (
            f'set -e\npython3 -m venv "{_INSTALLED}"\n'
            f'"{_INSTALLED}/bin/pip" install --quiet {shlex.quote(package or "")}\n'
        )
    return yaml.safe_dump(told, sort_keys=False, width=1000)


def read(text: str | None) -> Ours | None:
    """Whose the task is; None where it does not say."""
    try:
        told = yaml.safe_load(text or "")
        return msgspec.convert(told["envs"], Ours)
    except (yaml.YAMLError, KeyError, TypeError, msgspec.ValidationError):
        return None


def _resources(spec: ReplicaSpec, cell: Cell) -> dict[str, object]:
    told: dict[str, object] = {"infra": cell.region}
    try:
        taken = rented.accelerators(cell.chip, spec.chips, name=cell.launcher.accelerators)
    except KeyError as error:
        what = f"{spec.name}: what SkyPilot calls {cell.chip} is not known here."
        raise LaunchError(f"{what} Write launcher.accelerators of pool {cell.pool}") from error
    if taken is not None:
        told["accelerators"] = taken
    told |= {"use_spot": cell.is_spot, "ports": [cell.launcher.port]}
    if cell.launcher.image is not None:
        told["image_id"] = f"docker:{cell.launcher.image}"
    return told


def _run(words: list[str], *, has_key: bool) -> str:
    line = " ".join(word if word.startswith('"$') else shlex.quote(word) for word in words)
    if has_key:
        line += f' --api-key "${_KEY}"'
    return f'{line}\nstatus=$?\necho "{EXITED} $status"\nexit $status\n'


def _command(spec: ReplicaSpec, cell: Cell) -> list[str]:
    """Raises LaunchError."""
    if spec.command is not None:  # the caller's own program in the caller's own image
        if cell.launcher.image is None:
            told = f"{spec.name}: its command is a program of ours, on no machine's image."
            raise LaunchError(f"{told} Write launcher.image of pool {cell.pool}")
        return list(spec.command.argv)
    engine, is_image = spec.engine, cell.launcher.image is not None
    if not is_image and rented.package(_kind(engine), cell.maker) is None:
        told = f"{spec.name}: how {_kind(engine)} is installed for {cell.chip} is not known here."
        raise LaunchError(f"{told} Write launcher.image of pool {cell.pool}")
    match engine:
        case VllmEngine():
            program = ["vllm"] if is_image else [f'"{_INSTALLED}/bin/vllm"']
            return [*program, "serve", *command_lines.vllm(engine, _asked(spec, cell, engine))]
        case SglangEngine():
            program = ["python3"] if is_image else [f'"{_INSTALLED}/bin/python3"']
            flags = command_lines.sglang(engine, _asked(spec, cell, engine))
            return [*program, "-m", "sglang.launch_server", *flags]
        case _:
            told = f"{spec.name}: {_kind(engine)} is not run on rented machines."
            raise LaunchError(f"{told} Deploy vllm or sglang on pool {cell.pool}")


def _asked(spec: ReplicaSpec, cell: Cell, engine: VllmEngine | SglangEngine) -> command_lines.Asked:
    """Raises LaunchError."""
    why = command_lines.why_not(engine, spec.layout, chip=cell.chip, maker=cell.maker)
    if why:
        raise LaunchError(f"{spec.name}: {why}")
    return command_lines.Asked(
        model=spec.model,
        weights=cell.weights.get(spec.model, spec.model),
        layout=spec.layout,
        chip=cell.chip,
        prefill_tokens_max=settings_of(engine).prefill_tokens_max,
        address=(_HOST, str(cell.launcher.port)),
    )


def _kind(engine: EngineConfig) -> str:
    return str(engine.__struct_config__.tag)
