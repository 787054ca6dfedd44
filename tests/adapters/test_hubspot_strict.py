"""Strict writes against the strict simulator: what somebody edits at the same time stands at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapters.hubspot.guard import Guard
from adapters.hubspot.writing import Input
from crm_sync.domain.changes import WriteMode, WriteOutcome, Written
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.errors import ConfigError
from crm_sync.ports import WriteRequest
from crm_sync.sandbox.hubspot.auth import FIRST_APP
from tests.adapters.hubspot_schema import contacts_schema
from tests.adapters.hubspot_simulated import Simulated, a_request, connected, serving, simulated

FIELDS = ("jobtitle", "city", "hs_seniority", "lead_score", "hs_buying_role", "renewal_date", "apollo_enriched_at",
          "hs_contact_enrichment_opt_out")  # fmt: skip
OURS: dict[str, Value] = {"jobtitle": "CTO", "city": "Bonn"}


@pytest.fixture(params=["a", "b"])
def it(request: pytest.FixtureRequest) -> Iterator[Simulated]:
    with simulated(contacts=20, variant=request.param) as it:
        for each in it.ids()[:3]:
            it.edit(each, jobtitle="", city="n/a")
        yield it


def write(
    it: Simulated, changes: dict[str, dict[str, Value]], *, mode: WriteMode = WriteMode.STRICT, **more: Any
) -> list[WriteOutcome]:
    """Read, and write what was decided on it; `more` as WriteRequest takes it."""
    ids = list(changes)
    seen = it.crm.read("contacts", ids, FIELDS)
    requests = [
        WriteRequest(ref=record.ref, values=changes[each], seen=record, **more)
        for each, record in zip(ids, seen, strict=True)
        if record is not None
    ]
    assert len(requests) == len(ids)
    return it.crm.write("contacts", requests, mode=mode)


def test_a_write_that_nobody_meets_costs_one_more_call_and_restores_nothing(it: Simulated) -> None:
    first = it.ids()[0]

    outcome = write(it, {first: OURS})[0]

    assert (outcome.written, outcome.restored, outcome.reason) == (Written.WRITTEN, (), "")
    assert it.crm.calls()["read"] == 2
    assert it.crm.calls()["write"] == 1
    assert it.value(first, "jobtitle") == "CTO"


def test_a_fast_write_and_one_without_the_record_as_it_was_seen_read_no_history(it: Simulated) -> None:
    first, second = it.ids()[:2]

    fast = write(it, {first: OURS}, mode=WriteMode.FAST)
    bulk = write(it, {first: OURS}, mode=WriteMode.BULK)
    request = WriteRequest(ref=RecordRef(crm="hubspot", object_type="contacts", id=second), values=OURS)
    unguarded = it.crm.write("contacts", [request], mode=WriteMode.STRICT)

    assert [each.written for each in (*fast, *bulk, *unguarded)] == [Written.WRITTEN] * 3
    assert it.crm.calls()["read"] == 2


@pytest.mark.parametrize("edit", ["Buyer", "[[unknown]]"])
def test_an_edit_between_read_and_write_is_put_back_and_the_other_fields_stay_written(it: Simulated, edit: str) -> None:
    first, second = it.ids()[:2]
    it.meanwhile("update", first, jobtitle=edit)

    outcomes = write(it, {first: OURS, second: OURS})

    assert [each.written for each in outcomes] == [Written.WRITTEN] * 2
    assert [each.restored for each in outcomes] == [(("jobtitle", edit),), ()]
    assert (it.value(first, "jobtitle"), it.value(first, "city")) == (edit, "Bonn")
    assert it.value(second, "jobtitle") == "CTO"
    assert it.crm.calls()["write"] == 2


def test_an_edit_that_erased_is_put_back_by_erasing(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, city="")

    outcome = write(it, {first: OURS})[0]

    assert outcome.restored == (("city", None),)
    assert it.value(first, "city") is None


@pytest.mark.parametrize(
    ("name", "old", "ours", "edit", "restored"),
    [
        ("hs_seniority", "vp", "director", "owner", "owner"),
        ("lead_score", "5", 7, "6.50", 6.5),
        ("lead_score", "5", 7, "0", 0),
        ("hs_contact_enrichment_opt_out", "", True, "false", False),
        ("hs_buying_role", "BLOCKER;OTHER", ("END_USER",), "OTHER;CHAMPION", ("OTHER", "CHAMPION")),
        ("renewal_date", "2026-01-01", "2026-05-01", "2026-03-01", "2026-03-01"),
        ("apollo_enriched_at", "", "2026-10-08T12:00:00Z", "2026-10-08T11:00:00Z", "2026-10-08T11:00:00.000Z"),
    ],
)
def test_values_of_each_kind_come_back_as_they_were(
    it: Simulated, name: str, old: str, ours: Value, edit: str, restored: Value
) -> None:
    first, second = it.ids()[:2]
    for each in (first, second):
        it.edit(each, **{name: old})
    it.meanwhile("update", first, **{name: edit})

    outcomes = write(it, {first: {name: ours}, second: {name: ours}})

    assert [outcome.restored for outcome in outcomes] == [((name, restored),), ()]
    read = it.crm.read("contacts", [first, second], [name])
    assert [record.values[name] == restored for record in read if record] == [True, False]


@pytest.mark.parametrize(("call", "when"), [("update", "after"), ("read", "after")])
def test_an_edit_after_our_write_is_left_alone(it: Simulated, call: str, when: str) -> None:
    first = it.ids()[0]
    it.meanwhile(call, first, when=when, nth=2 if call == "read" else 1, jobtitle="Buyer")

    outcome = write(it, {first: OURS})[0]

    assert outcome.restored == ()
    assert it.value(first, "jobtitle") == "Buyer"
    assert it.crm.calls()["write"] == 1


def test_an_edit_to_what_we_write_and_one_that_was_taken_back_are_none(it: Simulated) -> None:
    first, second = it.ids()[:2]
    it.meanwhile("update", first, jobtitle="CTO", city="Bonn")
    it.meanwhile("update", second, city="Ulm")
    it.meanwhile("update", second, city="n/a")

    outcomes = write(it, {first: OURS, second: OURS})

    assert [outcome.restored for outcome in outcomes] == [(), ()]
    assert it.value(second, "city") == "Bonn"


def test_an_update_sent_twice_after_a_lost_answer_is_not_taken_for_an_edit(it: Simulated) -> None:
    first = it.ids()[0]
    it.post("faults", [{"call": "POST */batch/update", "what": "reset", "when": "after"}])

    outcome = write(it, {first: OURS})[0]

    assert (outcome.written, outcome.restored) == (Written.WRITTEN, ())
    assert it.value(first, "jobtitle") == "CTO"


def test_an_edit_between_an_update_and_its_second_sending_is_put_back(it: Simulated) -> None:
    first = it.ids()[0]
    it.post("faults", [{"call": "POST */batch/update", "what": "reset", "when": "after"}])
    it.meanwhile("update", first, when="after", jobtitle="Buyer")

    outcome = write(it, {first: OURS})[0]

    assert outcome.restored == (("jobtitle", "Buyer"),)
    assert it.value(first, "jobtitle") == "Buyer"


def test_what_an_earlier_run_wrote_is_ours_too(it: Simulated) -> None:
    first = it.ids()[0]
    write(it, {first: OURS})
    write(it, {first: {"jobtitle": "Chief"}})

    outcome = write(it, {first: {"jobtitle": "CEO"}})[0]

    assert outcome.restored == ()
    assert it.value(first, "jobtitle") == "CEO"


@pytest.mark.parametrize(("app", "stands"), [(FIRST_APP + 1, "Buyer"), (FIRST_APP, "CTO")])
def test_another_apps_write_is_somebodys_and_one_by_our_own_app_is_ours(it: Simulated, app: int, stands: str) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer", **{"$app": app})

    outcome = write(it, {first: OURS})[0]

    assert [value for _, value in outcome.restored] == [stands] * (stands == "Buyer")
    assert it.value(first, "jobtitle") == stands


def test_a_person_who_edits_again_is_not_fought(it: Simulated) -> None:
    """The history is the second read; the put-back is the second update, and what comes after it stays."""
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer")
    it.meanwhile("update", first, nth=2, when="after", jobtitle="Head of Buying")

    outcome = write(it, {first: OURS})[0]

    assert outcome.restored == (("jobtitle", "Head of Buying"),)
    assert it.value(first, "jobtitle") == "Head of Buying"
    assert it.crm.calls()["write"] == 2


def test_an_edit_that_the_putting_back_goes_over_is_told(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer")
    it.meanwhile("update", first, nth=2, jobtitle="Head of Buying")

    outcome = write(it, {first: OURS})[0]

    assert outcome.restored == (("jobtitle", "Buyer"),)
    assert "jobtitle was edited again" in outcome.reason
    assert "Head of Buying" not in outcome.reason
    assert it.crm.calls()["write"] == 2


def test_only_what_hubspot_took_is_checked(it: Simulated) -> None:
    first, second = it.ids()[:2]
    it.meanwhile("update", first, hs_seniority="owner", jobtitle="Buyer")

    outcomes = write(it, {each: {**OURS, "hs_seniority": "boss"} for each in (first, second)})

    assert [dict(outcome.dropped).keys() for outcome in outcomes] == [{"hs_seniority"}] * 2
    assert [outcome.restored for outcome in outcomes] == [(("jobtitle", "Buyer"),), ()]
    assert it.value(first, "hs_seniority") == "owner"


def test_a_history_that_cannot_be_read_leaves_the_write_and_says_so(it: Simulated) -> None:
    first = it.ids()[0]
    it.post("faults", [{"call": "POST */batch/read", "what": "500", "nth": 2, "times": 99}])

    outcome = write(it, {first: OURS})[0]

    assert outcome.written is Written.WRITTEN
    assert "not checked for edits made at the same time" in outcome.reason
    assert outcome.restored == ()


def test_an_edit_that_cannot_be_put_back_is_told_and_the_write_stands(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer")
    it.post("faults", [{"call": "POST */batch/update", "what": "403", "nth": 2, "times": 99}])

    outcome = write(it, {first: OURS})[0]

    assert outcome.written is Written.WRITTEN
    assert outcome.restored == ()
    assert "went over an edit of jobtitle that could not be put back" in outcome.reason
    assert "Buyer" not in outcome.reason


def test_a_putting_back_whose_answer_is_lost_is_known_by_its_check(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer")
    it.post("faults", [{"call": "POST */batch/update", "what": "reset", "when": "after", "nth": 2, "times": 99}])

    outcome = write(it, {first: OURS})[0]

    assert (outcome.written, outcome.restored) == (Written.WRITTEN, (("jobtitle", "Buyer"),))
    assert it.value(first, "jobtitle") == "Buyer"


def test_a_write_whose_answer_never_came_is_guarded_too(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, jobtitle="Buyer")
    it.post("faults", [{"call": "POST */batch/update", "what": "reset", "when": "after", "times": 5}])

    outcome = write(it, {first: OURS})[0]

    assert (outcome.written, outcome.restored) == (Written.UNACCOUNTED, (("jobtitle", "Buyer"),))
    assert (it.value(first, "jobtitle"), it.value(first, "city")) == ("Buyer", "Bonn")


def test_a_record_merged_meanwhile_is_judged_under_its_survivors_id() -> None:
    """What the survivor held is somebody's decision that came after our read."""
    with simulated(contacts=20) as it:
        first, other = it.ids()[:2]
        it.edit(first, jobtitle="", city="Ulm")
        it.edit(other, jobtitle="Buyer", city="Ulm")
        it.meanwhile("update", first, merge_into=other)

        outcome = write(it, {first: OURS})[0]

        assert outcome.written is Written.WRITTEN
        assert outcome.ref.id not in (first, other)
        assert outcome.restored == (("jobtitle", "Buyer"),)
        assert (it.value(first, "jobtitle"), it.value(first, "city")) == ("Buyer", "Bonn")


def test_what_a_survivor_held_for_years_is_no_less_somebodys() -> None:
    """HubSpot may keep the moments of the values that a merge brings together."""
    schema = contacts_schema()
    one = Input(ref=a_request("101").ref, trace_id="0", properties={"jobtitle": "CTO"})
    seen = Record(ref=one.ref, values={"jobtitle": None}, version="2026-10-08T12:00:00.000Z")
    survivor = {
        "id": "305",
        "properties": {"jobtitle": "CTO"},
        "propertiesWithHistory": {
            "jobtitle": [
                {"value": "CTO", "timestamp": "2026-10-08T12:00:05.000Z", "sourceType": "INTEGRATION", "sourceId": "1"},
                {"value": "Buyer", "timestamp": "2020-01-01T00:00:00.000Z", "sourceType": "IMPORT", "sourceId": "7"},
            ]
        },
    }
    sent: list[Input] = []

    def put_back(inputs: Sequence[Input]) -> dict[str, WriteOutcome]:
        sent.extend(inputs)
        return {each.trace_id: WriteOutcome(ref=each.ref, written=Written.WRITTEN) for each in inputs}

    for record_id, said in (("305", ["Buyer"]), ("101", [])):
        sent.clear()
        raw = {**survivor, "id": record_id}
        guard = Guard(histories=lambda ids, _names, raw=raw: {ids[0]: raw}, put_back=put_back, schema=schema)
        ref = replace(one.ref, id=record_id)

        guard.check([one], {"0": seen}, {"0": WriteOutcome(ref=ref, written=Written.WRITTEN)})

        assert [each.properties["jobtitle"] for each in sent] == said


def test_a_record_archived_after_the_write_is_written_and_not_checked(it: Simulated) -> None:
    first, second = it.ids()[:2]
    it.meanwhile("update", first, when="after", archived=True)

    outcomes = write(it, {first: OURS, second: OURS})

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN] * 2
    assert "does not tell whether jobtitle, city was edited" in outcomes[0].reason
    assert outcomes[1].reason == ""


@pytest.mark.parametrize("variant", ["a", "b"])
def test_the_guard_holds_for_the_last_of_many_batches_long_after_the_read(variant: str) -> None:
    with simulated(contacts=250, variant=variant) as it:
        ids = it.ids()
        for each in ids:
            it.edit(each, jobtitle="")
        edited = [ids[0], ids[120], ids[249]]
        for each in edited:
            it.meanwhile("update", each, jobtitle="Buyer")

        outcomes = write(it, {each: {"jobtitle": "CTO"} for each in ids})

        assert [outcome.ref.id for outcome in outcomes if outcome.restored] == edited
        assert [it.value(each, "jobtitle") for each in edited] == ["Buyer"] * 3
        assert sum(it.value(each, "jobtitle") == "CTO" for each in ids) == 247
        # Three batches of 100, five histories of 50, three records put back and looked at.
        assert it.crm.calls()["write"] == 6
        assert it.crm.calls()["read"] == 3 + 5 + 3


def test_blanks_erase_only_where_the_request_says_so(it: Simulated) -> None:
    first = it.ids()[0]
    it.edit(first, jobtitle="Buyer", city="Bonn", hs_seniority="vp", lead_score="5")
    blanks: dict[str, Value] = {"jobtitle": "", "city": None, "hs_seniority": None, "lead_score": None}

    outcome = write(it, {first: blanks}, erase=frozenset({"jobtitle", "city", "lead_score"}))[0]

    assert outcome.written is Written.WRITTEN
    assert dict(outcome.dropped).keys() == {"hs_seniority"}
    assert [it.value(first, name) for name in blanks] == [None, None, "vp", None]


def test_what_may_be_erased_is_written_where_there_is_a_value(it: Simulated) -> None:
    first = it.ids()[0]

    write(it, {first: OURS}, erase=frozenset(OURS))

    assert (it.value(first, "jobtitle"), it.value(first, "city")) == ("CTO", "Bonn")


def test_a_field_that_was_not_seen_is_written_without_a_guard(it: Simulated) -> None:
    first = it.ids()[0]
    it.meanwhile("update", first, region_note="Theirs", jobtitle="Buyer")

    outcome = write(it, {first: {**OURS, "region_note": "Ours"}})[0]

    assert outcome.restored == (("jobtitle", "Buyer"),)
    assert it.value(first, "region_note") == "Ours"


def test_an_edit_that_erasing_went_over_comes_back(it: Simulated) -> None:
    first = it.ids()[0]
    it.edit(first, jobtitle="Buyer")
    it.meanwhile("update", first, jobtitle="Head of Buying")

    outcome = write(it, {first: {"jobtitle": None}}, erase=frozenset({"jobtitle"}))[0]

    assert outcome.restored == (("jobtitle", "Head of Buying"),)
    assert it.value(first, "jobtitle") == "Head of Buying"


def test_a_record_says_when_it_last_changed() -> None:
    with simulated(contacts=5) as it:
        first = it.ids()[0]
        shown = it.edit(first, jobtitle="Buyer")

        record = it.crm.read("contacts", [first], ["jobtitle"])[0]

        assert record is not None
        assert record.version == shown["updatedAt"]


# --- the script of faults, at each call of the guard

#: What the guard does after the read and the write, by its call and the number of it.
GUARDING = {
    "the look at the history": ("read", 2),
    "putting back": ("update", 2),
    "the look at what was put back": ("read", 3),
}
PASSING = ("429", "500", "502_html", "503", "cut", "garbage", "empty", "reset", "silence", "not_utf8", "423")
LASTING = ("400", "401", "403", "413", "500", "cut", "garbage", "reset", "redirect", "429_daily")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(contacts=8) as url:
        yield url


@pytest.fixture
def other(server: str) -> Iterator[Simulated]:
    """A contact of `it` is edited between our read and our write."""
    with connected(server, 8) as it:
        it.forgive()
        it.edit(it.ids()[0], jobtitle="", city="")
        it.meanwhile("update", it.ids()[0], jobtitle="Buyer")
        yield it
        it.forgive()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize("step", GUARDING)
def test_a_passing_fault_at_any_step_of_the_guard_is_not_noticed(
    other: Simulated, step: str, what: str, when: str
) -> None:
    call, nth = GUARDING[step]
    fault = {"call": f"POST */batch/{call}", "nth": nth, "when": when, "what": what, "seconds": 0.05}
    other.post("faults", [fault])
    first = other.ids()[0]

    outcome = write(other, {first: OURS})[0]

    assert (outcome.written, outcome.restored, outcome.reason) == (Written.WRITTEN, (("jobtitle", "Buyer"),), "")
    assert (other.value(first, "jobtitle"), other.value(first, "city")) == ("Buyer", "Bonn")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", LASTING)
@pytest.mark.parametrize("step", GUARDING)
def test_a_lasting_fault_at_any_step_of_the_guard_never_unsays_the_write_and_is_told(
    other: Simulated, step: str, what: str, when: str
) -> None:
    call, nth = GUARDING[step]
    fault = {"call": f"POST */batch/{call}", "nth": nth, "times": 99, "when": when, "what": what, "seconds": 0.05}
    other.post("faults", [fault])
    first = other.ids()[0]

    outcome = write(other, {first: OURS})[0]

    assert outcome.written is Written.WRITTEN
    assert other.value(first, "city") == "Bonn"
    stands = other.value(first, "jobtitle") == "Buyer"
    assert stands == (outcome.restored == (("jobtitle", "Buyer"),))
    assert stands == (step == "the look at what was put back" or (step == "putting back" and when == "after"))
    assert stands or outcome.reason
    assert "Buyer" not in outcome.reason


# --- what became of it


def test_whereabouts_of_the_merged_the_deleted_and_the_unknown() -> None:
    with simulated(contacts=20) as it:
        ids = it.ids()
        middle = it.edit(ids[0], merge_into=ids[1])["id"]
        last = it.edit(middle, merge_into=ids[2])["id"]
        it.edit(ids[3], archived=True)
        dead = it.edit(ids[4], merge_into=ids[5])["id"]
        it.edit(dead, archived=True)

        asked = [ids[0], middle, last, ids[3], ids[4], "77", "not-an-id", ids[6]]
        found = it.crm.whereabouts("contacts", asked)

        assert [(each.how, each.ref.id if each.ref else None) for each in found] == [
            ("merged", last),
            ("merged", last),
            ("unknown", last),
            ("deleted", None),
            ("deleted", None),
            ("deleted", None),
            ("unknown", None),
            ("unknown", ids[6]),
        ]
        assert "recycle bin for 90 days" in found[3].reason
        assert f"merged in HubSpot into {dead}" in found[4].reason
        assert "never there" in found[5].reason
        assert it.crm.calls()["read"] == 2


def test_a_bulk_job_is_never_taken_up_again() -> None:
    with simulated(contacts=5) as it, pytest.raises(ConfigError, match="no bulk jobs"):
        it.crm.resume("contacts", "750xx", [], uploaded=True)


# --- after the one that wrote has died ------------------------------------------------------------------------------


def test_an_edit_that_a_dead_process_went_over_is_put_back_once(it: Simulated) -> None:
    first, second, third = it.ids()[:3]
    it.meanwhile("update", first, jobtitle="Buyer")
    requests = [unversioned(it, each, OURS) for each in (first, second, third)]
    it.crm.write("contacts", requests[:2], mode=WriteMode.FAST)
    it.edit(second, jobtitle="Typed later")

    outcomes = it.crm.look_after("contacts", requests)
    again = it.crm.look_after("contacts", requests)

    assert [each.written for each in outcomes] == [Written.UNACCOUNTED] * 3
    assert [each.restored for each in outcomes] == [(("jobtitle", "Buyer"),), (), ()]
    assert [each.restored for each in again] == [(), (), ()]
    assert [it.value(each, "jobtitle") for each in (first, second, third)] == ["Buyer", "Typed later", None]
    assert [it.value(each, "city") for each in (first, second, third)] == ["Bonn", "Bonn", "n/a"]


def test_a_write_that_never_arrived_went_over_nothing_however_alike_its_value_is(it: Simulated) -> None:
    first = it.ids()[0]
    it.edit(first, jobtitle="[[unknown]]")
    write(it, {first: {"jobtitle": "Managing Partner"}})
    request = unversioned(it, first, {"jobtitle": "MANAGING PARTNER"})

    [outcome] = it.crm.look_after("contacts", [request])

    assert outcome.restored == ()
    assert it.value(first, "jobtitle") == "Managing Partner"


def unversioned(it: Simulated, record_id: str, changes: dict[str, Value]) -> WriteRequest:
    """As the audit has it: what was there, and not when it was read."""
    [record] = it.crm.read("contacts", [record_id], tuple(changes))
    assert record is not None
    return WriteRequest(ref=record.ref, values=changes, seen=replace(record, version=""))
