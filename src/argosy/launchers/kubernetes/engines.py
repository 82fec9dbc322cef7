"""The program in a replica's container: its image, and its command line from layout and engine.

What an engine is told wherever it runs is in `fleet/command_lines.py`; how its nodes meet, here.
"""

import shlex

from argosy.fleet import command_lines
from argosy.fleet.config import SglangEngine, VllmEngine
from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.port import LaunchError
from argosy.perf.engine_settings import settings_of

# Images by engine and maker, tagged by a version where its documentation names one:
_IMAGES: dict[tuple[str, str], str] = {
    # kubernetes-sigs/lws, docs/examples/leaderworkerset/basic/vllm.yaml
    ("vllm", "NVIDIA"): "vllm/vllm-openai:v0.28.0",
    # vLLM, "Installation: AMD ROCm"; v0.23.0 is the version of AMD's own vLLM page
    ("vllm", "AMD"): "vllm/vllm-openai-rocm:v0.23.0",
    # vLLM TPU, "Installation": no tag but latest is named there
    ("vllm", "Google"): "vllm/vllm-tpu:latest",
    # kubernetes-sigs/lws, docs/examples/leaderworkerset/basic/sglang.yaml
    ("sglang", "NVIDIA"): "lmsysorg/sglang:v0.5.18",
}
# SGLang's docker/rocm.Dockerfile: an image a generation of chips
_SGLANG_AMD = {
    "MI300X": "lmsysorg/sglang:v0.5.14-rocm720-mi30x",
    "MI325X": "lmsysorg/sglang:v0.5.14-rocm720-mi30x",
    "MI355X": "lmsysorg/sglang:v0.5.14-rocm700-mi35x",
}
# AWS's image for Trn2 and Trn3 is pytorch-inference-vllm-neuronx (Neuron documentation 2.33.0,
# "Install PyTorch via Deep Learning Container"). It is in a registry of AWS's own: the fleet file
# names it.

_SGLANG_PORT = 20000  # where ranks meet: kubernetes-sigs/lws, the same example
# kubernetes-sigs/lws, docs/examples/vllm/TPU/lws.yaml
_RAY_SCRIPT = "/workspace/vllm/examples/online_serving/multi-node-serving.sh"


def image(spec: ReplicaSpec, cell: Cell) -> str:
    """The container's image. Raises LaunchError where none is known."""
    if cell.launcher.image is not None:
        return cell.launcher.image
    kind = str(spec.engine.__struct_config__.tag)
    known = _IMAGES.get((kind, cell.maker or ""))
    if kind == "sglang" and cell.maker == "AMD":
        known = _SGLANG_AMD.get(cell.chip or "")
    if known is None:
        told = f"{spec.name}: no image is known that runs {kind} on {cell.chip or 'no chip'}."
        raise LaunchError(f"{told} Write launcher.image of pool {cell.pool}")
    return known


def command(spec: ReplicaSpec, cell: Cell, *, nodes: int, leads: bool) -> list[str]:
    """The container's command: of the pod that is spoken to where `leads`, else of its helpers.

    Raises LaunchError.
    """
    if spec.command is not None:  # the caller's own program in the caller's own image
        if cell.launcher.image is None:
            told = f"{spec.name}: its command is a program of ours, in no engine's image."
            raise LaunchError(f"{told} Write launcher.image of pool {cell.pool}")
        return list(spec.command.argv)
    match spec.engine:
        case VllmEngine():
            return _vllm(spec, cell, spec.engine, nodes=nodes, leads=leads)
        case SglangEngine():
            return _sglang(spec, cell, spec.engine, nodes=nodes, leads=leads)
        case _:
            kind = spec.engine.__struct_config__.tag
            told = f"{spec.name}: {kind} is not run on Kubernetes."
            raise LaunchError(f"{told} Deploy vllm or sglang on pool {cell.pool}")


def _vllm(
    spec: ReplicaSpec, cell: Cell, engine: VllmEngine, *, nodes: int, leads: bool
) -> list[str]:
    layout = spec.layout
    if nodes > 1 and (layout.dp > 1 or cell.maker == "AWS"):
        told = f"{spec.name}: vllm with dp = {layout.dp} on {cell.chip} does not span nodes."
        raise LaunchError(f"{told} What works: tp x pp over nodes of NVIDIA, AMD or Google chips")
    words = ["vllm", "serve", *command_lines.vllm(engine, _asked(spec, cell, engine, leads=leads))]
    return words if nodes == 1 else _over_nodes(words, cell, leads=leads)


def _over_nodes(words: list[str], cell: Cell, *, leads: bool) -> list[str]:
    """As the LeaderWorkerSet's examples have it; the kubelet fills in `$(…)`."""
    if cell.maker == "Google":  # vLLM's TPU ranks meet in a Ray cluster of their own
        if not leads:
            join = ["bash", _RAY_SCRIPT, "worker", "--ray_address=$(LWS_LEADER_ADDRESS)"]
            return ["sh", "-c", " ".join(join)]
        lead = f"bash {_RAY_SCRIPT} leader --ray_cluster_size=$(LWS_GROUP_SIZE)"
        words = [*words, "--distributed-executor-backend", "ray"]
        return ["sh", "-c", f"{lead} && exec {shlex.join(words)}"]
    words = [*words, "--nnodes", "$(LWS_GROUP_SIZE)", "--node-rank", "$(LWS_WORKER_INDEX)"]
    words += ["--master-addr", "$(LWS_LEADER_ADDRESS)"]
    return words if leads else [*words, "--headless"]


def _sglang(
    spec: ReplicaSpec, cell: Cell, engine: SglangEngine, *, nodes: int, leads: bool
) -> list[str]:
    asked = _asked(spec, cell, engine, leads=leads)
    words = ["python3", "-m", "sglang.launch_server", *command_lines.sglang(engine, asked)]
    if nodes > 1:
        words += ["--dist-init-addr", f"$(LWS_LEADER_ADDRESS):{_SGLANG_PORT}"]
        words += ["--nnodes", "$(LWS_GROUP_SIZE)", "--node-rank", "$(LWS_WORKER_INDEX)"]
    return words


def _asked(
    spec: ReplicaSpec, cell: Cell, engine: VllmEngine | SglangEngine, *, leads: bool
) -> command_lines.Asked:
    """Raises LaunchError. A helper is not spoken to."""
    why = command_lines.why_not(engine, spec.layout, chip=cell.chip, maker=cell.maker)
    if why:
        raise LaunchError(f"{spec.name}: {why}")
    return command_lines.Asked(
        model=spec.model,
        weights=cell.model_path(spec.model),
        layout=spec.layout,
        chip=cell.chip,
        prefill_tokens_max=settings_of(engine).prefill_tokens_max,
        address=("0.0.0.0", str(cell.launcher.port)) if leads else None,
    )
