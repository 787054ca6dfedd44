"""Batch updates: every record ends written, refused or unaccounted, whatever HubSpot's answer says and leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapters.http import InDoubtError
from adapters.hubspot import wire
from adapters.hubspot.writing import MOST_CALLS, BatchUpdate, Input, RefusedCallError, inputs_of
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import RecordRef, Value
from crm_sync.errors import TransientError
from crm_sync.ports import WriteRequest
from tests.adapters.hubspot_schema import contacts_schema

SCHEMA = contacts_schema()


def a_request(record_id: int, **values: Value) -> WriteRequest:
    return WriteRequest(ref=RecordRef(crm="hubspot", object_type="contacts", id=str(record_id)), values=values)


class FakePortal:
    """Takes batches as HubSpot does; `bad` says which values it refuses (property, text) -> code.

    `traced`: it answers 207 per record where trace ids are sent; otherwise the whole batch is refused by property name.
    """

    def __init__(self, bad: dict[tuple[str, str], str] | None = None, *, traced: bool = False) -> None:
        self.bad = bad or {}
        self.traced = traced
        self.gone: set[str] = set()
        self.silent: set[str] = set()
        self.merged: dict[str, str] = {}
        self.sizes: list[int] = []
        self.stored: dict[str, dict[str, str]] = {}

    def send(self, group: Sequence[Input]) -> wire.BatchAnswer:
        self.sizes.append(len(group))
        refused = {one.trace_id: found for one in group if (found := self._bad(one))}
        if refused and not self.traced:
            findings = {finding["name"]: finding for found in refused.values() for finding in found}
            raise self._refusal(list(findings.values()))
        results, errors = [], []
        for one in group:
            if one.trace_id in refused:
                message = _message(refused[one.trace_id])
                errors.append(
                    {
                        "category": "VALIDATION_ERROR",
                        "message": message,
                        "context": {"objectWriteTraceId": [one.trace_id]},
                    }
                )
            elif one.ref.id in self.gone:
                errors.append({"category": "OBJECT_NOT_FOUND", "message": "gone", "context": {"ids": [one.ref.id]}})
            elif one.ref.id not in self.silent:
                new_id = self.merged.get(one.ref.id, one.ref.id)
                self.stored.setdefault(new_id, {}).update(one.properties)
                results.append({"id": new_id, "properties": dict(one.properties)})
        return wire.batch_answer({"results": results, "errors": errors})

    def _bad(self, one: Input) -> list[dict[str, Any]]:
        return [
            {"isValid": False, "message": f"{name} is not right", "error": code, "name": name}
            for name, text in one.properties.items()
            if (code := self.bad.get((name, text)) or self.bad.get((name, "*")))
        ]

    def _refusal(self, findings: list[dict[str, Any]]) -> RefusedCallError:
        problem = wire.parse_problem({"category": "VALIDATION_ERROR", "message": _message(findings)})
        return RefusedCallError("refused", problem=problem, provider="hubspot", operation="write", status=400)


def _message(findings: list[dict[str, Any]]) -> str:
    return f"Property values were not valid: {json.dumps(findings)}"


def update(
    portal: FakePortal,
    requests: Sequence[WriteRequest],
    *,
    switched_off: dict[str, str] | None = None,
    send: Callable[[Sequence[Input]], wire.BatchAnswer] | None = None,
    most_calls: int = MOST_CALLS,
) -> list[WriteOutcome]:
    batch = BatchUpdate(
        send=send or portal.send,
        schema=SCHEMA,
        switched_off=switched_off if switched_off is not None else {},
        most_calls=most_calls,
    )
    inputs = inputs_of(requests)
    batch.run(inputs)
    return [batch.outcomes[one.trace_id] for one in inputs]


def test_a_sound_batch_is_one_call_and_all_of_it_is_written() -> None:
    portal = FakePortal()

    outcomes = update(portal, [a_request(n, jobtitle="CTO", score=7) for n in range(100)])

    assert portal.sizes == [100]
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert portal.stored["5"] == {"jobtitle": "CTO", "score": "7"}


def test_an_answer_per_record_costs_one_more_call_for_the_rest_of_the_refused_ones() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"}, traced=True)
    requests = [a_request(n, jobtitle="CTO", hs_seniority="boss" if n in (3, 70) else "vp") for n in range(100)]

    outcomes = update(portal, requests)

    assert portal.sizes == [100, 2]
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert [outcome.ref.id for outcome in outcomes if outcome.dropped] == ["3", "70"]
    assert outcomes[3].dropped[0][0] == "hs_seniority"
    assert "INVALID_OPTION" in outcomes[3].dropped[0][1]
    assert portal.stored["3"] == {"jobtitle": "CTO"}


@pytest.mark.parametrize("culprits", [{50}, {0, 99}, {1, 2, 3}])
def test_a_batch_refused_as_a_whole_is_halved_until_the_bad_value_stands_alone(culprits: set[int]) -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"})
    requests = [a_request(n, jobtitle="CTO", hs_seniority="boss" if n in culprits else "vp") for n in range(100)]

    outcomes = update(portal, requests)

    assert {int(outcome.ref.id) for outcome in outcomes if outcome.dropped} == culprits
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert len(portal.sizes) <= 2 + 2 * len(culprits) * 8


def test_only_records_that_carry_the_blamed_property_are_suspected() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"})
    requests = [a_request(n, jobtitle="CTO") for n in range(99)] + [a_request(99, jobtitle="CTO", hs_seniority="boss")]

    outcomes = update(portal, requests)

    assert portal.sizes == [100, 100]
    assert dict(outcomes[99].dropped).keys() == {"hs_seniority"}


def test_many_bad_values_do_not_cost_calls_without_end() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"})
    requests = [a_request(n, jobtitle="CTO", hs_seniority="boss" if n % 2 else "vp") for n in range(100)]

    outcomes = update(portal, requests)

    assert len(portal.sizes) <= MOST_CALLS + 2
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert {portal.stored[str(n)]["jobtitle"] for n in range(100)} == {"CTO"}
    assert all(outcomes[n].dropped for n in range(1, 100, 2))


def test_when_calls_run_out_only_those_lose_the_field_that_are_known_to_hold_a_bad_value() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"})
    requests = [a_request(n, jobtitle="CTO", hs_seniority="boss" if n == 10 else "vp") for n in range(100)]

    outcomes = update(portal, requests, most_calls=4)

    assert len(portal.sizes) <= 4 + 2
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert {n for n, outcome in enumerate(outcomes) if outcome.dropped} == set(range(13))
    assert "does not say which" in dict(outcomes[0].dropped)["hs_seniority"]


@pytest.mark.parametrize("code", ["PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"])
@pytest.mark.parametrize("traced", [True, False])
def test_a_fault_of_the_mapping_switches_the_field_off_for_good(code: str, traced: bool) -> None:
    portal, off = FakePortal({("city", "*"): code}, traced=traced), dict[str, str]()
    requests = [a_request(n, jobtitle="CTO", city="Bonn") for n in range(100)]

    first = update(portal, requests, switched_off=off)
    calls = len(portal.sizes)
    update(portal, requests, switched_off=off)

    assert calls == 2
    assert len(portal.sizes) == 3
    assert {outcome.written for outcome in first} == {Written.WRITTEN}
    assert all(code in dict(outcome.dropped)["city"] for outcome in first)


def test_a_record_of_which_nothing_is_left_is_refused_with_hubspots_words() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"})

    outcome = update(portal, [a_request(1, hs_seniority="boss")])[0]

    assert outcome.written is Written.REJECTED
    assert outcome.code == "INVALID_OPTION"
    assert "not right" in outcome.reason


def test_a_refusal_that_blames_nothing_ends_at_the_one_record() -> None:
    problem = wire.parse_problem({"category": "CONFLICT", "message": "Contact already exists. Existing ID: 8"})
    portal = FakePortal()

    def send(group: Sequence[Input]) -> wire.BatchAnswer:
        if any(one.ref.id == "42" for one in group):
            raise RefusedCallError("x", problem=problem, provider="hubspot", operation="write", status=409)
        return portal.send(group)

    outcomes = update(portal, [a_request(n, jobtitle="CTO") for n in range(100)], send=send)

    assert [o.ref.id for o in outcomes if o.written is Written.REJECTED] == ["42"]
    assert outcomes[42].code == "CONFLICT"


def test_two_old_ids_of_one_record_refused_as_duplicates_are_sent_apart() -> None:
    problem = wire.parse_problem(
        {
            "category": "VALIDATION_ERROR",
            "message": "Duplicate IDs found in batch input: [1, 2]",
            "context": {"ids": ["1", "2"]},
        }
    )
    portal = FakePortal()

    def send(group: Sequence[Input]) -> wire.BatchAnswer:
        if {"1", "2"} <= {one.ref.id for one in group}:
            raise RefusedCallError("x", problem=problem, provider="hubspot", operation="write", status=400)
        return portal.send(group)

    outcomes = update(portal, [a_request(n, jobtitle="CTO") for n in range(5)], send=send)

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}


def test_a_vanished_record_named_in_the_answer_is_refused_and_its_neighbours_are_written() -> None:
    portal = FakePortal()
    portal.gone = {"2"}

    outcomes = update(portal, [a_request(n, jobtitle="CTO") for n in range(4)])

    assert [o.written for o in outcomes] == [Written.WRITTEN, Written.WRITTEN, Written.GONE, Written.WRITTEN]
    assert outcomes[2].code == "OBJECT_NOT_FOUND"


def test_a_record_the_answer_does_not_mention_is_unaccounted() -> None:
    portal = FakePortal()
    portal.silent = {"2"}

    outcomes = update(portal, [a_request(n, jobtitle="CTO") for n in range(4)])

    assert [o.ref.id for o in outcomes if o.written is Written.UNACCOUNTED] == ["2"]


def test_a_merged_record_is_written_under_its_survivors_id() -> None:
    portal = FakePortal()
    portal.merged = {"2": "305"}

    outcomes = update(portal, [a_request(n, jobtitle="CTO") for n in range(4)])

    assert outcomes[2].written is Written.WRITTEN
    assert outcomes[2].ref.id == "305"


def test_a_value_the_answer_shows_otherwise_is_not_taken_as_written() -> None:
    def send(group: Sequence[Input]) -> wire.BatchAnswer:
        return wire.batch_answer({"results": [{"id": one.ref.id, "properties": {"jobtitle": "CEO"}} for one in group]})

    outcome = update(FakePortal(), [a_request(1, jobtitle="CTO")], send=send)[0]

    assert outcome.written is Written.UNACCOUNTED
    assert "jobtitle" in outcome.reason


@pytest.mark.parametrize("blank", [None, "", "  ", ()])
def test_a_blank_is_never_sent(blank: Value) -> None:
    portal = FakePortal()

    both = update(portal, [a_request(1, jobtitle=blank, city="Bonn"), a_request(2, jobtitle=blank)])

    assert portal.stored == {"1": {"city": "Bonn"}}
    assert [outcome.written for outcome in both] == [Written.WRITTEN, Written.REJECTED]
    assert dict(both[0].dropped).keys() == {"jobtitle"}


def test_a_lost_answer_leaves_what_is_open_unaccounted_and_what_was_settled_as_it_was() -> None:
    portal = FakePortal({("hs_seniority", "boss"): "INVALID_OPTION"}, traced=True)

    def send(group: Sequence[Input]) -> wire.BatchAnswer:
        if portal.sizes:
            raise InDoubtError(TransientError("hubspot did not answer", provider="hubspot"))
        return portal.send(group)

    requests = [a_request(1, jobtitle="CTO"), a_request(2, jobtitle="CTO", hs_seniority="boss")]
    outcomes = update(portal, requests, send=send)

    assert [outcome.written for outcome in outcomes] == [Written.WRITTEN, Written.UNACCOUNTED]
    assert "did not answer" in outcomes[1].reason
