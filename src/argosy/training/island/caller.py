"""An island's HTTPS client, whose certificate may be renewed while it is used.

Owns when the certificate is looked at. A new one is for new connections; calls that are under way
go on as they are. Retries are the callers' business.
"""

import logging
import threading
from pathlib import Path
from time import perf_counter

import httpx

from argosy.training import credentials
from argosy.training.credentials import CredentialsError

LOOK_S = 60.0  # between two looks at the folder

logger = logging.getLogger(__name__)


class Caller:
    """Of one folder with credentials. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        timeout: httpx.Timeout,
        *,
        connections_max: int | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        """Raises CredentialsError."""
        self._folder = folder
        self._timeout = timeout
        self._limits = httpx.Limits(max_connections=connections_max)
        self._look_s = look_s
        self._lock = threading.Lock()
        self._looked_s = perf_counter()
        self._certificate = credentials.certificate_of(folder)
        self._client = self._made()
        self._former: httpx.Client | None = None  # calls may be under way on it

    @property
    def client(self) -> httpx.Client:
        """To be asked for each call anew."""
        with self._lock:
            now_s = perf_counter()
            if now_s - self._looked_s >= self._look_s:
                self._looked_s = now_s
                self._look()
            return self._client

    def close(self) -> None:
        """What is under way is cut off."""
        with self._lock:
            for client in (self._client, self._former):
                if client is not None:
                    client.close()

    def _look(self) -> None:
        try:
            certificate = credentials.certificate_of(self._folder)
            if certificate == self._certificate:
                return
            fresh = self._made()
        except CredentialsError as error:  # half copied, perhaps: the old one is good for days
            logger.warning("the certificate stays as it was: %s", error)
            return
        if self._former is not None:
            self._former.close()
        self._former, self._client = self._client, fresh
        self._certificate = certificate
        logger.info("it shows its renewed certificate from now on")

    def _made(self) -> httpx.Client:
        return httpx.Client(
            verify=credentials.calling(self._folder),
            timeout=self._timeout,
            limits=self._limits,
            trust_env=False,
        )
