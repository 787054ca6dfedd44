"""Full tens, and one person in one call."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.pipeline.batch import Batch, likely_same_together


def a_person(number: int, *, email: str = "", page: str = "") -> MatchKeys:
    return MatchKeys(
        purpose=Purpose.PERSON,
        email=email or f"p{number}@acme.example",
        first_name="Ada",
        last_name=f"Nr{number}",
        domain="acme.example",
        linkedin_url=page,
    )


def test_two_addresses_of_one_name_at_one_employer_go_into_one_call() -> None:
    people = [a_person(n) for n in range(20)]
    people[9], people[10] = a_person(9), a_person(9, email="ada@mail.example")

    calls = likely_same_together([Batch(keys=tuple(people[:10])), Batch(keys=tuple(people[10:]))], 10)

    assert [len(call.keys) for call in calls] == [10, 10]
    assert any({people[9], people[10]} <= set(call.keys) for call in calls)


def test_where_nobody_may_be_the_same_the_order_stays() -> None:
    people = tuple(a_person(n) for n in range(13))

    calls = likely_same_together([Batch(keys=people[:10]), Batch(keys=people[10:])], 10)

    assert [key for call in calls for key in call.keys] == list(people)


def test_what_is_asked_for_singly_stays_so() -> None:
    alone = Batch(keys=(a_person(1),), single=True)

    calls = likely_same_together([alone, Batch(keys=(a_person(2), a_person(2, email="ada@mail.example")))], 10)

    assert alone in calls
    assert [len(call.keys) for call in calls if not call.single] == [2]


@given(st.lists(st.integers(min_value=0, max_value=8), max_size=60))
def test_nobody_is_lost_or_doubled_and_calls_are_full_but_the_last(names: list[int]) -> None:
    people = [a_person(name, email=f"a{at}@mail.example") for at, name in enumerate(names)]
    formed = [Batch(keys=tuple(people[at : at + 10])) for at in range(0, len(people), 10)]

    calls = likely_same_together(formed, 10)

    assert Counter(key for call in calls for key in call.keys) == Counter(people)
    assert len(calls) == len(formed)
    assert all(0 < len(call.keys) <= 10 for call in calls)
