"""Phones that are ordered by a run which several workers share."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from crm_sync.bootstrap import App
from crm_sync.domain.runs import Asked, RunStatus
from crm_sync.pipeline.scheduling import queue_by_hand
from crm_sync.workers import RunWorker
from tests.conftest import database_of
from tests.journeys.phones.conftest import MOBILE, PhoneOffice, office_of

_CONTACTS = 60
_ENDED = (RunStatus.QUEUED, RunStatus.RUNNING)


def together(office: PhoneOffice) -> None:
    services = office.app.services()
    queue_by_hand(services.config.syncs["contacts"], services, Asked())
    stop = threading.Event()
    with ExitStack() as stack:
        apps = [App() for _ in range(2)]
        workers = [RunWorker(lambda app=app: replace(app.services(), hint=lambda: None)) for app in apps]  # type: ignore[misc]
        threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
        for app, thread in zip(apps, threads, strict=True):
            stack.callback(app.close)
            thread.start()
        office.until(lambda: all(run.status not in _ENDED for run in office.app.runs.latest()), seconds=60)
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


@pytest.mark.postgres
@pytest.mark.parametrize("crm", ["salesforce"], indirect=True)
@pytest.mark.parametrize("order", ["after_match", "with_match"])
def test_a_shared_run_orders_each_phone_once(
    request: pytest.FixtureRequest, tmp_path: Path, crm: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_sync.pipeline.sharing.CHUNK", 10)
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "crm_sync.instance"))
    with (
        database_of("postgresql", request, tmp_path) as url,
        office_of(crm, url, monkeypatch, tidy=True, contacts=_CONTACTS, latency_ms=100) as office,
    ):
        _orders_each_once(office, order)


def _orders_each_once(office: PhoneOffice, order: str) -> None:
    if order == "with_match":
        office.order_phones(**{"      route:": "      order: with_match\n      route:"})

    together(office)
    run = office.app.runs.latest()[0]
    awaited = office.app.reveals.counts()
    office.carry_out()

    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert run.counts.updated == _CONTACTS
    assert awaited == {"waiting": len(office.targets)}
    # After the match the call that orders is charged for the person as well (contracts/apollo.md 3, 2026-10).
    again = len(office.targets) if order == "after_match" else 0
    assert sum(office.charged.values()) == _CONTACTS + again
    assert office.sold["more_than_once"] == {}
    assert [index for index in range(_CONTACTS) if office.value(index, MOBILE[office.crm])] == office.targets
    ended = office.app.runs.get(run.id)
    assert ended is not None
    assert ended.status is RunStatus.COMPLETED, ended.reason
