"""How every adapter talks HTTP: one kind of session, with bounds on time and size, and errors sorted by remedy."""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.utils import should_bypass_proxies
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from crm_sync import crash
from crm_sync.errors import (
    ConfigError,
    ContractError,
    CredentialsError,
    CrmSyncError,
    RateLimitError,
    TransientError,
)
from crm_sync.ports import Clock

MIB = 1024 * 1024
#: A server or a load balancer closes idle connections after 30 to 120 s; one that is dropped before it is used again
#: cannot be reset under a paid call (design/reliability.md M12).
IDLE_S = 20.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READ_SIZE = 256 * 1024
_LONGEST_RETRY_AFTER_S = 86_400.0

T = TypeVar("T")


class UnsentError(TransientError):
    """No byte of the request left this machine (refused, DNS, TLS): nothing can have happened at the other end."""


class LostAnswerError(TransientError):
    """The request may have left, and no whole answer came back. `body` holds what did arrive, `status` too if known."""

    body: bytes = b""


class UnprovenRefusalError(CredentialsError):
    """401 or 403 in words that are not the provider's: something in between refuses, which proves nothing."""


class InDoubtError(CrmSyncError):
    """`cause` ended the tries of a write, and one of them may have done its work."""

    def __init__(self, cause: CrmSyncError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class OversizedError(ContractError):
    """The answer is larger than anything this provider has reason to send. `body` holds its beginning."""

    body: bytes = b""


# --- addresses ----------------------------------------------------------------------------------------------------


def check_url(url: str, setting: str) -> str:
    """Return `url` without a trailing slash when it is an https address, or http on loopback.

    Raises:
        ConfigError: naming `setting` and the cure; the text shows no part of the address beyond its host.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{setting} is not an address; write it like https://api.example.com") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{setting} is not an https address; write it like https://api.example.com")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{setting} holds a user name or password; take it out, keys have settings of their own")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigError(f"{setting} must end with the host or a path; take out what follows the ? or #")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{setting} must begin with https:// (http is for this machine only, and {host} is not)")
    return url.strip().rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def environment_proxies(url: str) -> dict[str, str]:
    """The proxies the environment names for `url` right now; {} for loopback and for what NO_PROXY lists."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or should_bypass_proxies(url, no_proxy=None):
        return {}
    return {scheme: proxy for scheme, proxy in getproxies().items() if scheme in ("http", "https", "all")}


def ca_bundle() -> str | bool:
    """The certificates to trust: what REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names, True for the built-in ones."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name)
        if path:
            if not Path(path).exists():
                raise ConfigError(f"{name} names {path}, which does not exist; correct or unset it")
            return path
    return True


# --- the connections ----------------------------------------------------------------------------------------------

#: Of this thread's current request: `.traced` our own connections carry it (a test double's do not), `.left` a byte of
#: it may have left, `.operation` its name.
_here = threading.local()


class _Traced(HTTPConnection):
    """Notes when the first byte of a request leaves: the only proof that separates "unsent" from "unknown"."""

    idle_since = 0.0
    _connecting = False

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if not self._connecting:  # CONNECT to a proxy is not the request
            _here.left = True
        super().send(data)

    def getresponse(self) -> Any:
        crash.point("wire.asked", _here.operation)
        return super().getresponse()


class _TracedTls(_Traced, HTTPSConnection):
    pass


class _FreshPool(HTTPConnectionPool):
    """Closes a kept connection that idled for IDLE_S instead of using it."""

    ConnectionCls = _Traced

    def _get_conn(self, timeout: float | None = None) -> Any:
        _here.traced = True
        connection = super()._get_conn(timeout)
        if isinstance(connection, _Traced) and time.monotonic() - connection.idle_since > IDLE_S:
            connection.close()  # opens itself again when used
        return connection

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, _Traced):
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)


class _FreshTlsPool(_FreshPool, HTTPSConnectionPool):
    ConnectionCls = _TracedTls


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _FreshPool, "https": _FreshTlsPool}


class _Transport(HTTPAdapter):
    """Never repeats a request by itself, never keeps a stale connection."""

    poolmanager: PoolManager

    def __init__(self, *, connections: int) -> None:
        # Blocking: a thread beyond the pool's size waits for a connection instead of opening and dropping one.
        super().__init__(
            pool_connections=4,
            pool_maxsize=connections,
            max_retries=Retry(0, read=False, redirect=False),
            pool_block=True,
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _CutQueries(logging.Filter):
    """urllib3 logs whole request lines at DEBUG; what follows the "?" may be an e-mail address or SOQL text."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
        return True


_cut_queries = _CutQueries()


def keep_queries_out_of_logs() -> None:
    """Every BoundedSession calls this; an adapter that uses urllib3 without one calls it itself."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_cut_queries)  # the same filter twice is added once


# --- the session --------------------------------------------------------------------------------------------------


class BoundedSession(requests.Session):
    """A requests.Session for one provider; safe to use from several threads, also by libraries that take a Session.

    Every request has time-outs; every answer is read whole, counted after decompression, and at most `max_body`
    bytes of it; no redirect is followed, no cookie is kept, no hook is run, no `.netrc` is read. Only `base_url`'s
    host, and those given to `allow`, are talked to. Proxies and certificates come from the environment as it is at
    construction. A path that begins with "/" is taken from `base_url`. Status codes are left to the adapter.

    `operation_of(method, path)` names a request for `calls()` and for error texts; default "POST /its/path".
    """

    def __init__(
        self,
        *,
        provider: str,
        base_url: str,
        setting: str = "",
        connect_s: float = 5.0,
        read_s: float = 60.0,
        max_body: int = 4 * MIB,
        connections: int = 8,
        headers: Mapping[str, str] | None = None,
        operation_of: Callable[[str, str], str] | None = None,
    ) -> None:
        """
        Raises:
            ConfigError: `base_url` is not https (or loopback); `setting` is the name shown in the sentence.
        """
        super().__init__()
        keep_queries_out_of_logs()
        self.provider = provider
        #: What an admin changes when the address is wrong.
        self.setting = setting or f"the address of {provider}"
        self.base_url = check_url(base_url, setting or f"The address of {provider}")
        self.trust_env = False
        self._certificates = ca_bundle()
        self.verify = self._certificates
        self.headers["User-Agent"] = "crm-sync/0.1"
        self.headers.update(headers or {})
        self._timeout = (connect_s, read_s)
        self._max_body = max_body
        self._operation_of = operation_of or (lambda method, path: f"{method} {path}")
        self._hosts: dict[tuple[str, str | None, int | None], dict[str, str]] = {}
        self._calls: Counter[str] = Counter()
        self._calls_lock = threading.Lock()
        transport = _Transport(connections=connections)
        self.mount("https://", transport)
        self.mount("http://", transport)
        self.allow(self.base_url)

    def allow(self, url: str) -> None:
        """Talk to this address's host too (a token service, an instance that the login named).

        Raises:
            ConfigError: it is neither https nor loopback.
        """
        checked = check_url(url, f"The address {self.provider} named")
        self._hosts[_origin(checked)] = environment_proxies(checked)

    def calls(self) -> dict[str, int]:
        """Requests that left or may have left, by operation."""
        with self._calls_lock:
            return dict(self._calls)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        if isinstance(url, str) and url.startswith("/"):
            url = self.base_url + url
        return super().request(method, url, *args, **kwargs)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:  # noqa: ARG002
        return {}  # `send` decides alone

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """
        Raises:
            UnsentError: no byte left.
            LostAnswerError: it may have left; no whole answer.
            ContractError: a redirect, an answer beyond `max_body` (OversizedError), or an address at another host.
        """
        url = request.url or ""
        parts = urlsplit(url)
        operation = self._operation_of(request.method or "", parts.path)
        proxies = self._hosts.get((parts.scheme, parts.hostname, parts.port))
        if proxies is None:
            raise ContractError(
                f"{self.provider} pointed {operation} to another host; crm-sync talks only to the configured one",
                provider=self.provider,
                operation=operation,
            )
        _here.left = _here.traced = False
        _here.operation = operation
        started = time.monotonic()
        timeout = kwargs.get("timeout") or self._timeout
        try:
            response = self.get_adapter(url).send(
                request, stream=True, timeout=timeout, verify=self._certificates, cert=self.cert, proxies=proxies
            )
        except (requests.RequestException, urllib3_errors.HTTPError) as error:
            # The library's texts hold the whole address with its query: neither shown nor chained.
            failure = self._failure(error, operation, timeout)
            if not isinstance(failure, UnsentError):
                self._count(operation)
            raise failure from None
        self._count(operation)
        status = response.status_code
        if status in _REDIRECTS:
            response.raw.close()
            raise ContractError(
                f"{self.provider} answered {operation} with a redirect (HTTP {status}), which is never followed: "
                f"check {self.setting}",
                provider=self.provider,
                operation=operation,
                status=status,
            )
        body = self._read(response, operation, timeout)
        crash.point("wire.answered", operation)
        response._content = body  # noqa: SLF001  (requests has no public way to hand over a body that was read)
        response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
        response.elapsed = timedelta(seconds=time.monotonic() - started)
        return response

    def _count(self, operation: str) -> None:
        with self._calls_lock:
            self._calls[operation] += 1

    def _read(self, response: requests.Response, operation: str, timeout: Any) -> bytes:
        received = bytearray()
        try:
            # A server that drips a byte a minute never times out on a single read: bound the whole.
            read_bounded(response.raw, received, max_body=self._max_body, seconds=2 * _read_s(timeout))
        except (urllib3_errors.HTTPError, requests.RequestException, OSError) as error:
            lost = LostAnswerError(
                f"{self.provider}'s answer to {operation} broke off after {len(received)} bytes "
                f"({_words(error, timeout)})",
                provider=self.provider,
                operation=operation,
                status=response.status_code,
            )
            lost.body = bytes(received)
            raise lost from None
        if len(received) > self._max_body:
            oversized = OversizedError(
                f"{self.provider}'s answer to {operation} is larger than {self._max_body // 1024} KiB; it was not read",
                provider=self.provider,
                operation=operation,
                status=response.status_code,
            )
            oversized.body = bytes(received[:MIB])
            raise oversized
        return bytes(received)

    def _failure(self, error: Exception, operation: str, timeout: Any) -> TransientError:
        words = _words(error, timeout)
        unsent = not _here.left if _here.traced else _before_sending(error)
        if unsent:
            if isinstance(error, requests.Timeout):
                words = "no connection within the time-out"
            return UnsentError(
                f"{self.provider} could not be reached for {operation} ({words}); check {self.setting} and the network",
                provider=self.provider,
                operation=operation,
            )
        return LostAnswerError(
            f"{self.provider} did not answer {operation} ({words})", provider=self.provider, operation=operation
        )


def read_bounded(raw: BaseHTTPResponse, into: bytearray, *, max_body: int, seconds: float) -> None:
    """Read an answer into `into`, decompressed, until its end or until more than `max_body` bytes have come.

    Beyond `max_body` the connection is closed. On an error `into` keeps what had arrived.

    Raises:
        urllib3.exceptions.HTTPError: the body broke off, cannot be decompressed, or took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        # read1 gives what has arrived, so that a body cut off later is not lost with the exception.
        piece = raw.read1(min(_READ_SIZE, max_body + 1 - len(into)), decode_content=True)
        if not piece:
            raw.release_conn()
            return
        into += piece
        if len(into) > max_body:
            raw.close()
            return
        if time.monotonic() > deadline:
            raw.close()
            raise urllib3_errors.ReadTimeoutError(None, None, "slow")  # type: ignore[arg-type]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _read_s(timeout: Any) -> float:
    value = timeout[1] if isinstance(timeout, tuple) else timeout
    return float(value) if isinstance(value, int | float) else 60.0


def _reason(error: BaseException) -> BaseException:
    """The innermost error a library wrapped in others."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        inner = inner if isinstance(inner, BaseException) else error.__cause__
        if inner is None:
            return error
        error = inner
    return error


def _before_sending(error: Exception) -> bool:
    """Whether this kind of error comes before the first byte, judged by its type alone."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return True
    wrapped = error.args[0] if error.args else None
    cause = getattr(wrapped, "reason", wrapped)
    return isinstance(cause, urllib3_errors.NewConnectionError | urllib3_errors.ConnectTimeoutError)


def _words(error: BaseException, timeout: Any) -> str:
    """The cause in words that hold no address."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the time-out"
    if isinstance(error, requests.Timeout | urllib3_errors.TimeoutError):
        return f"nothing came for {_read_s(timeout):g} s"
    wrapped = error.args[0] if error.args else None
    cause = getattr(wrapped, "reason", wrapped)
    if isinstance(cause, urllib3_errors.NameResolutionError):
        return "the host name is not known"
    inner = _reason(error)
    if isinstance(error, requests.exceptions.SSLError | urllib3_errors.SSLError):
        return f"TLS failed: {getattr(inner, 'verify_message', '') or getattr(inner, 'reason', '') or 'handshake'}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused"
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno).lower()
    if isinstance(error, urllib3_errors.DecodeError):
        return "its compression is broken"
    return "the connection was closed"


# --- answers ------------------------------------------------------------------------------------------------------


def parse_json(body: bytes, *, provider: str, operation: str = "", status: int | None = None) -> Any:
    """Decode an answer's JSON.

    Raises:
        ContractError: empty, a web page, not JSON (NaN and bytes that are not UTF-8 included), or nested deeper than
            1,000 levels. The text shows nothing of the body.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # the library's error carries the document
    head = body[:200].lstrip().lower()
    if not head:
        what = "nothing"
    elif head.startswith(b"<"):
        what = "a web page"
    else:
        what = "something that is not JSON"
    suffix = f" (HTTP {status})" if status else ""
    raise ContractError(
        f"{provider} answered {operation or 'a call'} with {what}{suffix}; check the configured address and what "
        "stands between, such as a proxy",
        provider=provider,
        operation=operation,
        status=status,
    )


def parse_object(body: bytes, *, provider: str, operation: str = "", status: int | None = None) -> dict[str, Any]:
    """As parse_json, for an answer that must be a JSON object."""
    value = parse_json(body, provider=provider, operation=operation, status=status)
    if not isinstance(value, dict):
        raise ContractError(
            f"{provider} answered {operation or 'a call'} with JSON that is not an object",
            provider=provider,
            operation=operation,
            status=status,
        )
    return value


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a retry-after header asks for (a number or an HTTP date), 0 to one day; None when it does not say."""
    text = (headers.get("retry-after") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    if seconds != seconds:  # "nan" is a float
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def retry(
    call: Callable[[], T],
    *,
    harmless: bool,
    clock: Clock,
    tries: int = 5,
    total_s: float = 120.0,
    first_s: float = 0.5,
    longest_s: float = 20.0,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Call until it succeeds, waiting between tries: exponential back-off with full jitter, or what the provider asks.

    `harmless`: repeating may be done even if the first call did its work (reads, writes of absolute values).
    Otherwise only what certainly did nothing is repeated: UnsentError and RateLimitError. Never give it a paid call.

    Raises:
        TransientError: the last one, after `tries` calls or when the next wait would end beyond `total_s`.
    """
    began = clock.now()
    for attempt in range(1, tries + 1):
        try:
            return call()
        except TransientError as error:
            if not harmless and not isinstance(error, UnsentError | RateLimitError):
                raise
            wait = jitter() * min(longest_s, first_s * 2 ** (attempt - 1))
            asked = error.retry_after_s if isinstance(error, RateLimitError) else None
            if asked is not None:
                wait += asked  # never sooner, and not all at once
            if attempt == tries or (clock.now() - began).total_seconds() + wait > total_s:
                raise
        clock.sleep(wait)
    raise AssertionError("unreachable")
