"""A bad field costs itself, a bad record itself, and both are told; then they are written again at no credit."""

from __future__ import annotations

from crm_sync.cli.changes import _to_retry
from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.pipeline.amend import amend
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.undo import undoing
from crm_sync.pipeline.walk import Spending
from tests.journeys.conftest import Office
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured, decisions

LEVEL = {"salesforce": "Seniority__c", "hubspot": "hs_seniority"}
#: A value that few people have, as the CRM's picklist calls it; Apollo's words for it.
RARE = {"salesforce": "Director", "hubspot": "director"}
SPEC = {crm: f"{{from: person.seniority, picklist: {{{RARE[crm]}: [director]}}, unmapped: leave}}" for crm in RARE}


def retired(office: Office) -> set[int]:
    """Let an admin take the value out of the picklist once the run has looked at it; who would have got it."""
    client = office.app.crm(office.crm, office.crm)
    client.describe(office.people)
    simulator = office.sandbox.apps[office.crm].extensions["simulator"]
    simulator.retire_choice(office.people, LEVEL[office.crm], RARE[office.crm])
    world = office.sandbox.world
    return {at for at in range(world.contacts) if world.person(at).seniority == "director"}


def test_a_value_that_was_retired_meanwhile_costs_only_its_field(configured: Configured, crm: str) -> None:
    title, level = TITLE[crm], LEVEL[crm]
    office = configured({title: "person.title", level: SPEC[crm]}, contacts=300, write="fast")
    bad = retired(office)

    run = office.walk()

    assert 0 < len(bad) < 200
    assert run.counts.updated == run.counts.selected == 300
    assert all(office.value(at, title) == office.sandbox.world.person(at).title for at in range(300))
    assert not any(office.value(at, level) for at in bad)
    some = min(bad)
    assert decisions(office, run.id, some)[level][0] == "Rejected"
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert f"{len(bad)} field values refused" in run.reason


def test_what_was_refused_is_retried_at_no_credit_once_it_is_mended(configured: Configured, crm: str) -> None:
    title, level = TITLE[crm], LEVEL[crm]
    office = configured({title: "person.title", level: SPEC[crm]}, contacts=100)
    bad = retired(office)
    run = office.walk()
    spent = sum(office.charged.values())
    simulator = office.sandbox.apps[crm].extensions["simulator"]
    simulator.restore_choices()
    office.restart()
    services = office.app.services()

    ids = _to_retry(run, services)
    again = run_sync(
        services.config.syncs["contacts"],
        services,
        kind=RunKind.RUN,
        trigger=f"retry of {run.id}",
        spending=Spending(free=True),
        only=ids,
    )

    assert set(ids) == {office.id_of(at) for at in bad}
    assert again.counts.selected == again.counts.updated == len(bad)
    assert sum(office.charged.values()) == spent
    assert all(office.value(at, level) == RARE[crm] for at in bad)


def test_a_record_that_was_merged_is_followed_to_its_survivor(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    email = {"salesforce": "Email", "hubspot": "email"}[crm]
    office.edit(29, {email: ""} if crm == "hubspot" else {email: None})
    merge = {"salesforce": "MasterRecordId", "hubspot": "merge_into"}[crm]
    call = {"salesforce": "POST */composite/sobjects/*", "hubspot": "POST */batch/read"}[crm]
    # 29 is too weak to be asked for by itself; while the run is at it, 7 is merged into it.
    last = {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    first = {"salesforce": "FirstName", "hubspot": "firstname"}[crm]
    person = office.sandbox.world.person(7)
    office.edit(29, {last: person.last_name, first: person.first_name})
    office.sandbox.edits[crm].add(
        [{"call": call, "object": office.people, "id": office.id_of(7), "fields": {merge: office.id_of(29)}}]
    )

    run = office.walk()

    assert run.counts.balanced
    record = office.app.runs.record(run.id, office.people, office.id_of(7))
    assert record is not None
    assert record.outcome == "Updated", record.reason
    assert office.value(29, title) == person.title

    [survivor] = office.app.crm(crm, crm).read(office.people, [office.id_of(29)], [title])
    assert survivor is not None
    assert record.reason.endswith(f"now {office.people} {survivor.ref.id}")
    services = office.app.services()
    back = amend(undoing(run, services, records=[office.id_of(7)]), services)
    assert back.counts.updated == 1
    assert not office.value(29, title)


def test_a_record_merged_into_somebody_else_is_closed_with_the_reason(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    merge = {"salesforce": "MasterRecordId", "hubspot": "merge_into"}[crm]
    call = {"salesforce": "POST */composite/sobjects/*", "hubspot": "POST */batch/read"}[crm]
    office.sandbox.edits[crm].add(
        [{"call": call, "object": office.people, "id": office.id_of(7), "fields": {merge: office.id_of(12)}}]
    )

    run = office.walk()

    assert run.counts.balanced
    record = office.app.runs.record(run.id, office.people, office.id_of(7))
    assert record is not None
    assert record.outcome == "Skipped"
    assert "merged into" in record.reason


def test_a_lead_that_was_converted_meanwhile_is_written_as_the_contact_it_became(
    configured: Configured, crm: str
) -> None:
    if crm == "hubspot":
        return  # HubSpot converts no leads
    office = configured({"Title": "person.title"})
    text = office.app.versions.latest().text.decode()  # type: ignore[union-attr]
    office.apply(text.replace("object: Contact", "object: Lead").replace("Title: person.title", LEAD_FIELDS))
    simulator = office.sandbox.apps[crm].extensions["simulator"]
    from crm_sync.sandbox.salesforce import ids

    lead = ids.encode("00Q", 3)
    person = office.sandbox.world.person(office.sandbox.world.lead(3).person)
    same = {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name}
    simulator.edit("Contact", office.id_of(5), {"Title": None, **same})
    office.sandbox.edits[crm].add(
        [
            {
                "call": "POST */composite/sobjects/*",
                "object": "Lead",
                "id": lead,
                "fields": {"$convert": office.id_of(5)},
            }
        ]
    )

    run = office.walk()

    assert run.counts.balanced
    record = office.app.runs.record(run.id, "Lead", lead)
    assert record is not None
    assert record.outcome == "Updated", record.reason
    assert f"now Contact {office.id_of(5)}" in record.reason
    assert office.value(5, "Title")
    assert [d.field for d in record.decisions] == ["Title"]

    services = office.app.services()
    back = amend(undoing(run, services, records=[lead]), services)

    assert back.counts.updated + back.parents.updated == 1
    assert not office.value(5, "Title")


LEAD_FIELDS = "Title: person.title\n      NumberOfEmployees: organization.estimated_num_employees"
