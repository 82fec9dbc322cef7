"""Ctrl-C for the commands that run until they are told to stop: once in order, twice at once."""

import asyncio
import signal


class Stopping:
    """`stop` is set by the first signal, `hurry` by the second. Made inside a running loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()

    async def or_stopped(self, *tasks: "asyncio.Task[object]") -> bool:
        """Wait for the first of these, or for the signal; True when it was the signal."""
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return self.stop.is_set()
