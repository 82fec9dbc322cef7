"""Who may take part in a run: a certificate authority of its own, and what it signed.

Owns the making of keys and certificates, the TLS contexts that demand them, and the reading of who
is at the other end. A certificate says run, role and name in a URI, `argosy:run/RUN/island/NAME`;
names are checked by that, and by a made-up host name that does not depend on where anything runs:
`syncer.argosy`, or an island's `island_host`. TLS 1.3 alone. Whoever has no certificate of this
run's authority is refused in the handshake.
"""

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERT, KEY, CA, CA_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"
SYNCER_HOST = "syncer.argosy"
LASTS_S = 14 * 86_400.0  # a run that lasts longer gets others by `renew_due`
_BACKDATED_S = 300.0  # hosts' clocks differ

Role = Literal["syncer", "island"]


class CredentialsError(Exception):
    """A certificate or key is missing, damaged or cannot be written; the message says which."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end, by a certificate that was verified."""

    run: str
    role: Role
    name: str  # of the island; the syncer's is "syncer"


def make_credentials(
    folder: Path, run: str, islands: Sequence[str], *, now_s: float, lasts_s: float = LASTS_S
) -> None:
    """A new authority in `folder`, and certificates under it: see `folder_of`.

    Where there is an authority of this run already, it signs; so islands may be added later.
    Raises CredentialsError.
    """
    if not (folder / CA_KEY).exists():
        _make_authority(folder, run, now_s=now_s)
    issue(folder, run, "syncer", "syncer", now_s=now_s, lasts_s=lasts_s)
    for island in islands:
        issue(folder, run, "island", island, now_s=now_s, lasts_s=lasts_s)


def folder_of(folder: Path, role: Role, name: str = "syncer") -> Path:
    """Where `make_credentials` puts one party's `tls.crt`, `tls.key` and `ca.crt`.

    That folder is all that the party needs; the authority's own key stays behind.
    """
    return folder / "syncer" if role == "syncer" else folder / "islands" / quote(name, safe="")


def issue(
    folder: Path, run: str, role: Role, name: str, *, now_s: float, lasts_s: float = LASTS_S
) -> None:
    """A new key and certificate for one party. Raises CredentialsError."""
    key = ec.generate_private_key(ec.SECP256R1())
    to = folder_of(folder, role, name)
    signed = _signed(folder, Identity(run=run, role=role, name=name), key, (now_s, lasts_s))
    _write(to / KEY, _key_bytes(key))
    _write(to / CERT, signed)
    _write(to / CA, (folder / CA).read_bytes())


def renew_due(
    folder: Path, run: str, islands: Sequence[str], *, now_s: float, lasts_s: float = LASTS_S
) -> list[str]:
    """New certificates for whoever's is past the middle of its time, under the keys they have.

    Whose they are. Of each party one file is replaced, by a rename: whoever reads the folder
    meanwhile has a pair that fits. Raises CredentialsError.
    """
    renewed: list[str] = []
    parties: list[tuple[Role, str]] = [("syncer", "syncer"), *(("island", it) for it in islands)]
    for role, name in parties:
        to = folder_of(folder, role, name)
        old = _read_certificate(to / CERT)
        middle = old.not_valid_before_utc + (old.not_valid_after_utc - old.not_valid_before_utc) / 2
        if now_s >= middle.timestamp():
            who = Identity(run=run, role=role, name=name)
            _write(to / CERT, _signed(folder, who, _read_key(to / KEY), (now_s, lasts_s)))
            renewed.append(name)
    return renewed


def certificate_of(folder: Path) -> bytes:
    """The certificate in that folder: another one after it was renewed. Raises CredentialsError."""
    try:
        return (folder / CERT).read_bytes()
    except OSError as error:
        raise _unusable(folder, error) from error


def take_up(context: ssl.SSLContext, folder: Path) -> None:
    """From now on the context shows the certificate in that folder; connections stay as they are.

    To be called where no handshake is under way: in the thread of the context's event loop. Raises
    CredentialsError; then it is to be tried again, for files may have changed between two looks.
    """
    _context(ssl.PROTOCOL_TLS_SERVER, folder)  # a pair that does not fit would spoil it
    _load(context, folder)


def island_host(name: str) -> str:
    """The host name in an island's certificate: what its peers check."""
    return f"i-{hashlib.sha256(name.encode()).hexdigest()[:24]}.island.argosy"


def listening(folder: Path) -> ssl.SSLContext:
    """For whoever is called: it takes callers of its own run alone. Raises CredentialsError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, folder)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


def calling(folder: Path) -> ssl.SSLContext:
    """For whoever calls: it checks the name that the call is for. Raises CredentialsError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, folder)


def identity_of(certificate: Mapping[str, object] | None) -> Identity | None:
    """Who that is, from `SSLObject.getpeercert()`; None: it says nothing of a run."""
    names = (certificate or {}).get("subjectAltName", ())
    for kind, value in names if isinstance(names, tuple) else ():
        parts = str(value).split("/")
        if kind == "URI" and len(parts) == 4 and parts[0] == "argosy:run":
            role = parts[2]
            if role == "syncer" or role == "island":
                return Identity(run=unquote(parts[1]), role=role, name=unquote(parts[3]))
    return None


def _signed(
    folder: Path,
    who: Identity,
    key: ec.EllipticCurvePrivateKey,
    time_s: tuple[float, float],
) -> bytes:
    """A certificate by the authority in `folder`; `time_s`: now, and how long it lasts."""
    authority_key, authority = _authority(folder)
    uri = f"argosy:run/{quote(who.run, safe='')}/{who.role}/{quote(who.name, safe='')}"
    host = SYNCER_HOST if who.role == "syncer" else island_host(who.name)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), x509.DNSName(host)]
    if who.role == "syncer":  # so that other clients may check the usual names on this machine
        names += [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(f"{who.role} {who.name}"[:64], key, *time_s)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        .add_extension(_issuer_id(authority), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _make_authority(folder: Path, run: str, *, now_s: float) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(f"argosy run {run}"[:64], key, now_s, 10 * 365 * 86_400.0)
        .issuer_name(_name(f"argosy run {run}"[:64]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_CA_USAGE, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / CA, certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / CA_KEY, _key_bytes(key))


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path = folder / CA_KEY
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CredentialsError(f"{path} is no key of an authority: {error}") from error
    certificate = _read_certificate(folder / CA)
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise CredentialsError(f"{path} is not the key of {folder / CA}")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CredentialsError(f"{folder / CA} is no authority of its own: {error}") from error
    return key, certificate


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CredentialsError(f"{path} is no key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialsError(f"{path} is no key that argosy train made")
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{path} is no certificate: {error}") from error


def _builder(
    common: str, key: ec.EllipticCurvePrivateKey, now_s: float, lasts_s: float
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(now_s - _BACKDATED_S, tz=datetime.UTC)
    end = datetime.datetime.fromtimestamp(now_s + lasts_s, tz=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _issuer_id(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    held = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(held)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    """Its owner's alone, from its first byte on; whole, or not there."""
    fresh = path.with_name(path.name + ".new")
    try:
        for folder in (*reversed(path.parent.parents), path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
        fresh.replace(path)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be written: {error.strerror}") from error


def _context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, folder)
    return context


def _load(context: ssl.SSLContext, folder: Path) -> None:
    try:  # a key with a passphrase would ask the terminal
        context.load_cert_chain(folder / CERT, folder / KEY, password=lambda: "")
        context.load_verify_locations(folder / CA)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> CredentialsError:
    return CredentialsError(
        f"{folder} holds no usable {CERT}, {KEY} and {CA}: {error}."
        " Make them anew: argosy train does, or copy the folder whole"
    )


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
