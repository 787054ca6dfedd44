"""Whom to leave alone, as digests: asked about, changed by source, and never readable."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from sqlalchemy import select

from crm_sync.store.engine import Store
from crm_sync.store.suppressions import (
    BY_HAND,
    ERASED,
    Change,
    Suppressions,
    file_source,
    list_source,
    list_sources,
)
from crm_sync.store.tables import suppressions as table
from crm_sync.store.vault import Master, Vault, open_vault, rewrap
from tests.factories import NOON

RING = (Master.of("a-key-of-the-tests-long-enough"),)
ADA, BOB, ACME = "email:ada@x.example", "email:bob@x.example", "domain:acme.example"


@pytest.fixture
def vault(store: Store) -> Vault:
    return open_vault(store, RING, now=NOON)


@pytest.fixture
def suppressions(store: Store, vault: Vault) -> Suppressions:
    return Suppressions(store, vault)


def test_only_those_on_it_are_found(suppressions: Suppressions) -> None:
    suppressions.add([ADA, ACME], BY_HAND, now=NOON)

    assert suppressions.among([ADA, BOB, ACME, "phone:+1"]) == {ADA, ACME}
    assert suppressions.among([]) == frozenset()


def test_more_than_one_question_holds_are_asked_in_several(suppressions: Suppressions) -> None:
    many = {f"email:p{number}@x.example" for number in range(1_600)}
    suppressions.add(many, BY_HAND, now=NOON)

    assert suppressions.among([*many, BOB]) == many


def test_adding_says_how_many_are_new_and_keeps_each_source_apart(suppressions: Suppressions) -> None:
    assert suppressions.add([ADA, BOB], BY_HAND, now=NOON) == 2
    assert suppressions.add([ADA], BY_HAND, now=NOON) == 0
    assert suppressions.add([ADA], ERASED, now=NOON + timedelta(days=1)) == 1

    assert [(e.source, e.added_at) for e in suppressions.entries([ADA])] == [
        (BY_HAND, NOON),
        (ERASED, NOON + timedelta(days=1)),
    ]
    assert suppressions.remove([ADA], [BY_HAND], now=NOON) == 1
    assert suppressions.among([ADA, BOB]) == {ADA, BOB}
    assert suppressions.remove([ADA, BOB], [BY_HAND, ERASED], now=NOON) == 2
    assert suppressions.among([ADA, BOB]) == frozenset()


def test_the_same_text_of_another_kind_is_somebody_else(suppressions: Suppressions) -> None:
    suppressions.add(["domain:x"], BY_HAND, now=NOON)

    assert suppressions.among(["email:x", "linkedin:x"]) == frozenset()


def test_a_list_is_replaced_by_what_it_has_now_and_others_stay(suppressions: Suppressions) -> None:
    source = list_source("a.csv")
    suppressions.add([ADA], BY_HAND, now=NOON)
    first = suppressions.replace(source, {ADA, BOB}, now=NOON)

    second = suppressions.replace(source, {BOB, ACME}, now=NOON)

    assert first == Change(added=2, removed=0, total=2)
    assert second == Change(added=1, removed=1, total=2)
    assert suppressions.among([ADA, BOB, ACME]) == {ADA, BOB, ACME}
    assert suppressions.in_source(source) == 2


def test_lists_are_told_and_forgotten_by_their_source(suppressions: Suppressions, store: Store) -> None:
    for name in ("a.csv", "b.csv"):
        suppressions.replace(list_source(name), {ADA}, now=NOON)
    suppressions.add([ADA], file_source("c.csv"), now=NOON)

    gone = suppressions.forget(list_source("a.csv"), now=NOON)

    assert gone == 1
    assert list_sources(store) == ["list:b.csv"]
    assert [(kind, source, count) for kind, source, count, _ in suppressions.counts()] == [
        ("email", "file:c.csv", 1),
        ("email", "list:b.csv", 1),
    ]


def test_the_standing_tells_kinds_and_every_change(suppressions: Suppressions) -> None:
    empty = suppressions.standing()
    suppressions.add([ADA, ACME], BY_HAND, now=NOON)
    some = suppressions.standing()
    suppressions.add([ADA], BY_HAND, now=NOON)
    same = suppressions.standing()
    suppressions.remove([ADA], [BY_HAND], now=NOON)
    less = suppressions.standing()

    assert empty.kinds == frozenset()
    assert some.kinds == {"email", "domain"}
    assert less.kinds == {"domain"}
    assert empty.version < some.version == same.version < less.version


def test_the_longest_file_name_fits_and_two_of_them_stay_apart(suppressions: Suppressions) -> None:
    one, two = list_source("x" * 400 + "1"), list_source("x" * 400 + "2")

    suppressions.replace(one, {ADA}, now=NOON)
    suppressions.replace(two, {BOB}, now=NOON)

    assert one != two
    assert suppressions.in_source(one) == suppressions.in_source(two) == 1


def test_nothing_readable_is_stored_and_another_installation_cannot_tell_who_it_is(
    suppressions: Suppressions, store: Store
) -> None:
    suppressions.add([ADA], BY_HAND, now=NOON)

    with store.read() as connection:
        rows = connection.execute(select(table)).all()

    assert b"ada" not in b"".join(bytes(row.digest) for row in rows)
    stranger = Suppressions(store, Vault({1: b"1" * 32}, b"2" * 32, dict))
    assert stranger.among([ADA]) == frozenset()


def test_a_new_secret_key_forgets_nobody(suppressions: Suppressions, store: Store) -> None:
    suppressions.add([ADA], BY_HAND, now=NOON)

    vault = rewrap(store, (Master.of("another-key-of-the-tests-here"), *RING), now=NOON)

    assert Suppressions(store, vault).among([ADA]) == {ADA}


def test_two_hundred_thousand_entries_go_in_within_seconds_and_a_look_up_stays_quick(
    suppressions: Suppressions,
) -> None:
    many = {f"email:p{number}@x.example" for number in range(200_000)}

    begun = time.monotonic()
    suppressions.replace(list_source("big.csv"), many, now=NOON)
    taken = time.monotonic() - begun
    begun = time.monotonic()
    found = suppressions.among([f"email:p{number}@y.example" for number in range(2_000)])

    assert found == frozenset()
    assert taken < 60  # some 4 s on two free cores
    assert time.monotonic() - begun < 2
