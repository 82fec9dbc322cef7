"""What a Ray pool starts: which address its replicas bind, and the argv of vLLM and SGLang."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from argosy.control.plan import plan_deployments
from argosy.fleet import load
from argosy.fleet.messages import Command
from argosy.launchers.ray.child import Child

FLEET = """\
fleet: f
pools:
  - name: p
    launcher: {launcher}
    region: gcp/us-east5
    chip: {chip}
    nodes: {{max: 2, chips_per_node: 16}}
models:
  - {{name: m, weights: "file:/models/m"}}
deployments:
  - {{model: m, pool: p, engine: {engine}, layout: {layout}}}
"""
RAY = '{kind: ray, address: "head.example:6379"}'
# vLLM, "CLI reference: vllm serve", and SGLang, "Server arguments": of what we use, those with a
# value, and switches. Read November 2026.
VLLM = {
    "--served-model-name", "--host", "--port", "--tensor-parallel-size",
    "--pipeline-parallel-size", "--data-parallel-size", "--dtype", "--quantization",
    "--kv-cache-dtype", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens",
    "--gpu-memory-utilization",
}  # fmt: skip
VLLM_SWITCHES = {
    "--enable-expert-parallel", "--enable-prefix-caching", "--no-enable-prefix-caching",
}  # fmt: skip
SGLANG = {
    "--model-path", "--served-model-name", "--host", "--port", "--tp-size", "--pp-size",
    "--dp-size", "--ep-size", "--dtype", "--quantization", "--kv-cache-dtype",
    "--context-length", "--max-running-requests", "--chunked-prefill-size",
    "--mem-fraction-static",
}  # fmt: skip
SGLANG_SWITCHES = {"--enable-dp-attention", "--disable-radix-cache"}
# Takes vLLM's flags, prints as it does on both streams, and binds when its model would be loaded.
STAND_IN = f"""
import argparse, http.server, time
parser = argparse.ArgumentParser(allow_abbrev=False)
serve = parser.add_subparsers(required=True).add_parser("serve", allow_abbrev=False)
serve.add_argument("model")
for flag in {sorted(VLLM)}:
    serve.add_argument(flag)
for flag in {sorted(VLLM_SWITCHES)}:
    serve.add_argument(flag, action="store_true")
asked = parser.parse_args()
print("INFO loading", asked.model, flush=True)
time.sleep(0.3)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer((asked.host, int(asked.port)), Health).serve_forever()
"""


def command(
    engine: str, *, chip: str = "H100-SXM", layout: str = "{}", launcher: str = RAY
) -> Command | None:
    text = FLEET.format(launcher=launcher, chip=chip, engine=engine, layout=layout)
    fleet = load.parse(text, source="fleet.yaml")
    (plan,) = plan_deployments(fleet, weights={"m": Path("/w.gguf")}, threads={"m@p": 1})
    return plan.spec.command


def flags(argv: tuple[str, ...]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    words = [*argv, "--"]
    for word, after in pairwise(words):
        if word.startswith("--") and word != "--":
            found[word] = None if after.startswith("--") else after
    return found


@pytest.mark.parametrize("engine", ["{kind: simulated}", "{kind: llama.cpp}"])
def test_a_replica_on_ray_binds_its_node_s_address_and_a_local_one_loopback(engine: str):
    there = command(engine)
    here = command(engine, launcher="{kind: local}", chip="null")
    assert there is not None
    assert here is not None
    assert '"host":"{host}"' in there.argv[-1]
    assert '"host":"127.0.0.1"' in here.argv[-1]
    assert "0.0.0.0" not in "".join((*there.argv, *here.argv))


@pytest.mark.parametrize(
    ("chip", "layout", "told"),
    [
        ("H100-SXM", "{tp: 4, pp: 2, dtype: fp8, kv_dtype: fp8}", ("4", "2")),
        ("MI300X", "{tp: 2, dp: 4, ep: 8}", ("2", "1")),
        ("TPU-v6e", "{tp: 4}", ("4", "1")),
        ("Trainium2", "{tp: 4}", ("16", "1")),  # four cores of its are a chip
    ],
)
def test_vllm_on_ray_is_told_where_to_listen_and_the_layout(chip, layout, told):
    made = command("{kind: vllm}", chip=chip, layout=layout)
    assert made is not None
    assert made.argv[:6] == (
        sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve", "/models/m",
    )  # fmt: skip
    said = flags(made.argv[5:])
    assert (said["--host"], said["--port"]) == ("{host}", "{port}")
    assert (said["--tensor-parallel-size"], said["--pipeline-parallel-size"]) == told
    assert {flag for flag, value in said.items() if value is not None} <= VLLM
    assert {flag for flag, value in said.items() if value is None} <= VLLM_SWITCHES


def test_sglang_on_ray_is_told_where_to_listen_and_the_layout():
    made = command("{kind: sglang, prefix_cache: false}", layout="{tp: 2, dp: 4, ep: 8}")
    assert made is not None
    assert made.argv[:4] == (sys.executable, "-P", "-m", "sglang.launch_server")
    said = flags(made.argv[4:])
    assert (said["--host"], said["--port"]) == ("{host}", "{port}")
    assert (said["--tp-size"], said["--dp-size"], said["--model-path"]) == ("8", "4", "/models/m")
    assert {flag for flag, value in said.items() if value is not None} <= SGLANG
    assert {flag for flag, value in said.items() if value is None} <= SGLANG_SWITCHES


def test_in_an_image_of_its_own_an_engine_has_no_command():
    launcher = "{kind: kubernetes, node_selector: {pool: p}}"
    assert command("{kind: vllm}", launcher=launcher) is None


def test_an_engine_that_prints_what_it_likes_listens_when_its_port_answers(tmp_path: Path):
    program = tmp_path / "vllm" / "entrypoints" / "cli" / "main.py"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN)
    made = command("{kind: vllm}", layout="{tp: 2, dp: 2, ep: 4}")
    assert made is not None
    env = {**made.env, "PYTHONPATH": str(tmp_path)}
    child = Child("r-1", made.argv, env, folder=tmp_path, host="127.0.0.7")
    began_s = time.monotonic()
    while (said := child.describe()).state == "starting":
        assert time.monotonic() - began_s < 20
        child.next_description(said.version, 1)
    assert said.state == "listening", said
    assert said.url is not None
    assert said.url.startswith("http://127.0.0.7:")
    assert httpx.get(f"{said.url}/health", trust_env=False).status_code == 200
    bound = psutil.Process(said.pid).net_connections("tcp")
    assert {one.laddr.ip for one in bound if one.status == "LISTEN"} == {"127.0.0.7"}
    child.stop(5)
    assert child.describe().detail == "killed by SIGTERM"
    assert "INFO loading /models/m" in (tmp_path / "logs" / "r-1.log").read_text()


def test_two_engines_on_a_node_get_ports_of_their_own(tmp_path: Path):
    serve = (sys.executable, "-m", "http.server", "--bind", "{host}", "{port}")
    children = [
        Child(f"r-{n}", serve, {}, folder=tmp_path / str(n), host="127.0.0.7") for n in range(2)
    ]
    for child in children:
        while (said := child.describe()).state == "starting":
            child.next_description(said.version, 1)
    urls = [child.describe().url for child in children]
    assert None not in urls
    assert len(set(urls)) == 2
    for child in children:
        child.stop(5)


def test_one_that_ends_before_its_port_answers_says_how(tmp_path: Path):
    program = "import sys; print('no room for', sys.argv[1]); sys.exit(3)"
    child = Child(
        "r-1", (sys.executable, "-c", program, "{port}"), {}, folder=tmp_path, host="127.0.0.7"
    )
    while (said := child.describe()).state != "ended":
        child.next_description(said.version, 1)
    assert "exited with status 3 before it listened" in said.detail
    assert "no room for" in said.detail
