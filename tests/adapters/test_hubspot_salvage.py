"""Good fields survive bad ones: what a thousand changed contacts cost where HubSpot says whose value is bad, and where
it does not; and records that somebody else holds."""

from __future__ import annotations

import random

import pytest

from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import Value
from crm_sync.errors import RateLimitError
from crm_sync.sandbox.hubspot import Habits
from tests.adapters.hubspot_simulated import Simulated, a_request, simulated

GOOD: dict[str, Value] = {
    "jobtitle": "CTO",
    "city": "Bonn",
    "hs_seniority": "vp",
    "lead_score": 7,
    "renewal_date": "2026-12-01",
    "apollo_enriched_at": "2026-10-08T12:00:00.000Z",
}
#: What the schema cannot foresee is bad in many ways; each of these is refused.
BAD: list[tuple[str, Value]] = [
    ("hs_seniority", "boss"),
    ("lead_score", "7,000"),
    ("renewal_date", "soon"),
    ("hs_seniority", "chief"),
    ("apollo_enriched_at", "2026-10-08T12:00:00+02:00"),
    ("lead_score", "many"),
    ("hs_seniority", "boss"),
]
MOST_CALLS = {True: 40, False: 120}


def write(it: Simulated, bad: dict[int, tuple[str, Value]]) -> list[WriteOutcome]:
    """All contacts, each with GOOD but for what `bad` says of the n-th."""
    changes = [{**GOOD, **dict([bad[n]] if n in bad else ())} for n in range(it.contacts)]
    return it.crm.write("contacts", [a_request(each, **values) for each, values in zip(it.ids(), changes, strict=True)])


def assert_only_bad_values_are_missing(
    it: Simulated, bad: dict[int, tuple[str, Value]], outcomes: list[WriteOutcome]
) -> None:
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    reported = {(n, name) for n, outcome in enumerate(outcomes) for name, _ in outcome.dropped}
    assert reported == {(n, name) for n, (name, _) in bad.items()}
    for n, (_, value) in bad.items():
        [(_, why)] = outcomes[n].dropped
        assert str(value).split(",")[0].split("T")[0] in why or "INVALID" in why
    records = it.crm.read("contacts", it.ids(), tuple(GOOD))
    for n, record in enumerate(records):
        assert record is not None
        expected = {name: value for name, value in GOOD.items() if n not in bad or name != bad[n][0]}
        assert {name: record.values[name] for name in expected} == expected


@pytest.mark.parametrize("trace_ids", [True, False])
@pytest.mark.parametrize("place", ["one a batch", "at random", "all in one batch", "side by side"])
def test_seven_bad_values_among_a_thousand_contacts_cost_those_seven_and_few_calls(trace_ids: bool, place: str) -> None:
    chance = random.Random(7)
    positions = {
        "one a batch": [batch * 100 + chance.randrange(100) for batch in range(7)],
        "at random": sorted(chance.sample(range(1_000), 7)),
        "all in one batch": sorted(chance.sample(range(300, 400), 7)),
        "side by side": list(range(596, 603)),
    }[place]
    bad = dict(zip(positions, BAD, strict=True))
    with simulated(contacts=1_000, habits=Habits(trace_ids=trace_ids)) as it:
        outcomes = write(it, bad)
        calls = it.crm.calls()["write"]

        assert_only_bad_values_are_missing(it, bad, outcomes)
        assert calls <= MOST_CALLS[trace_ids]


def test_only_the_carriers_of_the_blamed_property_are_searched() -> None:
    bad = {50: ("product_interest", "fax"), 350: ("product_interest", "telex")}
    good = {10 * n: ("product_interest", "payments") for n in range(100)}
    with simulated(contacts=1_000, habits=Habits(trace_ids=False)) as it:
        outcomes = write(it, {**good, **bad})

        assert {n for n, outcome in enumerate(outcomes) if outcome.dropped} == {50, 350}
        assert it.value(it.ids()[60], "product_interest") == "payments"
        # Ten carriers in a batch: four halvings instead of seven, and once more for all that waited.
        assert it.crm.calls()["write"] <= 10 + 2 * 6


def test_a_field_of_which_every_value_is_bad_does_not_cost_calls_without_end() -> None:
    with simulated(contacts=1_000, habits=Habits(trace_ids=False)) as it:
        outcomes = write(it, dict.fromkeys(range(1000), ("hs_seniority", "boss")))

        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
        assert all(dict(outcome.dropped).keys() == {"hs_seniority"} for outcome in outcomes)
        assert {it.value(each, "jobtitle") for each in it.ids()[::50]} == {"CTO"}
        assert it.crm.calls()["write"] <= 300


@pytest.mark.parametrize("trace_ids", [True, False])
def test_a_record_that_somebody_holds_for_long_does_not_hold_up_the_others(trace_ids: bool) -> None:
    with simulated(contacts=100, habits=Habits(trace_ids=trace_ids)) as it:
        ids = it.ids()
        it.edit(ids[42], **{"$lock": 1_000})

        outcomes = write(it, {})

        assert [outcome.ref.id for outcome in outcomes if outcome.written is Written.NOT_WRITTEN] == [ids[42]]
        assert "locked" in outcomes[42].reason
        assert {it.value(each, "jobtitle") for each in ids if each != ids[42]} == {"CTO"}
        assert sum(it.clock.slept) < 60


def test_a_record_whose_lock_ends_in_time_is_written_with_the_others() -> None:
    with simulated(contacts=100) as it:
        it.edit(it.ids()[42], **{"$lock": 5})

        outcomes = write(it, {})

        assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}


def test_where_everything_is_locked_the_run_learns_it_instead_of_a_hundred_records() -> None:
    with simulated(contacts=100) as it:
        it.post("faults", [{"call": "POST */batch/update", "what": "423", "times": 999}])

        with pytest.raises(RateLimitError, match="locked"):
            write(it, {})

        assert it.crm.calls()["write"] <= 45


def test_one_record_alone_that_is_locked_does_not_end_the_run() -> None:
    with simulated(contacts=1) as it:
        it.edit(it.ids()[0], **{"$lock": 99})

        assert [outcome.written for outcome in write(it, {})] == [Written.NOT_WRITTEN]
