"""A run that somebody stops while it orders phones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crm_sync.bootstrap import App
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun
from crm_sync.errors import StoreError
from crm_sync.pipeline.resolve import Resolver
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.walk import AS_BUDGETED, Stop
from crm_sync.store.runs import Runs
from tests.cli.conftest import Desk
from tests.conftest import database_of
from tests.journeys.phones.conftest import PHONES, PhoneOffice, office_of

CONTACTS = 90
PAIRS = [
    pytest.param(("salesforce", "sqlite"), id="salesforce-sqlite"),
    pytest.param(("hubspot", "postgresql"), id="hubspot-postgresql", marks=pytest.mark.postgres),
]


@pytest.fixture(params=PAIRS)
def office(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PhoneOffice]:
    """Some twenty phones in calls of ten that follow each other, so that there is a time between two of them."""
    crm, database = request.param
    monkeypatch.chdir(tmp_path)
    with (
        database_of(database, request, tmp_path, is_empty=False) as url,
        office_of(crm, url, monkeypatch, tidy=True, contacts=CONTACTS, latency_ms=100) as made,
    ):
        made.text = made.text.replace("workers: 4", "workers: 1")
        made.order_phones()
        assert len(made.targets) > 20
        yield made


@contextmanager
def as_soon_as(office: PhoneOffice, holds: Callable[[], bool], then: Callable[[], object]) -> Iterator[None]:
    """Beside what is done meanwhile, as another process would."""
    done: list[object] = []

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not holds():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        done.append(then())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join(timeout=35)
    assert done, "its time never came"


def cancel(office: PhoneOffice) -> None:
    """By the command, in an installation of its own."""
    app = App()
    try:
        [(run, _, _)] = app.runs.unfinished()
        said = Desk(sandbox=office.sandbox, crm=office.crm, folder=Path()).run("cancel", run.id)
        assert said.code == 0, said.text
    finally:
        app.close()


def is_cancelled(office: PhoneOffice, run: SyncRun) -> None:
    """Nothing is bought twice, what was ordered comes, and the next run orders the rest."""
    ordered = office.sold["ordered"]
    counts = office.app.reveals.counts()
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "cancelled by crm-sync cancel")
    assert run.counts.balanced
    assert 0 < ordered < len(office.targets)
    assert counts == {"waiting": ordered, "not ordered": len(office.targets) - ordered}
    assert office.money()["reserved"] == 8 * ordered
    left = next(index for index in office.targets if office.ended(index)[0] == "not ordered")
    assert "cancelled" in office.ended(left)[1]

    office.carry_out()
    assert len(office.with_mobile) == ordered
    kept = office.app.runs.get(run.id)
    assert kept is not None
    assert (kept.status, kept.reason) == (run.status, run.reason)
    office.books_agree()

    again = office.walk()
    assert again.status is RunStatus.WAITING_FOR_PHONES, again.reason
    office.carry_out()
    assert office.with_mobile == office.targets
    ended = office.app.runs.get(again.id)
    assert ended is not None
    assert ended.status is RunStatus.COMPLETED
    assert office.sold["ordered"] == len(office.targets)
    office.books_agree()


def test_no_further_order_leaves_and_the_next_run_makes_the_rest(office: PhoneOffice) -> None:
    with as_soon_as(office, lambda: office.sold["ordered"] > 0, lambda: cancel(office)):
        run = office.walk()

    assert office.sold["ordered"] <= 20, "within one batch"
    is_cancelled(office, run)


def test_so_it_is_with_a_signal(office: PhoneOffice) -> None:
    services, stop = office.app.services(), Stop()
    with as_soon_as(office, lambda: office.sold["ordered"] > 0, lambda: stop.raise_("cancelled by crm-sync cancel")):
        run = run_sync(
            services.config.syncs["contacts"],
            services,
            kind=RunKind.RUN,
            trigger="test",
            spending=AS_BUDGETED,
            stop=stop,
        )
    is_cancelled(office, run)


def test_one_that_is_stopped_before_it_orders_orders_nothing(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the public address is tried."""
    callbacks = office.app.services().callbacks
    tried = type(callbacks).problem

    def problem(self: object) -> str:
        cancel(office)
        return tried(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(callbacks), "problem", problem)
    run = office.walk()
    monkeypatch.setattr(type(callbacks), "problem", tried)

    assert (run.status, run.reason) == (RunStatus.CANCELLED, "cancelled by crm-sync cancel")
    assert office.sold["ordered"] == 0
    assert set(office.app.reveals.counts()) <= {"not ordered"}
    assert office.money()["reserved"] == 0
    office.walk()
    office.carry_out()
    assert office.with_mobile == office.targets
    office.books_agree()


def test_a_call_that_matches_and_orders_is_stopped_too(office: PhoneOffice) -> None:
    office.order_phones(PHONES[office.crm] + "      order: with_match\n")
    with as_soon_as(office, lambda: office.sold["ordered"] > 0, lambda: cancel(office)):
        run = office.walk()

    assert (run.status, run.reason) == (RunStatus.CANCELLED, "cancelled by crm-sync cancel")
    ordered = office.sold["ordered"]
    assert 0 < ordered < len(office.targets)
    assert office.app.reveals.counts() == {"waiting": ordered}
    office.carry_out()
    assert len(office.with_mobile) == ordered
    office.books_agree()
    office.walk()
    office.carry_out()
    assert office.with_mobile == office.targets
    assert office.sold["ordered"] == len(office.targets)
    office.books_agree()


def test_who_is_suppressed_while_phones_are_ordered_costs_the_others_of_the_call_nothing(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is made anew without them, and the others wait for that one."""
    monkeypatch.setattr("crm_sync.pipeline.suppress._LOOK_EVERY_S", 0.0)  # it looks once a second
    barred = office.targets[-1]
    email = str(office.value(barred, {"salesforce": "Email", "hubspot": "email"}[office.crm]))
    app = App()
    now = app.clock.now()
    suppressions = app.suppressions

    def suppress() -> bool:
        return bool(suppressions.add([f"email:{email.casefold()}"], source="test", now=now))

    with as_soon_as(office, lambda: office.sold["ordered"] > 0, suppress):
        run = office.walk()
    app.close()

    count = len(office.targets)
    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert office.sold["ordered"] == count - 1
    assert office.app.reveals.counts() == {"waiting": count - 1, "not ordered": 1}
    assert office.ended(barred)[0] == "not ordered"
    office.carry_out()
    assert office.with_mobile == [index for index in office.targets if index != barred]
    office.books_agree()


def test_a_call_that_is_refused_is_halved_and_its_people_wait_for_the_halves(office: PhoneOffice) -> None:
    def refuse() -> bool:
        office.fault("apollo", call="*bulk_match", what="422")
        return True

    with as_soon_as(office, lambda: office.sold["ordered"] > 0, refuse):
        run = office.walk()

    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    assert office.app.reveals.counts() == {"waiting": len(office.targets)}
    office.carry_out()
    assert office.with_mobile == office.targets
    assert office.told() == {"done": 4}
    office.books_agree()


def test_a_run_that_writes_what_came_is_not_cancelled_but_told_how_it_ends(office: PhoneOffice) -> None:
    """It asks for nothing, and the next delivery would begin another one."""
    office.walk()
    office.until(lambda: office.told().get("new", 0) > 0)
    resolver = Resolver(office.app.services())
    while not resolver.drain().did_something:
        time.sleep(0.05)
    [(run, _, _)] = office.app.runs.unfinished()
    said = Desk(sandbox=office.sandbox, crm=office.crm, folder=Path()).run("cancel", run.id)
    resolver.runs.close_quiet(all_of_them=True)

    assert run.kind is RunKind.PHONES
    assert said.code == 2
    assert "crm-sync serve" in said.flat
    office.carry_out()
    assert office.with_mobile == office.targets


def test_a_database_that_fails_while_phones_are_ordered_is_why_the_run_ended(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as cancelled by somebody."""
    asked = Runs.cancel_asked

    def cancel_asked(runs: Runs, run_id: str) -> bool:
        if office.sold["ordered"]:
            raise StoreError("the database did not answer")
        return asked(runs, run_id)

    monkeypatch.setattr(Runs, "cancel_asked", cancel_asked)
    run = office.walk()
    assert (run.status, run.reason) == (RunStatus.COMPLETED_WITH_ERRORS, "the database did not answer")
