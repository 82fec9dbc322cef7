"""Run files: what is refused, with its line, and what it fits."""

import msgspec
import pytest
from typer.testing import CliRunner

from argosy.cli.main import app
from argosy.fleet import load_runs
from argosy.fleet.load_runs import RunFileError, first_key, parse
from argosy.fleet.rules_runs import DataFacts, check_data, check_pools, parameters_of
from argosy.fleet.runs import NewModel

GOOD = """\
run: tiny
model: {kind: llama, layers: 2, hidden: 64, heads: 4, kv_heads: 2, mlp: 128}
data: {path: corpus}
tokens: 1_000_000
batch_blocks: 8
outer: {quorum: 1}
optimizer: {lr: 0.001}
islands:
  - {name: one}
  - {name: two, dtype: bfloat16}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(RunFileError) as refused:
        parse(text, source="run.yaml")
    return str(refused.value).splitlines()


def test_a_good_run_is_read():
    run = parse(GOOD, source="run.yaml")
    assert (run.run, len(run.islands), run.blocks % run.batch_blocks) == ("tiny", 2, 0)


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("hidden: 64", "hidden: 66", 2, "is no multiple of heads = 4. Write hidden: 64"),
        ("hidden: 64, heads: 4", "hidden: 60, heads: 4", 2, "need an even number"),
        ("kv_heads: 2", "kv_heads: 3", 2, "does not divide heads = 4. What does: 1, 2, 4"),
        ("layers: 2", "layers: 20000000", 2, "billion parameters"),
        ("quorum: 1", "quorum: 3", 6, "no round would ever close. Write 2 at most"),
        ("1_000_000", "100", 4, "less than one step: batch_blocks x context_tokens = 4,096"),
        ("lr: 0.001", "beta2: 1.0", 7, "never take up a gradient"),
        (
            "lr: 0.001",
            "schedule: wsd, warmup_share: 0.5, decay_share: 0.6",
            7,
            "more than the whole run",
        ),
        ("quorum: 1", "fragment_bytes_max: 8", 6, "Write at least 4096"),
        ("name: two", "name: one", 10, 'is a second "one"'),
        ("name: two", "name: ONE", 10, 'is a second "ONE"'),
        ("name: two", "name: a/b", 10, "becomes a folder and a certificate"),
        ("name: two", "name: two, processes: 3", 10, "does not divide batch_blocks = 8"),
        ("name: two", "name: two, micro_batch_blocks: 3", 10, "What does: 1, 2, 4, 8"),
        ("name: two", "name: two, gives_way_s: 9", 10, "Leave it out, or name its pool"),
        ("name: two", "nam: two", 10, 'Did you mean "name"?'),
        ("kind: llama", "kind: lama", 2, 'Did you mean "llama"?'),
        ("tokens: 1_000_000", "tokens: 5e6", 4, "Write 5000000"),
        ("run: tiny", "run: tiny\nrun: b", 2, "is written twice"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line_and_what_works(old, new, line, told):
    said = problems(GOOD.replace(old, new))
    assert any(one.startswith(f"run.yaml:{line}  ") and told in one for one in said), said


@pytest.mark.parametrize("text", ["", "[1]", "run: a\n---\nrun: b", "run: !x a", "\x00", "<<: {}"])
def test_nonsense_is_one_clear_problem_about_a_run(text):
    said = "\n".join(problems(text))
    assert "fleet" not in said


def test_all_problems_are_told_at_once():
    text = GOOD.replace("kv_heads: 2", "kv_heads: 3").replace("quorum: 1", "quorum: 9")
    assert len(problems(text)) == 2


def test_runs_and_recipes_are_told_from_fleets_by_their_first_key():
    assert first_key("# a comment\n\nrun: a\n") == "run"
    assert first_key('"run": a') == "run"
    assert first_key("corpus: a\nrun: b\n") == "corpus"
    assert first_key("fleet: a\nrun: b\n") == "fleet"
    assert first_key("") is None


def test_data_must_be_packed_for_the_run_and_leave_blocks_to_train_on():
    run = parse(GOOD, source="run.yaml")
    facts = DataFacts(blocks=1000, context_tokens=512, vocab_size=512)
    assert list(check_data(run, facts)) == []
    other = msgspec.structs.replace(facts, context_tokens=256, blocks=60)
    assert [path for path, _ in check_data(run, other)] == [
        ("context_tokens",),
        ("data", "validation_blocks"),
    ]


def test_pools_are_looked_up_in_the_fleet():
    run = parse(GOOD.replace("name: two", "name: two, pool: ra"), source="run.yaml")
    assert [path for path, _ in check_pools(run, None)] == [("islands", 1, "pool")]
    assert "Did you mean" in next(check_pools(run, ("ray",)))[1]
    assert list(check_pools(run, ("ra",))) == []


def test_parameters_are_counted_as_a_llama_has_them():
    model = NewModel(layers=1, hidden=8, heads=2, kv_heads=1, mlp=16)
    attention, mlp, norms = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8, 3 * 8 * 16, 2 * 8
    assert parameters_of(model, 10) == attention + mlp + norms + 8 + 80


def test_check_and_schema_know_runs(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    checked = CliRunner().invoke(app, ["check", str(file)])
    assert checked.exit_code == 0
    assert "bfloat16" in checked.stdout
    file.write_text(GOOD.replace("quorum: 1", "quorum: 3"))
    refused = CliRunner().invoke(app, ["check", str(file)])
    assert refused.exit_code == 1
    assert "outer.quorum" in refused.stderr
    schema = CliRunner().invoke(app, ["schema", "--run"])
    assert msgspec.json.decode(schema.stdout) == load_runs.schema()


def test_a_number_that_is_no_choice_is_told_with_the_choices(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(GOOD.replace("quorum: 1", "bits: 5"))
    refused = CliRunner().invoke(app, ["check", str(file)])
    assert refused.exit_code == 1
    assert "outer.bits = 5 is not a choice here. Choices: 4, 8, 32" in refused.stderr


def test_a_fleet_file_is_sent_to_the_command_that_takes_it():
    refused = CliRunner().invoke(app, ["train", "examples/five-makers.yaml"])
    assert refused.exit_code == 1
    assert refused.stderr.strip().endswith("argosy up examples/five-makers.yaml")
