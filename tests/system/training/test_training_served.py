"""From text to a model that `argosy up` serves: a tiny Llama on two unlike islands of torch."""

import subprocess
from pathlib import Path

import httpx
import pytest
from fleet_process import FleetProcess
from training_process import ARGOSY, check_alike, check_books, run_argosy

pytest.importorskip("torch")

DOCS = Path(__file__).parents[3] / "docs"
RUN = """\
run: tried
model: {{kind: llama, layers: 1, hidden: 32, heads: 2, kv_heads: 1, mlp: 64}}
data: {{path: {data}, validation_blocks: 8}}
tokens: 40_000
context_tokens: 64
batch_blocks: 8
outer: {{inner_steps: 10, grace_s_max: 5}}
islands:
  - {{name: amber, device: cpu, dtype: bfloat16, threads: 1}}
  - {{name: basalt, device: cpu, dtype: float32, threads: 1}}
"""
FLEET = """\
fleet: trained
pools:
  - {{name: local, launcher: {{kind: local}}}}
models:
  - {{name: tried, weights: "file:{gguf}"}}
deployments:
  - {{model: tried, pool: local, engine: {{kind: llama.cpp, context_tokens: 64, slots: 1}}}}
tenants:
  - {{name: default, tier: consumer}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    sources = sorted(DOCS.glob("[A-D]*.md"))
    sizes = ("--vocab", "400", "--context-tokens", "64", "--cache", tmp_path / "cache")
    words = [*ARGOSY, "data", "prepare", *map(str, (*sources, "--out", out, *sizes))]
    made = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)
    assert made.returncode == 0, made.stderr
    return out


@pytest.mark.timeout(300)
def test_a_finished_run_becomes_a_model_that_up_serves(command, state, data, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(data=data))
    process = command("train", file, "--no-estimate")
    assert process.wait_exit(110) == 0, process.said
    check_books(state)
    check_alike(state)
    model = tmp_path / "model"
    exported = run_argosy(state, "runs", "export", "tried", "--out", model, "--gguf")
    assert exported.returncode == 0, exported.stderr
    gguf = model / "model.gguf"
    assert f'weights: "file:{gguf}"' in exported.stdout
    assert "exists" in run_argosy(state, "runs", "export", "tried", "--out", model).stderr
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET.format(gguf=gguf))
    serving = FleetProcess(tmp_path / "serving", fleet, "--port", "0")
    try:
        serving.wait_welcome()
        answer = httpx.post(
            f"{serving.url}/v1/completions",
            headers={"authorization": f"Bearer {serving.key}"},
            json={"model": "tried", "prompt": "The gateway", "max_tokens": 8, "temperature": 0},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] >= 1
    finally:
        serving.kill()


def test_a_corrupt_shard_and_missing_data_are_told_before_anything_starts(state, data, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(data=data))
    shard = max(data.glob("*.u16"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refused = run_argosy(state, "train", file)
    assert refused.returncode == 1
    assert f"{shard.name} is corrupt: its SHA-256 is" in refused.stderr
    assert not (state / "runs").exists()
    file.write_text(RUN.format(data=tmp_path / "nowhere"))
    missing = run_argosy(state, "train", file)
    assert missing.returncode == 1
    assert "argosy data prepare makes one" in missing.stderr
    shard.unlink()
    file.write_text(RUN.format(data=data).replace("context_tokens: 64", "context_tokens: 32"))
    assert "argosy data prepare" in run_argosy(state, "train", file).stderr
