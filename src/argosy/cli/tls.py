"""TLS as the commands use it: a folder of the control API's, the gateway's own certificate.

Owns the reading of certificates, their trial before they are used, and their being read again when
their files change: who listens or calls goes on with the same context. What is trusted is said by
the files alone: a control plane takes callers with a certificate of its CA, and no others.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

from argosy.fleet.config import Gateway, Tls

logger = logging.getLogger(__name__)
CERT, KEY, CA = "tls.crt", "tls.key", "ca.crt"  # as in a secret that cert-manager fills
_LOOK_EVERY_S = 2.0
_PEM_END = "-----END CERTIFICATE-----"
_ALERTS = {  # what the other end says of our certificate, by OpenSSL's name of it
    "CERTIFICATE_REQUIRED": "it takes only callers with a certificate of its CA: --tls DIR",
    "UNKNOWN_CA": "our certificate is of a CA that it does not trust",
    "CERTIFICATE_EXPIRED": "our certificate has expired",
    "CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "BAD_CERTIFICATE": "it does not take our certificate",
    "HANDSHAKE_FAILURE": "it takes only callers with a certificate of its CA: --tls DIR",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there: http://, or another port",
}


class TlsError(Exception):
    """A certificate, key or CA is of no use; the message says which file and why."""


class _Saying(ssl.SSLObject):
    """A listener's end that says why it refuses a caller, to it and here.

    The loop closes such a connection with the alert still unsent, and tells nobody.
    """

    _has_said = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            raise
        except ssl.SSLError as error:
            if self._has_said:
                raise
            self._has_said = True
            why = getattr(error, "verify_message", "") or error.reason or error
            logger.warning("A caller is refused in the handshake: %s", why)
            raise ssl.SSLWantReadError from error  # what is to be sent is sent; then it is over


class _Reread:
    """Files that may change while they are used."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._stamp = self._stamped()
        self._load()

    def refresh(self) -> bool:
        """Use what the files say now; whether they have changed. Raises TlsError: nothing has."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._load()
        return True

    async def refresh_forever(self) -> None:
        """A pair that is half written, or has expired, is said; the one before goes on."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                if self.refresh():
                    logger.warning("%s is read again", self._paths[0])
            except TlsError as error:
                logger.warning("The certificate that was read before is used on: %s", error)

    def _stamped(self) -> list[tuple[int, int]]:
        return [_stamp(path) for path in self._paths]

    def _load(self) -> None:
        raise NotImplementedError


class Identity(_Reread):
    """A party of the control API, by its folder: who it is, and whose callers it takes."""

    def __init__(self, folder: Path, *, listens: bool) -> None:
        """Raises TlsError. `listens`: a control plane; it calls, too."""
        self.client = _client()
        self.server = _server() if listens else None
        if self.server is not None:
            self.server.verify_mode = ssl.CERT_REQUIRED
            self.server.sslobject_class = _Saying
        super().__init__(folder / CERT, folder / KEY, folder / CA)

    def _load(self) -> None:
        cert, key, ca = self._paths
        fresh_server, fresh_client = _server(), _client()
        _load_pair(fresh_server, cert, key)
        _load_ca(fresh_client, ca)
        fresh_client.check_hostname = False
        if self.server is not None:
            _try(fresh_server, fresh_client, cert, f"as a server's, by the CA in {ca}")
        fresh_server.verify_mode = ssl.CERT_REQUIRED
        _load_ca(fresh_server, ca)
        fresh_client.verify_mode = ssl.CERT_NONE
        _load_pair(fresh_client, cert, key)
        _try(fresh_server, fresh_client, cert, f"as a client's, by the CA in {ca}")
        for context in (self.server, self.client):
            if context is not None:
                _load_pair(context, cert, key)
                _load_ca(context, ca)


class Certificate(_Reread):
    """What the gateway shows its clients."""

    def __init__(self, tls: Tls) -> None:
        """Raises TlsError."""
        self.context = _server()
        super().__init__(Path(tls.cert), Path(tls.key))

    def _load(self) -> None:
        cert, key = self._paths
        fresh = _server()
        _load_pair(fresh, cert, key)
        _try(fresh, trusting(cert), cert, "by a client that trusts it")
        _load_pair(self.context, cert, key)


def certificate_of(tls: Tls | None) -> Certificate | None:
    """Of a gateway that speaks TLS. Raises TlsError."""
    return None if tls is None else Certificate(tls)


def trusting(cert: Path) -> ssl.SSLContext:
    """For callers on the gateway's own machine: that very certificate, whoever signed it.

    Raises TlsError.
    """
    context = _client()
    context.check_hostname = False  # it is for a name that clients elsewhere know
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        leaf, end, _ = cert.read_text("ascii").partition(_PEM_END)
        context.load_verify_locations(cadata=leaf + end)
    except (OSError, ValueError) as error:
        raise TlsError(f"{cert} holds no certificate in PEM: {error}") from error
    return context


def trusted_by_own(gateway: Gateway) -> ssl.SSLContext | None:
    """For what a run asks of its own gateway; None: it speaks no TLS. Raises TlsError."""
    return None if gateway.tls is None else trusting(Path(gateway.tls.cert))


def in_words(error: BaseException) -> str | None:
    """Why a call failed, where one end refuses the other: then nothing was asked yet."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            said = f"{one.reason} {one}".upper().replace(" ", "_")
            for name, words in _ALERTS.items():
                if name in said:
                    return words
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(10):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _modern(context)


def _client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _modern(context)


def _modern(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for path in (cert, key):
        _check_readable(path)
    try:  # a key with a passphrase would ask the terminal
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        told = str(getattr(error, "reason", None) or error)
        raise TlsError(f"{cert} and {key} are no certificate and its key: {told}") from error


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    _check_readable(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsError(f"{ca} holds no certificate of a CA: {error.reason or error}") from error


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error


def _try(server: ssl.SSLContext, client: ssl.SSLContext, cert: Path, how: str) -> None:
    """A handshake in memory: what others would say of it is known before they are called."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for _ in range(4):  # TLS 1.2 takes as many turns
            for side in sides:
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLCertVerificationError as error:
        raise TlsError(f"{cert} is refused {how}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise TlsError(f"{cert} cannot be used {how}: {error.reason or error}") from error


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with the file, also where a link is set to another (as Kubernetes does)."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
