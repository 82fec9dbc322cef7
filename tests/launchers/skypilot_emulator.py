"""A SkyPilot API server in memory, over real HTTP, with machines that are sockets of this one.

What the launcher relies on, and no more, in the shapes that a real server of 0.14.1 answered with
(`test_skypilot_real.py` asks one): a POST gives the id of a request in a header and `null`, its
outcome is a JSON text within JSON, a failure comes with status 500 below `detail`, clusters have
handles that are pickles, and the list of requests says neither errors nor, with `fields`, bodies.
"""

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.launchers.conformance import TIDIES_S

Obj = dict[str, Any]
PICKLE = "gASVCAAAAAAAAACMBGxpZXOULg=="  # nobody opens it
TICK_S = 0.01


class Failed(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Machine:
    """One cluster."""

    def __init__(self, name: str, task: str, number: int) -> None:
        self.task = yaml.safe_load(task)
        self.row: Obj = {
            "name": name,
            "launched_at": 1795314247 + number,
            "handle": PICKLE,
            "last_use": "sky launch",
            "status": "INIT",
            "autostop": -1,
            "to_down": False,
            "metadata": {},
            "cluster_hash": f"hash-{number}",
            "cluster_ever_up": False,
            "user_hash": "fcd1e5cf",
            "user_name": "root",
            "workspace": "default",
            "last_creation_yaml": task,
            "is_managed": False,
            "init_kind": "launching",
            "init_status_reason": "Launching on AWS us-east-1",
            "nodes": 1,
            "labels": {},
            "storage_mounts_metadata": PICKLE,
        }
        self.job: str | None = None
        self.listener: asyncio.Server | None = None

    @property
    def behaviour(self) -> str:
        """What its engine imitates: conformance.py puts it into the generation."""
        return self.task["envs"]["ARGOSY_GENERATION"].removeprefix("g-")

    def address(self) -> str | None:
        if self.listener is None:
            return None
        return "{}:{}".format(*self.listener.sockets[0].getsockname()[:2])


class Emulator:
    """`port` is stable over restarts; attributes are knobs of the tests."""

    def __init__(self) -> None:
        self.port = 0
        self.machines: dict[str, Machine] = {}
        self.requests: list[Obj] = []  # as `/api/get` answers
        self.bodies: dict[str, Obj] = {}  # by request
        self.launch_s = 0.05
        self.failures: list[tuple[str, str, str]] = []  # name, kind, message: of the next requests
        self.refusals: list[tuple[str, int, str]] = []  # path, status, text: of the next answers
        self.seen: list[tuple[str, Obj, Obj]] = []  # path, headers, body of each POST
        self._running: dict[str, asyncio.Task[None]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    # -- what tests do to it -------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, path: str) -> list[Obj]:
        return [body for at, _, body in self.seen if at == path]

    async def lose(self, name: str) -> None:
        """Its machine is taken back by the cloud, and the server has seen that."""
        await self._ended(self.machines.pop(name))

    async def begin(self) -> None:
        posts = ("status", "launch", "down", "cancel", "queue", "endpoints", "api/cancel")
        routes = [Route(f"/{path}", self._post, methods=["POST"]) for path in posts]
        routes += [
            Route("/logs", self._logs, methods=["POST"]),
            Route("/api/get", self._get),
            Route("/api/status", self._list),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=self.port, log_level="critical",
            lifespan="off",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(TICK_S)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    async def end(self) -> None:
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        tasks = [*self._running.values(), *self._jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._serving, *tasks, return_exceptions=True)
        for machine in self.machines.values():
            await self._ended(machine)

    # -- the API -------------------------------------------------------------------------------

    def _refused(self, request: Request) -> Response | None:
        for index, (path, status, text) in enumerate(self.refusals):
            if path == request.url.path:
                del self.refusals[index]
                return PlainTextResponse(text, status_code=status)
        return None

    async def _post(self, request: Request) -> Response:
        path, body = request.url.path, json.loads(await request.body())
        self.seen.append((path, dict(request.headers), body))
        refused = self._refused(request)
        if refused is not None:
            return refused
        name = "sky.api_cancel" if path == "/api/cancel" else f"sky.{path.removeprefix('/')}"
        request_id = f"id-{next(self._numbers)}"
        told = {
            "request_id": request_id, "name": name, "entrypoint": PICKLE, "request_body": PICKLE,
            "status": "PENDING", "created_at": time.time(), "user_id": "fcd1e5cf",
            "return_value": "null", "error": "null", "pid": None, "schedule_type": "short",
            "user_name": None, "cluster_name": body.get("cluster_name"), "status_msg": None,
            "should_retry": False, "finished_at": None, "file_mounts_blob_id": None,
        }  # fmt: skip
        self.requests.append(told)
        self.bodies[request_id] = body
        self._running[request_id] = asyncio.create_task(self._run(told, path, body))
        return JSONResponse(None, headers={"X-Skypilot-Request-ID": request_id})

    async def _run(self, told: Obj, path: str, body: Obj) -> None:
        told["status"] = "RUNNING"
        try:
            for index, (name, kind, message) in enumerate(self.failures):
                if name == told["name"]:
                    del self.failures[index]
                    raise Failed(kind, message)  # noqa: TRY301
            do = {
                "/status": self._status, "/launch": self._launch, "/down": self._down,
                "/cancel": self._cancel, "/queue": self._queue, "/endpoints": self._endpoints,
                "/api/cancel": self._cancel_requests,
            }[path]  # fmt: skip
            told["return_value"] = json.dumps(await do(body))
            told["status"] = "SUCCEEDED"
        except asyncio.CancelledError:
            told["status"] = "CANCELLED"
        except Failed as error:
            said = {"object": PICKLE, "type": error.kind, "message": str(error)}
            told.update(status="FAILED", error=json.dumps(said))

    async def _get(self, request: Request) -> Response:
        request_id = request.query_params["request_id"]
        found = [one for one in self.requests if one["request_id"] == request_id]
        if not found:
            return JSONResponse({"detail": f"Request {request_id!r} not found"}, status_code=404)
        while found[0]["status"] in ("PENDING", "RUNNING"):
            await asyncio.sleep(TICK_S / 2)
        if found[0]["error"] != "null":
            return JSONResponse({"detail": found[0]}, status_code=500)
        return JSONResponse(found[0])

    async def _list(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        asked = request.query_params
        has_bodies = "fields" not in asked
        found = []
        for one in sorted(self.requests, key=lambda one: one["created_at"], reverse=True):
            if asked.get("cluster_name") not in (None, one["cluster_name"]):
                continue
            body = json.dumps(self.bodies[one["request_id"]]) if has_bodies else "null"
            found.append(one | {"return_value": "null", "error": "null", "request_body": body})
        return JSONResponse(found[: int(asked["limit"])])

    async def _logs(self, request: Request) -> Response:
        body = json.loads(await request.body())
        machine = self.machines.get(body["cluster_name"])
        if machine is None or machine.behaviour != "ends":
            return PlainTextResponse("")
        assert body["follow"] is False
        return PlainTextResponse("\x1b[36m(job, pid=1)\x1b[0m out of luck\nexited with status 3\n")

    # -- what it does --------------------------------------------------------------------------

    async def _status(self, body: Obj) -> list[Obj]:
        names = body.get("cluster_names")
        return [one.row for name, one in self.machines.items() if names is None or name in names]

    async def _launch(self, body: Obj) -> Obj:
        name = body["cluster_name"]
        if not re.fullmatch("[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?", name):
            raise Failed("InvalidClusterNameError", name)
        assert name not in self.machines, "a second launch would be a second job there"
        self.machines[name] = machine = Machine(name, body["task"], next(self._numbers))
        await asyncio.sleep(self.launch_s)
        machine.row.update(
            status="UP", cluster_ever_up=True, init_kind=None, init_status_reason=None
        )
        machine.job = "RUNNING"
        if machine.behaviour == "ends":
            machine.job = "FAILED"
        elif machine.behaviour != "silent":
            machine.listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        return {"job_id": 1, "handle": PICKLE}

    async def _down(self, body: Obj) -> None:
        await asyncio.sleep(0.03)
        machine = self.machines.pop(body["cluster_name"], None)
        if machine is None:
            raise Failed("ClusterDoesNotExist", f"Cluster {body['cluster_name']!r} does not exist.")
        await self._ended(machine)

    async def _cancel(self, body: Obj) -> None:
        machine = self._up(body["cluster_name"])
        if machine.behaviour != "stubborn":
            ending = asyncio.create_task(self._end_job(machine))
            self._jobs.add(ending)
            ending.add_done_callback(self._jobs.discard)

    async def _end_job(self, machine: Machine) -> None:
        await asyncio.sleep(TIDIES_S if machine.behaviour == "tidy" else 0.02)
        machine.job = "CANCELLED"

    async def _cancel_requests(self, body: Obj) -> list[str]:
        for request_id in body["request_ids"]:
            self._running[request_id].cancel()
        return body["request_ids"]

    async def _queue(self, body: Obj) -> list[Obj]:
        machine = self._up(body["cluster_name"])
        job = {"job_id": 1, "job_name": "x", "username": "root", "status": machine.job}
        return [] if machine.job is None else [job]

    async def _endpoints(self, body: Obj) -> dict[str, str]:
        address = self._up(body["cluster"]).address()
        # A machine's port is opened whether somebody listens there or not.
        return {str(body["port"]): address or "127.0.0.1:1"}

    def _up(self, name: str) -> Machine:
        machine = self.machines.get(name)
        if machine is None:
            raise Failed("ClusterDoesNotExist", f"Cluster {name!r} does not exist.")
        if machine.row["status"] != "UP":
            raise Failed("ClusterNotUpError", f"Cluster {name!r} is not up.")
        return machine

    async def _ended(self, machine: Machine) -> None:
        if machine.listener is not None:
            machine.listener.close()
            await machine.listener.wait_closed()


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@contextlib.asynccontextmanager
async def emulated() -> AsyncIterator[Emulator]:
    emulator = Emulator()
    await emulator.begin()
    try:
        yield emulator
    finally:
        await emulator.end()
