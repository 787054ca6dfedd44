"""A run that died on another CRM, which cannot be asked now."""

from __future__ import annotations

import pytest

from crm_sync.domain.runs import RunStatus
from crm_sync.pipeline.recover import recover
from crm_sync.store.runs import WRITING, RunRecord
from tests.factories import a_decision, a_run
from tests.journeys.writing_back.conftest import TITLE, Configured

OTHER = {"salesforce": "hubspot", "hubspot": "salesforce"}
PEOPLE = {"salesforce": "Contact", "hubspot": "contacts"}


@pytest.fixture(params=["salesforce"])
def crm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_stops_no_run_here_and_is_closed_once_it_can_be_asked(configured: Configured, crm: str) -> None:
    other = OTHER[crm]
    office = configured({TITLE[crm]: "person.title"})
    text = office.app.versions.latest().text.decode()  # type: ignore[union-attr]
    crms = f"crms: {{{other}: {{type: {other}, environment: sandbox}}, "
    office.apply(text.replace("crms: {", crms))
    died = a_run(
        status=RunStatus.RUNNING, id="20261008-120000-dead", sync="people", crm=other, object_type=PEOPLE[other]
    )
    office.app.runs.open(died, owner="another-machine:1:x")
    decision = a_decision(field=TITLE[other])
    intended = RunRecord(
        object_type=PEOPLE[other], record_id="10000000001", outcome=WRITING, reason="", decisions=(decision,)
    )
    office.app.runs.intend(died.id, [intended], now=died.started_at)
    office.sandbox.faults[other].add([{"call": "*", "what": "503", "times": 1000}])

    run = office.walk()
    still = [found.id for found, _, _ in office.app.runs.unfinished()]
    office.sandbox.faults[other].clear()
    closed = recover(office.app.services(), other)

    assert run.counts.updated == 30
    assert still == [died.id]
    assert [found.id for found in closed] == [died.id]
    assert office.app.runs.unfinished() == []
