"""Who may call: service keys and private-app tokens, and OAuth apps whose tokens end."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from crm_sync.sandbox.hubspot.errors import RequestError, correlation_id

#: The sandbox's service key; no secret.
TOKEN = "pat-na1-00000000-5a4d-4b0c-8000-000000000001"  # noqa: S105

#: The number of the app behind the first token; histories name apps by their numbers.
FIRST_APP = 4_711_001

SCOPES = (
    "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.objects.companies.read",
    "crm.objects.companies.write", "crm.schemas.contacts.read", "crm.schemas.companies.read",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OAuthApp:
    """A public app that was installed in the account. Nothing of it is secret."""

    client_id: str = "00000000-5a4d-4b0c-8000-00000000c11d"
    client_secret: str = "00000000-5a4d-4b0c-8000-00000005ec7e"  # noqa: S105
    refresh_token: str = "na1-5a4d-refresh-0000-000000000001"  # noqa: S105
    scopes: tuple[str, ...] = SCOPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`app` is what the burst limit counts by, `source_id` how the history of what it writes names it."""

    app: str
    source_id: str
    is_oauth: bool
    scopes: frozenset[str]

    def need(self, *any_of: str) -> None:
        """
        Raises:
            RequestError: 403 MISSING_SCOPES unless one of the scopes was granted.
        """
        if not self.scopes.isdisjoint(any_of):
            return
        raise RequestError(
            403,
            "This app hasn't been granted all required scopes to make this call. Read more about required scopes here:"
            " https://developers.hubspot.com/scopes.",
            "MISSING_SCOPES",
            errors=[
                {
                    "message": "One or more of the following scopes are required.",
                    "context": {"requiredGranularScopes": list(any_of)},
                }
            ],
        )


class Tokens:
    """Thread-safe. `token_seconds`: how long an OAuth access token really lives, whatever `expires_in` says."""

    #: What the service says of a token's life (contracts/hubspot.md 1.2, 2026-11).
    expires_in = 1800

    def __init__(
        self,
        tokens: Mapping[str, Collection[str]],
        oauth: OAuthApp,
        *,
        token_seconds: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fixed = {
            token: Caller(
                app=f"private:{place}", source_id=str(FIRST_APP + place), is_oauth=False, scopes=frozenset(scopes)
            )
            for place, (token, scopes) in enumerate(tokens.items())
        }
        self._oauth = oauth
        self._caller = Caller(app="oauth", source_id=str(FIRST_APP - 1), is_oauth=True, scopes=frozenset(oauth.scopes))
        self._token_seconds = token_seconds
        self._now = now
        self._lock = threading.Lock()
        self._issued: dict[str, float] = {}
        self.refreshed = 0

    def refresh(self, form: Mapping[str, str]) -> dict[str, object]:
        """Answer POST /oauth/v1/token.

        Raises:
            RequestError: 400, in the shape of the OAuth service.
        """
        grant = form.get("grant_type", "")
        if grant != "refresh_token":
            known = grant == "authorization_code"
            raise _oauth_error(
                "BAD_AUTH_CODE" if known else "BAD_GRANT_TYPE",
                "missing or unknown auth code" if known else "missing or unknown grant type",
            )
        if form.get("client_id") != self._oauth.client_id:
            raise _oauth_error("BAD_CLIENT_ID", "missing or unknown client id")
        if form.get("client_secret") != self._oauth.client_secret:
            raise _oauth_error("BAD_CLIENT_SECRET", "missing or invalid client secret")
        if form.get("refresh_token") != self._oauth.refresh_token:
            raise _oauth_error("BAD_REFRESH_TOKEN", "missing or unknown refresh token")
        token = f"CJ{secrets.token_urlsafe(24)}"
        with self._lock:
            self._issued[token] = self._now() + self._token_seconds
            self.refreshed += 1
        return {
            "token_type": "bearer",
            "refresh_token": self._oauth.refresh_token,
            "access_token": token,
            "expires_in": self.expires_in,
        }

    def check(self, header: str) -> Caller:
        """Who calls with this Authorization header.

        Raises:
            RequestError: 401 INVALID_AUTHENTICATION or EXPIRED_AUTHENTICATION.
        """
        kind, _, token = header.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise RequestError(
                401,
                "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more"
                " details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
                "INVALID_AUTHENTICATION",
            )
        with self._lock:
            caller = self._fixed.get(token)
            until = self._issued.get(token)
        if caller is not None:
            return caller
        if until is None:
            raise RequestError(401, "The access token used to make this call is invalid.", "INVALID_AUTHENTICATION")
        late = self._now() - until
        if late >= 0:
            raise RequestError(
                401,
                f"The OAuth token used to make this call expired {int(late)} second(s) ago.",
                "EXPIRED_AUTHENTICATION",
                context={"expire time": [str(round(until))]},
            )
        return self._caller

    def expire(self) -> None:
        """Let every OAuth access token end now."""
        with self._lock:
            self._issued = dict.fromkeys(self._issued, self._now())

    def revoke(self, token: str) -> None:
        """Withdraw a service key or private-app token."""
        with self._lock:
            self._fixed.pop(token, None)


def _oauth_error(status: str, message: str) -> RequestError:
    return RequestError(400, message, extra={"status": status, "requestId": correlation_id()})
