"""Records that were merged between the read and the write."""

from __future__ import annotations

import pytest

from tests.journeys.writing_back.conftest import CITY, TITLE, Configured

MERGE = {"salesforce": "MasterRecordId", "hubspot": "merge_into"}
WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
READ = {"salesforce": "POST */composite/sobjects/*", "hubspot": "POST */batch/read"}


def test_two_records_that_became_one_are_written_once(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    names = {"salesforce": ("Email", "FirstName", "LastName"), "hubspot": ("email", "firstname", "lastname")}[crm]
    person = office.sandbox.world.person(7)
    # 29 is asked for by nobody; 8 is about the same person as 7, and both are merged into it while the run is at it.
    blank = None if crm == "salesforce" else ""
    office.edit(29, dict(zip(names, (blank, person.first_name, person.last_name), strict=True)))
    office.edit(8, {names[1]: person.first_name, names[2]: person.last_name})
    office.sandbox.edits[crm].add(
        [
            {
                "call": READ[crm],
                "object": office.people,
                "id": office.id_of(at),
                "fields": {MERGE[crm]: office.id_of(29)},
            }
            for at in (7, 8)
        ]
    )

    run = office.walk()

    assert run.counts.balanced
    told = [office.app.runs.record(run.id, office.people, office.id_of(at)) for at in (7, 8)]
    outcomes = sorted(record.outcome for record in told if record is not None)
    assert outcomes == ["Skipped", "Updated"], [record and record.reason for record in told]
    assert any("as another record of this run" in record.reason for record in told if record is not None)
    assert office.value(29, title)


@pytest.mark.parametrize("crm", ["salesforce"])  # HubSpot itself writes a merged id's values into the survivor
def test_a_survivor_that_the_run_writes_itself_keeps_its_own_values(configured: Configured, crm: str) -> None:
    """7 is merged into 8 while both are being written: 8 has had its own answer, and 7's does not go over it."""
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: replace}"})
    first, last = {"salesforce": ("FirstName", "LastName"), "hubspot": ("firstname", "lastname")}[crm]
    for at in (7, 8):
        office.edit(at, {first: "Kim", last: "Lee"})
    office.sandbox.edits[crm].add(
        [
            {
                "call": WRITE[crm],
                "object": office.people,
                "id": office.id_of(7),
                "fields": {MERGE[crm]: office.id_of(8)},
            }
        ]
    )

    run = office.walk()

    world = office.sandbox.world
    told = {at: office.app.runs.record(run.id, office.people, office.id_of(at)) for at in (7, 8)}
    assert world.person(7).title != world.person(8).title
    assert office.value(8, title) == world.person(8).title
    assert run.counts.balanced
    assert told[8] is not None
    assert told[8].outcome == "Updated"
    assert told[7] is not None
    assert told[7].outcome == "Skipped"
    assert "which is looked at itself" in told[7].reason
