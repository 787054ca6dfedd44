"""From due record to audit entry, on both CRMs."""

from __future__ import annotations

import re

import pytest

from crm_sync.bootstrap import App
from crm_sync.domain.runs import RunStatus
from crm_sync.errors import BusyError
from crm_sync.pipeline.run import owner, run_sync
from crm_sync.store.journal import Journal
from tests.factories import a_run
from tests.journeys.conftest import Open

TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
#: For 1,000 due contacts (issue, "It must reach"): reads, re-reads and writes.
MOST_CALLS = {
    "salesforce": {"query": 1, "read": 1, "write": 5},
    "hubspot": {"search": 5, "read": 10, "write": 10},
}
#: More, where each write is guarded against people who edit at the same time: 25 records to a composite call, 50 to
#: one that reads the property history.
GUARDED = {"salesforce": {"write": 40}, "hubspot": {"read": 10 + 20}}


@pytest.mark.parametrize("mode", ["fast", "auto"])
def test_a_thousand_due_contacts_take_no_more_calls_than_their_batches(open_office: Open, crm: str, mode: str) -> None:
    office = open_office(contacts=1000, tidy=True)
    office.apply(office.text.replace("environment: sandbox", f"environment: sandbox\n    write: {mode}"))
    office.restart()

    run = office.walk()

    calls = {name.partition(" ")[2]: count for name, count in run.calls.items()}
    assert run.counts.selected == run.counts.updated == 1000
    assert calls.pop("people/bulk_match") == 100
    for name, most in {**MOST_CALLS[crm], **(GUARDED[crm] if mode == "auto" else {})}.items():
        assert calls.pop(name, 0) <= most, name
    assert sum(calls.values()) <= 6, calls


def test_a_second_run_asks_nothing_and_writes_nothing(open_office: Open, crm: str) -> None:
    office = open_office()
    first = office.walk()
    spent = sum(office.charged.values())
    office.restart()

    second = office.walk()

    assert first.counts.balanced
    assert first.counts.updated > 20
    assert second.counts.updated == 0
    assert second.credits == 0
    assert not [name for name in second.calls if name.startswith("apollo")]
    assert not [name for name in second.calls if name.endswith(" write")]
    assert sum(office.charged.values()) == spent


def test_a_plan_writes_nothing_and_the_run_after_it_buys_nothing_twice(open_office: Open, crm: str) -> None:
    office = open_office()

    plan = office.plan(limit=10)
    before = {index: office.value(index, TITLE[crm]) for index in range(60)}
    planned = {r.record_id: r for r in office.app.runs.records(plan.id)}
    run = office.walk()

    assert plan.counts.selected == 10
    assert plan.counts.balanced
    assert not any("Written" in [d.outcome for d in record.decisions] for record in planned.values())
    written = {r.record_id: r for r in office.app.runs.records(run.id)}
    for record_id, record in planned.items():
        wanted = {d.field: d.new for d in record.decisions if d.outcome.value == "Planned"}
        got = {d.field: d.new for d in written[record_id].decisions if d.outcome.value == "Written"}
        assert wanted == got
    assert max(office.charged.values()) == 1
    assert any(before[index] is None and office.value(index, TITLE[crm]) for index in range(60))


def test_what_a_person_typed_is_kept_and_a_placeholder_is_filled(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    office.edit(0, {TITLE[crm]: "Decision maker (ask for her)"})
    office.edit(1, {TITLE[crm]: "[[unknown]]"})

    office.walk()

    assert office.value(0, TITLE[crm]) == "Decision maker (ask for her)"
    assert office.value(1, TITLE[crm]) == office.sandbox.world.person(1).title


def test_a_field_blanked_by_a_person_is_filled_again_from_the_stored_answer(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    office.walk()
    office.edit(3, {TITLE[crm]: "" if crm == "hubspot" else None})

    again = office.walk()

    assert again.counts.selected == again.counts.updated == 1
    assert again.credits == 0
    assert office.value(3, TITLE[crm]) == office.sandbox.world.person(3).title


def test_everybody_is_bought_once_however_many_records_ask(open_office: Open, crm: str) -> None:
    office = open_office(contacts=400)
    # HubSpot has the second record of a person under another property; two keys of one person, asked for in two calls
    # of one run, are two purchases.
    office.apply(office.text.replace("email: email\n", "email: [email, work_email]\n"))

    run = office.walk()

    assert run.counts.balanced
    assert max(office.charged.values()) == 1


def test_a_word_no_picklist_has_leaves_the_field_and_is_tallied(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    field = "Seniority__c" if crm == "salesforce" else "hs_seniority"
    value = "Director" if crm == "salesforce" else "director"
    before, _, rest = office.text.partition(f"      {field}:")
    after = rest[re.search(r"\n      \w+:", rest).start() :]  # type: ignore[union-attr]
    office.apply(f"{before}      {field}: {{from: person.seniority, picklist: {{{value}: [director]}}}}{after}")

    run = office.walk()

    assert run.status is RunStatus.COMPLETED
    assert ("contacts", field, "c_suite") in [row[:3] for row in office.app.runs.unmapped("contacts")]


def test_companies_are_filled_and_found_under_another_domain(open_office: Open, crm: str) -> None:
    office = open_office(contacts=400)
    sync = "accounts" if crm == "salesforce" else "companies"

    run = office.walk(sync)
    again = office.walk(sync)

    assert run.counts.balanced
    assert run.counts.updated > 20
    # A company that a bulk answer gives under another domain is asked singly, which Apollo charges once more.
    world = office.sandbox.world
    assert all(count == 1 or world.company(int(key[12:], 16)).alias_domain for key, count in office.charged.items())
    assert again.credits == 0
    assert again.counts.updated == 0


def test_a_lost_answer_is_in_doubt_and_not_bought_again(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    office.sandbox.faults["apollo"].add([{"call": "POST /api/v1/people/bulk_match", "what": "500", "when": "after"}])

    run = office.walk()
    again = office.walk()

    assert run.status is RunStatus.COMPLETED_WITH_ERRORS
    assert run.counts.in_doubt == 10
    assert run.counts.balanced
    assert again.left_out["in doubt"] == 10
    assert max(office.charged.values()) == 1


def test_one_record_apollo_refuses_costs_the_nine_others_nothing(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    name = "FirstName" if crm == "salesforce" else "firstname"
    # A name beyond what Apollo takes: the whole call of ten is refused with 422 until it stands alone.
    refuse = "x" * 40
    office.edit(4, {name: refuse})
    service = office.sandbox.apps["apollo"].view_functions
    bulk = service["bulk_match"]

    def picky() -> object:
        from flask import request

        from crm_sync.sandbox.apollo import Refusal, _failed

        if refuse in request.get_data(as_text=True):
            raise Refusal(422, _failed("UNKNOWN_ERROR", "no implicit conversion of Symbol into Integer"))
        return bulk()

    service["bulk_match"] = picky

    run = office.walk()

    assert run.counts.skipped == 1
    assert run.counts.updated == 59
    assert any("refuses this record's match keys" in reason for _, _, reason, _ in office.app.runs.reasons(run.id))


def test_a_record_deleted_between_read_and_write_stops_nobody(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    gone = {"IsDeleted": True} if crm == "salesforce" else {"archived": True}
    client = office.app.crm(crm, crm)
    read = client.read

    def read_after_the_deletion(*arguments: object) -> object:
        office.edit(7, gone)
        return read(*arguments)  # type: ignore[arg-type]

    client.read = read_after_the_deletion  # type: ignore[method-assign]

    run = office.walk()

    assert run.counts.balanced
    assert run.counts.updated == 59
    assert run.counts.skipped == 1


def test_refused_credentials_end_the_run_as_failed_and_a_later_one_finishes(
    open_office: Open, crm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_office(tidy=True)
    good = office.sandbox.settings()["CRM_SYNC_APOLLO_API_KEY"]
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "expired")
    office.restart()

    failed = office.walk()
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", good)
    office.restart()
    mended = office.walk()

    assert failed.status is RunStatus.FAILED
    assert failed.counts.balanced
    assert failed.credits == 0
    assert "expired" not in failed.reason
    assert mended.counts.updated == 60


def test_a_sync_does_not_run_twice_at_the_same_time(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    under_way = a_run(status=RunStatus.RUNNING, crm=crm, id="20261008-120000-aaaa", started_at=office.app.clock.now())
    office.app.runs.open(under_way, owner=owner())

    with pytest.raises(BusyError, match="contacts is running already: run 20261008-120000-aaaa"):
        office.walk()

    assert office.charged == {}


def test_a_run_that_died_is_closed_and_its_paid_answers_are_used(open_office: Open, crm: str) -> None:
    office = open_office(tidy=True)
    services = office.app.services()

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    # The process ends after the first answers are stored and before they are indexed.
    expand, Journal.expand = Journal.expand, die  # type: ignore[method-assign]
    try:
        with pytest.raises(BaseException):  # noqa: B017, PT011
            run_sync(services.config.syncs["contacts"], services, kind=_run_kind(), trigger="test")
    finally:
        Journal.expand = expand  # type: ignore[method-assign]
    with office.app.store.write() as connection:
        connection.exec_driver_sql("update runs set owner = 'elsewhere:1', alive_at = 0 where status = 'Running'")
    office.restart()

    run = office.walk()

    assert max(office.charged.values()) == 1
    assert run.counts.balanced
    assert all(found.status is not RunStatus.RUNNING for found in office.app.runs.latest())


def _run_kind() -> object:
    from crm_sync.domain.runs import RunKind

    return RunKind.RUN


def test_the_same_walk_runs_on_postgresql(
    crm: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from sqlalchemy import create_engine, text

    from crm_sync.sandbox.run import Sandbox
    from tests.conftest import _with_database
    from tests.journeys.conftest import Office

    admin = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create database walk_{crm}"))
    admin.dispose()
    with Sandbox(contacts=60, unlimited=True) as sandbox:
        office = Office(sandbox, crm, _with_database(postgres_url, f"walk_{crm}"), monkeypatch)

        first, second = office.walk(), office.walk()
        office.app.close()

    assert first.counts.balanced
    assert first.counts.updated > 20
    assert second.counts.updated == 0
    assert second.credits == 0


def test_an_app_without_settings_names_them_all_at_once() -> None:
    app = App()

    problems = app.missing_settings([("salesforce", "salesforce"), ("hubspot", "hubspot")])

    assert len(problems) == 5
    assert any("CRM_SYNC_APOLLO_API_KEY" in problem for problem in problems)
    assert any("CRM_SYNC_HUBSPOT_TOKEN" in problem for problem in problems)
