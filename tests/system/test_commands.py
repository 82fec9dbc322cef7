"""The other commands beside a running fleet, and without one: what a person sees in a terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import httpx
import msgspec
import openai
import pytest
from fleet_process import ARGOSY, MODEL, FleetProcess, run_argosy, wait_until

from argosy.fleet.messages import FleetStatus

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def _on_terminal(*arguments: str | Path, width_chars: int) -> str:
    """What the command shows on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width_chars, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [*ARGOSY, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**env, "TERM": "xterm"},
    ) as command:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:  # how Linux says that the other side has closed
            pass
        finally:
            os.close(ours)
        assert command.wait(30) == 0, shown
    return _ESCAPES.sub("", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("width_chars", [80, 120])
def test_status_shows_every_replica_by_its_whole_name(fleet: FleetProcess, width_chars: int):
    shown = _on_terminal("status", "--state", fleet.state, width_chars=width_chars)
    assert max(map(len, shown.splitlines())) <= width_chars
    assert "…" not in shown
    assert fleet.url in shown
    for row in fleet.replicas():
        line = next(line for line in shown.splitlines() if line.startswith(row.replica.name))
        assert line.split()[1] == "ready"


def test_status_for_machines_is_the_whole_status(fleet: FleetProcess):
    printed = run_argosy("status", "--json", "--state", fleet.state)
    assert printed.returncode == 0
    status = msgspec.json.decode(printed.stdout, type=FleetStatus)
    assert status.gateway_url == fleet.url
    assert [row.replica.name for row in status.replicas] == [f"{MODEL}-1", f"{MODEL}-2"]
    assert all(row.replica.pid and row.replica.url for row in status.replicas)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_status_watches_until_ctrl_c(fleet: FleetProcess, form: list[str]):
    terminal, its_end = pty.openpty()  # a pipe would be told at the end alone
    with subprocess.Popen(
        [*ARGOSY, "status", "--watch", *form, "--state", fleet.state],
        stdout=its_end,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"},
    ) as watching:
        os.close(its_end)
        said, told = b"", b"\n" if form else f"{MODEL}-2".encode()
        try:
            while said.count(told) < 2:  # again and again
                said += os.read(terminal, 65536)
            watching.send_signal(signal.SIGINT)
            assert watching.stderr is not None
            assert watching.stderr.read() == b""
            assert watching.wait(timeout=10) == 0
        finally:
            watching.kill()
    os.close(terminal)
    assert f"{MODEL}-2".encode() in said


def test_chat_answers_one_question(fleet: FleetProcess):
    answered = run_argosy("chat", "Name the capital of France.", "--state", fleet.state)
    assert answered.returncode == 0, answered.stderr
    assert "Paris" in answered.stdout
    assert answered.stderr == ""


def test_a_piped_chat_remembers_until_it_is_told_to_start_over(fleet: FleetProcess):
    began_at_s = time.time()  # an earlier test's record may reach the disk only now
    question = "Name the capital of France."
    said = f"{question}\n\nName it again.\n/new\n{question}\n/exit\nno\n"
    chatted = run_argosy("chat", "--max-tokens", "20", "--state", fleet.state, stdin=said)
    assert chatted.returncode == 0, chatted.stderr

    def of_this_chat():
        return [record for record in fleet.usage() if record.at_s > began_at_s]

    wait_until(lambda: len(of_this_chat()) == 3, 5)
    first, second, third = sorted(of_this_chat(), key=lambda record: record.at_s)
    assert first.tokens_in == third.tokens_in < second.tokens_in
    assert len(chatted.stdout.splitlines()) >= 3


def test_chat_says_why_it_is_refused(fleet: FleetProcess):
    refused = run_argosy("chat", "hi", "--model", "gpt-4o", "--state", fleet.state)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert MODEL in refused.stderr
    wrong_key = run_argosy(
        "chat", "hi", "--state", fleet.state, env={"ARGOSY_API_KEY": "argosy-wrong"}
    )
    assert wrong_key.returncode == 1
    assert "key" in wrong_key.stderr


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["chat", "hi"]])
def test_without_a_fleet_a_command_says_how_to_start_one(tmp_path: Path, command: list[str]):
    refused = run_argosy(*command, "--state", tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"no fleet runs on {tmp_path}" in refused.stderr
    assert "argosy up" in refused.stderr


def test_after_a_killed_fleet_a_command_says_that_it_is_gone(start_fleet):
    fleet = start_fleet().wait_welcome()
    fleet.process.kill()
    fleet.process.wait(10)
    for command in (["status"], ["chat", "hi"]):
        refused = run_argosy(*command, "--state", fleet.state)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"pid {fleet.process.pid}" in refused.stderr
        assert "argosy up" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_key_opens_and_closes_while_the_fleet_runs(fleet: FleetProcess):
    made = run_argosy(
        "keys", "create", "--tenant", "acme", "--tier", "batch", "--name", "acme-test",
        "--state", fleet.state,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    key = re.search(r"^API key: (\S+)$", made.stdout, re.MULTILINE)[1]

    def status() -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(f"{fleet.url}/v1/models", headers=headers, trust_env=False).status_code

    wait_until(lambda: status() == 200, 10)
    client = openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0)
    with client:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        client.chat.completions.create(**asked)
        revoked = run_argosy("keys", "revoke", "acme-test", "--state", fleet.state)
        assert revoked.returncode == 0, revoked.stderr
        wait_until(lambda: status() == 401, 10)
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(**asked)
    by_tenant = run_argosy("usage", "--json", "--state", fleet.state)
    (acme,) = [row for row in msgspec.json.decode(by_tenant.stdout) if row["group"] == "acme"]
    assert (acme["requests"], acme["finished"], acme["tokens_out"]) == (1, 1, 4)


@pytest.mark.parametrize("width_chars", [80, 120])
def test_usage_can_be_read_at_any_width(
    fleet: FleetProcess, openai_client: openai.OpenAI, width_chars: int
):
    asked = openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    request = asked._request_id
    wait_until(lambda: any(record.request == request for record in fleet.usage()), 5)
    for options in (["--records", "3"], []):
        shown = _on_terminal("usage", *options, "--state", fleet.state, width_chars=width_chars)
        assert max(map(len, shown.splitlines())) <= width_chars
        assert re.search(r"^tenant +", shown, re.MULTILINE)
        assert "default" in shown
        if options:
            assert request in shown, "a request's id is cut"


def test_the_pasted_lines_run_as_printed(fleet: FleetProcess):
    lines = [line for line in fleet.out.splitlines() if fleet.key in line and line[:7] != "API key"]
    assert len(lines) == 3
    for line in lines:
        ran = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert "Paris" in ran.stdout


def test_help_imports_nothing_that_takes_long():
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "argosy.cli.main", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heavy = {"torch", "numba", "sqlalchemy", "httpx", "openai", "xllamacpp", "uvicorn"}
    imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines()}
    assert not imported & heavy
