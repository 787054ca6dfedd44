"""People who edit a record while a run is at it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.runs import RunStatus
from crm_sync.ports import WriteRequest
from tests.journeys.conftest import Office
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured, decisions

WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
READ = {"salesforce": "POST */composite/sobjects/*", "hubspot": "POST */batch/read"}


def script(office: Office, *edits: tuple[int, str, str, int, dict[str, object]]) -> None:
    """(record, "before" or "after", call, nth, fields) each."""
    office.sandbox.edits[office.crm].add(
        [
            {"call": call, "nth": nth, "when": when, "object": office.people, "id": office.id_of(at), "fields": fields}
            for at, when, call, nth, fields in edits
        ]
    )


def test_an_edit_between_read_and_write_stands_and_the_other_fields_are_written(
    configured: Configured, crm: str
) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    script(office, (7, "before", WRITE[crm], 1, {title: "Typed by a person"}))

    run = office.walk()
    again = office.walk()

    assert office.value(7, title) == "Typed by a person"
    assert office.value(7, city)
    outcome, reason = decisions(office, run.id, 7)[title]
    assert outcome == "Kept"
    assert reason in ("already filled", "kept: a person changed it while we wrote; their value was put back")
    assert run.counts.updated == 30
    assert run.counts.balanced
    assert again.counts.updated == 0
    if crm == "hubspot":
        assert run.status is RunStatus.COMPLETED_WITH_ERRORS
        assert "1 edit made by people at the same time put back" in run.reason


def test_somebody_who_edits_each_time_is_left_alone_at_last(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"})
    client = office.app.crm(crm, crm)
    write = client.write
    tries = 0

    def moved(object_type: str, requests: Sequence[WriteRequest], **options: Any) -> list[WriteOutcome]:
        """As when record 7 is edited in each second between a read and a write; the header sees whole seconds."""
        nonlocal tries
        outcomes = write(object_type, [r for r in requests if r.ref.id != office.id_of(7)], **options)
        for at, request in enumerate(requests):
            if request.ref.id == office.id_of(7):
                tries += 1
                outcomes.insert(at, WriteOutcome(ref=request.ref, written=Written.MOVED))
        return outcomes

    client.write = moved  # type: ignore[method-assign]
    run = office.walk()
    client.write = write  # type: ignore[method-assign]
    record = office.app.runs.record(run.id, office.people, office.id_of(7))

    assert 1 < tries < 10
    assert record is not None
    assert record.outcome == "Skipped"
    assert "somebody else changed it each time" in record.reason
    assert run.counts.updated == 29
    assert run.counts.balanced
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    office.walk()
    assert office.value(7, title) == office.sandbox.world.person(7).title


def test_two_hundred_edits_at_random_moments_all_stand(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "{from: person.city, write: replace}"}, contacts=200)
    chance = random.Random(20261127)
    writes = 8 if crm == "salesforce" else 2
    moments = [(READ[crm], "before", 1), (READ[crm], "after", 1)] + [
        (WRITE[crm], when, nth) for when in ("before", "after") for nth in range(1, writes + 1)
    ]
    edits = []
    for at in range(200):
        call, when, nth = chance.choice(moments)
        edits.append((at, when, call, nth, {title: f"Typed by a person {at}"}))
    script(office, *edits)

    run = office.walk()
    office.walk()

    standing = sum(office.value(at, title) == f"Typed by a person {at}" for at in range(200))
    assert standing == 200
    assert run.counts.balanced
    assert all(office.value(at, city) for at in range(200) if office.sandbox.world.person(at).city)


def test_our_own_write_that_was_sent_twice_is_no_edit(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    office.sandbox.faults[crm].add([{"call": WRITE[crm], "what": "500", "when": "after"}])

    run = office.walk()

    assert run.status is RunStatus.COMPLETED
    assert run.counts.updated == 30
    assert all(office.value(at, title) == office.sandbox.world.person(at).title for at in range(30))
    last = office.app.provenance.last_writes(crm, office.people, [office.id_of(3)])
    assert title in last[office.id_of(3)]


def test_somebody_who_opts_out_at_the_same_time_is_not_written(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"})
    sign = {
        "salesforce": {"HasOptedOutOfEmail": True},
        "hubspot": {"hs_contact_enrichment_opt_out": "true"},
    }[crm]
    call, when = (WRITE[crm], "before") if crm == "salesforce" else (READ[crm], "before")
    script(office, (7, when, call, 1, sign))

    run = office.walk()

    record = office.app.runs.record(run.id, office.people, office.id_of(7))
    assert record is not None
    assert record.outcome == "Skipped"
    assert record.reason.startswith("do not enrich")
    assert not office.value(7, title)
    assert run.counts.balanced


def test_what_a_person_typed_is_not_told_as_a_write_that_never_arrived(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"}, contacts=5, write="fast")
    write = {"salesforce": "PATCH */composite/sobjects", "hubspot": "POST */batch/update"}[crm]
    office.sandbox.faults[crm].add([{"call": write, "what": "500", "times": 20}])
    script(office, (2, "after", write, 1, {title: "Typed by a person"}))

    run = office.walk()
    office.sandbox.faults[crm].clear()
    office.walk()

    record = office.app.runs.record(run.id, office.people, office.id_of(2))
    assert record is not None
    assert record.outcome == "Skipped"
    assert record.reason.endswith("and changed since")
    assert decisions(office, run.id, 2)[title][0] == "Unconfirmed"
    assert run.counts.updated == 0
    assert office.value(2, title) == "Typed by a person"
    assert all(office.value(at, title) == office.sandbox.world.person(at).title for at in (0, 1, 3, 4))


@pytest.mark.parametrize("kind", ["undo", "apply"])
def test_an_edit_between_read_and_write_of_an_undo_or_a_plan_stands(
    configured: Configured, crm: str, kind: str
) -> None:
    from crm_sync.pipeline import plan_file
    from crm_sync.pipeline.amend import amend
    from crm_sync.pipeline.undo import undoing

    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    services = office.app.services()
    if kind == "undo":
        amending = undoing(office.walk(), services)
        time.sleep(1.1)  # Salesforce's guard sees whole seconds, and the office's clock does not wait for one
    else:
        plan = office.plan(limit=30)
        content = plan_file.written(plan, list(office.app.runs.records(plan.id)), services)
        amending = plan_file.applying(plan_file.read(content, services, name="plan.json"), services)
    script(office, (7, "before", WRITE[crm], 1, {title: "Typed by a person"}))

    run = amend(amending, services)

    assert office.value(7, title) == "Typed by a person"
    assert decisions(office, run.id, 7)[title][0] in ("Conflict", "Kept")
    assert bool(office.value(7, city)) == (kind == "apply")
    assert run.counts.updated == 30
    assert run.counts.balanced
