"""A bad field costs itself, a bad record itself, and both are told."""

from __future__ import annotations

import pytest

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.walk import Spending
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured, decisions

WRITES = {"salesforce": 40, "hubspot": 40}


def refuse(office: object, field: str, bad: set[int]) -> None:
    """Let the CRM refuse this field of these records, whatever describe says: a rule of its own."""
    crm = office.crm  # type: ignore[attr-defined]
    simulator = office.sandbox.apps[crm].extensions["simulator"]  # type: ignore[attr-defined]
    simulator.refuse(office.people, field, {office.id_of(at) for at in bad})  # type: ignore[attr-defined]


def test_seven_bad_values_among_a_thousand(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"}, contacts=1000, write="fast")
    bad = {3, 150, 151, 420, 700, 701, 999}
    refuse(office, title, bad)

    run = office.walk()

    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert run.counts.updated == 1000
    assert "7 field values refused" in run.reason
    world = office.sandbox.world
    assert all(bool(office.value(at, title)) is (at not in bad) for at in range(1000))
    assert all(office.value(at, city) == world.person(at).city for at in range(1000) if world.person(at).city)
    assert decisions(office, run.id, 3)[title][0] == "Rejected"
    assert run.calls[f"{crm} write"] <= WRITES[crm], run.calls


def test_what_was_refused_is_retried_at_no_credit_once_it_is_mended(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    refuse(office, title, {4, 5})
    run = office.walk()
    refuse(office, title, set())
    services = office.app.services()
    from crm_sync.cli.changes import _to_retry

    ids = _to_retry(run, services)
    again = run_sync(
        services.config.syncs["contacts"],
        services,
        kind=RunKind.RUN,
        trigger=f"retry of {run.id}",
        spending=Spending(free=True),
        only=ids,
    )

    assert set(ids) == {office.id_of(4), office.id_of(5)}
    assert again.counts.selected == again.counts.updated == 2
    assert again.credits == 0
    assert office.value(4, title) == office.sandbox.world.person(4).title


@pytest.mark.parametrize("field", ["city"])
def test_a_field_that_nobody_may_write_is_switched_off_once(configured: Configured, crm: str, field: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"}, contacts=300)
    refuse(office, city, set(range(300)))

    run = office.walk()

    assert run.counts.updated == 300
    assert all(office.value(at, title) for at in range(300))
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
