"""Taking a run back."""

from __future__ import annotations

import pytest

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.errors import ConfigError
from crm_sync.pipeline.amend import amend
from crm_sync.pipeline.undo import undoing
from tests.journeys.conftest import Office
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured, decisions, text

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
    with pytest.raises(ConfigError, match="wrote nothing to"):
        undone(office, run.id, fields=["Nonsense"])


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
