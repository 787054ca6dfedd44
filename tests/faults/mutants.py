"""Bugs put in on purpose, each in a place that the money hangs on: who does not see them would not see real ones.

A mutant changes the product in a child process only. Its `cells` are kills that hold without it
(tests/faults/crashes.py) and are violated with it; its `tests` are tests that fail with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, delete, update

from adapters.apollo import wire
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.pipeline import doubt, enrich, writing_desk
from crm_sync.store import journal as journals
from crm_sync.store.journal import ASKED, Journal, Spent
from crm_sync.store.tables import answers, batches
from crm_sync.store.vault import Vault
from tests.faults.crashes import Bench, run_cell
from tests.faults.forks import Child
from tests.faults.mutant import Mutant
from tests.faults.phone_mutants import PHONE_MUTANTS
from tests.faults.scenes import Cell
from tests.faults.write_mutants import WRITE_MUTANTS

BULK = "people/bulk_match"


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What caught a mutant: a cell and what it said first, or a test; `by` is "" when nothing did."""

    mutant: str
    by: str = ""
    said: str = ""


# --- the bugs -----------------------------------------------------------------------------------------------------


def resend_always() -> None:
    def in_doubt(self: Journal, batch_id: int, _body: bytes, error: str, *, now: Any) -> None:
        self.not_charged(batch_id, "unsent", error, now=now)

    Journal.in_doubt = in_doubt


def mark_after_sending() -> None:
    sent, received = Journal.sent, Journal.received

    def note_both(self: Journal, batch_id: int, raw: Any, *, now: Any) -> None:
        sent(self, batch_id, now=now)
        received(self, batch_id, raw, now=now)

    Journal.sent = lambda *_, **__: True
    Journal.received = note_both


def trust_a_meter_at_once() -> None:
    doubt.SETTLE = timedelta(0)


def count_the_budget_in_memory() -> None:
    plan, memory = Journal._plan, [Decimal(0)]

    def counted(self: Journal, connection: Any, intent: Any, room_of: Any, now: Any) -> Any:
        made = plan(self, connection, intent, room_of, now)
        memory[0] += sum(intent.most * len(call.keys) for call in made.calls)
        return made

    Journal._plan = counted
    journals._look = lambda _connection, _run, day: (day, Spent(run=memory[0], day=memory[0], month=memory[0]))


def pair_by_position() -> None:
    wire._people = lambda keys, entries: [wire._judge(key, entry) for key, entry in zip(keys, entries, strict=False)]


def key_the_index_by_the_process() -> None:
    """As a digest would that hangs on a secret which is renewed."""
    make = Vault.__init__

    def made(self: Vault, *given: Any, **more: Any) -> None:
        make(self, *given, **more)
        self._index = os.urandom(32)

    Vault.__init__ = made


def key_the_index_by_the_company() -> None:
    plain = MatchKeys.key.fget

    def key(self: MatchKeys) -> str:
        return f"domain:{self.domain}" if self.purpose is Purpose.PERSON and self.domain else plain(self)

    MatchKeys.key = property(key)


def release_the_guard_on_doubt() -> None:
    in_doubt = Journal.in_doubt

    def and_release(self: Journal, batch_id: int, body: bytes, error: str, *, now: Any) -> None:
        in_doubt(self, batch_id, body, error, now=now)
        with self._store.write() as connection:
            connection.execute(delete(answers).where(answers.c.batch_id == batch_id))

    Journal.in_doubt = and_release


def forget(state: str) -> None:
    """Recovery does not know calls in this state."""
    unfinished = Journal.unfinished
    Journal.unfinished = lambda self, run_id: [call for call in unfinished(self, run_id) if call.state != state]


def index_before_the_bytes_are_stored() -> None:
    received, expand = Journal.received, Journal.expand
    kept: dict[int, Any] = {}

    def store_first(self: Journal, expansions: Sequence[Any], *, now: Any) -> None:
        for expansion in expansions:
            if expansion.batch_id in kept:
                received(self, expansion.batch_id, kept.pop(expansion.batch_id), now=now)
        expand(self, expansions, now=now)

    Journal.received = lambda _self, batch_id, raw, **_: kept.__setitem__(batch_id, raw)
    Journal.expand = store_first


def let_employers_replace_companies() -> None:
    upsert = journals.upsert

    def replacing(connection: Any, table: Any, changed: Any, **more: Any) -> Any:
        return upsert(
            connection, table, journals._ANSWER_CHANGES if table is answers and not changed else changed, **more
        )

    journals.upsert = replacing


def settle_again_what_another_settled() -> None:
    journals._not_ended = lambda _connection, batch_ids: set(batch_ids)


def send_what_another_released() -> None:
    journals._SENT = (
        update(batches).where(batches.c.id == bindparam("b_id")).values(state="sent", sent_at=bindparam("b_at"))
    )


def write_companies_after_their_people() -> None:
    settle, settle_parents = writing_desk.WritingDesk._settle, writing_desk.WritingDesk._settle_parents

    def people_first(self: Any, chunk: Any) -> None:
        self._settle_parents = lambda: None
        settle(self, chunk)
        del self._settle_parents

    writing_desk.WritingDesk._settle = people_first
    writing_desk.WritingDesk._settle_parents = settle_parents


def ask_in_bulk_what_bulk_left_open() -> None:
    may_be = journals._may_be_bought_again
    enrich.EnrichRoom.was_left_open = lambda *_: False
    journals._may_be_bought_again = lambda row, intent: row.verdict == journals.LEFT_OPEN or may_be(row, intent)


def guard_in_a_commit_of_its_own() -> None:
    """The call is committed first, and its guard and reservation after it."""
    run_many = journals.run_many

    def committed_before(connection: Any, statement: Any, columns: Any, rows: Any) -> None:
        if rows and ASKED in rows[0]:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("BEGIN")
        run_many(connection, statement, columns, rows)

    journals.run_many = committed_before


MUTANTS = (
    Mutant(
        name="a lost answer is asked for again",
        change=resend_always,
        cells=(f"salesforce/sqlite/people/wire.answered@{BULK}:2", "hubspot/postgresql/lost/journal.doubt.after:1"),
    ),
    Mutant(
        name="marked as sent after sending",
        change=mark_after_sending,
        cells=(f"salesforce/sqlite/people/wire.answered@{BULK}:2", f"hubspot/postgresql/people/wire.asked@{BULK}:1"),
    ),
    Mutant(
        name="a meter that has not moved is trusted at once",
        change=trust_a_meter_at_once,
        cells=(f"salesforce/sqlite/late/wire.asked@{BULK}:2", f"hubspot/postgresql/late/wire.asked@{BULK}:1"),
    ),
    Mutant(
        name="the budget is counted in memory",
        change=count_the_budget_in_memory,
        cells=("salesforce/sqlite/daily/journal.received.after:2", "hubspot/postgresql/daily/journal.received.after:2"),
    ),
    Mutant(
        name="answers are paired by position only",
        change=pair_by_position,
        tests=(
            "tests/adapters/test_apollo_wire.py::test_rows_in_another_order_find_their_questions",
            "tests/adapters/test_apollo_wire.py::test_a_shorter_answer_is_paired_by_identifier_and_the_rest_waits",
            "tests/adapters/test_apollo_wire.py::test_a_longer_answer_is_never_zipped",
        ),
    ),
    Mutant(
        name="the index is keyed by a secret that is renewed",
        change=key_the_index_by_the_process,
        cells=("salesforce/sqlite/people/journal.expand.after:1", "hubspot/postgresql/people/journal.expand.after:1"),
    ),
    Mutant(
        name="the index is keyed by the company instead of the person",
        change=key_the_index_by_the_company,
        cells=("salesforce/sqlite/people/run.closed:1", "hubspot/postgresql/people/run.closed:1"),
    ),
    Mutant(
        name="the guard is released on doubt",
        change=release_the_guard_on_doubt,
        cells=(f"salesforce/sqlite/people/wire.answered@{BULK}:2", f"hubspot/postgresql/people/wire.asked@{BULK}:1"),
    ),
    Mutant(
        name="recovery forgets stored answers",
        change=partial(forget, "received"),
        cells=("salesforce/sqlite/people/journal.received.after:2", "hubspot/postgresql/people/enrich.read:1"),
    ),
    Mutant(
        name="recovery forgets planned calls",
        change=partial(forget, "planned"),
        cells=("salesforce/sqlite/people/journal.plan.after:1", "hubspot/postgresql/people/pace.granted:1"),
    ),
    Mutant(
        name="indexed before the bytes are stored",
        change=index_before_the_bytes_are_stored,
        cells=("salesforce/sqlite/people/enrich.read:1", "hubspot/postgresql/people/enrich.read:2"),
    ),
    Mutant(
        name="an employer's thin answer replaces the company's own",
        change=let_employers_replace_companies,
        cells=("salesforce/sqlite/both/run.closed:2", "hubspot/postgresql/both/run.closed:2"),
    ),
    Mutant(
        name="what another process settled is settled again",
        change=settle_again_what_another_settled,
        cells=("salesforce/sqlite/frozen/journal.expand.before:1", "hubspot/postgresql/frozen/journal.expand.before:1"),
    ),
    Mutant(
        name="what another process released is sent",
        change=send_what_another_released,
        cells=("salesforce/sqlite/frozen/journal.sent.before:1", "hubspot/postgresql/frozen/journal.sent.before:1"),
    ),
    Mutant(
        name="companies are written after the people who bring them",
        change=write_companies_after_their_people,
        cells=("salesforce/sqlite/people/write.parents:1", "hubspot/postgresql/people/write.parents:1"),
    ),
    Mutant(
        name="what a bulk answer left open is asked for in bulk",
        change=ask_in_bulk_what_bulk_left_open,
        cells=(
            "salesforce/sqlite/companies/enrich.again@single:1",
            "hubspot/postgresql/companies/enrich.again@single:1",
        ),
    ),
    Mutant(
        name="a call is committed before its guard",
        change=guard_in_a_commit_of_its_own,
        cells=("salesforce/sqlite/people/journal.plan.guarded:1", "salesforce/sqlite/people/journal.plan.row:1"),
    ),
    *WRITE_MUTANTS,
    *PHONE_MUTANTS,
)
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


# --- who sees them ------------------------------------------------------------------------------------------------


def hunt(bench: Bench, name: str, *, cells: int | None = None) -> Caught:
    """Let the mutant live in its cells, at most so many, then in its tests, until something sees it."""
    mutant = BY_NAME[name]
    for text in mutant.cells[:cells]:
        result = run_cell(bench, Cell.of(text), mutant=mutant.change)
        if result.violations:
            return Caught(mutant=name, by=text, said=result.violations[0])
    for test in mutant.tests:
        ended = Child.fork(partial(_run_test, mutant.change, test), bench.folder / "test.out").wait()
        if ended.code == 1:
            return Caught(mutant=name, by=test.rpartition("::")[2], said="it fails")
        assert ended.code == 0, ended.output
    return Caught(mutant=name)


def _run_test(change: Callable[[], None], test: str) -> int:
    import pytest

    change()
    file, _, name = test.partition("::")
    return int(
        pytest.main([f"{Path(__file__).parents[2] / file}::{name}", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"])
    )
