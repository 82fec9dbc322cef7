"""Credentials of a run: who may sign, what a certificate says, what is refused in words."""

import pytest
from cryptography import x509

from argosy.training.credentials import (
    CA_KEY,
    CERT,
    CredentialsError,
    Identity,
    calling,
    folder_of,
    identity_of,
    island_host,
    make_credentials,
)

NOW_S = 1_800_000_000.0


def test_a_certificate_says_run_role_and_name_whatever_characters_they_have(tmp_path):
    name = "azure/eastus:a100-1.x"
    make_credentials(tmp_path, "llama/8b:run", [name], now_s=NOW_S)
    island = own_identity(folder_of(tmp_path, "island", name))
    assert island == Identity(run="llama/8b:run", role="island", name=name)
    syncer = own_identity(folder_of(tmp_path, "syncer"))
    assert (syncer.run, syncer.role) == ("llama/8b:run", "syncer")


def test_islands_may_be_added_later_under_the_same_authority(tmp_path):
    make_credentials(tmp_path, "test", ["ann"], now_s=NOW_S)
    authority = (tmp_path / CA_KEY).read_bytes()
    make_credentials(tmp_path, "test", ["bob"], now_s=NOW_S)
    assert (tmp_path / CA_KEY).read_bytes() == authority
    assert own_identity(folder_of(tmp_path, "island", "ann")).name == "ann"
    assert own_identity(folder_of(tmp_path, "island", "bob")).name == "bob"


def test_hosts_of_islands_differ():
    assert island_host("ann") != island_host("bob")
    assert len(island_host("a" * 100)) < 64


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        {},
        {"subjectAltName": (("DNS", "argosy:run/test/island/ann"),)},
        {"subjectAltName": (("URI", "argosy:run/test/admin/ann"),)},
        {"subjectAltName": (("URI", "argosy:run/test/island"),)},
        {"subjectAltName": (("URI", "http://test/island/ann"),)},
    ],
)
def test_other_certificates_say_nothing_of_a_run(certificate):
    assert identity_of(certificate) is None


def test_a_missing_or_damaged_folder_is_said_in_words(tmp_path):
    with pytest.raises(CredentialsError, match="holds no usable"):
        calling(tmp_path)
    make_credentials(tmp_path, "test", ["ann"], now_s=NOW_S)
    (tmp_path / CA_KEY).write_bytes(b"x")
    with pytest.raises(CredentialsError, match="is no key of an authority"):
        make_credentials(tmp_path, "test", ["bob"], now_s=NOW_S)


def own_identity(folder):
    """Who the certificate in that folder is for, as another program reads it."""
    certificate = x509.load_pem_x509_certificate((folder / CERT).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return identity_of({"subjectAltName": tuple(("URI", uri) for uri in uris)})
