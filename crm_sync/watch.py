"""Looks how everything stands, and tells whom the configuration names when that has changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from crm_sync.complaints import Complaints
from crm_sync.config.model import Config
from crm_sync.domain.alerts import Address, Finding, Late, Message, Notice
from crm_sync.domain.runs import RunStatus
from crm_sync.errors import CredentialsError, CrmSyncError
from crm_sync.pipeline.watching import RUNS, Awaited, Doubt, Facts, body, judged, name_of, subjects, used_of_limits
from crm_sync.ports import Clock
from crm_sync.scrub import scrubbed
from crm_sync.store.alerts import RECOVERED, Alerts
from crm_sync.store.exclusive import Exclusive
from crm_sync.store.health import Health
from crm_sync.store.runs import Runs

_log = logging.getLogger(__name__)

#: How often all is looked at; `did_not_start` and a failed run are told within so long.
LOOK_EVERY_S = 30.0
#: How often a provider is asked whether it lets us in: now and then, again soon where it did not, and at once when a
#: run has failed.
_ASK_EVERY, _ASK_AGAIN = timedelta(hours=1), timedelta(minutes=10)
#: How often we deliver something to ourselves.
_KNOCK_EVERY = timedelta(minutes=5)
#: A neighbour that is slow is heard in the next round; one that has no next round waits as long as a request takes.
NEIGHBOURS_S, PATIENTLY_S = 5.0, 60.0
_FORGET_EVERY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a look needs, for one configuration.

    `digest` stands for an address in the database, `shown` is what a person may see of it; `tell` sends and says what
    became of each message, "" for taken. `log_in` raises CredentialsError where a provider ("apollo", or a CRM's name)
    does not let us in. `public_url`: why the public address does not lead here, None where there is none to be had.
    `late`: the syncs that were due and have not started, None where nobody keeps a schedule.
    """

    config: Config
    config_version: int | None
    newest_version: Callable[[], int | None]
    runs: Runs
    health: Health
    alerts: Alerts
    digest: Callable[[str], bytes]
    shown: Callable[[str], str]
    tell: Callable[[Sequence[Message]], Sequence[str]]
    log_in: Callable[[str], object]
    public_url: Callable[[], str] | None
    late: Callable[[], Sequence[Late]] | None
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one look came to: notices made of what has changed, and messages taken and not taken."""

    made: int = 0
    told: int = 0
    not_told: int = 0


class Watch:
    """`once` looks and tells; `run` does so until it is told to stop. Any number of processes may watch one database:
    each change is told once. Not for several threads."""

    def __init__(
        self, watched: Callable[[], Watched], lock: Exclusive | None = None, *, patience_s: float = NEIGHBOURS_S
    ) -> None:
        """`watched` makes it for the newest applied configuration. With a `lock`, `run` looks only while it has it: one
        process is enough to ask the neighbours, whose answer a look awaits for `patience_s`."""
        self._make = watched
        self._lock = lock
        self._watched: Watched | None = None
        self._neighbours = _Neighbours(patience_s)
        self._complaints = Complaints(_log, "nobody watches")
        self._forgot_at: datetime | None = None

    def run(self, stop: threading.Event, *, every_s: float = LOOK_EVERY_S) -> None:
        """Whatever goes wrong is logged once, and ends nothing."""
        while not stop.is_set():
            try:
                if self._lock is None or self._lock.take():
                    self.once()
                self._complaints.over()
            except Exception as error:  # noqa: BLE001 - what is not told now is told by a later look
                self._complaints.about(error)
                self._watched = None
            stop.wait(every_s)
        if self._lock is not None:
            self._lock.release()

    def alone(self) -> Looked | None:
        """One look and no other; None where another process watches.

        Raises:
            CrmSyncError: as `once`.
        """
        if self._lock is None:
            return self.once()
        with self._lock:
            return self.once() if self._lock.take() else None

    def once(self) -> Looked:
        """
        Raises:
            CrmSyncError: the database cannot be asked, or nothing has been applied yet.
        """
        watched = self._current()
        alerts = watched.alerts
        if not (watched.config.alerts or alerts.firing() or alerts.waiting()):
            return Looked()
        now = watched.clock.now()
        facts = self._facts(watched, now)
        made = self._note(watched, facts)
        told, not_told = _deliver(watched)
        if self._forgot_at is None or now - self._forgot_at > _FORGET_EVERY:
            self._forgot_at = now
            watched.alerts.forget_old(now=now)
        return Looked(made=made, told=told, not_told=not_told)

    def _current(self) -> Watched:
        watched = self._watched
        if watched is None or watched.config_version != watched.newest_version():
            watched = self._watched = self._make()
        return watched

    def _facts(self, watched: Watched, now: datetime) -> Facts:
        config = watched.config
        events = {alert.when for alert in config.alerts}
        runs = {name: watched.runs.ended(name, limit=RUNS) for name in config.syncs}
        ended = [run.id for told in runs.values() for run in told if run.status is RunStatus.FAILED]
        gone_on_with = watched.runs.gone_on_with(ended) if ended else set()
        failed = {
            config.syncs[name].crm: told[0].id
            for name, told in runs.items()
            if told and told[0].status is RunStatus.FAILED
        }
        calls, most, oldest = watched.health.in_doubt()
        access, public_url = self._neighbours.asked(watched, events, failed, now)
        return Facts(
            now=now,
            runs=runs,
            gone_on_with=gone_on_with,
            spent={name: used for name, (_, used) in used_of_limits(config, watched.health.spent, now).items()},
            doubt=Doubt(calls=calls, most=most, oldest=oldest),
            awaited={
                sync: Awaited(count=count, oldest=since) for sync, (count, since) in watched.health.awaited().items()
            },
            late=watched.late() if watched.late is not None and "did_not_start" in events else None,
            access=access,
            public_url=public_url,
        )

    def _note(self, watched: Watched, facts: Facts) -> int:
        config = watched.config
        tell: dict[str, dict[bytes, Address]] = {}
        for alert in config.alerts:
            for address in alert.tell:
                digest = watched.digest(address)
                tell.setdefault(name_of(alert), {})[digest] = Address(digest=digest, shown=watched.shown(address))

        changed: dict[tuple[str, str, str], str] = {}

        def write(kind: str, finding: Finding, since: datetime, before: str) -> str:
            changed[kind, finding.alert, finding.subject] = finding.title
            return body(kind, finding, since, before, timezone=config.timezone)

        made = watched.alerts.note(
            judged(config, facts),
            possible={(name_of(alert), subject) for alert in config.alerts for subject in subjects(alert, config)},
            tell={name: list(addresses.values()) for name, addresses in tell.items()},
            write=write,
            now=facts.now,
        )
        for (kind, name, subject), title in changed.items():
            _log.info("alert %s: %s, %s: %s", kind, name, subject, title)
        return made


def _deliver(watched: Watched) -> tuple[int, int]:
    """Send what is due; (taken, not taken)."""
    due = watched.alerts.claim(now=watched.clock.now())
    known = {watched.digest(address): address for alert in watched.config.alerts for address in alert.tell}
    sent: list[tuple[Notice, Message]] = []
    for notice in due:
        address = known.get(notice.address)
        if address is None:
            watched.alerts.drop(notice.id, "its address is not in the configuration any more", now=watched.clock.now())
            continue
        message = Message(
            address=address,
            title=f"crm-sync: {notice.title}",
            body=notice.body,
            is_good_news=notice.kind == RECOVERED,
        )
        sent.append((notice, message))
    if not sent:
        return 0, 0
    outcomes = watched.tell([message for _, message in sent])
    for (notice, _), outcome in zip(sent, outcomes, strict=True):
        if not outcome:
            watched.alerts.told(notice.id, now=watched.clock.now())
            _log.info("notice %d was told to %s", notice.id, notice.shown)
        else:
            watched.alerts.not_told(notice, outcome, now=watched.clock.now())
            _log.warning("notice %d was not taken by %s: %s", notice.id, notice.shown, outcome)
    taken = sum(not outcome for outcome in outcomes)
    return taken, len(sent) - taken


@dataclass(slots=True)
class _Answers:
    """What neighbours said last, and when; `failed`: the failed run on whose account a CRM was asked last."""

    access: dict[str, str] = field(default_factory=dict)
    asked_at: dict[str, datetime] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    public_url: str | None = None
    knocked_at: datetime | None = None


class _Neighbours:
    """Asks providers and our own public address, in a thread of its own: what is slow is heard in a later look, and
    what could not be told stays as it was."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._answers = _Answers()
        self._thread: threading.Thread | None = None

    def asked(
        self, watched: Watched, events: set[str], failed: Mapping[str, str], now: datetime
    ) -> tuple[dict[str, str], str | None]:
        """(provider -> why it refuses us, why the public address does not lead here), as far as it is known."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(self._patience_s)
        else:
            asks = self._due(watched, events, failed, now)
            if asks:
                self._thread = threading.Thread(target=_ask_all, args=(asks,), name="neighbours", daemon=True)
                self._thread.start()
                self._thread.join(self._patience_s)
        return dict(self._answers.access), self._answers.public_url

    def _due(
        self, watched: Watched, events: set[str], failed: Mapping[str, str], now: datetime
    ) -> list[Callable[[], None]]:
        answers = self._answers
        asks: list[Callable[[], None]] = []
        if "credentials_refused" in events:
            providers = {
                provider
                for alert in watched.config.alerts
                if alert.when == "credentials_refused"
                for provider in subjects(alert, watched.config)
            }
            because = {**failed, "apollo": max(failed.values(), default="")}
            for provider in sorted(providers):
                run = because.get(provider, "")
                pause = _ASK_AGAIN if answers.access.get(provider) else _ASK_EVERY
                asked_at = answers.asked_at.get(provider)
                if asked_at is not None and now - asked_at < pause and run in ("", answers.failed.get(provider, "")):
                    continue
                answers.asked_at[provider] = now
                answers.failed[provider] = run
                asks.append(lambda provider=provider: self._log_in(watched, provider))  # type: ignore[misc]
        if "public_url_unreachable" in events and watched.public_url is not None:
            if answers.knocked_at is None or now - answers.knocked_at >= _KNOCK_EVERY:
                answers.knocked_at = now
                asks.append(lambda: self._knock(watched))
        else:
            answers.public_url = None
        return asks

    def _log_in(self, watched: Watched, provider: str) -> None:
        try:
            watched.log_in(provider)
        except CredentialsError as error:
            self._answers.access[provider] = scrubbed(str(error))
        except CrmSyncError as error:
            _log.info("%s could not be asked whether it lets us in: %s", provider, scrubbed(str(error)))
        else:
            self._answers.access[provider] = ""

    def _knock(self, watched: Watched) -> None:
        assert watched.public_url is not None
        try:
            self._answers.public_url = watched.public_url()
        except CrmSyncError as error:
            _log.info("the public address could not be tried: %s", scrubbed(str(error)))


def _ask_all(asks: Sequence[Callable[[], None]]) -> None:
    for ask in asks:
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - the others are asked all the same
            _log.error("a neighbour could not be asked: unexpected %s", type(error).__name__, exc_info=error)
