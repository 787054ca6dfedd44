"""The rules `track` and `review`: what a person did after us stands."""

from __future__ import annotations

import pytest

from crm_sync.domain.runs import RunStatus
from crm_sync.errors import BusyError, ConfigError
from crm_sync.store.runs import RunRecord
from tests.journeys.writing_back.conftest import CITY, EMPTY, TITLE, Configured, decisions, text


def test_track_goes_on_over_its_own_value_and_over_no_other(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    office.edit(0, {title: "Somebody typed this before us"})
    office.walk()
    ours = office.value(1, title)
    office.edit(2, {title: "Changed after us"})
    office.edit(3, {title: EMPTY[crm]})
    office.edit(4, {title: "n/a"})
    office.apply(text(crm, {title: "{from: person.title, write: track, transform: upper}"}))

    run = office.walk()

    assert ours == office.sandbox.world.person(1).title
    assert office.value(1, title) == ours.upper()
    assert office.value(0, title) == "Somebody typed this before us"
    assert office.value(2, title) == "Changed after us"
    assert office.value(3, title) in (None, "")
    assert office.value(4, title) == "n/a"
    assert decisions(office, run.id, 1)[title][1].startswith("updated: still held our value of ")
    assert decisions(office, run.id, 0)[title] == ("Kept", "kept: already filled, and not by crm-sync")
    assert "changed by a person after our write of " in decisions(office, run.id, 2)[title][1]
    assert "emptied by a person after our write of " in decisions(office, run.id, 3)[title][1]
    assert run.credits == 0


def test_a_released_field_is_taken_up_again(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    office.walk()
    office.edit(2, {title: "Changed after us"})
    kept = office.walk()
    provenance, now = office.app.provenance, office.app.clock.now()

    provenance.release(crm, office.people, office.id_of(2), {title: office.value(2, title)}, now=now)
    office.app.runs.forget_attempts(office.people, office.id_of(2))
    run = office.walk()
    again = office.walk()

    assert kept.counts.updated == 0
    assert office.value(2, title) == office.sandbox.world.person(2).title
    assert "released to crm-sync" in decisions(office, run.id, 2)[title][1]
    assert run.counts.updated == 1
    assert again.counts.updated == 0


def test_what_we_wrote_is_known_as_ours_after_the_audit_was_purged(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    office.walk()
    office.edit(2, {title: "Changed after us"})
    later = office.app.clock.now().replace(year=2031)
    office.app.retention.purge(_everything_before(later), now=later)
    office.apply(text(crm, {title: "{from: person.title, write: track, transform: upper}"}))

    run = office.walk()

    assert office.value(1, title) == office.sandbox.world.person(1).title.upper()
    assert office.value(2, title) == "Changed after us"
    assert run.counts.updated == 29


def _everything_before(moment: object) -> object:
    from crm_sync.store.retention import Cutoffs

    epoch = moment.replace(year=2001)  # type: ignore[attr-defined]
    limits = dict.fromkeys(Cutoffs.__dataclass_fields__, epoch)
    return Cutoffs(**limits | {"details": moment, "written": moment})


def test_a_small_change_of_a_number_is_ignored(configured: Configured, crm: str) -> None:
    from decimal import Decimal

    from crm_sync.domain.changes import WantedValue, WriteRule
    from crm_sync.pipeline.diff import decide

    office = configured({TITLE[crm]: "person.title"})
    company = {"salesforce": "Account", "hubspot": "companies"}[crm]
    field = {"salesforce": "NumberOfEmployees", "hubspot": "numberofemployees"}[crm]
    schema = office.app.crm(crm, crm).describe(company)
    from crm_sync.domain.records import RecordRef

    ref = RecordRef(crm=crm, object_type=company, id="1")
    for now, outcome in ((1000, "Kept"), (900, "Written"), ("", "Written"), (1000.0, "Kept"), (0, "Written")):
        [decision] = decide(
            ref,
            {field: now},
            [WantedValue(field, "organization.estimated_num_employees", WriteRule.REPLACE, 1049)],
            placeholders=frozenset(),
            schema=schema,
            ignored={field: Decimal("0.05")},
        ).decisions
        assert decision.outcome.value == outcome, now


def test_review_writes_nothing_until_a_person_accepts(configured: Configured, crm: str) -> None:
    from crm_sync.pipeline.amend import amend
    from crm_sync.pipeline.reviewing import accepting, written

    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "{from: person.title, write: review}", city: "person.city"})
    before = office.value(5, title)
    run = office.walk()
    services = office.app.services()
    found = {review.record_id: review for review in services.reviews.listed()}

    assert office.value(5, title) == before
    assert decisions(office, run.id, 5)[title][0] == "To review"
    assert office.value(5, city)  # the other field was written
    assert len(found) == 30

    ids = [office.id_of(5), office.id_of(6), office.id_of(7)]
    office.edit(6, {title: "Meanwhile somebody typed this"})
    chosen = [found[each] for each in ids[:2]]
    accepted = amend(accepting(chosen, services, by="ada"), services)
    done = written(accepted, chosen, services)
    services.reviews.resolve(done, "accepted", by="ada", now=services.clock.now())
    services.reviews.resolve([found[ids[2]].id], "refused", by="ada", now=services.clock.now())
    office.app.runs.forget_attempts(office.people, ids[2])
    again = office.walk()

    assert office.value(5, title) == office.sandbox.world.person(5).title
    assert office.value(6, title) == "Meanwhile somebody typed this"
    assert done == [found[ids[0]].id]
    assert accepted.credits == 0
    assert "refused by a person" in decisions(office, again.id, 7)[title][1]
    still = {review.record_id for review in office.app.reviews.listed()}
    assert ids[0] not in still
    assert ids[2] not in still
    assert len(still) == 28


def test_an_answer_that_is_not_trusted_waits_for_a_person(configured: Configured, crm: str) -> None:
    from crm_sync.domain.runs import RunKind
    from crm_sync.pipeline.run import run_sync
    from crm_sync.pipeline.walk import Spending

    title, last = TITLE[crm], {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    match = "trust_when: {all: [last_name_agrees]}\notherwise: review"
    office = configured({title: "person.title"}, match=match)
    office.edit(5, {last: "Zimmermann-Vollkommen"})
    run = office.walk()
    services = office.app.services()
    [review] = services.reviews.listed()

    assert run.counts.needs_review == 1
    assert not office.value(5, title)
    assert review.record_id == office.id_of(5)
    assert review.kind == "match"
    assert "last name" in review.reason
    assert "Zimmermann" not in review.reason

    services.reviews.resolve([review.id], "accepted", by="ada", now=services.clock.now())
    sync = services.config.syncs["contacts"]
    accepted = run_sync(
        sync, services, kind=RunKind.RUN, trigger="test", spending=Spending(free=True), only=(review.record_id,)
    )

    assert office.value(5, title) == office.sandbox.world.person(5).title
    assert accepted.counts.updated == accepted.counts.selected == 1
    assert accepted.credits == 0


def test_an_answer_that_was_accepted_and_is_not_stored_any_more_is_asked_for_again_and_written(
    configured: Configured, crm: str
) -> None:
    from sqlalchemy import delete

    from crm_sync.pipeline.reviewing import believe
    from crm_sync.store.tables import answers

    title, last = TITLE[crm], {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    match = "trust_when: {all: [last_name_agrees]}\notherwise: review"
    office = configured({title: "person.title"}, match=match)
    office.apply(text(crm, {title: "person.title"}, match=match).replace("missing_any: []", f"missing_any: [{title}]"))
    office.edit(5, {last: "Zimmermann-Vollkommen"})
    office.walk()
    services = office.app.services()
    [review] = services.reviews.listed()
    with office.app.store.write() as connection:
        connection.execute(delete(answers))

    believe([review], services, by="ada")
    run = office.walk()

    assert run.counts.updated == run.counts.selected == 1
    assert office.value(5, title) == office.sandbox.world.person(5).title


def test_nothing_is_accepted_while_the_sync_is_running(configured: Configured, crm: str) -> None:
    from dataclasses import replace

    from crm_sync.pipeline.recover import owner
    from crm_sync.pipeline.reviewing import believe

    title, last = TITLE[crm], {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    match = "trust_when: {all: [last_name_agrees]}\notherwise: review"
    office = configured({title: "person.title"}, match=match)
    office.edit(5, {last: "Zimmermann-Vollkommen"})
    run = office.walk()
    services = office.app.services()
    [review] = services.reviews.listed()
    services.runs.open(replace(run, id="another", status=RunStatus.RUNNING, finished_at=None), owner=owner())

    with pytest.raises(BusyError):
        believe([review], services, by="ada")

    assert services.reviews.count() == 1


def test_an_answer_that_is_not_trusted_is_left_aside(configured: Configured, crm: str) -> None:
    title, last = TITLE[crm], {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    office = configured({title: "person.title"}, match="trust_when: {all: [last_name_agrees]}\notherwise: skip")
    office.edit(5, {last: "Zimmermann-Vollkommen"})

    run = office.walk()

    assert run.counts.skipped == 1
    assert not office.value(5, title)
    assert office.app.reviews.count() == 0


def test_a_company_that_came_with_a_person_waits_and_is_accepted_too(configured: Configured, crm: str) -> None:
    from crm_sync.pipeline.amend import amend
    from crm_sync.pipeline.reviewing import accepting, written

    via = {"salesforce": "AccountId", "hubspot": "associatedcompanyid"}[crm]
    field = {"salesforce": "Phone", "hubspot": "city"}[crm]
    company = {"salesforce": "Account", "hubspot": "companies"}[crm]
    website = {"salesforce": "Account.Website | domain", "hubspot": "email | domain"}[crm]
    source = {"salesforce": "organization.primary_phone.sanitized_number", "hubspot": "organization.city"}[crm]
    office = configured(
        {TITLE[crm]: "person.title"},
        sync=f"account:\n  via: {via}\n  fields:\n    {field}: {{from: {source}, write: review}}",
    )
    text_ = office.app.versions.latest().text.decode()  # type: ignore[union-attr]
    office.apply(text_.replace("send: {", f'send: {{domain: "{website}", '))
    office.walk()
    services = office.app.services()
    found = services.reviews.listed(kind="field")
    assert found

    run = amend(accepting(found, services, by="ada"), services)

    assert {review.object_type for review in found} == {company}
    assert len(written(run, found, services)) == len(found)
    assert run.parents.updated == len({review.record_id for review in found})
    assert run.counts.balanced


def test_a_field_that_was_accepted_and_changed_since_waits_again(configured: Configured, crm: str) -> None:
    from crm_sync.pipeline.amend import amend
    from crm_sync.pipeline.reviewing import accepting, written

    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: review}"}, contacts=3)
    office.walk()
    services = office.app.services()
    [chosen] = services.reviews.listed(record_id=office.id_of(1))
    accepted = amend(accepting([chosen], services, by="ada"), services)
    done = written(accepted, [chosen], services)
    services.reviews.resolve(done, "accepted", by="ada", now=services.clock.now())
    office.edit(1, {title: "Typed after it was accepted"})
    office.app.runs.forget_attempts(office.people, office.id_of(1))

    office.walk()

    assert office.value(1, title) == "Typed after it was accepted"
    [again] = services.reviews.listed(record_id=office.id_of(1))
    assert (again.state, again.resolved_by) == ("open", "")


def test_a_field_is_released_after_a_purge_and_only_of_the_record_that_is_meant(
    configured: Configured, crm: str
) -> None:
    from click.testing import CliRunner

    from crm_sync.cli.changes import release

    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"}, contacts=3)
    run = office.walk()
    office.edit(1, {title: "Changed after us"})
    later = office.app.clock.now().replace(year=2031)
    office.app.retention.purge(_everything_before(later), now=later)
    record_id = office.id_of(1)

    released = CliRunner().invoke(release, [record_id, "--yes"], obj=office.app)
    twice = CliRunner().invoke(release, [f"{office.people}/{record_id}", "--yes"], obj=office.app)
    # A company that has the same number.
    namesake = RunRecord(object_type="companies", record_id=record_id, outcome="Updated", reason="")
    office.app.runs.intend(run.id, [namesake], now=later)
    unclear = CliRunner().invoke(release, [record_id, "--yes"], obj=office.app)

    assert released.output.startswith(f"Released: {title}."), released.exception
    assert twice.output.startswith("Nothing is locked: each of these fields still holds"), twice.exception
    assert isinstance(unclear.exception, ConfigError)
    assert f"{office.people}/{record_id} in {crm}" in str(unclear.exception)
    office.walk()
    assert office.value(1, title) == office.sandbox.world.person(1).title


@pytest.mark.parametrize("then", ["review", "flag"])
def test_who_is_the_right_person_may_still_be_at_another_employer(
    configured: Configured, crm: str, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    from crm_sync.pipeline import belief, writing_desk
    from crm_sync.pipeline.reviewing import believe

    title, last = TITLE[crm], {"salesforce": "LastName", "hubspot": "lastname"}[crm]
    office = configured(
        {title: "person.title"},
        contacts=2,
        match="trust_when: {all: [last_name_agrees]}\notherwise: review",
        sync=f"job_change: {{notice_when: employer_domain_differs, then: {then}}}",
    )
    elsewhere = "Apollo knows this person at another employer"
    for room in (belief, writing_desk):
        monkeypatch.setattr(room, "changed_employer", lambda *_: elsewhere)
    office.edit(1, {last: "Zimmermann-Vollkommen"})
    services, record_id = office.app.services(), office.id_of(1)

    asked = []
    for _ in range(3):
        run = office.walk()
        asked += services.reviews.listed(record_id=record_id)
        if asked and asked[-1].state == "open" and run.counts.needs_review:
            believe([asked[-1]], services, by="ada")
    office.walk()

    assert [each.kind for each in asked] == (["match", "job_change"] if then == "review" else ["match"])
    assert bool(office.value(1, title)) == (then == "review")
    if then == "flag":
        record = office.app.runs.record(office.walk().id, office.people, record_id)
        assert record is None or (record.outcome, record.reason) == ("Skipped", elsewhere)
