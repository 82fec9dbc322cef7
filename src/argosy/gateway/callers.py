"""Who asks: the key of a request, or why it is refused.

Owns what the operator's own token may do: chat as `operator`, and, for the runner of batches, ask
on behalf of a key and in the tier `batch`. What a key may use is left to the admission.
"""

import hmac
from collections.abc import Callable

import msgspec

from argosy.fleet.messages import Key, Refusal
from argosy.gateway.admission import ANYBODY
from argosy.gateway.batches.item_client import ON_BEHALF_OF, TIER
from argosy.gateway.http import Request

_OPERATOR = "operator"
_ON_BEHALF_OF, _TIER = ON_BEHALF_OF.encode(), TIER.encode()


class Callers:
    """All who may ask. `are_anonymous`: a request needs no key."""

    def __init__(
        self,
        *,
        find_key: Callable[[str], Key | None],
        find_key_by_id: Callable[[str], Key | None],
        operator_token: str,
        are_anonymous: bool,
        created_at_s: float,
    ) -> None:
        self._find_key = find_key
        self._find_key_by_id = find_key_by_id
        self._operator_token = operator_token.encode()
        self._are_anonymous = are_anonymous
        self._operator = _own_key(_OPERATOR, created_at_s)
        self._anybody = _own_key(ANYBODY, created_at_s)

    def authenticate(self, request: Request) -> Refusal | None:
        """Put the key on the request, or say what is wrong with it."""
        secret = request.secret()
        if secret is not None:
            request.key = self._find_key(secret)
            if request.key is None and self._is_operator(secret):
                return self._as_operator(request)
        if request.key is not None or self._are_anonymous:
            return None
        if secret is None:
            message = (
                "No API key: send 'Authorization: Bearer argosy-…' or 'x-api-key: argosy-…'. "
                "Keys are made by: argosy keys create"
            )
            return Refusal(kind="no_key", message=message)
        return Refusal(kind="wrong_key", message="This API key is unknown or revoked.")

    def _is_operator(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(errors="replace"), self._operator_token)

    def _as_operator(self, request: Request) -> Refusal | None:
        """As itself, or as whom it names: nobody else's headers are looked at."""
        asked, tier = request.headers.get(_ON_BEHALF_OF), request.headers.get(_TIER)
        if tier not in (None, b"batch"):
            return Refusal(kind="bad_request", message=f"{TIER}: only 'batch' can be asked for.")
        key = self._operator
        if asked is not None:
            named = self._named(asked.decode("latin-1"))
            if named is None:
                message = "The API key that this is asked on behalf of is unknown or revoked."
                return Refusal(kind="wrong_key", message=message)
            key = named
        elif tier is not None and self._are_anonymous:
            key = self._anybody  # a batch that was made without a key has no other owner
        request.key = key if tier is None else msgspec.structs.replace(key, tier="batch")
        return None

    def _named(self, key: str) -> Key | None:
        return self._operator if key == _OPERATOR else self._find_key_by_id(key)


def _own_key(name: str, created_at_s: float) -> Key:
    """Of a caller that the store knows nothing about."""
    return Key(
        id=name, sha256="", tenant=name, tier="consumer", name=name, created_at_s=created_at_s
    )
