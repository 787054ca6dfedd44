"""The requests.Session under simple-salesforce: it owns the token, the address and the time-outs.

simple-salesforce drops every caller's header when it refreshes a token, refreshes without a lock, hard-codes https and
has no time-outs (contracts/salesforce.md 1.5, proven 2026-11). Here a 401 is answered once, by one log-in however many
threads met it, and the same request with the same headers and body goes out again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
import requests

from adapters.http import MIB, BoundedSession, is_loopback
from crm_sync.errors import CredentialsError, TransientError

#: SOAP log-in is absent from API version 65 up (contracts/salesforce.md 1.1, 2026-11).
API_VERSION = "62.0"
#: A page of 2,000 records is 2 to 8 MB.
_MAX_BODY = 32 * MIB

# 401s that no new token cures; jsforce lists them as endless-loop traps (contracts/salesforce.md 1.5).
_INCURABLE = (b"not valid for the REST API", b"not attached to an agent", b"not associated with an agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesforceCredentials:
    """What unlocks one org. Which fields are needed depends on `auth`; `private_key` is PEM text."""

    auth: Literal["client_credentials", "jwt", "password", "session"] = "client_credentials"
    consumer_key: str = ""
    consumer_secret: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    security_token: str = field(default="", repr=False)
    session_id: str = field(default="", repr=False)


class SalesforceSession(BoundedSession):
    """Sends every request of simple-salesforce to the org's own address with a valid token.

    Retrying is the client's business; this class only renews a token, once for all threads.
    """

    def __init__(self, *, name: str, url: str, setting: str, credentials: SalesforceCredentials) -> None:
        super().__init__(
            provider=name,
            base_url=url,
            setting=setting,
            max_body=_MAX_BODY,
            read_s=120.0,  # the platform's own limit is 10 minutes; a query of 2,000 rows takes seconds
            headers={"Sforce-Call-Options": "client=crm-sync"},
            operation_of=operation_of,
        )
        self._credentials = credentials
        self._target = self.base_url
        self._lock = threading.Lock()
        self._generation = 0
        self._token = credentials.session_id if credentials.auth == "session" else ""
        #: Calls used and allowed today, from the last answer's Sforce-Limit-Info.
        self.usage: tuple[int, int] | None = None

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        headers = {
            name: value
            for name, value in (kwargs.pop("headers", None) or {}).items()
            if name not in ("Authorization", "X-PrettyPrint")  # pretty printing inflates a page by 40 %
        }
        address = self._address(url if isinstance(url, str) else url.decode())
        generation, token = self._current()
        response = self._send(method, address, token, headers, args, kwargs)
        if response.status_code == 401 and _expired(response.content) and self._credentials.auth != "session":
            token = self._renew(generation)
            response = self._send(method, address, token, headers, args, kwargs)
        self._note_usage(response.headers.get("Sforce-Limit-Info", ""))
        return response

    def login(self) -> None:
        """Make sure there is a token.

        Raises:
            CredentialsError: the org refuses the log-in; the text says why in its words.
        """
        self._current()

    def _send(
        self, method: str | bytes, url: str, token: str, headers: dict[str, str], args: Any, kwargs: dict[str, Any]
    ) -> requests.Response:
        return super().request(method, url, *args, headers={**headers, "Authorization": f"Bearer {token}"}, **kwargs)

    def _address(self, url: str) -> str:
        """The library's https://host/path on the address we really talk to."""
        if url.startswith("/"):
            return self._target + url
        parts = urlsplit(url)
        return self._target + parts.path + (f"?{parts.query}" if parts.query else "")

    def _current(self) -> tuple[int, str]:
        if not self._token:
            self._renew(0)
        return self._generation, self._token

    def _renew(self, generation: int) -> str:
        """A token newer than `generation`'s: whoever comes second takes the first one's."""
        with self._lock:
            if self._token and self._generation != generation:
                return self._token
            self._token, instance = self._log_in()
            self._generation += 1
            self._follow(instance)
            return self._token

    def _log_in(self) -> tuple[str, str]:
        from simple_salesforce import SalesforceLogin
        from simple_salesforce.exceptions import SalesforceAuthenticationFailed

        given = self._credentials
        if given.auth == "session":
            raise CredentialsError(
                f"{self.provider} does not accept the session id (any more); a session cannot be renewed: "
                "use client_credentials or jwt",
                provider=self.provider,
                operation="login",
            )
        host = urlsplit(self.base_url).hostname or ""
        domain = host.removesuffix(".salesforce.com") if not is_loopback(host) else "sandbox.my"
        arguments: dict[str, Any]
        if given.auth == "client_credentials":
            arguments = {"consumer_key": given.consumer_key, "consumer_secret": given.consumer_secret, "domain": domain}
        elif given.auth == "jwt":
            audience = "test" if ".sandbox.my" in host or host.startswith("test.") else "login"
            arguments = {
                "username": given.username,
                "consumer_key": given.consumer_key,
                "privatekey": given.private_key,
                "domain": audience,
            }
        else:
            arguments = {
                "username": given.username,
                "password": given.password,
                "security_token": given.security_token,
                "domain": domain,
            }
        try:
            token, instance = SalesforceLogin(session=_LoginDoor(self), sf_version=API_VERSION, **arguments)
        except SalesforceAuthenticationFailed as error:
            raise CredentialsError(
                f"{self.provider} refuses the log-in ({given.auth}): {_said(error)}. Check its settings and that the "
                "app may be used by this user",
                provider=self.provider,
                operation="login",
                status=401,
            ) from None
        except (ValueError, AttributeError, TypeError) as error:
            # A private key that is none, or an answer that is no token (the library does not look).
            raise CredentialsError(
                f"{self.provider}: the log-in ({given.auth}) cannot be made or its answer cannot be read "
                f"({type(error).__name__}); check the key and the address",
                provider=self.provider,
                operation="login",
            ) from None
        if not token:
            raise CredentialsError(
                f"{self.provider} answered the log-in without a token", provider=self.provider, operation="login"
            )
        return str(token), str(instance)

    def _follow(self, instance: str) -> None:
        """The org's own address as the log-in named it; only Salesforce's hosts, and loopback stays loopback."""
        host = urlsplit(f"//{instance}").hostname or ""
        if is_loopback(urlsplit(self.base_url).hostname or ""):
            return
        if not (host.endswith((".salesforce.com", ".salesforce.mil"))):
            raise CredentialsError(
                f"{self.provider} named an address that is not Salesforce's after the log-in; nothing is sent there",
                provider=self.provider,
                operation="login",
            )
        self._target = f"https://{instance.rstrip('/')}"
        self.allow(self._target)

    def _note_usage(self, header: str) -> None:
        used, _, most = header.partition(";")[0].rpartition("=")[2].partition("/")
        if used.isdigit() and most.isdigit():
            self.usage = (int(used), int(most))


class _LoginDoor:
    """What SalesforceLogin sees of the session: its posts go to the org's own address, without a token."""

    def __init__(self, session: SalesforceSession) -> None:
        self._session = session

    def post(self, url: str, data: Any = None, **kwargs: Any) -> requests.Response:
        kwargs.pop("proxies", None)
        parts = urlsplit(url)
        response = BoundedSession.request(
            self._session, "POST", self._session.base_url + parts.path, data=data, **kwargs
        )
        if response.status_code == 429 or (response.status_code >= 500 and b"faultcode" not in response.content):
            raise TransientError(
                f"{self._session.provider} answered the log-in with HTTP {response.status_code}",
                provider=self._session.provider,
                operation="login",
                status=response.status_code,
            )
        return response


def _expired(body: bytes) -> bool:
    """Whether a 401 says that the token has ended, in a way a new one cures."""
    if any(sentence in body for sentence in _INCURABLE):
        return False
    try:
        errors = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(errors, list) and any(
        isinstance(error, dict) and error.get("errorCode") == "INVALID_SESSION_ID" for error in errors
    )


def _said(error: Any) -> str:
    """The org's own words, without what we sent."""
    code = str(getattr(error, "code", "") or "")[:80]
    message = str(getattr(error, "auth_message", "") or "")
    if "<" in message:
        message = ""
    return f"{code} {message[:200]}".strip()


def operation_of(method: str, path: str) -> str:
    """A request's name in counts and errors."""
    tail = path.rpartition("/services/")[2]
    if tail.startswith(("oauth2", "Soap")):
        return "login"
    if tail.endswith("/describe"):
        return "describe"
    if "/query" in tail:
        return "query"
    if "/composite/sobjects" in tail:
        return "write" if method == "PATCH" else "read"
    return "limits" if tail.endswith(("/limits", "/limits/")) else "other"
