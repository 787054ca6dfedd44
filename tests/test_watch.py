"""The watch as it runs: a real database, Apprise, and servers that are told; each change of state once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_sync.alerts import Notifiers, shown
from crm_sync.config.loader import load
from crm_sync.domain.alerts import Late, Message
from crm_sync.domain.runs import Counts, RunStatus
from crm_sync.errors import CredentialsError, StoreError, TransientError
from crm_sync.store.alerts import Alerts
from crm_sync.store.engine import Store
from crm_sync.store.health import Health
from crm_sync.store.runs import Runs
from crm_sync.store.vault import Vault
from crm_sync.watch import Looked, Watch, Watched
from tests.clocks import FakeClock
from tests.factories import a_run, a_vault
from tests.notified import Hook, a_closed_port, a_hook

HALF_A_MINUTE = 30
CONFIG = """\
version: 1
crms: {salesforce: {type: salesforce, environment: sandbox}}
syncs:
  contacts: {crm: salesforce, object: Contact, match: {send: {email: Email}}, fields: {Title: person.title}}
alerts:
"""


class Office:
    """One database and one clock; `failing`, `public_url` and `late` are what the neighbours and the schedule say."""

    def __init__(self, store: Store, vault: Vault, *alerts: str) -> None:
        self.store, self.vault, self.clock = store, vault, FakeClock()
        self.runs = Runs(store)
        self.alerts = Alerts(store)
        self.failing: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.public_url = ""
        self.late: list[Late] = []
        self.notifiers = Notifiers(deadline_s=1.0)
        self.version = 0
        self._nth = 0
        self.configure(*alerts)

    def configure(self, *alerts: str) -> None:
        text = CONFIG + "".join(f"  - {{{alert}}}\n" for alert in alerts)
        self.config = load((text if alerts else text.replace("alerts:\n", "")).encode()).require()
        self.version += 1

    def log_in(self, provider: str) -> str:
        self.asked.append(provider)
        if provider in self.failing:
            raise self.failing[provider]
        return "accepted"

    def watched(self) -> Watched:
        return Watched(
            config=self.config,
            config_version=self.version,
            newest_version=lambda: self.version,
            runs=self.runs,
            health=Health(self.store),
            alerts=self.alerts,
            digest=self.vault.digest,
            shown=shown,
            tell=self.notifiers.tell,
            log_in=self.log_in,
            public_url=lambda: self.public_url,
            late=lambda: self.late,
            clock=self.clock,
        )

    def watch(self) -> Watch:
        return Watch(self.watched)

    def ran(self, status: RunStatus, reason: str = "", **counts: int) -> None:
        self._nth += 1
        self.clock.forward(1)
        run = a_run(id=f"run-{self._nth}", started_at=self.clock.now())
        self.runs.open(run, owner="here:1")
        ended = replace(run, status=status, reason=reason, finished_at=self.clock.now(), counts=Counts(**counts))
        self.runs.save(ended, now=self.clock.now())


@pytest.fixture
def hook() -> Iterator[Hook]:
    with a_hook() as made:
        yield made


@pytest.fixture
def office(store: Store) -> Callable[..., Office]:
    vault = a_vault(store)
    return lambda *alerts: Office(store, vault, *alerts)


@pytest.fixture
def lite(sqlite_store: Store) -> Callable[..., Office]:
    vault = a_vault(sqlite_store)
    return lambda *alerts: Office(sqlite_store, vault, *alerts)


def to(hook: Hook) -> str:
    return f'tell: "json://127.0.0.1:{hook.port}/hook"'


def looks(office: Office, watch: Watch, times: int) -> list[Looked]:
    done = []
    for _ in range(times):
        done.append(watch.once())
        office.clock.forward(HALF_A_MINUTE)
    return done


def test_a_failure_is_told_once_and_its_recovery_once(office: Callable[..., Office], hook: Hook) -> None:
    here = office(f"when: run_failed, {to(hook)}")
    watch = here.watch()
    looks(here, watch, 3)
    here.ran(RunStatus.COMPLETED)
    looks(here, watch, 3)
    here.ran(RunStatus.FAILED, "Apollo is down")
    looks(here, watch, 3)
    here.ran(RunStatus.FAILED, "Apollo is still down")
    looks(here, here.watch(), 3)  # a restart in between
    here.clock.forward(7200)
    here.ran(RunStatus.COMPLETED)
    looks(here, watch, 3)

    first, second = hook.texts
    assert first.splitlines()[0] == "crm-sync: contacts has failed"
    assert "Apollo is down" in first
    assert second.splitlines()[0] == "crm-sync: contacts runs again"
    assert "Recovered after 2 h 3 min." in second
    assert "Apollo is still down" in second


def test_two_watches_tell_it_once(office: Callable[..., Office], hook: Hook) -> None:
    here = office(f"when: run_failed, {to(hook)}")
    here.ran(RunStatus.FAILED, "x")
    watches = [here.watch() for _ in range(4)]
    threads = [threading.Thread(target=watch.once) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(hook.got) == 1


def test_what_a_dead_notifier_was_not_told_it_is_told_when_it_is_back(lite: Callable[..., Office], hook: Hook) -> None:
    with a_hook() as other:
        here = lite(f"when: run_failed, {to(hook)}", f"when: run_failed, syncs: contacts, {to(other)}")
        hook.mode = "refuse"
        here.ran(RunStatus.FAILED, "x")
        watch = here.watch()
        done = looks(here, watch, 12)

        assert len(other.got) == 1
        assert [each.not_told for each in done] == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
        [waiting] = here.alerts.undelivered(now=here.clock.now())
        assert "error=403" in waiting.error
        assert "hook" not in waiting.error
        hook.mode = "take"
        here.clock.forward(600)
        assert looks(here, watch, 1)[0].told == 1
        assert here.alerts.undelivered(now=here.clock.now()) == []


def test_a_notifier_that_hangs_holds_up_nothing(lite: Callable[..., Office], hook: Hook) -> None:
    with a_hook() as other:
        here = lite(f'when: run_failed, tell: ["json://127.0.0.1:{hook.port}", "json://127.0.0.1:{other.port}"]')
        hook.mode = "drip"
        here.ran(RunStatus.FAILED, "x")
        began = time.monotonic()
        here.watch().once()

        assert time.monotonic() - began < 4
        assert len(other.got) == 1


def test_one_whose_teller_died_in_the_middle_is_told_again(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: run_failed, {to(hook)}")
    here.ran(RunStatus.FAILED, "x")
    tell = here.notifiers.tell

    def killed(messages: Sequence[Message]) -> list[str]:
        tell(messages)
        raise KeyboardInterrupt

    here.notifiers.tell = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        here.watch().once()
    here.notifiers.tell = tell  # type: ignore[method-assign]
    looks(here, here.watch(), 4)

    assert len(hook.got) == 2  # at least once


def test_a_new_configuration_is_taken_up_and_what_it_dropped_is_not_told(
    lite: Callable[..., Office], hook: Hook
) -> None:
    here = lite(f'when: run_failed, tell: "json://127.0.0.1:{a_closed_port()}"')
    watch = here.watch()
    here.ran(RunStatus.FAILED, "x")
    watch.once()
    here.configure(f"when: run_failed, {to(hook)}")
    looks(here, watch, 6)

    assert hook.got == []  # it began under the old one
    assert [each.error for each in here.alerts.undelivered(now=here.clock.now())] == [
        "its address is not in the configuration any more"
    ]
    here.ran(RunStatus.COMPLETED)
    watch.once()
    assert len(hook.got) == 1
    here.configure()
    here.ran(RunStatus.FAILED, "y")
    watch.once()
    assert len(hook.got) == 1


def test_without_alerts_nothing_is_left_to_be_told(lite: Callable[..., Office]) -> None:
    here = lite(f'when: run_failed, tell: "json://127.0.0.1:{a_closed_port()}"')
    watch = here.watch()
    here.ran(RunStatus.FAILED, "x")
    watch.once()
    here.configure()
    here.clock.forward(3600)
    watch.once()

    assert (here.alerts.firing(), here.alerts.waiting()) == ([], [])


def test_the_same_rule_twice_tells_an_address_once(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: run_failed, {to(hook)}", f"when: run_failed, {to(hook)}")
    here.ran(RunStatus.FAILED, "x")
    here.watch().once()

    assert len(hook.got) == 1


def test_credentials_are_tried_now_and_then_and_at_once_when_a_run_has_failed(
    lite: Callable[..., Office], hook: Hook
) -> None:
    here = lite(f"when: credentials_refused, {to(hook)}")
    watch = here.watch()
    looks(here, watch, 20)
    assert here.asked == ["apollo", "salesforce"]
    here.failing["salesforce"] = CredentialsError(
        "the session of ada@lovelace.example has ended", provider="salesforce"
    )
    here.ran(RunStatus.FAILED, "x")
    looks(here, watch, 19)
    assert here.asked == ["apollo", "salesforce"] * 2
    del here.failing["salesforce"]
    looks(here, watch, 4)

    began, recovered = hook.texts
    assert began.startswith("crm-sync: salesforce refuses our credentials\nthe session of (an address) has ended.")
    assert recovered.startswith("crm-sync: salesforce takes our credentials again")


def test_a_provider_that_cannot_be_asked_stays_as_it_was(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: credentials_refused, {to(hook)}")
    watch = here.watch()
    here.failing["apollo"] = CredentialsError("no", provider="apollo")
    looks(here, watch, 1)
    here.failing["apollo"] = TransientError("down", provider="apollo")
    looks(here, watch, 60)

    assert len(hook.got) == 1


def test_a_neighbour_that_is_slow_is_heard_later(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: credentials_refused, {to(hook)}")
    answered = threading.Event()

    def slow(provider: str) -> str:
        answered.wait(20)
        raise CredentialsError("no", provider=provider)

    here.log_in = slow  # type: ignore[method-assign]
    watch = Watch(here.watched, patience_s=0.2)
    began = time.monotonic()
    watch.once()
    assert time.monotonic() - began < 2
    assert hook.got == []
    answered.set()
    time.sleep(0.1)
    looks(here, watch, 2)
    assert len(hook.got) == 2


def test_the_public_address_has_to_be_gone_for_a_while(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: public_url_unreachable, {to(hook)}")
    watch = here.watch()
    here.public_url = "it cannot be reached"
    looks(here, watch, 10)
    here.public_url = ""
    looks(here, watch, 11)
    assert hook.got == []
    here.public_url = "it cannot be reached"
    looks(here, watch, 40)
    here.public_url = ""
    looks(here, watch, 20)

    assert [text.splitlines()[0] for text in hook.texts] == [
        "crm-sync: Apollo cannot deliver phone numbers",
        "crm-sync: The public address leads here again",
    ]


def test_what_is_late_is_told_and_what_has_started_too(lite: Callable[..., Office], hook: Hook) -> None:
    here = lite(f"when: did_not_start, after: 10m, {to(hook)}")
    watch = here.watch()
    here.late = [Late(sync="contacts", slot=here.clock.now(), is_queued=False)]
    looks(here, watch, 20)
    assert hook.got == []
    looks(here, watch, 5)
    here.late = []
    looks(here, watch, 5)

    assert [text.splitlines()[0] for text in hook.texts] == [
        "crm-sync: contacts did not start",
        "crm-sync: contacts is on time again",
    ]


def test_a_database_that_fails_is_said_once_and_ends_nothing(
    lite: Callable[..., Office], hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    here = lite(f"when: run_failed, {to(hook)}")
    here.ran(RunStatus.FAILED, "x")
    broken: list[Any] = [1, 2, 3]

    def watched() -> Watched:
        if broken:
            broken.pop()
            raise StoreError("The database did not answer")
        return here.watched()

    stop = threading.Event()
    thread = threading.Thread(target=lambda: Watch(watched).run(stop, every_s=0.02))
    thread.start()
    until = time.monotonic() + 10
    while not hook.got and time.monotonic() < until:
        time.sleep(0.02)
    stop.set()
    thread.join(10)

    assert len(hook.got) == 1
    said = [record.getMessage() for record in caplog.records if "nobody watches" in record.getMessage()]
    assert said == ["nobody watches: The database did not answer"]


def test_nothing_is_looked_at_where_nobody_is_to_be_told(lite: Callable[..., Office]) -> None:
    here = lite()
    here.ran(RunStatus.FAILED, "x")

    assert here.watch().once() == Looked()
    assert here.asked == []


def test_a_look_is_quick_with_a_long_history(lite: Callable[..., Office], tmp_path: Path) -> None:
    here = lite('when: run_failed, tell: "slack:#a"', 'when: rejected_share, tell: "slack:#a"')
    start = here.clock.now() - timedelta(days=100)
    runs = [a_run(id=f"r{n:06}", started_at=start + timedelta(minutes=n)) for n in range(3000)]
    ended = [
        replace(run, status=RunStatus.COMPLETED, finished_at=run.started_at, counts=Counts(selected=50, updated=50))
        for run in runs
    ]
    with here.store.write() as connection:
        from sqlalchemy import insert

        from crm_sync.store.runs import run_values
        from crm_sync.store.tables import runs as table

        rows = [run_values(run) | {"owner": "x", "alive_at": run.started_at} for run in ended]
        connection.execute(insert(table), rows)
    watch = here.watch()
    watch.once()
    began = time.monotonic()
    watch.once()

    assert time.monotonic() - began < 0.5
