"""What a hostile or broken peer sends to a real syncer is refused, and harms nobody."""

import os
import pickle
import ssl
import time

import httpx
import msgspec
import pytest

from argosy.store import runs
from argosy.training import credentials
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.island.fragments import sha256_of
from argosy.training.island.link import DeniedError, Link
from argosy.training.outer import codec
from argosy.training.wire import (
    WIRE_VERSION,
    Beat,
    Contribution,
    Join,
    Leave,
    Refused,
)
from tests.training.syncer.running_run import RunningRun, a_run
from tests.training.syncer.test_training_syncer_restarts import Driver

SYNCER = {"sni_hostname": credentials.SYNCER_HOST}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A syncer, two islands' credentials, and parameters."""
    running = RunningRun(tmp_path_factory.mktemp("hostile"), a_run(blocks=4000, lease_s=60.0))
    running.syncer().wait_for(lambda event: "url" in event)
    yield running
    running.close()


@pytest.fixture(scope="module")
def driver(running):
    driver = Driver(running)
    driver.join()
    yield driver
    driver.link.close()


def client_of(folder):
    return httpx.Client(verify=credentials.calling(folder), trust_env=False, timeout=10)


@pytest.fixture
def client(running):
    with client_of(folder_of(running.credentials, "island", "ann")) as client:
        yield client


def put(running, client, content, name=None):
    url = f"{running.url}/v1/fragments/{name or sha256_of(content)}"
    return client.put(url, content=content, extensions=SYNCER)


def contribute(driver, contents):
    """A contribution of these bytes, and the lease it was for."""
    lease = driver.lease()
    sent, _ = driver.contribution(lease)
    sent = msgspec.structs.replace(sent, fragments=tuple(sha256_of(one) for one in contents))
    return driver.link.contribute(sent, {sha256_of(one): one for one in contents})


def good(driver):
    return [
        codec.encode(part.of(driver.chance.normal(size=driver.map.values).astype("f4")), bits=4)
        for part in driver.map.fragments
    ]


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("garbage", lambda part: os.urandom(len(part))),
        ("a pickle", lambda part: pickle.dumps({"a": [1] * 1000}).ljust(len(part), b"\0")),
        ("a huge count", lambda part: codec.header(2**60, 4) + part[16:]),
        ("other bits", lambda part: codec.encode(codec.decode(part), bits=8)),
        ("cut short", lambda part: part[:-1]),
        ("an infinite scale", lambda part: part[:16] + b"\x80\x7f" + part[18:]),
    ],
)
def test_a_delta_that_is_none_is_refused_and_its_blocks_are_leased_anew(
    driver, running, what, spoil
):
    done = driver.link.status().blocks_done
    parts = good(driver)
    answer = contribute(driver, [spoil(parts[0]), *parts[1:]])
    assert isinstance(answer, Refused), what
    assert answer.code == "damaged"
    status = driver.link.status()
    assert status.blocks_done == done
    assert any("damaged" in told for told in status.refused)
    assert running.children[0].process.poll() is None


def test_a_number_that_is_over_and_an_old_epoch_and_a_strange_lease_are_refused(driver, running):
    sent, contents = driver.contribution(driver.lease())
    over = msgspec.structs.replace(sent, number=1, lease="x")
    assert driver.link.contribute(over, contents).code == "replayed"
    strange = msgspec.structs.replace(sent, lease="bob-1-0-0")
    assert driver.link.contribute(strange, contents).code == "unknown_lease"
    old = msgspec.structs.replace(sent, epoch=driver.epoch + 1)
    assert driver.link.contribute(old, contents).code == "stale_epoch"
    assert running.read(runs.read_run).blocks_done == driver.link.status().blocks_done


def test_bytes_under_another_name_are_thrown_away(running, client, driver):
    answer = put(running, client, b"x" * 100, "0" * 64)
    assert answer.status_code == 422
    assert (
        client.head(f"{running.url}/v1/fragments/{'0' * 64}", extensions=SYNCER).headers[
            "upload-offset"
        ]
        == "0"
    )


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "A" * 64, "0" * 63, "0" * 64 + "%0a"])
def test_a_name_that_is_no_hash_is_refused(running, client, name):
    for method in ("GET", "PUT", "HEAD"):
        answer = client.request(
            method, f"{running.url}/v1/fragments/{name}", content=b"", extensions=SYNCER
        )
        assert answer.status_code in (400, 404)


def test_more_bytes_than_a_fragment_has_are_refused_before_they_fill_the_disk(running, client):
    content = b"x" * (running.run.outer.fragment_bytes_max + 10_000)
    assert put(running, client, content).status_code == 413
    assert not list((running.folder / "syncer" / "parts").iterdir())


def test_an_upload_goes_on_where_it_was_cut(running, client, driver):
    content = os.urandom(3000)
    url = f"{running.url}/v1/fragments/{sha256_of(content)}"

    def cut():
        yield content[:1000]
        time.sleep(1.0)  # what was not read before the end is dropped by the HTTP protocol
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        client.put(url, content=cut(), headers={"content-length": "3000"}, extensions=SYNCER)
    end_s = time.monotonic() + 10
    while (offset := int(client.head(url, extensions=SYNCER).headers["upload-offset"])) == 0:
        assert time.monotonic() < end_s
        time.sleep(0.05)
    rest = {"upload-offset": str(offset)}
    answer = client.put(url, content=content[offset:], headers=rest, extensions=SYNCER)
    assert offset == 1000
    assert answer.status_code == 201
    assert client.get(url, extensions=SYNCER).content == content
    tail = client.get(url, headers={"range": "bytes=2990-"}, extensions=SYNCER)
    assert (tail.status_code, tail.content) == (206, content[2990:])


@pytest.mark.parametrize("body", [b"", b"\x80\x04K\x01.", b"[" * 100_000, b'{"island": 1}'])
@pytest.mark.parametrize("path", ["join", "beat", "contribution", "seed", "leave"])
def test_a_message_that_is_none_is_refused(running, client, path, body):
    answer = client.post(f"{running.url}/v1/{path}", content=body, extensions=SYNCER)
    assert answer.status_code == 400


def test_a_message_of_endless_length_is_refused(running, client):
    def endless():
        for _ in range(64):
            yield b" " * 2**20

    try:
        answer = client.post(f"{running.url}/v1/join", content=endless(), extensions=SYNCER)
    except httpx.TransportError:
        return  # it hung up before all was sent
    assert answer.status_code == 413


def a_join(run, island):
    return Join(
        wire_version=WIRE_VERSION,
        island=island,
        run=run,
        tensors_sha256="0" * 64,
        steps_per_s=None,
        version=None,
    )


def test_an_island_speaks_for_itself_alone(running, driver):
    link = Link(running.url, folder_of(running.credentials, "island", "bob"))
    with pytest.raises(DeniedError, match='certificate is of island "bob"'):
        link.join(a_join("test", "ann"))
    with pytest.raises(DeniedError):
        link.leave(Leave(island="ann", epoch=driver.epoch))
    beat = Beat(
        island="ann",
        epoch=driver.epoch,
        version=0,
        steps_per_s=None,
        loss=None,
        waited_s=0.0,
        wants_lease=True,
    )
    with pytest.raises(DeniedError):
        link.beat(beat)
    assert "other" in link.join(a_join("test", "bob")).reason, "its tensors are others"
    assert "here is" in link.join(a_join("elsewhere", "bob")).reason
    link.close()


def test_only_certificates_of_the_runs_own_authority_pass(running, tmp_path):
    make_credentials(tmp_path / "other", "test", ["ann"], now_s=time.time())
    other = folder_of(tmp_path / "other", "island", "ann")
    link = Link(running.url, other)
    with pytest.raises(DeniedError, match="certificate of another run"):
        link.join(a_join("test", "ann"))
    link.close()
    # one that trusts the syncer, and shows a certificate of another authority
    (other / "ca.crt").write_bytes((running.credentials / "ca.crt").read_bytes())
    with client_of(other) as client, pytest.raises(httpx.TransportError):
        client.get(f"{running.url}/v1/status", extensions=SYNCER)
    # no certificate at all
    context = ssl.create_default_context(cafile=running.credentials / "ca.crt")
    with (
        httpx.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(f"{running.url}/v1/status", extensions=SYNCER)
    # a certificate of this authority for another run
    credentials.issue(running.credentials, "elsewhere", "island", "eve", now_s=time.time())
    with client_of(folder_of(running.credentials, "island", "eve")) as client:
        assert client.get(f"{running.url}/v1/status", extensions=SYNCER).status_code == 403
    # one that is over
    credentials.issue(
        running.credentials, "test", "island", "late", now_s=time.time() - 1000, lasts_s=1.0
    )
    with (
        client_of(folder_of(running.credentials, "island", "late")) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(f"{running.url}/v1/status", extensions=SYNCER)
    # an older TLS
    context = credentials.calling(folder_of(running.credentials, "island", "ann"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        httpx.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(f"{running.url}/v1/status", extensions=SYNCER)


def test_an_island_cannot_pose_as_the_syncer(running):
    """Its certificate is good, but not for the syncer's name."""
    context = credentials.listening(folder_of(running.credentials, "island", "bob"))
    caller = credentials.calling(folder_of(running.credentials, "island", "ann"))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"syncer\.argosy"):
        shake(caller, context)


def shake(caller, listener):
    to_listener, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = credentials.SYNCER_HOST
    sides = [
        caller.wrap_bio(to_caller, to_listener, server_hostname=name),
        listener.wrap_bio(to_listener, to_caller, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_keys_are_their_owners_alone(running):
    for path in running.credentials.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert not (folder_of(running.credentials, "island", "ann") / credentials.CA_KEY).exists()


def test_a_contribution_whose_bytes_never_came_asks_for_them(driver, running, client):
    sent, _ = driver.contribution(driver.lease())
    driver.number -= 1
    names = tuple(str(number) * 64 for number in range(len(driver.map.fragments)))
    sent = msgspec.structs.replace(sent, fragments=names)
    answer = client.post(
        f"{running.url}/v1/contribution", content=msgspec.json.encode(sent), extensions=SYNCER
    )
    assert answer.status_code == 409
    assert set(answer.json()["fragments"]) == set(names)
    assert isinstance(sent, Contribution)
