"""`worker --once`, as a system's own cron calls it: what a process that stays would do now and then is done too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from crm_sync.clock import SystemClock
from crm_sync.store.exclusive import Exclusive
from tests.cli.conftest import Desk, Said
from tests.journeys.unattended.conftest import OpenUnattended, UnattendedOffice, queued
from tests.notified import Hook, a_hook


@pytest.fixture
def hook() -> Iterator[Hook]:
    with a_hook() as made:
        yield made


def once(office: UnattendedOffice, monkeypatch: pytest.MonkeyPatch, *, later: timedelta = timedelta(0)) -> Said:
    """The command, in an installation of its own, so much later."""

    class Later(SystemClock):
        def now(self) -> datetime:
            return super().now() + later

    monkeypatch.setattr("crm_sync.bootstrap.SystemClock", Later)
    return Desk(sandbox=office.sandbox, crm=office.crm, folder=Path()).run("worker", "--once")


def test_a_run_that_fails_is_told_once_and_its_recovery_too(
    open_unattended: OpenUnattended, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=20, tidy=True)
    office.apply(office.text + f"alerts:\n  - {{when: run_failed, tell: 'json://127.0.0.1:{hook.port}'}}\n")
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "nobody-knows-this-key")
    queued(office)

    failed = once(office, monkeypatch)
    again = once(office, monkeypatch)
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", office.sandbox.settings()["CRM_SYNC_APOLLO_API_KEY"])
    queued(office)
    well = once(office, monkeypatch)

    assert failed.code == 1
    assert "Failed" in failed.text
    assert "1 notice told." in failed.text
    assert (again.code, again.out) == (0, "No run was due or queued.\n")
    assert well.code == 0
    assert "1 notice told." in well.text
    assert [text.split("\n")[0] for text in hook.texts] == [
        "crm-sync: contacts has failed",
        "crm-sync: contacts runs again",
    ]


def test_a_notice_that_is_not_taken_is_a_failure_that_says_where_to_look(
    open_unattended: OpenUnattended, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=20, tidy=True)
    office.apply(office.text + f"alerts:\n  - {{when: run_failed, tell: 'json://127.0.0.1:{hook.port}'}}\n")
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "nobody-knows-this-key")
    queued(office)
    hook.mode = "refuse"

    first = once(office, monkeypatch)
    second = once(office, monkeypatch, later=timedelta(minutes=5))
    hook.mode = "take"
    third = once(office, monkeypatch, later=timedelta(minutes=30))

    assert "1 notice not taken: crm-sync alerts says why." in first.err
    assert (second.code, second.out) == (1, "No run was due or queued.\n")
    assert "1 notice not taken" in second.err
    assert (third.code, third.err) == (0, "")
    assert "1 notice told." in third.out


def test_it_purges_once_a_day(open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch) -> None:
    office = open_unattended(contacts=20, tidy=True)
    queued(office)
    first = once(office, monkeypatch)
    last = office.app.retention.last()

    second = once(office, monkeypatch)
    unchanged = office.app.retention.last()
    much_later = once(office, monkeypatch, later=timedelta(days=400))

    assert first.code == second.code == much_later.code == 0
    assert last is not None
    assert unchanged == last
    assert "Purged: " in much_later.text
    assert office.app.retention.last() > last  # type: ignore[operator]


def test_where_a_process_that_stays_is_at_work_its_chores_are_left_to_it(
    open_unattended: OpenUnattended, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=20, tidy=True)
    office.apply(office.text + f"alerts:\n  - {{when: run_failed, tell: 'json://127.0.0.1:{hook.port}'}}\n")
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "nobody-knows-this-key")
    queued(office)
    with Exclusive(office.app.store, "scheduler") as scheduler, Exclusive(office.app.store, "watch") as watch:
        assert scheduler.take()
        assert watch.take()
        once(office, monkeypatch)

    assert office.app.retention.last() is None
    assert hook.texts == []
