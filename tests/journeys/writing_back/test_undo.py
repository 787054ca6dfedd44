"""Taking a run back."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from crm_sync.domain.changes import Amendment, WriteRule
from crm_sync.domain.records import Value
from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.errors import ConfigError, StoreError
from crm_sync.pipeline.amend import Amending, amend
from crm_sync.pipeline.settled import Candidate
from crm_sync.pipeline.undo import undoing
from crm_sync.pipeline.walk import Stop
from tests.journeys.conftest import Office, Open
from tests.journeys.writing_back.conftest import CITY, EMPTY, TITLE, Configured, decisions, text

FIELDS = {crm: {TITLE[crm]: "person.title", CITY[crm]: "person.city"} for crm in TITLE}


def undone(office: Office, run_id: str, **options: object) -> object:
    services = office.app.services()
    run = services.runs.get(run_id)
    assert run is not None
    dry = bool(options.pop("dry_run", False))
    return amend(undoing(run, services, **options), services, dry_run=dry)  # type: ignore[arg-type]


def values(office: Office, count: int) -> list[tuple[object, object]]:
    title, city = TITLE[office.crm], CITY[office.crm]
    return [(office.value(at, title) or None, office.value(at, city) or None) for at in range(count)]


def test_undo_is_the_identity_on_untouched_records_and_can_be_undone(configured: Configured, crm: str) -> None:
    office = configured(FIELDS[crm])
    office.edit(3, {TITLE[crm]: "n/a"})
    before = values(office, 30)
    run = office.walk()
    after = values(office, 30)

    back = undone(office, run.id)
    restored = values(office, 30)
    redone = undone(office, back.id)  # type: ignore[attr-defined]

    assert run.counts.updated == 30
    assert after != before
    assert restored == before
    assert back.kind is RunKind.UNDO  # type: ignore[attr-defined]
    assert back.status is RunStatus.COMPLETED  # type: ignore[attr-defined]
    assert back.counts.updated == 30  # type: ignore[attr-defined]
    assert values(office, 30) == after
    assert redone.credits == 0  # type: ignore[attr-defined]


def test_what_was_taken_back_is_not_written_again_by_the_next_run(configured: Configured, crm: str) -> None:
    office = configured(FIELDS[crm])
    office.apply(text(crm, FIELDS[crm]).replace("missing_any: []", f"missing_any: [{TITLE[crm]}, {CITY[crm]}]"))
    before = values(office, 30)
    run = office.walk()
    undone(office, run.id)

    again = office.walk()
    office.apply(
        text(crm, {**FIELDS[crm], TITLE[crm]: "{from: person.title, transform: upper}"}).replace(
            "missing_any: []", f"missing_any: [{TITLE[crm]}, {CITY[crm]}]"
        )
    )
    mended = office.walk()

    assert again.counts.updated == again.credits == 0
    assert before == [(None, None)] * 30 or again.counts.selected == 0
    assert mended.counts.updated == 30
    assert mended.credits == 0
    assert office.value(7, TITLE[crm]) == office.sandbox.world.person(7).title.upper()


def test_what_somebody_changed_since_is_a_conflict_and_stays(configured: Configured, crm: str) -> None:
    office = configured(FIELDS[crm])
    run = office.walk()
    office.edit(4, {TITLE[crm]: "Changed since"})
    gone = {"IsDeleted": True} if crm == "salesforce" else {"archived": True}
    office.edit(9, gone)

    looked = undone(office, run.id, dry_run=True)
    unchanged = office.value(1, TITLE[crm])
    back = undone(office, run.id)

    assert looked.kind is RunKind.PLAN  # type: ignore[attr-defined]
    assert unchanged
    assert office.value(4, TITLE[crm]) == "Changed since"
    assert not office.value(4, CITY[crm])
    assert not office.value(1, TITLE[crm])
    assert decisions(office, back.id, 4)[TITLE[crm]] == ("Conflict", "changed since: left as it is")  # type: ignore[attr-defined]
    assert back.status is RunStatus.COMPLETED_WITH_ERRORS  # type: ignore[attr-defined]
    assert "1 field changed since" in back.reason  # type: ignore[attr-defined]
    assert back.counts.balanced  # type: ignore[attr-defined]
    assert back.counts.skipped == 1  # type: ignore[attr-defined]


def test_one_record_or_one_field_of_a_run(configured: Configured, crm: str) -> None:
    office = configured(FIELDS[crm])
    run = office.walk()

    undone(office, run.id, records=[office.id_of(2)[:15]], fields=[TITLE[crm]])

    assert not office.value(2, TITLE[crm])
    assert office.value(2, CITY[crm])
    assert office.value(3, TITLE[crm])
    with pytest.raises(ConfigError, match="wrote nothing in Nonsense"):
        undone(office, run.id, fields=["Nonsense"])


def test_a_company_with_the_id_of_a_contact_is_not_taken_back_with_it(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"}, contacts=3)
    run = office.walk()
    services = office.app.services()
    [person] = (each for each in office.app.runs.records(run.id) if each.record_id == office.id_of(1))
    office.app.runs.intend(run.id, [replace(person, object_type="companies")], now=office.app.clock.now())

    with pytest.raises(ConfigError, match=f"say {office.people}/{office.id_of(1)} or companies/|say companies/"):
        undoing(run, services, records=[office.id_of(1)])
    amending = undoing(run, services, records=[f"{office.people}/{office.id_of(1)}"])

    assert {name: [each.record_id for each in some] for name, some in amending.candidates.items()} == {
        office.people: [office.id_of(1)]
    }


def test_a_track_field_goes_on_from_the_value_before_the_undone_run(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    office.walk()
    office.apply(text(crm, {title: "{from: person.title, write: track, transform: upper}"}))
    second = office.walk()
    undone(office, second.id)
    office.apply(text(crm, {title: "{from: person.title, write: track, transform: lower}"}))

    office.walk()

    assert office.value(1, title) == office.sandbox.world.person(1).title.lower()


def test_a_thousand_with_fifty_changed_since(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"}, contacts=1000)
    run = office.walk()
    for index in range(0, 1000, 20):
        office.edit(index, {TITLE[crm]: "Changed since"})
    office.restart()

    back = undone(office, run.id)

    records = list(office.app.runs.records(back.id))  # type: ignore[attr-defined]
    outcomes = [d.outcome.value for record in records for d in record.decisions]
    assert outcomes.count("Written") == 950
    assert outcomes.count("Conflict") == 50
    assert all(office.value(at, TITLE[crm]) == "Changed since" for at in range(0, 1000, 20))
    assert not any(office.value(at, TITLE[crm]) for at in range(1, 1000, 20))
    calls = {name: count for name, count in back.calls.items() if name.startswith(crm)}  # type: ignore[attr-defined]
    assert sum(calls.values()) <= {"salesforce": 20, "hubspot": 70}[crm], calls


#: CRM field -> what somebody typed, and what a run writes over it.
KINDS: dict[str, dict[str, tuple[object, Value]]] = {
    "salesforce": {
        "MailingLatitude": (12.5, Decimal("48.123456")),
        "Description": ("one\r\ntwo", "three\nfour\n"),
        "Email": ("Ada@Example.com", "Bob.X@Example.com "),
        "Birthdate": ("1980-01-02", "1990-12-31"),
        "HasOptedOutOfEmail": (True, False),
        "EmailBouncedDate": ("2026-01-02T03:04:05.000+0000", "2026-05-05T01:02:03+00:00"),
        "LinkedIn__c": ("http://example.com/a", "https://example.com/b"),
        "Title": (" CTO ", "VP  Sales "),
    },
    "hubspot": {
        "lead_score": ("12.5", Decimal("48.123456")),
        "message": ("one\r\ntwo", "three\nfour\n"),
        "work_email": ("Ada@Example.com", "Bob.X@Example.com"),
        "renewal_date": ("1980-01-02", "1990-12-31"),
        "hs_contact_enrichment_opt_out": ("true", False),
        "apollo_enriched_at": ("2026-01-02T03:04:05Z", "2026-05-05T01:02:03Z"),
        "product_interest": ("analytics;payments", ("payments", "analytics", "automation ")),
        "website": ("http://example.com/a", "https://example.com/b"),
        "jobtitle": (" CTO ", "VP  Sales "),
    },
}


@pytest.mark.parametrize("was_blank", [False, True])
def test_every_kind_of_field_is_restored_however_the_crm_spells_it(
    configured: Configured, crm: str, was_blank: bool
) -> None:
    office = configured({TITLE[crm]: "person.title"}, contacts=3)
    kinds = {
        name: both for name, both in KINDS[crm].items() if not was_blank or name != "HasOptedOutOfEmail"
    }  # a checkbox of Salesforce's is never blank
    office.edit(1, {name: EMPTY[crm] if was_blank else typed for name, (typed, _) in kinds.items()})
    before = {name: office.value(1, name) or None for name in kinds}
    [now] = office.app.crm(crm, crm).read(office.people, [office.id_of(1)], tuple(kinds))
    assert now is not None
    changes = tuple(
        Amendment(field=name, source="", rule=WriteRule.REPLACE, expected=now.values[name], value=new, reason="")
        for name, (_, new) in kinds.items()
    )
    writing = Amending(
        sync="contacts",
        crm=crm,
        object_type=office.people,
        kind=RunKind.RUN,
        trigger="test",
        candidates={office.people: [Candidate(record_id=office.id_of(1), amendments=changes)]},
        guards={},
    )
    run = amend(writing, office.app.services())
    written = decisions(office, run.id, 1)

    back = undone(office, run.id)

    assert {outcome for outcome, _ in written.values()} == {"Written"}, written
    assert {outcome for outcome, _ in decisions(office, back.id, 1).values()} == {"Written"}  # type: ignore[attr-defined]
    assert {name: office.value(1, name) or None for name in kinds} == before


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_number_of_more_digits_than_a_computer_counts_with_is_restored(open_office: Open) -> None:
    office = open_office(contacts=3, tidy=True)
    spec = {"lead_score": "{from: organization.estimated_num_employees, write: replace}"}
    office.apply(text("hubspot", spec))
    typed = "12345678901234567890123"
    office.edit(1, {"lead_score": typed})

    run = office.walk()
    written = office.value(1, "lead_score")
    back = undone(office, run.id)

    assert run.counts.updated == 3
    assert written != typed
    assert back.status is RunStatus.COMPLETED  # type: ignore[attr-defined]
    assert office.value(1, "lead_score") == typed


def test_a_survivor_that_held_the_same_value_by_itself_keeps_it(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"})
    theirs = office.sandbox.world.person(7).title
    office.edit(8, {title: theirs})
    run = office.walk()
    merge = {"salesforce": "MasterRecordId", "hubspot": "merge_into"}[crm]
    office.edit(7, {merge: office.id_of(8)})

    back = undone(office, run.id)

    [survivor] = office.app.crm(crm, crm).read(office.people, [office.id_of(8)], [title])
    assert survivor is not None
    assert survivor.values[title] == theirs
    record = office.app.runs.record(back.id, office.people, office.id_of(7))  # type: ignore[attr-defined]
    assert record is not None
    assert record.outcome == "Skipped"
    assert record.reason == f"merged into another record since, and left as it is ({survivor.ref.id})"
    assert back.counts.updated == 28  # type: ignore[attr-defined]
    assert back.counts.balanced  # type: ignore[attr-defined]


def test_an_undo_whose_records_cannot_be_looked_at_afterwards_is_in_the_audit(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    run = office.walk()
    services = office.app.services()
    amending = undoing(run, services)
    call = {"salesforce": "GET */query", "hubspot": "POST */search"}[crm]
    office.sandbox.faults[crm].add([{"call": call, "what": "500", "times": 50}])

    back = amend(amending, services)

    assert back.counts.updated == 30
    assert all(record.outcome == "Updated" for record in office.app.runs.records(back.id))
    assert not any(office.value(at, TITLE[crm]) for at in range(30))
    if back.status is not RunStatus.COMPLETED:
        assert "may be changed again by the sync's next run" in back.reason


@pytest.mark.parametrize("is_undo", [False, True])
def test_what_was_written_when_the_database_failed_is_closed_and_read_again(
    configured: Configured, crm: str, monkeypatch: pytest.MonkeyPatch, is_undo: bool
) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"}, contacts=20)
    first = office.walk() if is_undo else None
    settle, times = office.app.runs.settle, 0

    def fails_once(*args: Any, **options: Any) -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise StoreError("the disk is full")
        settle(*args, **options)

    monkeypatch.setattr(office.app.runs, "settle", fails_once)
    broken = undone(office, first.id) if first is not None else office.walk()
    again = undone(office, first.id) if first is not None else office.walk()

    records = list(office.app.runs.records(broken.id))  # type: ignore[attr-defined]
    assert {(each.outcome, each.reason) for each in records} == {("Skipped", "not confirmed: the disk is full")}
    assert broken.status is RunStatus.FAILED  # type: ignore[attr-defined]
    assert broken.counts.skipped == broken.counts.selected == 20  # type: ignore[attr-defined]
    assert again.counts.unchanged == 20  # type: ignore[attr-defined]
    assert [bool(office.value(at, title)) for at in range(20)] == [not is_undo] * 20
    assert office.walk().counts.updated == 0


def test_an_undo_stops_where_it_is_told_to_and_can_be_said_again(
    configured: Configured, crm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"}, contacts=250)
    run = office.walk()
    services, stop = office.app.services(), Stop()
    monkeypatch.setattr(type(office.app.crm(crm, crm)), "read_size", 100)
    settle = office.app.runs.settle

    def told_meanwhile(*args: Any, **options: Any) -> None:
        settle(*args, **options)
        stop.raise_("cancelled by Ctrl-C")

    monkeypatch.setattr(office.app.runs, "settle", told_meanwhile)
    broken = amend(undoing(run, services), services, stop=stop)
    left = [at for at in range(250) if office.value(at, title)]
    again = undone(office, run.id)

    assert (broken.status, broken.reason) == (RunStatus.CANCELLED, "cancelled by Ctrl-C")
    assert broken.counts.updated == broken.counts.selected == 100
    assert len(left) == 150
    assert again.counts.updated == 150  # type: ignore[attr-defined]
    assert not any(office.value(at, title) for at in range(250))


def test_nothing_to_undo_is_said(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    plan = office.plan()
    with pytest.raises(ConfigError, match="was a plan"):
        undone(office, plan.id)
    run = office.walk()
    again = office.walk()
    with pytest.raises(ConfigError, match="wrote nothing"):
        undone(office, again.id)
    _forget(office, run.id)
    with pytest.raises(ConfigError, match="is not kept any more"):
        undone(office, run.id)


def _forget(office: Office, run_id: str) -> None:
    from sqlalchemy import delete

    from crm_sync.store.tables import run_records

    with office.app.store.write() as connection:
        connection.execute(delete(run_records).where(run_records.c.run_id == run_id))
