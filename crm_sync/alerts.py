"""How somebody is told: Apprise, within bounds. The only module that knows it.

An address of Apprise's holds what it takes to send: it is never logged, raised or shown. Apprise (2.3, 2026-11) tells
what went wrong to its logger alone, beside addresses: what it says there stays here, cleaned.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from crm_sync.domain.alerts import Message
from crm_sync.errors import ConfigError
from crm_sync.scrub import scrubbed

SLACK_SETTING, MAIL_SETTING = "CRM_SYNC_SLACK_URL", "CRM_SYNC_MAIL_URL"
#: All attempts of one round together. Apprise bounds each wait for a byte (4 s), and nothing an answer that drips.
DEADLINE_S = 20.0
#: Apprise's own is 4 s, which a mail server or Teams may exceed (caronc/apprise issue 262).
_READ_S = 10.0
_THREAD = "alert"
_WEBHOOK = re.compile(r"https://hooks\.slack\.com/services/(?P<path>[\w/-]+?)/?\Z", re.IGNORECASE)
#: What Apprise tells at debug level of a connection that failed -> what it means.
_CAUSES = (
    ("refused", "nobody listens there"),
    ("timed out", "it did not answer in time"),
    ("timeout", "it did not answer in time"),
    ("Name or service not known", "its name is not known"),
    ("nodename nor servname", "its name is not known"),
    ("Temporary failure in name resolution", "its name is not known"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("Authentication", "it does not take the name and password"),
    ("auth", "it does not take the name and password"),
    ("closed", "it broke the connection off"),
    ("aborted", "it broke the connection off"),
    ("reset", "it broke the connection off"),
)


class Notifiers:
    """`slack_url` and `mail_url` complete the short forms; `named`: CRM_SYNC_NOTIFY_… -> address. Thread-safe."""

    def __init__(
        self,
        *,
        slack_url: str = "",
        mail_url: str = "",
        named: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._slack_url = slack_url
        self._mail_url = mail_url
        self._named = named or {}
        self._deadline_s = deadline_s
        self._hanging: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Notifiers(…)"

    def problem(self, address: str) -> str:
        """Why nobody can be told at this address, "" where somebody can, as far as it shows without sending."""
        try:
            self._service(address)
        except ConfigError as error:
            return str(error)
        return ""

    def tell(self, messages: Sequence[Message]) -> list[str]:
        """Send each, all at once; what became of each: "" or why it was not taken. Returns within the deadline,
        whatever a notifier does; one that hangs beyond it is left alone until it has let go."""
        attempts = [self._begun(message) for message in messages]
        until = time.monotonic() + self._deadline_s
        for attempt in attempts:
            if attempt.thread is not None:
                attempt.thread.join(max(until - time.monotonic(), 0.0))
        return [self._outcome(attempt) for attempt in attempts]

    def _begun(self, message: Message) -> _Attempt:
        attempt = _Attempt(message)
        with self._lock:
            hanging = self._hanging.get(message.address)
            if hanging is not None and hanging.is_alive():
                attempt.outcome = "an earlier attempt still hangs there"
                return attempt
            self._hanging.pop(message.address, None)
        try:
            service, url = self._service(message.address)
        except ConfigError as error:
            attempt.outcome = str(error)
            return attempt
        except Exception as error:  # noqa: BLE001 - Apprise reads an address by code of a hundred services
            attempt.outcome = f"Apprise failed with {type(error).__name__}"
            return attempt
        attempt.thread = threading.Thread(target=_send, args=(attempt, service, url), name=_THREAD, daemon=True)
        attempt.thread.start()
        return attempt

    def _outcome(self, attempt: _Attempt) -> str:
        thread = attempt.thread
        if thread is not None and thread.is_alive():
            with self._lock:
                self._hanging[attempt.message.address] = thread
            return f"it did not answer within {self._deadline_s:g} s"
        assert attempt.outcome is not None
        return attempt.outcome

    def _service(self, address: str) -> tuple[Any, str]:
        """Apprise's notifier, and the whole address.

        Raises:
            ConfigError: a setting is missing, or Apprise cannot read what is there; nothing of it is repeated.
        """
        import apprise

        url, where = self._resolved(address)
        asset = apprise.AppriseAsset(
            app_id="crm-sync",
            app_desc="crm-sync",
            app_url="",
            async_mode=False,
            http_redirects=False,  # a redirect would carry what we say, and the key, to somebody else
            pgp_autogen=False,
            pem_autogen=False,
            plugin_paths=None,
            storage_mode=apprise.PersistentStoreMode.MEMORY,
        )
        with _listening():
            service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if service is None:
            raise ConfigError(
                f"{where} is no address that Apprise can read; its services and how their addresses are written: "
                "https://github.com/caronc/apprise/wiki"
            )
        if service.socket_read_timeout < _READ_S and "rto=" not in url:
            service.socket_read_timeout = _READ_S
        return service, url

    def _resolved(self, address: str) -> tuple[str, str]:
        """(the whole address, what to call it)"""
        scheme, _, rest = address.partition(":")
        if scheme.lower() == "env":
            found = self._named.get(rest, "")
            if not found:
                raise ConfigError(f"{rest} is not set, and alerts name it (env:{rest})")
            return found, rest
        if scheme.lower() == "slack" and not rest.startswith("//"):
            if not self._slack_url:
                raise ConfigError(
                    f"{SLACK_SETTING} is not set, and {address} needs it: an incoming webhook "
                    "(https://hooks.slack.com/services/…) or slack:// and a bot's token"
                )
            return _in_channel(self._slack_url, rest), SLACK_SETTING
        if scheme.lower() == "mailto" and _is_bare_mail(rest):
            if not self._mail_url:
                raise ConfigError(
                    f"{MAIL_SETTING} is not set, and mail needs it: mailtos://user:password@smtp.example.com:587"
                    "?from=crm-sync@example.com"
                )
            return _to(self._mail_url, rest.removeprefix("//")), MAIL_SETTING
        return address, f"an address {shown(address)}"


class _Attempt:
    __slots__ = ("message", "outcome", "thread")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.outcome: str | None = None
        self.thread: threading.Thread | None = None


def shown(address: str) -> str:
    """What a person may see of an address: short forms and names of settings whole, of a mail address its domain, of
    any other its scheme and last letters."""
    scheme, _, rest = address.partition(":")
    if scheme.lower() == "env" or (scheme.lower() == "slack" and not rest.startswith("//")):
        return address
    if scheme.lower() == "mailto" and _is_bare_mail(rest):
        name, _, domain = rest.removeprefix("//").partition("@")
        return f"mailto:{name[:1]}…@{domain}"
    path = urlsplit(address).path.rstrip("/")
    return f"{scheme.lower()}://…{path[-3:] if len(path) > 12 else ''}"


def _is_bare_mail(rest: str) -> bool:
    """name@example.com alone: no password, port or option with it."""
    return re.fullmatch(r"(?://)?[^\s@:/?]+@[^\s@:/?]+", rest) is not None


def _in_channel(url: str, channel: str) -> str:
    """Slack's address with the channel at its end, as Apprise writes it."""
    webhook = _WEBHOOK.match(url)
    base, _, options = (f"slack://{webhook['path']}" if webhook else url).partition("?")
    channel = channel if channel[:1] in ("#", "@") else f"#{channel}"
    name = channel.replace("#", "%23")
    return f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")


def _to(url: str, recipient: str) -> str:
    parts = urlsplit(url)
    options = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key.lower() != "to"]
    return urlunsplit(parts._replace(query=urlencode([*options, ("to", recipient)])))


def _send(attempt: _Attempt, service: Any, url: str) -> None:
    import apprise

    message = attempt.message
    kind = apprise.NotifyType.SUCCESS if message.is_good_news else apprise.NotifyType.WARNING
    with _listening() as said:
        try:
            is_taken = bool(service.notify(title=message.title, body=message.body, notify_type=kind))
        except Exception as error:  # noqa: BLE001 - a hundred services of others; whatever they raise is "not taken"
            attempt.outcome = _without(f"Apprise failed with {type(error).__name__}", url)
            return
    attempt.outcome = "" if is_taken else _without(_reason(said), url)


def _reason(said: Sequence[logging.LogRecord]) -> str:
    """The first warning, and what is known of its cause."""
    texts = [(record.levelno, record.getMessage()) for record in said]
    warning = next((text for level, text in texts if level >= logging.WARNING), "it was not taken")
    if "error=" in warning:
        return warning
    details = " ".join(text for level, text in texts if level < logging.WARNING and "Exception" in text)
    cause = next((words for sign, words in _CAUSES if sign.lower() in details.lower()), "")
    return f"{warning.rstrip('.')}: {cause}" if cause else warning


def _without(text: str, url: str) -> str:
    """`text` without anything of the address but its scheme and host."""
    parts = urlsplit(url)
    secrets = {
        piece
        for whole in (url, unquote(url))
        for piece in re.split(r"[/?&=@:#\s]+", whole)
        if len(piece) > 3 and piece.lower() not in (parts.scheme.lower(), (parts.hostname or "").lower(), "json")
    }
    text = scrubbed(text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text[:300]


class _Listener(logging.Handler):
    """What Apprise says in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.records) < 50:
            self.records.append(record)


def _is_not_of_ours(record: logging.LogRecord) -> bool:
    """urllib3 tells the path of each request at debug level: of ours it is the secret."""
    return record.threadName != _THREAD


class _listening:  # noqa: N801 - a context manager, used as a function
    """Hear what Apprise says, and let nobody else hear it: it names addresses, recipients and answers."""

    def __init__(self) -> None:
        self._listener = _Listener()
        self._logger = logging.getLogger("apprise")

    def __enter__(self) -> Sequence[logging.LogRecord]:
        self._logger.propagate = False
        for name in ("urllib3.connectionpool", "urllib3.util.retry"):
            logging.getLogger(name).addFilter(_is_not_of_ours)
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self._listener)
        return self._listener.records

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._listener)
