"""The second ledger: what stands on the records themselves, on both CRMs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crm_sync.domain.runs import RecordOutcome, RunStatus
from crm_sync.mapping.stamps import moment_of
from tests.journeys.conftest import Office, Open

STAMPS = {
    "salesforce": ("Apollo_Enriched_At__c", "Apollo_Status__c"),
    "hubspot": ("apollo_enriched_at", "apollo_status"),
}
TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}


def with_stamps(office: Office) -> Office:
    at, status = STAMPS[office.crm]
    office.apply(office.text + f"\nstamps: {{enriched_at: {at}, status: {status}}}\n")
    return office


def stamps(office: Office, count: int = 60) -> dict[str, tuple[Any, Any]]:
    """Record id -> what its two stamp fields hold."""
    at, status = STAMPS[office.crm]
    return {office.id_of(index): (office.value(index, at), office.value(index, status)) for index in range(count)}


def outcomes(office: Office, run_id: str) -> dict[str, str]:
    return {r.record_id: r.outcome for r in office.app.runs.records(run_id) if r.object_type == office.people}


def writes(calls: Mapping[str, int]) -> int:
    return sum(count for name, count in calls.items() if name.endswith(" write"))


def test_every_record_apollo_was_asked_about_tells_when_and_with_what_result(open_office: Open, crm: str) -> None:
    office = with_stamps(open_office())
    begun = office.app.clock.now().replace(microsecond=0)

    run = office.walk()

    told = outcomes(office, run.id)
    found = stamps(office)
    asked = {record_id: word for record_id, word in told.items() if word != "Skipped"}
    assert set(told.values()) >= {"Updated", "No match"}
    assert {record_id: found[record_id][1] for record_id in asked} == asked
    for record_id in asked:
        moment = moment_of(found[record_id][0])
        assert moment is not None
        assert begun <= moment <= office.app.clock.now()
    assert all(found[record_id] in ((None, None), ("", "")) for record_id in found if record_id not in asked)


def test_a_second_run_stamps_nothing(open_office: Open, crm: str) -> None:
    office = with_stamps(open_office())
    office.walk()
    before = stamps(office)
    office.restart()

    second = office.walk()

    assert writes(second.calls) == 0
    assert stamps(office) == before


def test_looked_at_again_with_the_same_answers_nothing_is_written(open_office: Open, crm: str) -> None:
    office = open_office()
    # Every record is due, whatever it holds; and again with every mapping, its answer being stored.
    office.text = re.sub(r"      missing_any: .*\n", "", office.text)
    office.text = office.text.replace("    choose:\n", "    choose:\n      missing_any: []\n", 1)
    first = with_stamps(office).walk()
    before = stamps(office)
    office.text = office.text.replace('placeholders: ["[[unknown]]"', 'placeholders: ["tbd", "[[unknown]]"')
    with_stamps(office)

    again = office.walk()

    assert first.counts.selected == again.counts.selected == 60
    assert first.credits > 0
    assert again.counts.unchanged > 30
    assert again.credits == 0
    assert writes(again.calls) == 0
    assert stamps(office) == before


def test_a_stamp_is_no_changed_field(open_office: Open, crm: str) -> None:
    office = with_stamps(open_office())

    run = office.walk()

    assert run.status is RunStatus.COMPLETED
    decided = {d.field for r in office.app.runs.records(run.id) for d in r.decisions}
    assert decided.isdisjoint(STAMPS[crm])
    assert run.counts.updated == sum(word == RecordOutcome.UPDATED for word in outcomes(office, run.id).values())


def test_stamps_cost_no_call_beside_the_data(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    plain = office.walk()
    other = with_stamps(open_office(tidy=True))

    stamped = other.walk()

    assert plain.counts.updated == stamped.counts.updated == 60
    assert writes(plain.calls) == writes(stamped.calls)


def test_a_plan_stamps_nothing_and_its_answers_are_stamped_with_the_time_they_were_bought(
    open_office: Open, crm: str
) -> None:
    office = with_stamps(open_office(tidy=True))
    office.plan(limit=10)
    bought_by = office.app.clock.now()
    nothing = set(stamps(office).values())

    office.walk()

    assert nothing <= {(None, None), ("", "")}
    moments = sorted(m for at, _ in stamps(office).values() if (m := moment_of(at)) is not None)
    assert len(moments) == 60
    assert moments[9] <= bought_by


def test_a_lost_answer_is_stamped_in_doubt(open_office: Open, crm: str) -> None:
    office = with_stamps(open_office(tidy=True))
    office.sandbox.faults["apollo"].add([{"call": "POST /api/v1/people/bulk_match", "what": "500", "when": "after"}])

    run = office.walk()

    assert run.counts.in_doubt == 10
    assert sum(status == "In doubt" for _, status in stamps(office).values()) == 10


def test_a_rule_against_the_stamp_costs_no_data(open_office: Open, crm: str) -> None:
    """A validation rule refuses the whole record and names no field."""
    office = with_stamps(open_office(tidy=True))
    _, status = STAMPS[crm]
    refuse_records_that_hold(office, status)

    run = office.walk()

    assert run.counts.updated == 60
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert run.reason == "60 not stamped"
    assert office.value(3, TITLE[crm]) == office.sandbox.world.person(3).title
    reasons = [reason for _, _, reason, _ in office.app.runs.reasons(run.id)]
    assert all("not stamped: " in reason for reason in reasons)


def test_a_record_the_crm_refuses_is_stamped_all_the_same(open_office: Open, crm: str) -> None:
    office = with_stamps(open_office(tidy=True))
    refuse_records_that_hold(office, TITLE[crm])

    first = office.walk()
    before = stamps(office)
    second = office.walk()

    assert first.counts.rejected == second.counts.rejected == 60
    assert {status for _, status in before.values()} == {"Rejected"}
    assert stamps(office) == before


def test_a_stamp_field_that_was_deleted_meanwhile_is_told_and_stops_nothing(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    office.apply(office.text + "\nstamps: {enriched_at: gone_since__c}\n")

    run = office.walk()

    assert run.counts.updated == 60
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert "has no field gone_since__c" in run.reason


def refuse_records_that_hold(office: Office, field: str) -> None:
    """Every write of `field` is refused for the whole record, as a validation rule does it."""
    client = office.app.crm(office.crm, office.crm)
    write = client.write

    def picky(object_type: str, requests: Any, **options: Any) -> Any:
        from crm_sync.domain.changes import WriteOutcome, Written

        bad = [r for r in requests if field in r.values]
        good = iter(write(object_type, [r for r in requests if field not in r.values], **options))
        return [
            WriteOutcome(ref=r.ref, written=Written.REJECTED, reason="Ask the RevOps desk first")
            if r in bad
            else next(good)
            for r in requests
        ]

    client.write = picky  # type: ignore[method-assign]


ACCOUNT = {
    "salesforce": """\
    account:
      via: AccountId
      fields: {BillingCity: organization.city, LinkedIn__c: organization.linkedin_url}
""",
    "hubspot": """\
    account:
      via: associatedcompanyid
      fields: {city: organization.city, linkedin_company_page: organization.linkedin_url}
""",
}


def test_an_account_is_stamped_with_its_data_only(open_office: Open, crm: str) -> None:
    office = open_office(contacts=200)
    office.text = office.text.replace("    match:\n", ACCOUNT[crm] + "    match:\n", 1)
    with_stamps(office)

    run = office.walk()
    again = office.walk()

    at, status = STAMPS[crm]
    kind = "Account" if crm == "salesforce" else "companies"
    edit = office.sandbox.apps[crm].extensions["simulator"].edit
    parents = {r.record_id: r.outcome for r in office.app.runs.records(run.id) if r.object_type == kind}
    assert "Updated" in parents.values()
    for record_id, outcome in parents.items():
        record = edit(kind, record_id, {})
        values = record.get("properties", record)
        assert bool(values.get(at)) is (outcome == "Updated")
        assert (values.get(status) or "") == ("Updated" if outcome == "Updated" else "")
    assert writes(again.calls) == 0
