"""Who works on the database, and for how long that is believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from crm_sync.domain.processes import Process, differences, said_of
from crm_sync.store.engine import Store
from crm_sync.store.processes import Processes
from tests.factories import NOON


def a_process(name: str = "a", **changes: object) -> Process:
    made = Process(
        id=name,
        role="worker",
        host="one.example.com",
        pid=7,
        version="0.1.0",
        agree={"CRM_SYNC_APOLLO_URL": "aa", "CRM_SYNC_SECRET_KEY": "bb"},
        began_at=NOON,
        seen_at=NOON,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_who_gave_a_sign_lately_is_at_work(store: Store) -> None:
    processes = Processes(store)
    first, second = a_process("a"), a_process("b", began_at=NOON + timedelta(seconds=1))
    for each in (second, first):
        processes.seen(each)

    assert processes.alive(now=NOON + timedelta(minutes=1)) == [first, second]
    processes.seen(replace(first, seen_at=NOON + timedelta(minutes=2)))
    assert [each.id for each in processes.alive(now=NOON + timedelta(minutes=3))] == ["a"]


def test_a_clean_end_is_believed_at_once_and_the_dead_are_forgotten(store: Store) -> None:
    processes = Processes(store)
    for name in ("a", "b", "c"):
        processes.seen(a_process(name))

    processes.gone("a")
    assert [each.id for each in processes.alive(now=NOON)] == ["b", "c"]
    processes.seen(a_process("c", seen_at=NOON + timedelta(minutes=11)))
    assert [each.id for each in processes.alive(now=NOON)] == [], "b is not kept, and c is of another time"


def test_a_sign_tells_what_the_process_is_now(store: Store) -> None:
    processes = Processes(store)
    processes.seen(a_process())
    later = a_process(agree={"CRM_SYNC_APOLLO_URL": "cc"}, seen_at=NOON + timedelta(seconds=30))
    processes.seen(later)

    assert processes.alive(now=NOON) == [later]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"role": "web", "agree": {"CRM_SYNC_SECRET_KEY": "bb"}}, []),  # what it does not read is nothing to it
        ({"version": "0.2.0"}, ["it is crm-sync 0.2.0 and this is 0.1.0"]),
        (
            {"agree": {"CRM_SYNC_APOLLO_URL": "x", "CRM_SYNC_SECRET_KEY": "y"}},
            ["it has another CRM_SYNC_APOLLO_URL, CRM_SYNC_SECRET_KEY"],
        ),
    ],
)
def test_what_differs_is_named(changes: dict[str, object], told: list[str]) -> None:
    other = a_process("b", **changes)

    assert differences(a_process(), other) == told
    if told:
        assert said_of(a_process(), other) == (
            f"worker on one.example.com (process 7) works on the same database and differs: {told[0]}"
        )
    else:
        assert said_of(a_process(), other) == ""
