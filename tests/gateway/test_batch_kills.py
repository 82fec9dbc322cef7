"""kill -9 in the middle of a batch, again and again: every item once in the results.

Real processes: the runner that is killed, and a simulated replica that takes its time.
"""

import json
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import sqlalchemy
from batch_house import line

from argosy.engines.simulated import Simulated, SimulatedSpec
from argosy.fleet.batches import BatchDraft, Owner, Upload
from argosy.fleet.config import SimulatedEngine
from argosy.store.batches import Batches
from argosy.store.files import Files
from argosy.store.schema import item_table, open_store

ITEMS = 60
KILLS = 5
OWNER = Owner(tenant="acme", key="key_1")


@contextmanager
def replica():
    """A simulated replica of `tiny` that answers four at once, each in 80 ms; its URL."""
    engine = SimulatedEngine(slots=4, decode_tokens_per_s=100.0)
    spec = msgspec.json.encode(SimulatedSpec(model="tiny", engine=engine)).decode()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", Simulated.__module__ + "_server", spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def runner(path: Path, url: str):
    """The runner as a process; killed when the block ends."""
    script = Path(__file__).with_name("batch_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(path), url], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_batch_survives_kill_9_and_every_item_is_in_its_results_once(tmp_path):
    path = tmp_path / "argosy.db"
    store = open_store(path)
    files, batches = Files(store), Batches(store)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    content = b"".join(line(f"id-{i}", body=body) for i in range(ITEMS))
    upload = Upload(filename="in.jsonl", content=memoryview(content))
    file = files.add(OWNER, upload, now_s=time.time())
    draft = BatchDraft(
        owner=OWNER, api="openai", endpoint="/v1/chat/completions", input_file=file.id
    )
    made = batches.create(draft, now_s=time.time())

    def batch():
        return batches.find(made.id, tenant="acme", api="openai")

    chance = random.Random(1)
    killed_at = []
    with replica() as url:
        for kill in range(KILLS):  # the first while it is validated or just begun
            with runner(path, url) as process:
                assert process.stdout.readline() == b"running\n"
                while batch().succeeded < kill * 10:
                    assert process.poll() is None
                    time.sleep(0.005)
                time.sleep(chance.uniform(0.0, 0.05))
            killed_at.append(batch().succeeded)
            assert batch().is_open
        with runner(path, url) as process:
            assert process.wait(20.0) == 0

    assert killed_at == sorted(killed_at)
    assert killed_at[-1] < ITEMS, "the last kill came after the end"
    found = batch()
    assert (found.state, found.items, found.succeeded) == ("completed", ITEMS, ITEMS)
    output = files.find(found.output_file, tenant="acme")
    results, after = [], -1
    while pieces := files.read(output, after=after):
        results += [json.loads(piece) for _, piece in pieces]
        after = pieces[-1][0]
    assert [row["custom_id"] for row in results] == [f"id-{i}" for i in range(ITEMS)]
    assert all(row["response"]["status_code"] == 200 for row in results)
    assert len({row["id"] for row in results}) == ITEMS
    attempts = sqlalchemy.select(sqlalchemy.func.sum(item_table.c.attempts))
    with store.connect() as connection:
        assert connection.execute(attempts).scalar_one() > ITEMS, "no kill cut an item"
    store.dispose()
