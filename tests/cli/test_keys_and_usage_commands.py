"""`argosy keys` and `argosy usage`: what they print, where, and with which exit code."""

import json
import re
import subprocess
import sys

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.keys import keys
from argosy.cli.state import STORE_FILE, now_s
from argosy.cli.usage import duration_s, usage
from argosy.fleet.messages import Key, Usage
from argosy.store.keys import KeyRing
from argosy.store.schema import open_store
from argosy.store.usage import insert_records

app = typer.Typer()
app.add_typer(keys)
app.command()(usage)

A_RECORD = Usage(
    request="req_1",
    at_s=0.0,
    tenant="acme",
    key="key_12345678",
    tier="batch",
    surface="chat",
    model="[red]\x1b[31mevil",
    replica=None,
    outcome="refused",
    status=404,
    reason="unknown model",
    attempts=0,
    tokens_in=7,
    tokens_cached=0,
    tokens_out=3,
    ttft_s=0.25,
    duration_s=0.001,
)


@pytest.fixture
def argosy(tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [*words, "--state", str(tmp_path / "state")])

    return run


@pytest.fixture
def engine(tmp_path):
    engine = open_store(tmp_path / "state" / STORE_FILE)
    yield engine
    engine.dispose()


def recorded(*, ago_s):
    return msgspec.structs.replace(A_RECORD, at_s=now_s() - ago_s)


def create(argosy, *more):
    return argosy(
        "keys", "create", "--tenant", "acme", "--tier", "batch", "--name", "laptop", *more
    )


def test_a_created_key_is_printed_once_and_opens_the_gateway(argosy, engine):
    done = create(argosy)

    assert done.exit_code == 0
    printed = re.fullmatch(r"API key: (argosy-\S{43})\n", done.stdout)
    assert printed is not None
    secret = printed[1]
    assert "not shown again" in done.stderr
    key = KeyRing(engine).find(secret)
    assert key is not None
    assert (key.tenant, key.tier, key.name) == ("acme", "batch", "laptop")
    assert secret not in argosy("keys", "list", "--json").stdout


def test_a_created_key_is_printed_for_machines(argosy, engine):
    printed = json.loads(create(argosy, "--json").stdout)

    key = KeyRing(engine).find(printed["api_key"])
    assert key == msgspec.convert(printed["key"], Key)


def test_keys_are_listed_and_revoked_ones_only_when_asked(argosy):
    create(argosy)
    assert "laptop" in argosy("keys", "list").stdout

    assert "is revoked" in argosy("keys", "revoke", "laptop").stdout
    assert "laptop" not in argosy("keys", "list").stdout
    assert "laptop" in argosy("keys", "list", "--all").stdout
    assert json.loads(argosy("keys", "list", "--json").stdout) == []


def test_an_unknown_key_is_refused_with_exit_1(argosy):
    done = argosy("keys", "revoke", "laptop")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "live keys: 0" in done.stderr


@pytest.mark.parametrize("name", ["", "two words", "up"])
def test_a_name_that_cannot_be_used_is_misuse(argosy, name):
    done = argosy("keys", "create", "--tenant", "acme", "--tier", "batch", "--name", name)
    assert done.exit_code == 2


def test_a_store_that_cannot_be_opened_is_one_line_and_exit_1(argosy, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STORE_FILE).write_text("no database " * 100)

    for words in (["keys", "list"], ["usage"]):
        done = argosy(*words)
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.fullmatch(r"argosy: .*argosy\.db: is not a database\..*\n", done.stderr)


def test_usage_is_summed_over_the_span(argosy, engine):
    insert_records(engine, [recorded(ago_s=1800)])

    (row,) = json.loads(argosy("usage", "--since", "1h", "--by", "outcome", "--json").stdout)
    assert (row["group"], row["requests"], row["tokens_in"]) == ("refused", 1, 7)
    assert json.loads(argosy("usage", "--since", "10m", "--json").stdout) == []


def test_a_table_shows_a_strangers_words_without_obeying_them(argosy, engine):
    insert_records(engine, [recorded(ago_s=1)])

    for words in (["--by", "model"], ["--records", "5"]):
        done = argosy("usage", *words)
        assert "[red]\N{REPLACEMENT CHARACTER}[31mevil" in done.stdout
        assert "\x1b" not in done.stdout


def test_the_last_records_are_printed_raw(argosy, engine):
    record = recorded(ago_s=1)
    insert_records(engine, [record])

    (printed,) = json.loads(argosy("usage", "--records", "5", "--json").stdout)
    assert printed["request"] == "req_1"
    assert printed["model"] == record.model


def test_records_are_those_of_the_span_where_one_is_named(argosy, engine):
    insert_records(engine, [recorded(ago_s=1800)])

    def told(*words: str) -> int:
        return len(json.loads(argosy("usage", "--records", "5", *words, "--json").stdout))

    assert (told(), told("--since", "1h"), told("--since", "10m")) == (1, 1, 0)


def test_a_span_is_a_whole_number_and_a_unit(argosy):
    assert [duration_s(text) for text in ("90s", "30m", "1h", "7d")] == [90, 1800, 3600, 604800]
    for text in ("", "1", "1w", "-1h", "1.5h", "h", "1 h", "\u0661h"):
        done = argosy("usage", f"--since={text}")
        assert done.exit_code == 2, text


def test_the_commands_are_described_without_loading_the_database():
    code = (
        "import sys, argosy.cli.keys, argosy.cli.usage\n"
        "sys.exit(bool({'sqlalchemy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
