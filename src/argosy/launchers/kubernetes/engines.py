"""The program in a replica's container: its image, and its command line from layout and engine.

Flags are the engines' own (vLLM, "CLI reference: vllm serve"; SGLang, "Server arguments"), read
November 2026 for the versions of the images below. What no flag of theirs can say is refused.
"""

import shlex

from argosy.fleet.config import SglangEngine, VllmEngine
from argosy.fleet.layout import KvDtype, Layout
from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.makers import RANKS_OF_CHIP
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
_KV_DTYPE: dict[str, dict[KvDtype, str]] = {
    "vllm": {"fp8": "fp8"},
    "sglang": {"fp8": "fp8_e4m3"},
}


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
    _check_experts(spec, whole=layout.tp * layout.dp)
    if nodes > 1 and (layout.dp > 1 or cell.maker == "AWS"):
        told = f"{spec.name}: vllm with dp = {layout.dp} on {cell.chip} does not span nodes."
        raise LaunchError(f"{told} What works: tp x pp over nodes of NVIDIA, AMD or Google chips")
    words = ["vllm", "serve", cell.model_path(spec.model), "--served-model-name", spec.model]
    words += _address(cell, leads=leads)
    words += ["--tensor-parallel-size", str(layout.tp * _ranks(spec, cell))]
    words += ["--pipeline-parallel-size", str(layout.pp)]
    if layout.dp > 1:
        words += ["--data-parallel-size", str(layout.dp)]
    if layout.ep > 1:
        words += ["--enable-expert-parallel"]
    words += _numbers(layout, kind="vllm")
    words += ["--max-model-len", str(engine.context_tokens)]
    words += ["--max-num-seqs", str(engine.requests_max)]
    words += ["--max-num-batched-tokens", str(settings_of(engine).prefill_tokens_max)]
    words += ["--gpu-memory-utilization", f"{engine.memory_share:g}"]
    words += ["--enable-prefix-caching" if engine.prefix_cache else "--no-enable-prefix-caching"]
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
    layout = spec.layout
    words = ["python3", "-m", "sglang.launch_server"]
    words += ["--model-path", cell.model_path(spec.model), "--served-model-name", spec.model]
    words += _address(cell, leads=leads)
    # Its tensor ranks are cut into dp groups for attention, so they count both.
    words += ["--tp-size", str(layout.tp * layout.dp * _ranks(spec, cell))]
    words += ["--pp-size", str(layout.pp)]
    if layout.dp > 1:
        words += ["--dp-size", str(layout.dp), "--enable-dp-attention"]
    if layout.ep > 1:
        words += ["--ep-size", str(layout.ep)]
    words += _numbers(layout, kind="sglang")
    words += ["--context-length", str(engine.context_tokens)]
    words += ["--max-running-requests", str(engine.requests_max)]
    words += ["--chunked-prefill-size", str(settings_of(engine).prefill_tokens_max)]
    words += ["--mem-fraction-static", f"{engine.memory_share:g}"]
    if not engine.prefix_cache:
        words += ["--disable-radix-cache"]
    if nodes > 1:
        words += ["--dist-init-addr", f"$(LWS_LEADER_ADDRESS):{_SGLANG_PORT}"]
        words += ["--nnodes", "$(LWS_GROUP_SIZE)", "--node-rank", "$(LWS_WORKER_INDEX)"]
    return words


def _address(cell: Cell, *, leads: bool) -> list[str]:
    """Where it listens; a helper is not spoken to."""
    return ["--host", "0.0.0.0", "--port", str(cell.launcher.port)] if leads else []


def _numbers(layout: Layout, *, kind: str) -> list[str]:
    """In what numbers it computes. Weights below 8 bits say themselves how they are packed."""
    words = ["--dtype", "bfloat16"]
    if layout.dtype == "fp8":
        words += ["--quantization", "fp8"]
    kv_dtype = _KV_DTYPE[kind].get(layout.kv_dtype)
    return words if kv_dtype is None else [*words, "--kv-cache-dtype", kv_dtype]


def _ranks(spec: ReplicaSpec, cell: Cell) -> int:
    """Ranks of the engine that one chip is."""
    if cell.maker == "AWS" and cell.chip not in RANKS_OF_CHIP:
        told = f"{spec.name}: how many ranks of vllm one {cell.chip} is, is not known here."
        raise LaunchError(f"{told} Chips of AWS that it is known of: {', '.join(RANKS_OF_CHIP)}")
    return RANKS_OF_CHIP.get(cell.chip or "", 1)


def _check_experts(spec: ReplicaSpec, *, whole: int) -> None:
    """Whether experts are spread is a switch of vLLM, no number: over all ranks or none."""
    if spec.layout.ep not in (1, whole):
        told = f"{spec.name}: vllm spreads experts over all tp x dp = {whole} chips or none,"
        raise LaunchError(f"{told} not over ep = {spec.layout.ep}. Write ep: {whole}, or none")
