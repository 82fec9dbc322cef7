"""What `argosy control` and `argosy gateway` refuse before anything starts."""

import pytest
from typer.testing import CliRunner

from argosy.cli.main import app
from argosy.cli.running import control_urls

TOKEN = "a-secret-of-the-tests-alone"


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """What a command says on its way out."""
    monkeypatch.setenv("ARGOSY_CONTROL_TOKEN", TOKEN)

    def run(*arguments, token=TOKEN):
        monkeypatch.setenv("ARGOSY_CONTROL_TOKEN", token)
        state = ("--state", str(tmp_path / "state"))
        result = CliRunner().invoke(app, [*map(str, arguments), *state])
        assert result.exit_code == 1, result.output
        return " ".join(result.output.split())

    return run


def test_without_a_secret_nothing_is_opened_to_the_network(refused, tmp_path):
    store = ("--store", tmp_path / "s.db")
    assert "ARGOSY_CONTROL_TOKEN is to hold the secret" in refused("control", *store, token="")
    assert "16 characters or more" in refused("control", *store, token="short")
    assert "16 characters or more" in refused("gateway", "--control", "http://c1:1", token="x")


def test_local_pools_are_refused_for_they_die_with_their_control_plane(refused, tmp_path):
    said = refused("control", "--store", tmp_path / "s.db")
    assert "has local pools (local), whose replicas die with the control plane" in said
    assert "argosy up" in said


def test_addresses_that_cannot_be_are_refused_in_words(refused, tmp_path):
    allowed = ("control", "--store", tmp_path / "s.db", "--allow-local")
    assert "it is HOST:PORT" in refused(*allowed, "--listen", "8470")
    assert "it is a URL" in refused(*allowed, "--listen", "127.0.0.1:0", "--advertise", "c1:8470")
    assert "it is a URL" in refused("gateway", "--control", "c1:8470")
    assert "without a slash" in refused("gateway", "--control", "http://c1:8470", "--name", "a/b")


def test_urls_are_told_apart_by_commas_and_named_once():
    assert control_urls("http://a:1/, http://b:2,http://a:1") == ["http://a:1", "http://b:2"]


def test_an_operator_is_told_which_control_planes_do_not_answer(refused):
    said = refused("scale", "m@p", "2", "--control", "http://127.0.0.1:1,http://127.0.0.1:2")
    assert "http://127.0.0.1:1 does not answer" in said
    assert "http://127.0.0.1:2 does not answer" in said


def test_a_fleet_file_is_named_where_other_hosts_are_asked(refused):
    assert "name the fleet file" in refused("apply", "--control", "http://127.0.0.1:1")
