"""A run that several workers share: the same books and the same credits as one worker's, whoever ends meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from crm_sync.bootstrap import App
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.runs import Asked, RecordOutcome, RunKind, RunStatus, SyncRun
from crm_sync.errors import HeldError, LostRunError, StoreError, TransientError
from crm_sync.pipeline import sharing
from crm_sync.pipeline.recover import owner, recover
from crm_sync.pipeline.run import opened
from crm_sync.pipeline.select import due_pages
from crm_sync.pipeline.sharing import help_out
from crm_sync.pipeline.walk import Stop, compiled
from crm_sync.ports import Crm
from crm_sync.services import Services
from crm_sync.store.instance import Mark, StateFile
from crm_sync.store.journal import Intent, Room
from crm_sync.store.runs import Runs
from crm_sync.store.shares import Chunk, Giving, Share, Shares, Standing, Tally
from crm_sync.store.tables import batches, chunks, run_records, shares
from crm_sync.workers import RunWorker
from tests.conftest import database_of
from tests.journeys.unattended.conftest import OpenUnattended, UnattendedOffice, ended, queued

pytestmark = pytest.mark.postgres


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An SQLite file has one worker."""
    with database_of("postgresql", request, tmp_path) as url:
        yield url


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_sync.pipeline.sharing.CHUNK", 40)


def shared(app: App) -> Callable[[], Services]:
    """Services of an installation with a broker, whose hints nobody hears: workers look by themselves."""
    return lambda: replace(app.services(), hint=lambda: None)


@contextmanager
def at_work(office: UnattendedOffice, count: int) -> Iterator[list[RunWorker]]:
    """So many workers, each with clients of its own."""
    stop = threading.Event()
    with ExitStack() as stack:
        workers = [RunWorker(shared(stack.enter_context(office.another()))) for _ in range(count)]
        threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            yield workers
        finally:
            stop.set()
            for worker in workers:
                worker.pause()
            for thread in threads:
                thread.join(timeout=60)
                assert not thread.is_alive()


def together(office: UnattendedOffice, count: int = 3, *, seconds: float = 60) -> None:
    with at_work(office, count):
        office.until(lambda: all(ended(run) for run in office.runs), seconds=seconds)


def is_told_once(office: UnattendedOffice, run: SyncRun) -> None:
    """One row a record, and nothing is left of who did what."""
    with office.app.store.read() as connection:
        rows = connection.execute(select(run_records).where(run_records.c.run_id == run.id)).all()
        assert connection.execute(select(chunks)).all() == []
        assert connection.execute(select(shares)).all() == []
    assert max(Counter((row.object_type, row.record_id) for row in rows).values(), default=1) == 1
    own = Counter(row.outcome for row in rows if row.object_type == run.object_type)
    assert own.total() == run.counts.selected
    assert own[RecordOutcome.UPDATED.value] == run.counts.updated
    assert sum(row.object_type != run.object_type for row in rows) == run.parents.selected


def workers_of(office: UnattendedOffice, run_id: str) -> set[int]:
    """Whose paid calls the run's are."""
    with office.app.store.read() as connection:
        return set(connection.execute(select(batches.c.share).where(batches.c.run_id == run_id)).scalars())


@pytest.mark.parametrize("crm", ["salesforce", "hubspot"], indirect=True)
def test_three_workers_do_what_one_would(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, latency_ms=60)
    plan = office.walk(kind=RunKind.PLAN, limit=None)  # one worker, and nothing written: it pays for all answers
    paid = sum(office.charged.values())
    run_id = queued(office)
    together(office)
    run = office.app.runs.get(run_id)
    assert run is not None
    assert run.counts.selected == plan.counts.selected
    assert run.counts.updated == plan.counts.updated
    assert run.credits == 0
    assert sum(office.charged.values()) == paid
    is_told_once(office, run)
    office.books_balance()


def test_the_work_is_shared_and_paid_for_once(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=150)
    run_id = queued(office)
    together(office)
    run = office.app.runs.get(run_id)
    assert run is not None
    assert run.status is RunStatus.COMPLETED, run.reason
    assert run.counts.selected == run.counts.updated == 400
    assert run.credits == sum(office.charged.values())
    assert run.calls["apollo people/bulk_match"] == 40
    assert len(workers_of(office, run_id)) >= 2
    is_told_once(office, run)
    office.books_balance()
    queued(office)
    together(office)
    again = office.runs[-1]
    assert (again.counts.selected, again.credits) == (0, 0)


def test_one_worker_alone_does_all_of_it(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=100, tidy=True)
    office.forget_calls()
    queued(office)
    together(office, 1)
    (run,) = office.runs
    assert run.status is RunStatus.COMPLETED, run.reason
    assert run.counts.updated == 100
    is_told_once(office, run)


def test_a_limit_and_a_budget_hold_for_all_of_them(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=60)
    queued(office, Asked(limit=130))
    together(office)
    assert office.runs[-1].counts.selected == office.runs[-1].counts.updated == 130
    paid = sum(office.charged.values())
    queued(office, Asked(max_credits=Decimal(70)))
    together(office)
    run = office.runs[-1]
    assert run.status is RunStatus.STOPPED_AT_BUDGET, run.reason
    assert 50 <= sum(office.charged.values()) - paid <= 70
    assert run.credits == sum(office.charged.values()) - paid
    assert not any("crm-sync was stopped" in reason for _, _, reason, _ in office.app.runs.reasons(run.id))
    is_told_once(office, run)
    office.books_balance()


def test_what_another_worker_has_reserved_and_does_not_need_is_spent_by_the_others(
    open_unattended: OpenUnattended,
) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=200)
    run_id = queued(office, Asked(max_credits=Decimal(60)))
    with at_work(office, 1), office.another() as app:
        office.until(lambda: office.app.shares.waiting(run_id))
        share = app.shares.join(run_id, owner="elsewhere:1:x", now=app.clock.now())
        assert share is not None
        everybody = [MatchKeys(purpose=Purpose.PERSON, email=f"{n}@elsewhere.example") for n in range(10)]
        planned = app.journal.plan(_intent(app, run_id, everybody, share=share.number), _no_limit, now=app.clock.now())
        office.until(lambda: sum(office.charged.values()) == 50)
        time.sleep(2)  # nothing else happens while the other one asks
        assert not ended(office.runs[-1])
        app.journal.not_charged(planned.calls[0].id, "unsent", "", now=app.clock.now())
        run = office.runs[-1]
        app.shares.end(share, run, tally=Tally(stopped="stopped"), giving=Giving.UNFINISHED, now=app.clock.now())
        office.until(lambda: ended(office.runs[-1]))
    (run,) = office.runs
    assert run.status is RunStatus.STOPPED_AT_BUDGET, run.reason
    assert run.credits == sum(office.charged.values()) == 60
    office.books_balance()


def _no_limit(_spent: object) -> Room:
    return Room()


def _intent(app: App, run_id: str, keys: Sequence[MatchKeys], *, share: int = 0) -> Intent:
    now = app.clock.now()
    return Intent(
        run_id=run_id,
        sync="contacts",
        purpose=Purpose.PERSON,
        calls=(tuple(keys),),
        single=False,
        endpoint="people/bulk_match",
        most=Decimal(1),
        day=now.date().isoformat(),
        fresh_since=now - timedelta(days=180),
        no_match_since=now - timedelta(days=30),
        share=share,
    )


def test_cancelling_stops_all_of_them(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=300)
    run_id = queued(office)
    with at_work(office, 3):
        office.until(lambda: sum(office.charged.values()) > 60)
        assert office.app.runs.ask_to_cancel(run_id, now=office.app.clock.now())
        office.until(lambda: all(ended(run) for run in office.runs))
    run = office.runs[-1]
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "cancelled by crm-sync cancel")
    assert sum(office.charged.values()) == run.credits < 400
    is_told_once(office, run)
    office.books_balance()


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_done(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=200)
    run_id = queued(office)
    with at_work(office, 1) as (first,):
        office.until(lambda: sum(office.charged.values()) > 10)
        with at_work(office, 1):  # joins, and is stopped in the middle
            office.until(lambda: len(workers_of(office, run_id)) == 2)
            office.until(lambda: any(tally.calls for tally in office.app.shares.tallies(run_id).values()))
        office.until(lambda: all(ended(run) for run in office.runs))
        assert not first._walking
    (run,) = office.runs
    assert run.status is RunStatus.COMPLETED, run.reason
    assert run.counts.updated == 400
    is_told_once(office, run)
    office.books_balance()


def test_a_run_whose_own_worker_is_stopped_goes_on_as_another(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=200)
    first = queued(office)
    with at_work(office, 1):
        office.until(office.app.shares.working)
        helper = at_work(office, 1)
        helper.__enter__()
        office.until(lambda: len(workers_of(office, first)) == 2)
    # … is gone; its helper goes on with what is queued
    office.until(lambda: len(office.runs) == 2 and all(ended(run) for run in office.runs))
    helper.__exit__(None, None, None)
    stopped, heir = office.runs
    assert stopped.status is RunStatus.CANCELLED
    assert heir.continues == first
    assert heir.status is RunStatus.COMPLETED, heir.reason
    assert stopped.counts.updated + heir.counts.updated == 400
    is_told_once(office, stopped)
    is_told_once(office, heir)
    office.books_balance()


def test_what_a_dead_worker_had_taken_is_done_by_the_others(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=200)
    run_id = queued(office)
    with at_work(office, 1):
        office.until(office.app.shares.working)
        with office.another() as app:
            now = app.clock.now()
            share = app.shares.join(run_id, owner="elsewhere:1:x", now=now)
            assert share is not None
            chunk = app.shares.take(share, now=now)
            assert chunk is not None
        office.until(lambda: office.app.shares.waiting(run_id) == 0)
        assert not ended(office.runs[-1])
        office.later(timedelta(seconds=46))
        office.until(lambda: all(ended(run) for run in office.runs))
    (run,) = office.runs
    assert run.status is RunStatus.COMPLETED, run.reason
    assert run.counts.updated == 200
    is_told_once(office, run)
    office.books_balance()


def test_a_worker_that_was_taken_for_dead_writes_nothing_more(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=300)
    queued(office)
    met: list[BaseException] = []
    with at_work(office, 1):
        office.until(office.app.shares.working)
        with office.another() as sleeper:
            worker = RunWorker(shared(sleeper))

            def walk() -> None:
                try:
                    worker.help(threading.Event())
                except LostRunError as error:
                    met.append(error)

            walking = threading.Thread(target=walk)
            walking.start()
            office.until(lambda: len(office.app.shares.working()) == 2)
            asleep = office.app.shares.working()[1]
            taken = office.app.shares.take_over(asleep, owner="elsewhere:1:x", now=office.app.clock.now())
            office.until(lambda: taken or office.app.shares.working())
            walking.join(timeout=60)
            assert not walking.is_alive()
        office.later(timedelta(seconds=46))
        office.until(lambda: all(ended(run) for run in office.runs), seconds=60)
    assert len(met) == 1
    (run,) = office.runs
    in_doubt = {key.key for call in office.app.journal.doubts() for key in call.keys}
    assert run.counts.updated == 400 - len(in_doubt)
    is_told_once(office, run)
    office.books_balance()


def test_a_run_whose_process_is_dead_has_its_end_after_those_who_helped(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=100, tidy=True)
    queued(office)
    now = office.app.clock.now()
    with office.another() as app:
        taken = app.queue.take(owner="elsewhere:1:x", config_version=1, now=now)
        assert taken is not None
        run = taken[0]
        app.shares.begin(run.id, now=now)
        app.shares.add(run.id, [office.id_of(index) for index in range(20)], now=now)
        helper = app.shares.join(run.id, owner="helper:1:x", now=now)
        assert helper is not None
        office.later(timedelta(seconds=46))
        app.shares.beat(helper, now=app.clock.now())
        assert recover(office.app.services(), "salesforce") == []
        office.later(timedelta(seconds=46))
        (closed,) = recover(office.app.services(), "salesforce")
    assert closed.status is RunStatus.FAILED
    is_told_once(office, office.runs[0])
    together(office, 1)
    assert office.runs[-1].continues == run.id
    assert office.runs[-1].counts.updated == 100


def test_whom_somebody_else_is_asking_for_is_looked_at_again(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=100, tidy=True)
    with office.another() as app:
        services = app.services()
        walk = compiled(services.config.syncs["contacts"], services)
        page = next(iter(due_pages(walk, Counter())))
        asked_for = page.due[:3]
        other = opened(
            services, sync="another", crm="salesforce", object_type="Contact", kind=RunKind.RUN, trigger="test"
        )
        asking = _intent(app, other.id, [due.keys for due in asked_for])
        plan = app.journal.plan(asking, _no_limit, now=app.clock.now())
        run_id = queued(office)
        with at_work(office, 1):
            office.until(lambda: _given_back(office, run_id))
            assert not ended(office.runs[-1])
            app.journal.not_charged(plan.calls[0].id, "unsent", "", now=app.clock.now())
            office.until(lambda: all(ended(run) for run in office.runs if run.id == run_id))
        run = office.app.runs.get(run_id)
        assert run is not None
        assert (run.counts.updated, run.counts.skipped) == (100, 0), office.app.runs.reasons(run_id)
        is_told_once(office, run)
        services.runs.save(replace(other, status=RunStatus.COMPLETED), now=app.clock.now())


def _given_back(office: UnattendedOffice, run_id: str) -> bool:
    with office.app.store.read() as connection:
        query = select(chunks.c.number).where(chunks.c.run_id == run_id, chunks.c.share.is_(None), chunks.c.attempt > 0)
        return connection.execute(query).first() is not None


def test_a_chunk_is_not_read_twice_by_the_one_who_cut_it(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=100, tidy=True)
    office.forget_calls()
    queued(office)
    together(office, 1)
    alone = office.calls("salesforce")
    assert sharing.CHUNK == 40
    assert alone.get("GET query", 0) + alone.get("query", 0) <= 6, alone


def test_what_a_stopped_worker_left_to_the_others_is_told_as_they_found_it(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=800, latency_ms=200)
    run_id = queued(office)
    with at_work(office, 1):
        office.until(lambda: sum(office.charged.values()) > 10)
        for _ in range(2):
            with at_work(office, 1):
                seen = workers_of(office, run_id)
                office.until(lambda: workers_of(office, run_id) > seen or ended(office.runs[-1]))  # noqa: B023
        office.until(lambda: all(ended(run) for run in office.runs))
    (run,) = office.runs
    reasons = office.app.runs.reasons(run_id)
    assert run.counts.no_match
    assert not [each for each in reasons if "crm-sync was stopped" in each[2]], (run.reason, reasons)
    is_told_once(office, run)
    office.books_balance()


def test_a_database_that_fails_is_why_the_run_ended(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=400, latency_ms=50)
    queued(office)
    failing = iter([True])

    def settle(runs: Runs, *arguments: Any, **more: Any) -> None:
        if next(failing, False):
            raise StoreError("the database did not take it")
        settled(runs, *arguments, **more)

    settled = Runs.settle
    monkeypatch.setattr(Runs, "settle", settle)
    together(office, 1)
    (run,) = office.runs
    assert (run.status, run.reason) == (RunStatus.FAILED, "the database did not take it")
    office.books_balance()


def test_nothing_is_lost_that_is_given_back_and_taken_between_two_looks(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=50)
    run_id = queued(office)
    looked = threading.Event()
    with office.another() as app, at_work(office, 1):
        office.until(office.app.shares.working)
        first, second = (app.shares.join(run_id, owner=f"{owner()}", now=app.clock.now()) for _ in range(2))
        assert first is not None
        assert second is not None
        assert app.shares.take(first, now=app.clock.now()) is not None
        run = app.runs.get(run_id)
        assert run is not None

        def gives(share: Share) -> None:
            tally = Tally(stopped="stopped")
            app.shares.end(share, run, tally=tally, giving=Giving.UNFINISHED, now=app.clock.now())

        def are_at_it(others: Any) -> bool:
            is_only_he = {share.number for share in app.shares.working()} == {first.number}
            if not is_only_he or looked.is_set():
                return at_it(others)
            gives(first)
            found = at_it(others)
            third = app.shares.join(run_id, owner=owner(), now=app.clock.now())
            assert third is not None
            assert app.shares.take(third, now=app.clock.now()) is not None
            threading.Timer(0.5, gives, (third,)).start()
            looked.set()
            return found

        at_it = sharing._Others.are_at_it
        monkeypatch.setattr(sharing._Others, "are_at_it", are_at_it)
        gives(second)
        office.until(lambda: all(ended(run) for run in office.runs))
    (run,) = office.runs
    assert looked.is_set()
    assert (run.status, run.counts.updated) == (RunStatus.COMPLETED, 200), (run.reason, run.left_out)
    is_told_once(office, run)


def test_who_joins_a_run_that_is_just_taken_over_keeps_nobody_from_work(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=100, tidy=True)
    queued(office)
    now = office.app.clock.now()
    with office.another() as app:
        taken = app.queue.take(owner="elsewhere:1:x", config_version=1, now=now)
        assert taken is not None
        run = taken[0]
        app.shares.begin(run.id, now=now)
        for start in (0, 20):
            app.shares.add(run.id, [office.id_of(index) for index in range(start, start + 20)], now=now)
        office.later(timedelta(seconds=46))
        joined: list[Share] = []

        def take_over(runs: Runs, *arguments: Any, **more: Any) -> bool:
            share = app.shares.join(run.id, owner=owner(), now=app.clock.now())
            joined.extend([share] if share is not None else [])
            return taken_over(runs, *arguments, **more)

        taken_over = Runs.take_over
        monkeypatch.setattr(Runs, "take_over", take_over)
        services = office.app.services()
        assert recover(services, "salesforce") == []
        (share,) = joined
        assert app.shares.standing(run.id) is Standing.STOPPING
        assert app.shares.join(run.id, owner=owner(), now=app.clock.now()) is None
        app.shares.end(share, run, tally=Tally(stopped="stopped"), giving=Giving.UNFINISHED, now=app.clock.now())
        assert [each.id for each in recover(services, "salesforce")] == [run.id]
    together(office, 1)
    assert [each.status for each in office.runs] == [RunStatus.FAILED, RunStatus.COMPLETED]
    assert office.runs[-1].counts.updated == 100


class _Unwritable:
    """A CRM that this machine's writes do not reach."""

    def __init__(self, crm: Crm) -> None:
        self._crm = crm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._crm, name)

    def write(self, *_: Any, **__: Any) -> Any:
        raise TransientError("the line is cut", provider="salesforce", operation="write")


def test_what_one_worker_could_not_write_and_another_did_is_written(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=400, tidy=True, latency_ms=200)
    run_id = queued(office)
    with at_work(office, 1), office.another() as app:
        office.until(lambda: sum(office.charged.values()) > 10)
        services = app.services()
        cut_off = replace(services, hint=lambda: None, crm=lambda name: cast("Crm", _Unwritable(services.crm(name))))
        with pytest.raises(TransientError):
            help_out(cut_off, stop=Stop())
        assert any(tally.unwritten for tally in app.shares.tallies(run_id).values())
        office.until(lambda: all(ended(run) for run in office.runs))
    (run,) = office.runs
    assert (run.status, run.reason) == (RunStatus.COMPLETED, "")
    assert run.counts.updated == 400
    is_told_once(office, run)
    office.books_balance()


def test_who_is_not_asked_for_since_only_stored_answers_are_used_is_looked_at_once(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = open_unattended(contacts=100, tidy=True)
    run_id = queued(office, Asked(free=True))
    taken: list[Chunk] = []

    def take(shares: Shares, *arguments: Any, **more: Any) -> Chunk | None:
        chunk = of_store(shares, *arguments, **more)
        taken.extend([chunk] if chunk is not None else [])
        return chunk

    of_store = Shares.take
    monkeypatch.setattr(Shares, "take", take)
    together(office, 1)
    run = office.app.runs.get(run_id)
    assert run is not None
    assert (run.counts.skipped, run.credits) == (100, 0)
    assert [chunk.number for chunk in taken] == [1, 2, 3]
    is_told_once(office, run)


def test_a_machine_that_may_not_spend_itself_stops_nobody_else(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=200)
    run_id = queued(office)
    StateFile(tmp_path / "of another").note(Mark(id="another", epoch=3, at=office.app.clock.now()))
    with at_work(office, 1):
        office.until(lambda: sum(office.charged.values()) > 10)
        with monkeypatch.context() as here:
            here.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "of another"))
            with office.another() as app, pytest.raises(HeldError, match="belongs to another database"):
                help_out(shared(app)(), stop=Stop())
        office.until(lambda: all(ended(run) for run in office.runs))
    run = office.app.runs.get(run_id)
    assert run is not None
    assert (run.status, run.counts.updated) == (RunStatus.COMPLETED, 200), run.reason
    office.books_balance()


def test_whom_another_worker_asks_for_slowly_is_not_left_to_the_next_run(
    open_unattended: OpenUnattended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two records of one person, in chunks of two workers, and Apollo asks to wait."""
    monkeypatch.setattr("crm_sync.store.shares._TRY_AGAIN_AFTER", timedelta(seconds=0.2))
    office = open_unattended(contacts=100, tidy=True)
    with office.another() as app:
        services = app.services()
        walk = compiled(services.config.syncs["contacts"], services)
        page = next(iter(due_pages(walk, Counter())))
        run_id = queued(office)
        now = app.clock.now()
        intent = Intent(
            run_id=run_id,
            sync="contacts",
            purpose=walk.purpose,
            calls=(tuple(due.keys for due in page.due[:3]),),
            single=False,
            endpoint="people/bulk_match",
            most=Decimal(1),
            day=now.date().isoformat(),
            fresh_since=walk.fresh_since,
            no_match_since=walk.no_match_since,
            share=99,
        )
        plan = app.journal.plan(intent, lambda _spent: Room(), now=now)
        with at_work(office, 1):
            office.until(lambda: len(app.shares.tallies(run_id)) > 5 or ended(office.runs[-1]))
            app.journal.not_charged(plan.calls[0].id, "unsent", "", now=app.clock.now())
            office.until(lambda: all(ended(run) for run in office.runs))
    (run,) = office.runs
    assert (run.counts.updated, run.counts.skipped) == (100, 0), office.app.runs.reasons(run_id)
    is_told_once(office, run)


def test_a_helper_that_finds_no_credit_left_comes_back_no_more(open_unattended: OpenUnattended) -> None:
    """The run's own process may be at a bulk job for half an hour before it sees that."""
    office = open_unattended(contacts=100, tidy=True)
    queued(office, Asked(max_credits=Decimal(10)))
    with office.another() as app, office.another() as helper:
        now = app.clock.now()
        taken = app.queue.take(owner=owner(), config_version=1, now=now)
        assert taken is not None
        run = taken[0]
        app.shares.begin(run.id, now=now)
        for start in (0, 20, 40):
            app.shares.add(run.id, [office.id_of(index) for index in range(start, start + 20)], now=now)
        worker = RunWorker(shared(helper))
        assert worker.help(threading.Event())
        assert not worker.help(threading.Event())
        app.shares.stand(run.id, Standing.SELECTED)
        assert app.shares.standing(run.id) is Standing.STOPPING
        (tally,) = app.shares.tallies(run.id).values()
        assert tally.stopped_by == "BudgetError"
        assert app.shares.why_stopping(run.id) == tally.stopped


def test_a_helper_that_meets_a_bug_tells_of_it(open_unattended: OpenUnattended) -> None:
    office = open_unattended(contacts=200, tidy=True, latency_ms=200)
    queued(office)

    def select(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with at_work(office, 1), office.another() as app:
        office.until(lambda: sum(office.charged.values()) > 10)
        crm = app.services().crm("salesforce")
        crm.select = select  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            help_out(replace(app.services(), hint=lambda: None, crm=lambda _: crm), stop=Stop())
        office.until(lambda: all(ended(run) for run in office.runs))
    assert [run.status for run in office.runs] == [RunStatus.COMPLETED]
    assert office.runs[0].counts.updated == 200
