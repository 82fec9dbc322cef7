"""`argosy simulate`: what it prints and draws, and every refusal in words with exit code 1."""

from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.simulate import simulate
from argosy.cli.simulating import Answer, SweepRow
from argosy.simulator.serving import is_compiled

HOUSE = Path(__file__).parents[2]
FIVE = str(HOUSE / "examples/five-makers.yaml")
AZURE = str(HOUSE / "traces/azure_llm_2023_conv.csv.gz")
MOONCAKE = str(HOUSE / "traces/mooncake_fast25_conversation.jsonl.zst")
EMBEDDED = str(HOUSE / "src/argosy/fleet/embedded.yaml")
QUICK = ("--until", "5", "--no-interval")
SMALL = """
fleet: small
pools:
  - {name: near, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM, nodes: {max: 9}}
models:
  - {name: chat, architecture: Llama-3.1-8B, slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}}
deployments:
  - {model: chat, pool: near, replicas: 2, engine: {kind: vllm, requests_max: 8}}
tenants:
  - {name: web, tier: consumer}
demand:
  - model: chat
    origin: aws/us-east-1
    requests_per_s: 5
    prompt_tokens: {mean: 500}
    output_tokens: {mean: 50}
"""
HEAD = "t_s,input_tokens,output_tokens\n"

app = typer.Typer()
app.command()(simulate)


@pytest.fixture
def argosy():
    """Runs the command; a traceback of it is an error of the test."""

    def run(*words: str):
        shown = CliRunner().invoke(app, list(words))
        if shown.exception is not None and not isinstance(shown.exception, SystemExit):
            raise shown.exception
        return shown

    return run


@pytest.fixture
def small(tmp_path):
    """Writes the small fleet, changed; its path."""

    def write(old: str = "", new: str = "", text: str = SMALL) -> str:
        assert old in text
        path = tmp_path / "small.yaml"
        path.write_text(text.replace(old, new) if old else text, "utf-8")
        return str(path)

    return write


def refused(shown) -> str:
    """What stderr says, where it is a refusal and nothing else."""
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "Traceback" not in shown.stderr
    return shown.stderr


def test_the_example_prints_its_tiers_models_and_deployments(argosy):
    shown = argosy(FIVE, "--until", "20", "--no-interval")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("five-makers: ")
    assert "from 14:00 UTC" in lines[1]
    for row in ("large  ", "small  ", "reasoning  "):
        assert sum(line.startswith(row) for line in lines) >= 2  # by tier, and as a model
    for row in ("large@aws-trn2", "small@gcp-v6e", "reasoning@azure-maia"):
        assert any(line.startswith(row) for line in lines)
    told = " ".join(lines)
    assert "UNCALIBRATED, from data sheets alone: large@aws-trn2" in told
    assert "Unknown, and in no sum: power of large@aws-trn2" in told
    assert "J per token out where the power is known" in told
    h100 = next(line for line in lines if line.startswith("large@azure-h100"))
    assert "*" in h100  # its list price is of July 2026
    assert "(" not in h100
    own = next(line for line in lines if line.startswith("large@own-mi300x"))
    assert "*" not in own  # the fleet file's price


def test_the_same_seed_prints_the_same_bytes_and_json_decodes(argosy):
    words = (FIVE, "--until", "5", "--no-interval", "--json", "--seed", "3")
    first, again = argosy(*words), argosy(*words)
    assert first.stdout_bytes == again.stdout_bytes
    answer = msgspec.json.decode(first.stdout_bytes, type=Answer)
    report = answer.expected
    assert report.requests == sum(tier.requests for tier in report.tiers) > 2_000
    assert report.requests == sum(sum(tier.outcomes.values()) for tier in report.tiers)
    assert answer.fast is None
    other = argosy(*words[:-1], "4")
    assert other.stdout_bytes != first.stdout_bytes


def test_the_interval_is_in_brackets_and_holds_what_is_expected(argosy, small):
    shown = argosy(small(), "--until", "5", "--json")
    answer = msgspec.json.decode(shown.stdout_bytes, type=Answer)
    [expected], [fast], [slow] = (
        [model.itl_s_p50 for model in report.models]
        for report in (answer.expected, answer.fast, answer.slow)
    )
    assert fast < expected < slow
    printed = argosy(small(), "--until", "5").stdout
    assert "In brackets: with each step at the ends of its 80 % interval." in printed
    assert "(" in next(line for line in printed.splitlines() if line.startswith("chat  "))


@pytest.mark.parametrize(("trace", "model"), [(AZURE, "small"), (MOONCAKE, "large")])
def test_recorded_demand_is_replayed(argosy, trace, model):
    words = ("--trace", trace, "--model", model, "--until", "60", "--no-interval", "--json")
    report = msgspec.json.decode(argosy(FIVE, *words).stdout_bytes, type=Answer).expected
    assert {tier.model for tier in report.tiers} == {model}
    assert report.requests > 100
    assert report.seconds <= 60
    if trace == MOONCAKE:
        assert sum(group.spared_share for group in report.groups) > 0


def test_an_unsorted_trace_is_refused_with_the_option_that_sorts_it(argosy, small, tmp_path):
    trace = tmp_path / "day.csv"
    trace.write_text(HEAD + "0,10,10\n5,10,10\n3,10,10\n", "utf-8")
    told = refused(argosy(small(), "--trace", str(trace)))
    assert "day.csv:4: this line goes back in time" in told
    assert "--sort" in told
    shown = argosy(small(), "--trace", str(trace), "--sort", "--no-interval")
    assert shown.stdout.startswith("small: 3 requests in 5 s")


def test_an_answer_of_no_token_is_refused_with_the_option_that_reads_it(argosy, small, tmp_path):
    trace = tmp_path / "day.csv"
    trace.write_text(HEAD + "0,10,10\n3,10,0\n", "utf-8")
    told = refused(argosy(small(), "--trace", str(trace)))
    assert "day.csv:3: output_tokens is 0" in told
    assert "--zero-as-one" in told
    shown = argosy(small(), "--trace", str(trace), "--zero-as-one", "--no-interval")
    assert shown.stdout.startswith("small: 2 requests in 3 s")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        (HEAD, "a trace has at least one"),
        (HEAD + "0,1,1\n5,-4,1\n", "day.csv:3: prompt_tokens is -4"),
        (HEAD + "0,1,1\n5,lots,1\n", 'day.csv:3: input_tokens is "lots"'),
        ("what is\nthis", "day.csv:1: this is no trace"),
    ],
)
def test_an_unreadable_trace_is_refused_by_file_and_line(argosy, small, tmp_path, text, told):
    trace = tmp_path / "day.csv"
    trace.write_text(text, "utf-8")
    assert told in refused(argosy(small(), "--trace", str(trace), "--until", "9"))


def test_more_users_are_more_requests(argosy, small):
    one, two = (
        msgspec.json.decode(
            argosy(small(), "--until", "60", "--no-interval", "--json", "--scale", scale)
            .stdout_bytes,
            type=Answer,
        ).expected.requests
        for scale in ("1", "2")
    )  # fmt: skip
    assert 1.6 * one < two < 2.4 * one


def test_a_lost_cloud_is_told_and_its_requests_go_elsewhere(argosy):
    words = (FIVE, "--until", "10", "--no-interval", "--lose", "cloud:azure@5-8", "--json")
    answer = msgspec.json.decode(argosy(*words).stdout_bytes, type=Answer)
    report = answer.expected
    assert report.losses == ("cloud:azure@5-8",)
    gone = next(group for group in report.groups if group.deployment == "large@azure-h100")
    assert [load.listening for load in gone.load][-1] == 0
    assert {bound.model: bound.what for bound in report.bounds}["reasoning"] == "replicas"
    assert any("start anew, in 300 s" in remark for remark in answer.remarks)


def test_another_policy_routes(argosy, small):
    shown = argosy(small(), *QUICK, "--policy", "round_robin")
    assert "routing round_robin" in shown.stdout


def test_a_sweep_has_a_row_for_each_scale(argosy):
    shown = argosy(FIVE, "--sweep", "scale=1,2", "--until", "10", "--json")
    rows = msgspec.json.decode(shown.stdout_bytes, type=tuple[SweepRow, ...])
    assert [row.scale for row in rows] == [1.0, 2.0]
    assert rows[1].report.requests > 1.8 * rows[0].report.requests
    printed = argosy(FIVE, "--sweep", "scale=1,2", "--until", "10").stdout.splitlines()
    assert printed[2].startswith("SCALE")
    assert [line.split()[0] for line in printed[3:5]] == ["1", "2"]


def test_pictures_are_drawn(argosy, small, tmp_path):
    png, page = tmp_path / "a.png", tmp_path / "a.html"
    shown = argosy(small(), *QUICK, "--plot", str(png))
    assert shown.exit_code == 0
    assert f"drawn: {png}" in shown.stderr
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert png.stat().st_size > 20_000
    drawn = []
    for _ in range(2):
        argosy(small(), *QUICK, "--lose", "cloud:aws@2-3", "--plot", str(page))
        drawn.append(page.read_text("utf-8"))
    assert drawn[0].startswith("<!doctype html>")
    assert "<svg" in drawn[0]
    assert drawn[0].endswith("</svg>\n</body>\n")
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lose", "planet:mars"], "names no failure domain. Write one of region:NAME"),
        (["--lose", "cloud:ibm"], 'no cloud "ibm". It has: aws'),
        (["--lose", "cloud:aws@nan"], '"nan" is no time'),
        (["--lose", "cloud:aws@1-inf"], '"1-inf" is no time'),
        (["--lose", "cloud:aws@7"], "begins when all is over: the last requests come at 5 s"),
        (["--scale", "0"], "--scale 0 is not possible"),
        (["--scale", "-1"], "--scale -1 is not possible"),
        (["--scale", "nan"], "--scale nan is not possible"),
        (["--scale", "1e7"], "below 1,000,000"),
        (["--until", "0"], "--until 0 is no time"),
        (["--until", "inf"], "--until inf is no time"),
        (["--until", "1e-9"], "there is no request in it"),
        (["--policy", "best"], "predicted, least_loaded, power_of_two, round_robin"),
        (["--sweep", "foo"], "Write: --sweep scale=1,2,5,10"),
        (["--sweep", "scale=1,-2"], "is not a sweep"),
        (["--sweep", "scale=1", "--scale", "2"], "--sweep has scales of its own"),
        (["--sweep", "scale=1", "--plot", "x.png"], "--plot draws one run"),
        (["--plot", "x.pdf"], "neither .png nor .html"),
        (["--plot", "no-folder/x.png"], "no folder no-folder"),
        (["--model", "chat"], "Name a trace (--trace FILE)"),
        (["--origin", "aws/us-east-1"], "Name a trace (--trace FILE)"),
        (["--origin", "mars"], "Write cloud/region"),
        (["--sort"], "--sort is about a trace"),
        (["--trace", "no-such.csv"], "no-such.csv: there is no such file"),
        (["--trace", AZURE, "--model", "tiny"], "not a model of this fleet, which has chat"),
        (["--trace", AZURE, "--from-hour", "3"], "--from-hour is about the fleet file's demand"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(argosy, small, words, told):
    until = () if "--until" in words else ("--until", "5")
    assert told in refused(argosy(small(), *until, *words))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Llama-3.1-8B", "Llama-3.1-405B", "chat@near: Llama-3.1-405B (bf16) does not fit"),
        ("Llama-3.1-8B", "Llama-3.1-9B", 'Did you mean "Llama-3.1-8B"'),
        ("H100-SXM", "H100-SMX", 'Did you mean "H100-SXM"'),
        ("ttft_s_p95: 1.0", "ttft_s_p95: 0.001", "Nearest: chat@near with 0.0"),
        ("itl_s_p99: 0.05", "itl_s_p99: 0.0001", "itl_s_p99 = 0.0001 s cannot be met"),
        (SMALL[SMALL.index("demand:") :], "", "has no demand section"),
        ("requests_per_s: 5", "requests_per_s: 0", "requests_per_s = 0 does not fit"),
        ("requests_max: 8", "requests_max: 8, context_tokens: 600", "of 500 tokens do not fit"),
        ("requests_max: 8", "requests_max: 9000", "is below engine.requests_max = 9000"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_with_what_would_work(argosy, small, old, new, told):
    assert told in refused(argosy(small(old, new), *QUICK))


def test_the_embedded_fleet_and_files_that_are_none_are_refused(argosy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where nothing was measured
    told = refused(argosy(EMBEDDED, *QUICK))
    assert "were never measured on this machine" in told
    assert "argosy calibrate --local" in told
    assert "cannot be read" in refused(argosy(str(tmp_path / "none.yaml")))
    assert "cannot be read" in refused(argosy(str(tmp_path)))


def test_misuse_has_exit_code_2(argosy, small):
    assert argosy().exit_code == 2
    assert argosy(small(), "--scale", "many").exit_code == 2
    assert argosy(small(), "--from-hour", "24").exit_code == 2


def test_rare_demand_can_be_swept(argosy, small):
    rare = small("requests_per_s: 5", "requests_per_s: 0.01")
    shown = argosy(rare, "--sweep", "scale=1,100")
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[3:5]] == ["1", "100"]


def test_ways_that_the_fleet_does_not_give_are_told(argosy, small):
    words = ("--trace", AZURE, "--until", "20", "--no-interval", "--origin", "gcp/us-east5")
    assert "a round trip of 0.1 s for gcp/us-east5 - aws/us-east-1" in argosy(
        small(), *words
    ).stdout  # fmt: skip


def test_who_has_run_it_once_does_not_wait_for_the_compiler_again(argosy, small):
    argosy(small(), *QUICK)
    assert is_compiled()
    assert argosy(small(), *QUICK).stderr == ""
