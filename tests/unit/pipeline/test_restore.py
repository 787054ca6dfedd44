"""Whether a database may spend: every way in which the two sides of its ledger can disagree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.domain.enrichment import CreditBalance, MatchKeys, Purpose
from crm_sync.errors import TransientError
from crm_sync.mapping.stamps import Stamp
from crm_sync.pipeline.reconcile import identities, search_lag, worst
from crm_sync.pipeline.restore import TOLERANCE, Sighting, Why, decide
from crm_sync.store.instance import Hold, Mark, Standing
from crm_sync.store.journal import MeterReading
from tests.clocks import FakeClock

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def a_database(epoch: int = 7, **changes: Any) -> Standing:
    values: dict[str, Any] = {
        "id": "a1",
        "epoch": epoch,
        "home": "",
        "noted_at": NOON - timedelta(hours=3),
        "held": "",
        "why": "",
        "held_at": None,
        "released_at": None,
        "released_by": "",
    }
    return Standing(**{**values, **changes})


def a_file(epoch: int = 7, name: str = "a1") -> Mark:
    return Mark(id=name, epoch=epoch, at=NOON - timedelta(hours=1))


def a_sighting(at: datetime) -> Sighting:
    return Sighting(where="Contact 003", stamp=Stamp(first=at, last=at, word="Updated"))


def decided(
    database: Standing | None, file: Mark | None, *, shared: bool = False, home: str = "", **more: Any
) -> Hold | None:
    values: dict[str, Any] = {"known_until": NOON - timedelta(hours=3), "sighting": None, "now": NOON, **more}
    return decide(database=database, file=file, file_path="x.instance", shared=shared, home=home, **values)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("database", "file"),
    [
        (None, None),  # the first run of all
        (None, a_file(0)),  # the process died between making the file and the row
        (a_database(7), a_file(7)),
        (a_database(8), a_file(7)),  # … or between raising and noting
        (a_database(8), a_file(0)),
        (a_database(1_000_007), a_file(7)),  # released on another machine
    ],
)
def test_a_database_that_is_no_older_than_its_file_may_spend(
    database: Standing | None, file: Mark | None, shared: bool
) -> None:
    assert decided(database, file, shared=shared) is None


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_that_is_ahead_tells_of_a_restore(shared: bool) -> None:
    hold = decided(a_database(7), a_file(9), shared=shared)

    assert hold is not None
    assert hold.why == Why.RESTORED
    assert not hold.here_only
    assert hold.sentence == (
        "This database was restored from a backup: it has come to epoch 7 (2026-11-27 09:00:00 UTC), and the state file "
        "x.instance has seen 9 (2026-11-27 11:00:00 UTC). What was bought in between is forgotten. Nothing is bought "
        "until `crm-sync restore reconcile` has read the stamps on the CRM's records, or a person says "
        "`crm-sync restore accept`"
    )


def test_a_new_database_in_the_place_of_one_that_spent_is_held() -> None:
    hold = decided(None, a_file(5), known_until=None)

    assert hold is not None
    assert hold.why == Why.REPLACED


def test_another_name_in_the_file_is_a_copy_on_one_machine_and_a_wrong_setting_among_several() -> None:
    alone, shared = decided(a_database(), a_file(7, "b2")), decided(a_database(), a_file(7, "b2"), shared=True)

    assert alone is not None
    assert shared is not None
    assert (alone.why, alone.here_only) == (Why.ANOTHER, False)
    assert (shared.why, shared.here_only) == (Why.ANOTHER, True)


def test_a_missing_file_is_a_move_on_sqlite_and_a_machine_that_joined_on_postgresql() -> None:
    alone, shared = decided(a_database(), None), decided(a_database(), None, shared=True)

    assert alone is not None
    assert alone.why == Why.MOVED
    assert shared is None
    assert decided(a_database(0), None) is None, "it never spent"


def test_a_dump_or_a_template_is_told_by_its_home() -> None:
    hold = decided(a_database(home="771:5"), None, shared=True, home="771:16391")

    assert hold is not None
    assert hold.why == Why.COPIED
    assert "771:5" in hold.sentence
    assert decided(a_database(home="771:5"), None, shared=True, home="771:5") is None


@pytest.mark.parametrize(
    ("after", "held"), [(-SECOND, False), (SECOND, False), (TOLERANCE, False), (TOLERANCE + SECOND, True)]
)
def test_a_stamp_is_news_beyond_the_tolerance(after: timedelta, held: bool) -> None:
    known_until = NOON - timedelta(hours=3)

    hold = decided(a_database(), a_file(), known_until=known_until, sighting=a_sighting(known_until + after))

    assert (hold is not None) is held
    if hold is not None:
        assert hold.why == Why.STAMPED
        assert hold.sentence.startswith("Contact 003 was stamped at 2026-11-27 09:02:01 UTC, and this database knows")


def test_any_stamp_is_news_to_a_database_that_never_spent() -> None:
    hold = decided(None, None, known_until=None, sighting=a_sighting(NOON - timedelta(days=30)))

    assert hold is not None
    assert "knows of no call at all" in hold.sentence


def test_a_clock_far_behind_holds_here_until_it_is_right() -> None:
    slow = decided(a_database(), a_file(), now=NOON - timedelta(days=2))

    assert slow is not None
    assert (slow.why, slow.here_only) == (Why.CLOCK, True)
    assert decided(a_database(), a_file(), now=NOON - timedelta(hours=20)) is None


@given(
    epochs=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    shared=st.booleans(),
    same=st.booleans(),
)
def test_nothing_that_the_file_has_seen_and_the_database_has_not_goes_unnoticed(
    epochs: tuple[int, int], shared: bool, same: bool
) -> None:
    database, file = epochs

    hold = decided(a_database(database), a_file(file, "a1" if same else "b2"), shared=shared)

    if file > database or (not same and file > 0):
        assert hold is not None


def test_whom_a_record_stands_for_by_every_name_of_its_own() -> None:
    person = MatchKeys(
        purpose=Purpose.PERSON,
        email="ada@lovelace.example",
        first_name="Ada",
        last_name="Lovelace",
        domain="lovelace.example",
        linkedin_url="http://www.linkedin.com/in/ada",
    )
    nameless = MatchKeys(purpose=Purpose.PERSON, first_name="Ada", last_name="Lovelace", domain="lovelace.example")
    company = MatchKeys(purpose=Purpose.COMPANY, domain="lovelace.example", organization_name="Lovelace")

    assert identities(person) == ("email:ada@lovelace.example", "linkedin:http://www.linkedin.com/in/ada")
    assert identities(nameless) == ("name:ada lovelace@lovelace.example",)
    assert identities(company) == ("domain:lovelace.example",)
    assert identities(MatchKeys(purpose=Purpose.PERSON, first_name="Ada")) == ()


# --- before the stamps are read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lags", "held_for", "seconds"), [([0.0, 60.0], 10, 50.0), ([0.0, 60.0], 90, 0.0), ([0.0], 0, 0.0)]
)
def test_a_search_that_is_behind_is_waited_for_from_the_moment_of_the_hold(
    lags: list[float], held_for: int, seconds: float
) -> None:
    """Nothing was written since the hold was noticed; what was written just before may not be found yet."""
    crms = {f"crm{place}": SimpleNamespace(select_lag_s=lag) for place, lag in enumerate(lags)}
    services: Any = SimpleNamespace(
        instance=SimpleNamespace(standing=lambda: a_database(held="x", held_at=NOON - timedelta(seconds=held_for))),
        config=SimpleNamespace(syncs={name: SimpleNamespace(crm=name) for name in crms}),
        crm=crms.__getitem__,
        clock=FakeClock(NOON),
    )

    assert search_lag(services) == seconds


# --- what may be bought twice -------------------------------------------------------------------------------------


def judged(before: MeterReading | None, after: CreditBalance | Exception | None, told: int = 0) -> tuple[Any, str]:
    journal: Any = SimpleNamespace(newest_meter=lambda: before, told_between=lambda *_: Decimal(told))

    def balance() -> CreditBalance | None:
        if isinstance(after, Exception):
            raise after
        return after

    enricher: Any = SimpleNamespace(balance=balance)
    found = worst(journal, lambda: enricher, now=NOON)
    return found.forgotten, found.sentence


def a_reading(used: int | None, left: int = 0) -> MeterReading:
    return MeterReading(at=NOON - timedelta(days=1), used=None if used is None else Decimal(used), left=Decimal(left))


def test_what_the_meter_moved_beyond_what_is_known_may_be_bought_twice() -> None:
    forgotten, sentence = judged(a_reading(100), CreditBalance(left=Decimal(0), used=Decimal(160)), told=20)

    assert forgotten == 40
    assert sentence == (
        "Apollo counts 60 credits used since 2026-11-26 12:00:00 UTC, and this database knows of 20 of them: at most 40 "
        "could be spent again, fewer where others use the same credits."
    )


def test_without_the_credits_used_the_credits_left_tell_it() -> None:
    assert judged(a_reading(None, 500), CreditBalance(left=Decimal(470)))[0] == 30


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (None, None, "this database has kept no reading of Apollo's meter"),
        (a_reading(1), None, "this key may not read Apollo's meter"),
        (a_reading(1), TransientError("Apollo is away", provider="apollo"), "Apollo is away"),
        (a_reading(100), CreditBalance(left=Decimal(0), used=Decimal(5)), "was reset or filled up since"),
    ],
)
def test_what_cannot_be_told_says_why(before: Any, after: Any, why: str) -> None:
    forgotten, sentence = judged(before, after)

    assert forgotten is None
    assert "cannot be told" in sentence
    assert why in sentence
