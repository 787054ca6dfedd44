"""Finding a person in everything that is stored, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from adapters.apollo.archive import ApolloArchive
from crm_sync.domain.enrichment import MatchKeys, Purpose, RawAnswer
from crm_sync.pipeline.enrich import expansion_of
from crm_sync.store.answers import Answers
from crm_sync.store.config_versions import ConfigVersions
from crm_sync.store.engine import Store
from crm_sync.store.journal import Intent, Journal, Room
from crm_sync.store.privacy import Privacy
from crm_sync.store.provenance import Provenance
from crm_sync.store.reviews import Proposal, Reviews
from crm_sync.store.runs import RecordState, RunRecord, Runs
from crm_sync.store.suppressions import Suppressions
from crm_sync.store.tables import batches, record_states, run_records, runs
from crm_sync.store.vault import Vault, open_vault
from tests.factories import NOON, a_decision, a_run
from tests.store.test_suppressions import RING

ADA, BOB = "ada@x.example", "bob@x.example"
PAGE = "http://www.linkedin.com/in/ada-b"
_OLD = NOON - timedelta(days=400)


def person(**values: str) -> MatchKeys:
    return MatchKeys(purpose=Purpose.PERSON, **values)


def told(address: str, **more: Any) -> dict[str, Any]:
    return {"id": f"{address[:3]}{len(address):021d}", "email": address, "title": "VP", "last_name": "X", **more}


class Books:
    """A store with two runs, Salesforce's and HubSpot's, and short ways to fill it."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self.store, self.vault = store, vault
        self.runs, self.journal, self.answers = Runs(store), Journal(store, vault), Answers(store, vault)
        self.provenance, self.reviews = Provenance(store, vault), Reviews(store, vault)
        self.suppressions = Suppressions(store, vault)
        self.privacy = Privacy(store, vault, ApolloArchive(), self.suppressions)
        self.runs.open(a_run(), owner="here:1")
        self.runs.open(a_run(id="hubspot", crm="hubspot", object_type="contacts"), owner="here:1")

    def bought(self, keys: Sequence[MatchKeys], entries: Sequence[Any], *, body: bytes = b"") -> int:
        """A call for `keys` that was answered with `entries`, indexed as the walk does."""
        intent = Intent(
            run_id=a_run().id, sync="contacts", purpose=Purpose.PERSON, calls=(tuple(keys),), single=False,
            endpoint="people/bulk_match", most=Decimal(1), day="2026-10-08", fresh_since=_OLD, no_match_since=_OLD,
        )  # fmt: skip
        [call] = self.journal.plan(intent, lambda _: Room(), now=NOON).calls
        self.journal.sent(call.id, now=NOON)
        raw = RawAnswer(body=body or json.dumps({"matches": list(entries)}).encode(), credits=Decimal(1), request_id="")
        self.journal.received(call.id, raw, now=NOON)
        reading = ApolloArchive().read(Purpose.PERSON, keys, raw.body)
        expansion = expansion_of(call.id, Purpose.PERSON, keys, reading, raw.credits, single=False, answered_at=NOON)
        self.journal.expand([expansion], now=NOON)
        return call.id

    def recorded(self, record_id: str, keys: MatchKeys | None, *, run: str = "", **decision: Any) -> None:
        run_id = run or a_run().id
        object_type = "contacts" if run == "hubspot" else "Contact"
        record = RunRecord(
            object_type=object_type,
            record_id=record_id,
            outcome="Updated",
            reason="",
            decisions=(a_decision(**decision),),
            identity=self.answers.digest(keys.key) if keys is not None else None,
        )
        state = RecordState(
            object_type=object_type, record_id=record_id, outcome="Updated", seen=b"0" * 16, attempted_at=NOON
        )
        self.runs.settle(
            run_id, sync=run or "contacts", confirmed=[], amended=[], others=[record], states=[state], now=NOON
        )

    def tracked_and_asked(self, record_id: str, *, run: str = "") -> None:
        """What a purge leaves of a write to the record, and a question about it."""
        crm, object_type = ("hubspot", "contacts") if run == "hubspot" else ("salesforce", "Contact")
        self.provenance.release(crm, object_type, record_id, {"Title": "VP"}, now=NOON)
        proposal = Proposal(
            object_type=object_type, record_id=record_id, field="", kind="match", what=ADA, reason="the name differs"
        )
        put = self.reviews.proposing([proposal], run_id=run or a_run().id, sync=run or "contacts", crm=crm, now=NOON)
        assert put is not None
        with self.store.write() as connection:
            put(connection)

    def erase(self, address: str) -> dict[str, int]:
        traces = self.privacy.find(address)
        self.privacy.erase(traces, now=NOON)
        assert self.privacy.find(address, traces.person).counts() == {}
        assert self.privacy.find(address).counts() == {}
        return traces.counts()

    def is_known(self, key: MatchKeys) -> bool:
        return bool(self.answers.look_up(Purpose.PERSON, [key.key]))


@pytest.fixture
def books(store: Store) -> Books:
    return Books(store, open_vault(store, RING, now=NOON))


def test_a_person_is_cut_out_and_their_neighbours_are_still_served(books: Books) -> None:
    ada, bob = person(email=ADA), person(email=BOB)
    call = books.bought([ada, bob], [told(ADA, linkedin_url=PAGE), told(BOB)])
    books.recorded("A", ada)
    books.recorded("B", bob)

    counts = books.erase(ADA)

    assert counts == {"batches": 1, "answers": 2, "run_records": 1, "record_states": 1}
    assert not books.is_known(ada)
    assert not books.is_known(person(linkedin_url=PAGE))
    assert books.is_known(bob)
    stored = books.answers.load([call])[call]
    assert [key.email for key in stored.keys] == ["", BOB]
    assert [record.record_id for record in books.runs.records(a_run().id)] == ["B"]
    assert books.journal.spent(a_run().id) == 1
    assert books.suppressions.among(
        [f"email:{ADA}", "linkedin:in/ada-b", "record:salesforce:Contact:A", f"email:{BOB}"]
    ) == {f"email:{ADA}", "linkedin:in/ada-b", "record:salesforce:Contact:A"}


def test_whoever_was_asked_for_by_page_or_name_is_found_by_the_answer(books: Books) -> None:
    by_page, by_name = person(linkedin_url=PAGE), person(first_name="Ada", last_name="X", domain="x.example")
    books.bought([by_page], [told("private@y.example", linkedin_url=PAGE, personal_emails=[ADA])])
    books.bought([by_name], [told("private@y.example", organization={"primary_domain": "x.example"}, first_name="Ada")])
    books.recorded("A", by_page)
    books.recorded("B", by_name)

    counts = books.erase(ADA)

    assert counts["batches"] == 2
    assert counts["run_records"] == 2
    assert books.suppressions.among(["email:private@y.example"])


def test_their_page_beside_somebody_elses_address_does_not_make_them_one(books: Books) -> None:
    slip = person(email=BOB, linkedin_url=PAGE)
    books.bought([person(email=ADA, linkedin_url=PAGE)], [told(ADA, linkedin_url=PAGE)])
    call = books.bought([slip], [told(BOB)])
    books.recorded("B", slip)

    books.erase(ADA)

    assert books.suppressions.among([f"email:{BOB}"]) == frozenset()
    assert [record.record_id for record in books.runs.records(a_run().id)] == ["B"]
    assert b"ada-b" not in books.answers.load([call])[call].body


def test_records_that_only_name_them_lose_that_row_and_are_not_left_alone(books: Books) -> None:
    books.recorded("assistant", person(email=BOB), field="AssistantEmail__c", old=ADA.upper(), new=None)
    books.recorded("like", person(email="c@x.example"), field="Email", old="lady.ada@x.example", new=None)

    counts = books.erase(ADA)

    assert counts == {"run_records": 1}
    assert [record.record_id for record in books.runs.records(a_run().id)] == ["like"]
    assert books.suppressions.among(["record:salesforce:Contact:assistant"]) == frozenset()


def test_a_record_of_the_same_number_in_another_crm_is_somebody_else(books: Books) -> None:
    books.recorded("1", person(email=ADA))
    books.recorded("1", person(email=BOB), run="hubspot")

    books.erase(ADA)

    assert [record.record_id for record in books.runs.records("hubspot")] == ["1"]
    assert books.runs.states("hubspot", "contacts", ["1"])
    assert books.runs.states("contacts", "Contact", ["1"]) == {}


def test_what_was_written_last_into_their_record_and_what_waits_about_it_goes_too(books: Books) -> None:
    books.recorded("1", person(email=ADA))
    books.recorded("2", person(email=BOB))
    books.recorded("1", person(email=BOB), run="hubspot")
    for record_id, run in (("1", ""), ("2", ""), ("1", "hubspot")):
        books.tracked_and_asked(record_id, run=run)

    kept = books.privacy.find(ADA).kept
    counts = books.erase(ADA)

    record = {"crm": "salesforce", "object_type": "Contact", "record_id": "1"}
    assert kept["provenance"] == [{**record, "fields": {"Title": {"at": NOON, "released": True}}}]
    [asked] = kept["reviews"]
    assert asked == {
        **record, "sync": "contacts", "field": "", "kind": "match", "reason": "the name differs",
        "run_id": a_run().id, "state": "open", "created_at": NOON, "resolved_at": None,
    }  # fmt: skip

    assert counts == {"run_records": 1, "record_states": 1, "provenance": 1, "reviews": 1}
    assert [(each.crm, each.record_id) for each in books.reviews.listed()] == [("salesforce", "2"), ("hubspot", "1")]
    assert books.provenance.last_writes("salesforce", "Contact", ["1", "2"]).keys() == {"2"}
    assert books.provenance.last_writes("hubspot", "contacts", ["1"]).keys() == {"1"}


def test_digests_that_outlived_the_audit_of_a_record_are_found_again_by_its_note(books: Books) -> None:
    books.recorded("A", person(email=ADA))
    books.recorded("B", person(email=BOB))
    books.tracked_and_asked("A")
    books.tracked_and_asked("B")
    with books.store.write() as connection:
        connection.execute(delete(run_records))
        connection.execute(delete(record_states))

    found = books.privacy.find_again(books.suppressions.digests(["record:salesforce:Contact:A"]))

    assert [each.counts() for each in found] == [{"provenance": 1, "reviews": 1}]
    books.privacy.erase(found[0], now=NOON)
    assert [each.record_id for each in books.reviews.listed()] == ["B"]
    assert books.privacy.find_again(books.suppressions.digests(["record:salesforce:Contact:A"])) == []


def test_older_rows_of_their_record_go_too_whatever_it_was_asked_by_then(books: Books) -> None:
    books.runs.open(a_run(id="earlier"), owner="here:1")
    books.recorded("A", person(first_name="Ada", last_name="X", domain="x.example"), run="earlier")
    books.recorded("A", person(email=ADA))

    assert books.erase(ADA)["run_records"] == 2 or not list(books.runs.records("earlier"))


def test_texts_that_should_hold_nobody_are_looked_at_and_versions_are_told(books: Books) -> None:
    call = books.bought([person(email=BOB)], [told(BOB)])
    with books.store.write() as connection:
        connection.execute(update(batches).where(batches.c.id == call).values(error=f"refused {ADA.title()}"))
        connection.execute(update(runs).where(runs.c.id == a_run().id).values(reason=f"duplicate of {ADA}"))
    ConfigVersions(books.store).add(f"# ask {ADA}".encode(), {}, author="x", note="", now=NOON)
    books.runs.count_unmapped("contacts", {("Level__c", ADA): 1, ("Level__c", "vp"): 1}, now=NOON)

    traces = books.privacy.find(ADA)
    counts = books.erase(ADA)

    assert traces.versions == [1]
    assert counts == {"batches": 1, "runs": 1, "unmapped_values": 1}
    assert [row[2] for row in books.runs.unmapped()] == ["vp"]
    with books.store.read() as connection:
        assert connection.execute(select(batches.c.error)).scalar() == ""


def test_a_company_that_came_with_them_is_looked_up_for_itself_from_now_on(books: Books) -> None:
    from tests.factories import company_keys

    books.bought([person(email=ADA)], [told(ADA, organization={"primary_domain": "lovelace.example"})])
    before = books.answers.look_up(Purpose.COMPANY, [company_keys().key])

    books.erase(ADA)

    assert before
    assert books.answers.look_up(Purpose.COMPANY, [company_keys().key]) == {}


def test_an_answer_that_cannot_be_read_goes_whole_and_its_call_stays_in_doubt(books: Books) -> None:
    intent = Intent(
        run_id=a_run().id, sync="contacts", purpose=Purpose.PERSON, calls=((person(email=ADA), person(email=BOB)),),
        single=False, endpoint="people/bulk_match", most=Decimal(1), day="2026-10-08", fresh_since=_OLD,
        no_match_since=_OLD,
    )  # fmt: skip
    [call] = books.journal.plan(intent, lambda _: Room(), now=NOON).calls
    books.journal.sent(call.id, now=NOON)
    books.journal.in_doubt(call.id, f'{{"matches": [{{"email": "{ADA}"'.encode(), "cut", now=NOON)

    books.erase(ADA)

    [doubt] = books.journal.doubts()
    assert [key.email for key in doubt.keys] == ["", BOB]
    assert Runs(books.store).unsettled(a_run().id).in_doubt == 2
    books.journal.clear(call.id, "the meter", by="evidence", now=NOON)
    assert not books.is_known(person(email=BOB))


def test_an_answer_that_was_not_indexed_yet_is_indexed_without_them(books: Books) -> None:
    ada, bob = person(email=ADA), person(email=BOB)
    books.bought([ada, bob], [told(ADA), told(BOB)])
    books.erase(ADA)
    with books.store.read() as connection:
        call = connection.execute(select(batches.c.id)).scalar_one()
    stored = books.answers.load([call])[call]

    reading = ApolloArchive().read(Purpose.PERSON, stored.keys, stored.body)
    expansion = expansion_of(call, Purpose.PERSON, stored.keys, reading, Decimal(1), single=False, answered_at=NOON)

    assert [row.key for row in expansion.rows] == [bob.key]


def test_many_calls_are_searched_in_no_time(books: Books) -> None:
    import time

    for start in range(60):
        people = [f"p{start}x{n}@y.example" for n in range(10)]
        books.bought([person(email=each) for each in people], [told(each, history=["x" * 300] * 20) for each in people])
    books.bought([person(email=ADA)], [told(ADA)])

    begun = time.process_time()
    traces = books.privacy.find(ADA)

    assert traces.counts() == {"batches": 1, "answers": 1}
    assert time.process_time() - begun < 2


def test_an_attempt_that_only_a_stamp_told_of_goes_too(books: Books) -> None:
    books.recorded("A", person(email=ADA))
    state = RecordState(object_type="Contact", record_id="A", outcome="Updated", seen=b"0" * 16, attempted_at=NOON)
    books.runs.remember("other", [state], run_id="restore")

    assert books.erase(ADA)["record_states"] == 2


def test_two_people_of_one_call_are_erased_one_after_the_other(books: Books) -> None:
    ada, bob = person(email=ADA), person(email=BOB)
    call = books.bought([ada, bob, person(email="c@x.example")], [told(ADA), told(BOB), told("c@x.example")])
    both = [books.privacy.find(ADA), books.privacy.find(BOB)]

    for traces in both:
        books.privacy.erase(traces, now=NOON)

    stored = books.answers.load([call])[call]
    assert [key.email for key in stored.keys] == ["", "", "c@x.example"]
    assert ADA.encode() not in stored.body
    assert BOB.encode() not in stored.body


def test_everybody_is_found_again_by_digests_alone(books: Books) -> None:
    ada, bob = person(email=ADA, linkedin_url=PAGE), person(email=BOB)
    by_name = person(first_name="Ada", last_name="X", domain="x.example")
    books.bought([ada, bob], [told(ADA, linkedin_url=PAGE), told(BOB)])
    books.bought([by_name], [told(ADA, organization={"primary_domain": "x.example"}, first_name="Ada")])
    books.recorded("A", ada)
    books.recorded("B", bob)
    books.recorded("N", by_name)
    digests = books.suppressions.digests([f"email:{ADA}", "linkedin:in/ada-b", "record:salesforce:Contact:A"])

    found = books.privacy.find_again(digests)
    for traces in found:
        books.privacy.erase(traces, now=NOON)

    assert len(found) == 1
    assert found[0].person.emails == {ADA}
    assert [record.record_id for record in books.runs.records(a_run().id)] == ["B"]
    assert books.privacy.find_again(digests) == []
    assert books.privacy.find_again(set()) == []
