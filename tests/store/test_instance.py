"""The epoch in the database and in the file: what raises it, what holds it, and what a hold stops."""

from __future__ import annotations

import multiprocessing
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from crm_sync.domain.enrichment import Purpose, RawAnswer, Verdict
from crm_sync.errors import HeldError, StoreError
from crm_sync.store.answers import Answers
from crm_sync.store.engine import Store
from crm_sync.store.instance import LEAP, Hold, Instance, Mark, Standing, StateFile
from crm_sync.store.journal import STAMP, Journal, StampedAnswer
from crm_sync.store.runs import RecordState, Runs
from tests.factories import NOON, a_run, a_vault, an_intent, no_limit, person_keys

RESTORED = Hold(why="restored", sentence="It was restored from a backup.")


def free(database: Standing | None, file: Mark | None, home: str) -> Hold | None:
    return None


def held(database: Standing | None, file: Mark | None, home: str) -> Hold | None:
    return RESTORED


@pytest.fixture
def instance(store: Store, tmp_path: Path) -> Instance:
    return Instance(store, StateFile(tmp_path / "x.instance"))


@pytest.fixture
def journal(store: Store) -> Journal:
    Runs(store).open(a_run(), owner="here:1")
    return Journal(store, a_vault(store))


# --- the epoch ----------------------------------------------------------------------------------------------------


def test_each_beginning_and_advance_raises_the_epoch_and_then_notes_it(instance: Instance) -> None:
    epochs = [instance.begin(free, now=NOON), instance.advance(now=NOON), instance.begin(free, now=NOON)]

    standing, mark = instance.standing(), instance.file.read()
    assert epochs == [1, 2, 3]
    assert standing is not None
    assert mark == Mark(id=standing.id, epoch=3, at=NOON)
    assert standing.epoch == 3


def test_the_judge_hears_what_both_sides_said_before(instance: Instance) -> None:
    heard: list[tuple[Any, ...]] = []

    def judge(*said: Any) -> Hold | None:
        heard.append(said)
        return None

    instance.begin(judge, now=NOON)
    instance.begin(judge, now=NOON)

    (first, made, _), (second, noted, home) = heard
    assert first is None
    assert made.epoch == 0
    assert second.epoch == 1
    assert noted.epoch == 1
    assert second.id == noted.id == made.id
    assert second.home == home


def test_a_process_that_died_before_the_row_leaves_a_name_that_is_taken(instance: Instance) -> None:
    made = instance.file.begin(Mark(id="abc", epoch=0, at=NOON))

    instance.begin(free, now=NOON)

    standing = instance.standing()
    assert made.id == "abc"
    assert standing is not None
    assert standing.id == "abc"


def test_the_time_up_to_which_all_is_known_never_goes_back(instance: Instance) -> None:
    instance.begin(free, now=NOON)

    instance.begin(free, now=NOON - timedelta(hours=5))

    assert instance.known_until() == NOON


def test_what_is_known_is_what_was_sent_and_answered_and_not_when_a_doubt_was_noted(
    instance: Instance, journal: Journal
) -> None:
    instance.begin(free, now=NOON)
    first, second = journal.plan(
        an_intent((person_keys(1),), (person_keys(2),)), no_limit, now=NOON + timedelta(seconds=1)
    ).calls
    journal.sent(first.id, now=NOON + timedelta(seconds=2))
    journal.sent(second.id, now=NOON + timedelta(seconds=3))
    sent = instance.known_until()
    journal.in_doubt(second.id, b"", "lost", now=NOON + timedelta(days=9))
    doubted = instance.known_until()
    journal.received(first.id, RawAnswer(body=b"{}", credits=None, request_id=""), now=NOON + timedelta(seconds=7))

    assert sent == doubted == NOON + timedelta(seconds=3)
    assert instance.known_until() == NOON + timedelta(seconds=7)


def test_a_database_that_never_spent_knows_nothing(instance: Instance) -> None:
    assert instance.standing() is None
    assert instance.known_until() is None


# --- a hold -------------------------------------------------------------------------------------------------------


def test_a_hold_raises_nothing_and_stays_whatever_the_next_judge_says(instance: Instance) -> None:
    instance.begin(free, now=NOON)

    for judge in (held, free):
        with pytest.raises(HeldError, match="restored from a backup"):
            instance.begin(judge, now=NOON)
    with pytest.raises(HeldError, match="restored from a backup"):
        instance.advance(now=NOON)

    standing, mark = instance.standing(), instance.file.read()
    assert standing is not None
    assert mark is not None
    assert (standing.epoch, mark.epoch) == (1, 1)
    assert (standing.why, standing.held_at) == ("restored", NOON)


def test_a_hold_of_this_machine_alone_is_not_kept(instance: Instance) -> None:
    instance.begin(free, now=NOON)

    with pytest.raises(HeldError):
        instance.begin(lambda *_: replace(RESTORED, here_only=True), now=NOON)

    assert instance.begin(free, now=NOON) == 2


def test_a_database_that_never_spent_can_be_held_too(instance: Instance) -> None:
    with pytest.raises(HeldError):
        instance.begin(held, now=NOON)

    standing = instance.standing()
    assert standing is not None
    assert (standing.epoch, standing.noted_at) == (0, None)


def test_a_hold_stops_the_next_plan_of_every_process_and_what_is_planned_already(
    instance: Instance, journal: Journal
) -> None:
    journal.at_epoch = instance.begin(free, now=NOON)
    planned = journal.plan(an_intent((person_keys(1),)), no_limit, now=NOON).calls[0]
    instance.keep(RESTORED, now=NOON)

    with pytest.raises(HeldError):
        journal.plan(an_intent((person_keys(2),)), no_limit, now=NOON)
    with pytest.raises(HeldError):
        journal.sent(planned.id, now=NOON)

    call = journal.call(planned.id)
    assert call is not None
    assert call.state == "planned"


def test_a_database_that_went_back_under_a_running_process_takes_no_call(
    instance: Instance, journal: Journal, store: Store
) -> None:
    """Somebody restores a PostgreSQL while a run is under way; the connection comes back, the epoch does not."""
    journal.at_epoch = instance.begin(free, now=NOON)
    planned = journal.plan(an_intent((person_keys(1),)), no_limit, now=NOON).calls[0]
    with store.write() as connection:
        connection.execute(text("update instance set epoch = 0"))

    with pytest.raises(HeldError, match="went back in time"):
        journal.sent(planned.id, now=NOON)
    with pytest.raises(HeldError, match="went back in time"):
        journal.plan(an_intent((person_keys(2),)), no_limit, now=NOON)
    with store.write() as connection:
        connection.execute(text("delete from instance"))
    with pytest.raises(HeldError, match="went back in time"):
        journal.plan(an_intent((person_keys(2),)), no_limit, now=NOON)
    with pytest.raises(HeldError, match="went back in time"):
        instance.advance(now=NOON)


def test_a_release_goes_past_every_epoch_and_says_who_and_when(instance: Instance, journal: Journal) -> None:
    instance.begin(free, now=NOON)
    before = instance.standing()
    instance.file.note(Mark(id=before.id if before else "", epoch=40, at=NOON))
    instance.keep(RESTORED, now=NOON)

    released = instance.release(by="ada", new_name=False, now=NOON + timedelta(hours=1))

    mark = instance.file.read()
    assert before is not None
    assert mark is not None
    assert (released.id, released.epoch, released.held) == (before.id, 40 + LEAP, "")
    assert (released.released_by, released.released_at) == ("ada", NOON + timedelta(hours=1))
    assert mark.epoch == released.epoch
    assert instance.begin(free, now=NOON) == released.epoch + 1
    assert journal.plan(an_intent((person_keys(1),)), no_limit, now=NOON).calls


def test_what_was_copied_goes_on_under_a_name_of_its_own(instance: Instance) -> None:
    instance.begin(free, now=NOON)
    before = instance.standing()

    released = instance.release(by="ada", new_name=True, now=NOON)

    assert before is not None
    assert released.id != before.id


def test_two_machines_that_begin_at_once_agree_on_one_row(store: Store, tmp_path: Path) -> None:
    """Each has its own file; the one that comes second takes the name of the database."""
    one, other = (Instance(store, StateFile(tmp_path / f"{name}.instance")) for name in "ab")
    one.file.begin(Mark(id="aaa", epoch=0, at=NOON))
    other.file.begin(Mark(id="bbb", epoch=0, at=NOON))

    one.begin(free, now=NOON)
    other.begin(free, now=NOON)

    mark = other.file.read()
    assert mark is not None
    assert (mark.id, mark.epoch) == ("aaa", 2)


# --- guards from stamps -------------------------------------------------------------------------------------------


def a_stamp(place: int, **changes: Any) -> StampedAnswer:
    values: dict[str, Any] = {
        "purpose": Purpose.PERSON,
        "key": person_keys(place).key,
        "verdict": Verdict.MATCHED,
        "not_before": NOON,
        "obtained_at": NOON,
    }
    return StampedAnswer(**{**values, **changes})


def test_whom_a_stamp_names_is_not_bought_while_it_is_fresh(journal: Journal, store: Store) -> None:
    journal.guard_stamped([a_stamp(1), a_stamp(2, verdict=Verdict.NO_MATCH)])

    plan = journal.plan(an_intent((person_keys(1), person_keys(2), person_keys(3))), no_limit, now=NOON)
    later = an_intent(
        (person_keys(1), person_keys(2)),
        fresh_since=NOON + timedelta(seconds=1),
        no_match_since=NOON - timedelta(seconds=1),
    )
    again = journal.plan(later, no_limit, now=NOON)

    assert plan.held == (person_keys(1), person_keys(2))
    assert plan.calls[0].keys == (person_keys(3),)
    assert again.calls[0].keys == (person_keys(1),)
    assert again.held == (person_keys(2),)


def test_a_stamp_replaces_what_is_older_and_nothing_else(journal: Journal, store: Store) -> None:
    answers = Answers(store, a_vault(store))
    old, new = NOON - timedelta(days=200), NOON + timedelta(seconds=0.4)
    put = [
        journal.guard_stamped(
            [a_stamp(1, not_before=old, obtained_at=old), a_stamp(2, not_before=new, obtained_at=new)]
        )
    ]
    planned = journal.plan(an_intent((person_keys(3),)), no_limit, now=old).calls[0]

    put += [journal.guard_stamped([a_stamp(1), a_stamp(2), a_stamp(3)])]

    found = answers.look_up(Purpose.PERSON, [person_keys(place).key for place in (1, 2, 3)])
    assert put == [2, 1]
    assert found[person_keys(1).key].obtained_at == NOON
    assert found[person_keys(1).key].source == STAMP
    assert found[person_keys(2).key].obtained_at == new
    assert found[person_keys(3).key].batch_id == planned.id, "somebody is asking"


def test_last_attempts_of_another_database_do_not_replace_later_ones(store: Store) -> None:
    runs = Runs(store)

    def a_state(record_id: str, hours: int, outcome: str = "Updated") -> RecordState:
        at = NOON + timedelta(hours=hours)
        return RecordState(object_type="Contact", record_id=record_id, outcome=outcome, seen=b"0" * 16, attempted_at=at)

    runs.remember("contacts", [a_state("1", 0), a_state("2", 0)], run_id="restore")
    runs.remember("contacts", [a_state("1", -1, "No match"), a_state("2", 1, "No match")], run_id="restore")
    runs.remember("contacts", [], run_id="restore")

    found = runs.states("contacts", "Contact", ["1", "2"])
    assert (found["1"].outcome, found["2"].outcome) == ("Updated", "No match")


# --- the file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "x.instance")


def test_the_file_never_goes_back_but_by_a_persons_word(file: StateFile) -> None:
    file.note(Mark(id="a", epoch=5, at=NOON))
    file.note(Mark(id="a", epoch=4, at=NOON))
    before = file.read()
    file.note(Mark(id="b", epoch=1, at=NOON), instead=True)

    assert before == Mark(id="a", epoch=5, at=NOON)
    assert file.read() == Mark(id="b", epoch=1, at=NOON)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"instance": "a", "epoch": "x", "noted_at": "now"}'])
def test_a_file_that_says_nothing_stops_spending(file: StateFile, content: bytes) -> None:
    file.path.write_bytes(content)

    with pytest.raises(StoreError, match="holds no state of crm-sync"):
        file.read()
    with pytest.raises(StoreError, match="holds no state of crm-sync"):
        file.note(Mark(id="a", epoch=1, at=NOON))
    file.note(Mark(id="a", epoch=1, at=NOON), instead=True)
    assert file.read() == Mark(id="a", epoch=1, at=NOON)


def test_a_file_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "nowhere" / "x.instance")

    with pytest.raises(StoreError, match="CRM_SYNC_STATE_FILE"):
        file.note(Mark(id="a", epoch=1, at=NOON))
    with pytest.raises(StoreError, match="CRM_SYNC_STATE_FILE"):
        file.begin(Mark(id="a", epoch=1, at=NOON))


def test_a_file_that_cannot_be_written_stops_spending_and_the_next_run_goes_on(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is ahead of its file then, which is no restore."""
    instance.begin(free, now=NOON)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            instance.begin(free, now=NOON)

    mark = instance.file.read()
    assert mark is not None
    assert mark.epoch == 1
    assert not list(instance.file.path.parent.glob("*.new"))
    assert instance.begin(free, now=NOON) == 3


def _note(path: str, first: int) -> None:
    for epoch in range(first, 200, 4):
        StateFile(Path(path)).note(Mark(id="a", epoch=epoch, at=NOON))


def test_processes_that_note_at_once_leave_the_highest(file: StateFile) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_note, args=(str(file.path), first)) for first in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert file.read() == Mark(id="a", epoch=199, at=NOON)


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(postgres_url: str, tmp_path: Path) -> Iterator[tuple[Instance, Instance]]:
    """A database, and a copy made of it by CREATE DATABASE … TEMPLATE."""
    from sqlalchemy import create_engine

    from tests.conftest import _with_database

    admin = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    stores = []
    with admin.connect() as connection:
        for name, like in (("origin", ""), ("a_copy", " template origin")):
            connection.execute(text(f"create database {name}{like}"))
            store = Store(_with_database(postgres_url, name))
            store.ready()
            made = Instance(store, StateFile(tmp_path / f"{name}.instance"))
            if not like:
                made.begin(free, now=NOON)
                store.engine.dispose()
            stores.append((store, made))
        yield stores[0][1], stores[1][1]
        for store, _ in stores:
            store.close()
        for name in ("origin", "a_copy"):
            connection.execute(text(f"drop database {name} with (force)"))
    admin.dispose()


@pytest.mark.postgres
def test_a_copied_database_has_another_home_than_it_says(copied: tuple[Instance, Instance]) -> None:
    origin, copy = copied

    there, here = origin.standing(), copy.standing()
    assert there is not None
    assert here is not None
    assert there.home == here.home == origin.home()
    assert copy.home() != origin.home()


@pytest.mark.postgres
@pytest.mark.parametrize("setting", ["synchronous_commit"])
def test_a_server_that_may_forget_a_commit_is_not_spent_on(postgres_url: str, tmp_path: Path, setting: str) -> None:
    store = Store(postgres_url + ("&" if "?" in postgres_url else "?") + f"options=-c%20{setting}%3Doff")
    store.ready()
    instance = Instance(store, StateFile(tmp_path / "x.instance"))

    with pytest.raises(StoreError, match=f"PostgreSQL runs with {setting} = off"):
        instance.begin(free, now=NOON)

    assert instance.standing() is None
    store.close()
