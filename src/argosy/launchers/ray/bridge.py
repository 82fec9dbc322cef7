"""The process that is the driver of one Ray cluster for one fleet.

`python -m argosy.launchers.ray.bridge HOST:PORT NAMESPACE [HOST_NAMESPACE]`, the last of the fleet
whose guest ours is, with the words of `protocol.py` on its standard streams. Each question has a
thread, as Ray's calls block; one more listens to the actors.
It ends when its stdin does. Ray calls hang while the head is gone: whoever started us keeps the
deadlines, and kills us.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

import ctypes
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import msgspec
import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig

import argosy
from argosy.fleet.messages import Observation
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.launchers.ray.cluster import Book
from argosy.launchers.ray.listening import Listening
from argosy.launchers.ray.protocol import (
    Answered,
    Asked,
    Changed,
    Connected,
    Cordon,
    Observe,
    Question,
    Said,
    Send,
    Start,
    Stop,
)
from argosy.launchers.ray.replicas import Replicas
from argosy.launchers.ray.sight import Sight

_THREADS = 64  # a stop holds one for its grace
_AGAIN_S = 1.0
_WORDS_MAX = 300  # Ray's own go on with advice
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(address: str, namespace: str, host: str | None = None) -> None:
    """Run until stdin ends."""
    if sys.platform == "linux":  # a Ray call that hangs may hold what our reading needs
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    said = _Voice()
    asked = os.fdopen(os.dup(0), "rb")
    threading.Thread(target=_connect, args=(address, namespace, host, said), daemon=True).start()
    try:
        for line in asked:
            question = msgspec.json.decode(line, type=Asked)
            said.later(question)
    finally:
        os._exit(0)  # Ray's own farewell waits for a head that may be gone


class _Voice:
    """Questions wait here until the cluster is there; what is said is said whole."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)  # Ray prints
        self._line = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._bridge: Bridge | None = None

    def say(self, said: Said) -> None:
        with self._line:
            os.write(self._fd, msgspec.json.encode(said) + b"\n")

    def serve(self, bridge: "Bridge") -> None:
        self._bridge = bridge

    def later(self, asked: Asked) -> None:
        if self._bridge is None:
            refusal = Answered(id=asked.id, refusal="unseen", message="not connected yet")
            self.say(refusal)
        else:
            self._pool.submit(self._answer, self._bridge, asked)

    def _answer(self, bridge: "Bridge", asked: Asked) -> None:
        self.say(bridge.answer(asked))


class Bridge:
    """Answers questions, once connected."""

    def __init__(self, namespace: str, host: str | None) -> None:
        book = Book(namespace, host)
        self._replicas = Replicas(namespace, book)
        self.sight = Sight(namespace, book)

    def answer(self, asked: Asked) -> Answered:
        """Never raises: what is wrong is said."""
        try:
            return Answered(id=asked.id, observation=self._do(asked.question))
        except NoCapacityError as error:
            return Answered(id=asked.id, refusal="capacity", message=str(error))
        except LaunchError as error:
            return Answered(id=asked.id, refusal="launch", message=str(error))
        except PoolUnseenError as error:
            return Answered(id=asked.id, refusal="unseen", message=str(error))
        except Exception as error:  # noqa: BLE001  (Ray raises whatever; the pool is then unseen)
            message = f"{type(error).__name__}: {error}"
            return Answered(id=asked.id, refusal="unseen", message=message[:_WORDS_MAX])

    def _do(self, question: Question) -> Observation | None:
        match question:
            case Start(launch=launch):
                self._replicas.start(launch)
            case Stop(name=name, grace_s=grace_s):
                self._replicas.stop(name, grace_s)
            case Send(name=name, files=files):
                self._replicas.send(name, files)
            case Observe(pool=pool, resources=resources):
                return self.sight.observe(pool, resources)
            case Cordon(node=node, reason=reason):
                self._replicas.cordon(node, reason)
        return None


def _connect(address: str, namespace: str, host: str | None, said: _Voice) -> None:
    # Nodes take the actor from their own Argosy. Ray's way, a copy in the head's store, loses it:
    # a head that came back counts its users wrongly, and deletes the copy under the last.
    local = JobConfig(code_search_path=[str(Path(argosy.__file__).parents[1])])
    try:
        ray.init(
            address=address,
            namespace=namespace,
            job_config=local,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # noqa: BLE001  (whatever it is: it is said, and we end)
        said.say(Connected(failure=f"{type(error).__name__}: {error}"))
        os._exit(1)
    bridge = Bridge(namespace, host)
    said.serve(bridge)
    said.say(Connected())
    listening = Listening(bridge.sight)
    while True:
        try:
            if listening.step():
                said.say(Changed())
        except (RayError, RuntimeError, ValueError):  # the head is away, or comes back
            sleep(_AGAIN_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
