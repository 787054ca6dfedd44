"""The requests.Session under simple-salesforce: it owns the token, the address, the time-outs and what errors mean.

simple-salesforce drops every caller's header when it refreshes a token, refreshes without a lock, hard-codes https and
has no time-outs (contracts/salesforce.md 1.5, proven 2026-11). Here a 401 is answered once, by one log-in however many
threads met it, and the same request with the same headers and body goes out again. The library sees successes only.
"""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import orjson
import requests

from adapters.http import MIB, BoundedSession, is_loopback
from adapters.salesforce.wire import BUSY, LATER, TIMED_OUT, is_expired, refusal, request_fault, scrubbed
from crm_sync.errors import ConfigError, CredentialsError, ProviderError, TransientError
from crm_sync.ports import Clock

#: The one place. Below 65, from which on SOAP login() is absent (contracts/salesforce.md 1.1, 2026-11).
API_VERSION = "62.0"
_SOAP_VERSION = "62.0"
#: A page of 2,000 records is 2 to 8 MB.
_MAX_BODY = 32 * MIB
_CONNECT_S = 5.0
#: How long what was told of the day is believed.
_USAGE_BELIEVED = timedelta(minutes=15)
READ_S = 60.0  # the platform itself gives up after 10 minutes (2.2); what we ask takes seconds
#: Log-ins in a row whose tokens were all refused. Not one: another program's log-in may have ended ours.
_MOST_FRUITLESS = 3
_HOSTS = (".salesforce.com", ".salesforce.mil")
#: OAuth's ways of saying "again, later" with status 400.
_LATER = frozenset({"unknown_error", "temporarily_unavailable", "server_error", "rate_limit_exceeded"})

_NEEDED = {
    "client_credentials": ("consumer_key", "consumer_secret"),
    "jwt": ("consumer_key", "private_key", "username"),
    "password": ("username", "password"),
    "session": ("session_id",),
}
#: What a refused log-in may be the fault of.
_SETTINGS = {
    "client_credentials": ("CONSUMER_KEY", "CONSUMER_SECRET"),
    "jwt": ("CONSUMER_KEY", "PRIVATE_KEY_FILE", "USERNAME"),
    "password": ("USERNAME", "PASSWORD", "SECURITY_TOKEN"),
    "session": ("SESSION_ID",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesforceCredentials:
    """What unlocks one org. Which fields are needed depends on `auth`; `private_key` is PEM text."""

    auth: Literal["client_credentials", "jwt", "password", "session"] = "client_credentials"
    consumer_key: str = field(default="", repr=False)
    consumer_secret: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    security_token: str = field(default="", repr=False)
    session_id: str = field(default="", repr=False)

    def check(self, name: str, url: str) -> None:
        """
        Raises:
            ConfigError: something `auth` needs is missing, or cannot be used with this address.
        """
        missing = [each for each in _NEEDED[self.auth] if not getattr(self, each)]
        if missing:
            raise ConfigError(f"{name}: {self.auth} needs {' and '.join(missing)}; set what is missing")
        if not _fits_header(self.session_id):
            raise ConfigError(f"{name}: the session id holds a blank or a character that none has; copy it again")
        host = urlsplit(url).hostname or ""
        if self.auth == "client_credentials" and host in ("login.salesforce.com", "test.salesforce.com"):
            raise ConfigError(
                f"{name}: client_credentials works at the org's own address only; write its My Domain URL, like "
                "https://acme.my.salesforce.com (Setup > My Domain)"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Token:
    text: str = field(repr=False)


class SalesforceSession(BoundedSession):
    """Sends every request of simple-salesforce to the org's own address with a valid token.

    `request` returns answers of 200 to 299 only, whose `json()` is fast. Retrying is the client's business; this class
    only renews a token, once for all threads.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        setting: str,
        credentials: SalesforceCredentials,
        clock: Clock,
        read_s: float = READ_S,
        prefix: str = "",
    ) -> None:
        """`prefix`: what the CRM's settings begin with (CRM_SYNC_SALESFORCE_), for sentences that name one.

        Raises:
            ConfigError: `url` is not https (or loopback), or `credentials` lack something.
        """
        super().__init__(
            provider=name,
            base_url=url,
            setting=setting,
            max_body=_MAX_BODY,
            connect_s=_CONNECT_S,
            read_s=read_s,
            headers={"Sforce-Call-Options": "client=crm-sync"},
            operation_of=operation_of,
        )
        credentials.check(name, self.base_url)
        self._credentials = credentials
        self._prefix = prefix
        self._clock = clock
        #: Where the org is, once a log-in has said so.
        self.target = self.base_url
        self._lock = threading.Lock()
        self._token = _Token(credentials.session_id) if credentials.auth == "session" else None
        self._failures = 0
        self._fruitless = 0
        self._refused: CredentialsError | None = None
        self._usage: tuple[datetime, int, int] | None = None
        #: How far the org's clock is ahead of ours, by the last answer's Date; to the second.
        self.ahead = timedelta()

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """
        Raises:
            ProviderError: sorted by remedy, for every answer that is no success.
        """
        headers = {
            name: value
            for name, value in (kwargs.pop("headers", None) or {}).items()
            if name not in ("Authorization", "X-PrettyPrint")  # pretty printing inflates a page by 40 %
        }
        address = self._address(url if isinstance(url, str) else url.decode())
        token = self._token or self._renew(None)
        response = self._send(method, address, token, headers, args, kwargs)
        if is_expired(response.status_code, response.content):
            token = self._renew(token)
            response = self._send(method, address, token, headers, args, kwargs)
        if response.status_code != 401:
            self._fruitless = 0
        self._note_usage(response.headers.get("Sforce-Limit-Info", ""))
        self._note_time(response.headers.get("Date", ""))
        if not 200 <= response.status_code < 300:
            raise self._refusal(response)
        return _Answer.of(response, self.provider)

    def login(self) -> None:
        """Make sure there is a token.

        Raises:
            CredentialsError: the org refuses the log-in; the text says why in its words.
        """
        if self._token is None:
            self._renew(None)

    def _send(
        self, method: str | bytes, url: str, token: _Token, headers: dict[str, str], args: Any, kwargs: dict[str, Any]
    ) -> requests.Response:
        headers = {**headers, "Authorization": f"Bearer {token.text}"}
        return super().request(method, url, *args, headers=headers, **kwargs)

    def _address(self, url: str) -> str:
        """The library's https://host/path on the address we really talk to."""
        if url.startswith("/"):
            return self.target + url
        parts = urlsplit(url)
        return self.target + parts.path + (f"?{parts.query}" if parts.query else "")

    def _refusal(self, response: requests.Response) -> ProviderError:
        return refusal(
            status=response.status_code,
            headers=response.headers,
            body=response.content,
            provider=self.provider,
            operation=self._operation_of(response.request.method or "", urlsplit(response.request.url or "").path),
            now=self._clock.now(),
        )

    def _note_usage(self, header: str) -> None:
        used, _, most = header.partition(";")[0].rpartition("=")[2].partition("/")
        if used.isdigit() and most.isdigit():
            self._usage = (self._clock.now(), int(used), int(most))

    @property
    def usage(self) -> tuple[int, int] | None:
        """Calls that the whole org has used and may use in 24 hours, by the last answer's Sforce-Limit-Info; None where
        none has told it lately: the day rolls on, and one call finds out anew."""
        if self._usage is None or self._clock.now() - self._usage[0] > _USAGE_BELIEVED:
            return None
        return self._usage[1:]

    def _note_time(self, header: str) -> None:
        try:
            self.ahead = parsedate_to_datetime(header) - self._clock.now()
        except (ValueError, TypeError):  # no date, or one without a zone
            return

    # --- logging in -----------------------------------------------------------------------------------------------

    def _renew(self, refused: _Token | None) -> _Token:
        """A token other than `refused`: whoever comes second takes the first one's, and its refusal too."""
        failures = self._failures
        with self._lock:
            if self._token is not None and self._token is not refused:
                return self._token
            if self._refused is not None and self._failures != failures:
                raise self._no_token(str(self._refused), status=self._refused.status)
            if self._credentials.auth == "session":
                raise self._no_token(
                    f"{self.provider} does not accept the session id (any more), and one without its log-in cannot be "
                    f"renewed; put a new one into {self._prefix}SESSION_ID, or use client_credentials or jwt",
                    status=401,
                )
            if self._fruitless >= _MOST_FRUITLESS:
                raise self._no_token(
                    f"{self.provider} accepts the log-in and then refuses each of its sessions; check that the user "
                    "may use the API, and the session settings of the org",
                    status=401,
                )
            try:
                text, instance = self._log_in()
                self.target = self._place(instance)
            except CredentialsError as error:
                self._refused = error
                self._failures += 1
                raise
            self._fruitless += 1
            self._token = _Token(text)
            return self._token

    def _log_in(self) -> tuple[str, str]:
        """(token, host of the org), by simple-salesforce's own request and our reading of the answer."""
        # PyJWT comes with simple-salesforce, whose import takes 0.3 s and 40 MB.
        from jwt import PyJWTError
        from simple_salesforce.exceptions import SalesforceAuthenticationFailed
        from simple_salesforce.login import SalesforceLogin

        try:
            token, instance = SalesforceLogin(
                session=_LoginDoor(self), sf_version=_SOAP_VERSION, **self._login_arguments()
            )
        except SalesforceAuthenticationFailed as error:
            raise self._soap_refusal(str(error.code), error.auth_message) from None
        except (PyJWTError, ValueError, TypeError, AttributeError) as error:
            # What PyJWT raises for text that is no key, a public one, another kind; its texts may quote it.
            raise self._no_token(
                f"{self.provider}: the private key cannot sign ({type(error).__name__}); it must be the PEM text of an "
                "RSA key without a pass phrase",
            ) from None
        except ExpatError:
            raise self._unreadable() from None
        if not _fits_header(token) or not token:
            raise self._unreadable()
        return token, instance

    def _login_arguments(self) -> dict[str, Any]:
        given = self._credentials
        host = urlsplit(self.base_url).hostname or ""
        if given.auth == "client_credentials":
            # The door below sends to the org's own address, whatever the domain.
            return {"consumer_key": given.consumer_key, "consumer_secret": given.consumer_secret, "domain": "my"}
        if given.auth == "jwt":
            is_sandbox = ".sandbox." in host or ".scratch." in host or host.startswith("test.") or "--" in host
            return {
                "username": given.username,
                "consumer_key": given.consumer_key,
                "privatekey": given.private_key,
                "domain": "test" if is_sandbox else "login",  # the assertion's audience
            }
        return {
            "username": given.username,
            "password": given.password,
            "security_token": html.escape(given.security_token),  # the library escapes the other two
            "domain": "my",
        }

    def _place(self, instance: str) -> str:
        """The org's own address as the log-in named it; only Salesforce's hosts, and loopback stays where it is."""
        parts = urlsplit(f"//{instance.rstrip('/')}")
        host = parts.hostname or ""
        ours = urlsplit(self.base_url).hostname or ""
        if is_loopback(ours) and (is_loopback(host) or host.endswith(_HOSTS)):
            return self.base_url
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not host.endswith(_HOSTS) or port not in (None, 443):
            raise self._no_token(
                f"{self.provider} named an address that is not Salesforce's after the log-in; nothing is sent there",
            )
        target = f"https://{host}"
        self.allow(target)
        return target

    def _soap_refusal(self, code: str, message: str) -> ProviderError:
        code = code.removeprefix("sf:")[:100]
        if code in ("SERVER_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "UNKNOWN_EXCEPTION"):
            return self._not_now(code)
        return self._refuses(code, "" if "<" in message else scrubbed(message))

    def _refuses(self, code: str, said: str, status: int = 401) -> CredentialsError:
        words = f"{code}: {said}" if said else code
        names = " and ".join(self._prefix + each for each in _SETTINGS[self._credentials.auth])
        return self._no_token(
            f"{self.provider} refuses the log-in by {self._credentials.auth} ({words}); check {names}, and that the "
            "app may be used by this user",
            status=status,
        )

    def _not_now(self, why: str, status: int | None = None) -> TransientError:
        return TransientError(
            f"{self.provider} cannot log in now ({why}); {LATER}",
            provider=self.provider,
            operation="login",
            status=status,
        )

    def _unreadable(self) -> TransientError:
        return TransientError(
            f"{self.provider} answered the log-in with something that is no token; check {self.setting} and what "
            "stands between, such as a proxy",
            provider=self.provider,
            operation="login",
        )

    def _no_token(self, message: str, status: int | None = None) -> CredentialsError:
        return CredentialsError(message, provider=self.provider, operation="login", status=status)

    def post_login(self, path: str, body: Any, headers: Any) -> requests.Response:
        """One log-in request, without a token. Of OAuth only readable tokens come back, of SOAP also its refusals.

        Raises:
            CredentialsError, TransientError: sorted from the answer.
        """
        url = self.base_url + path
        response = super().request("POST", url, data=body, headers=headers)
        status, content = response.status_code, response.content
        if path.startswith("/services/Soap/") and status in (200, 500) and b"nvelope" in content:
            return response
        fault = request_fault(content)
        if status in BUSY or status >= 500 or status == TIMED_OUT or (fault is not None and fault.code in _LATER):
            raise self._not_now(f"HTTP {status}", status)
        if fault is not None and fault.code == "REQUEST_LIMIT_EXCEEDED":
            raise self._refusal(response)
        if fault is not None:
            raise self._refuses(fault.code, scrubbed(fault.message), status)
        if status != 200:
            raise self._refuses(f"HTTP {status} and no Salesforce error", "", status)
        if not _holds_token(content):
            raise self._unreadable()
        return response


class _LoginDoor:
    """What SalesforceLogin sees of the session."""

    def __init__(self, session: SalesforceSession) -> None:
        self._session = session

    def post(self, url: str, data: Any = None, headers: Any = None, **_kwargs: Any) -> requests.Response:
        return self._session.post_login(urlsplit(url).path, data, headers)


class _Answer(requests.Response):
    """A Response that the library decodes at orjson's speed, with its own hooks ignored."""

    provider: str

    @classmethod
    def of(cls, response: requests.Response, provider: str) -> _Answer:
        response.__class__ = cls
        assert isinstance(response, cls)
        response.provider = provider
        return response

    def json(self, **_kwargs: Any) -> Any:
        """
        Raises:
            TransientError: it is not JSON, so something between or a cut answer; all our calls may be repeated.
        """
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:  # its text holds the document
            pass
        raise TransientError(
            f"{self.provider}'s answer is not JSON; check its address and what stands between, such as a proxy",
            provider=self.provider,
            status=self.status_code,
        )


def _holds_token(content: bytes) -> bool:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return isinstance(answer, dict) and all(
        isinstance(answer.get(key), str) and answer[key] for key in ("access_token", "instance_url")
    )


def _fits_header(token: str) -> bool:
    """requests would quote a token that does not in its exception."""
    return token.isascii() and all(c.isprintable() and c != " " for c in token)


_PARTS_OF_A_JOB = "data/v62.0/jobs/ingest/750000000000000AAA".count("/")


def operation_of(method: str, path: str) -> str:
    """A request's name in counts and errors."""
    tail = path.rpartition("/services/")[2]
    if tail.startswith(("oauth2", "Soap")):
        return "login"
    if "/jobs/" in tail:
        return "poll" if method == "GET" and tail.count("/") == _PARTS_OF_A_JOB else "bulk"
    if tail.endswith("/describe"):
        return "describe"
    if "/query" in tail:
        return "query"
    if "/composite/sobjects" in tail:
        return "write" if method == "PATCH" else "read"
    if tail.endswith("/composite"):
        return "write"
    return "limits" if tail.endswith(("/limits", "/limits/")) else "other"
