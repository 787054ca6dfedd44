"""Never more calls in any window than the provider allows, whoever calls and whoever is killed; and hardly fewer."""

from __future__ import annotations

import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from crm_sync.errors import QuotaError, StoreError
from crm_sync.ports import UNLIMITED, Window
from crm_sync.store.engine import Store
from crm_sync.store.pace import UNTOLD_AT_ONCE, Ledger, StorePace
from tests.clocks import FakeClock
from tests.faults.pace_worker import ENDPOINT, SystemClock

ROOT = Path(__file__).parents[2]


def most_in_any(seconds: float, arrivals: list[float]) -> int:
    return max(bisect_left(arrivals, start + seconds) - first for first, start in enumerate(arrivals))


class ArrivalsServer:
    """Answers one byte for each byte after 20 to 150 ms, and notes when it came."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        latency = random.Random(len(self.arrivals))
        with peer:
            try:
                while peer.recv(1):
                    self.arrivals.append(time.monotonic())
                    time.sleep(latency.uniform(0.020, 0.150))
                    peer.sendall(b"!")
            except OSError:
                return  # the caller was killed

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def callers(url: str, port: int, *, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "tests.faults.pace_worker", url, str(port), "8", str(seconds)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run_with_one_killed(url: str) -> tuple[list[float], float]:
    """All arrivals of two processes with eight threads each, one of them killed on the way, and the moment of that."""
    server = ArrivalsServer()
    try:
        with callers(url, server.port, seconds=13.0) as (survivor, victim):
            deadline = time.monotonic() + 30.0
            while not server.arrivals and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(7.5)
            victim.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
            assert survivor.wait(timeout=60) == 0
    finally:
        server.close()
    return sorted(server.arrivals), killed_at


def test_no_window_ever_sees_more_than_its_limit_and_97_percent_of_it_are_used(database_url: str) -> None:
    """50 in 3 s beside two other windows. With answers after 85 ms on average 97.2 % are the most that is provable."""
    windows = [Window(seconds=3, limit=50), Window(seconds=1, limit=40), Window(seconds=20, limit=400)]
    store = Store(database_url)
    store.ready()
    StorePace(store, clock=SystemClock()).learn(ENDPOINT, windows)
    store.close()

    used = 0.0
    for _ in range(3):  # soundness holds always; the use needs a machine that is not busy with something else
        arrivals, killed_at = run_with_one_killed(database_url)

        for window in windows:
            assert most_in_any(window.seconds, arrivals) <= window.limit
        first = bisect_left(arrivals, arrivals[0] + 3.0)
        last = bisect_left(arrivals, killed_at) - 50
        rounds = [arrivals[i + 50] - arrivals[i] for i in range(first, last)]
        used = 3.0 / statistics.median(rounds)
        if used >= 0.97:
            break
    assert used >= 0.97
    # What the killed process held counts for its time-out and a window, and then serves the other one again.
    assert len([a for a in arrivals if a > killed_at]) > 50


# --- decisions, on a clock turned by hand


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """On PostgreSQL times are the server's, which no test can turn."""
    return sqlite_store


def another(store: Store) -> Store:
    """As another process opens the same database."""
    return Store(f"sqlite:///{store.path}")


def a_pace(store: Store, clock: FakeClock, **bounds: Any) -> StorePace:
    return StorePace(store, clock=clock, **{"call_timeout_s": 60.0, **bounds})


def call(pace: StorePace, clock: FakeClock, *, seconds: float = 0.0) -> float:
    """One call; returns how long it had to wait."""
    asked = clock.now()
    ticket = pace.acquire(ENDPOINT)
    waited = (clock.now() - asked).total_seconds()
    clock.forward(seconds)
    ticket.answered()
    return waited


def test_a_call_counts_until_one_window_after_its_answer(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=2)])

    call(pace, clock, seconds=5.0)
    call(pace, clock, seconds=5.0)
    waited = call(pace, clock)

    assert waited == pytest.approx(55.0, abs=0.01)  # first answered at 5, second at 10: free again at 65


def test_another_process_sees_what_was_called(store: Store) -> None:
    clock = FakeClock()
    ours, theirs = a_pace(store, clock), a_pace(another(store), clock)
    ours.learn(ENDPOINT, [Window(seconds=60, limit=1)])

    call(ours, clock)
    ours.close()

    assert call(theirs, clock) == pytest.approx(60.0, abs=0.01)


def test_who_closes_waits_for_a_timer_that_is_telling(store: Store) -> None:
    """The store closes next, under its connection."""
    telling, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        if isinstance(threading.current_thread(), threading.Timer):
            telling.set()
            go_on.wait(10)

    pace = a_pace(store, SystemClock())
    pace.learn(ENDPOINT, [Window(seconds=1, limit=10)])
    event.listen(store.engine, "commit", hold)
    pace.acquire(ENDPOINT).answered()
    assert telling.wait(10)
    closing = threading.Thread(target=pace.close)
    closing.start()
    closing.join(0.3)

    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()


def test_a_permission_nobody_answers_counts_until_its_time_out_and_a_window(store: Store) -> None:
    clock = FakeClock()
    killed, survivor = a_pace(store, clock), a_pace(another(store), clock)
    killed.learn(ENDPOINT, [Window(seconds=30, limit=1)])
    killed.acquire(ENDPOINT)

    assert 90.0 <= call(survivor, clock) <= 95.0


class StillClock(FakeClock):
    """Sleeping takes a moment and moves nothing on."""

    def sleep(self, seconds: float) -> None:
        time.sleep(0.001)


def test_few_calls_go_out_until_the_first_answer_told_a_limit(store: Store) -> None:
    clock = StillClock()
    pace = a_pace(store, clock)
    tickets = [pace.acquire(ENDPOINT) for _ in range(UNTOLD_AT_ONCE)]
    assert clock.slept == []
    done = threading.Event()

    def fifth() -> None:
        pace.acquire(ENDPOINT)
        done.set()

    thread = threading.Thread(target=fifth, daemon=True)
    thread.start()
    assert not done.wait(0.2)
    tickets[0].answered()
    assert done.wait(5.0)
    thread.join()


def test_calls_of_a_process_that_was_killed_before_any_limit_was_told_hold_up_the_next_one_for_seconds_only(
    sqlite_store: Store,
) -> None:
    clock = FakeClock()
    killed, survivor = a_pace(sqlite_store, clock), a_pace(another(sqlite_store), clock)
    for _ in range(UNTOLD_AT_ONCE):
        killed.acquire(ENDPOINT)

    assert 2.0 <= call(survivor, clock) <= 5.0


def test_the_first_headers_count_the_calls_made_before_them(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)

    call(pace, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=2, left=0)])  # one of ours, one somebody else's

    assert call(pace, clock) == pytest.approx(60.0, abs=0.01)


def test_calls_of_other_users_of_the_key_are_counted_and_our_own_not_twice(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=10)])
    for number in range(3):
        call(pace, clock)
        pace.learn(ENDPOINT, [Window(seconds=60, limit=10, left=10 - (number + 1) - 4)])  # four are not ours

    waits = [call(pace, clock) for _ in range(4)]

    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3] > 59.0


def test_parking_holds_every_worker_and_ends(store: Store) -> None:
    clock = FakeClock()
    ours, theirs = a_pace(store, clock), a_pace(another(store), clock)
    ours.learn(ENDPOINT, [Window(seconds=60, limit=100)])

    ours.park(ENDPOINT, 37.0)

    assert call(theirs, clock) == pytest.approx(37.0, abs=0.1)
    assert call(ours, clock) == 0.0
    assert ours.acquire("people/match") is not None  # other endpoints go on


@pytest.mark.parametrize("seconds", [7.50000009, 13.1234567891, 0.0000004])
def test_a_time_finer_than_the_clock_does_not_hold_for_ever(store: Store, seconds: float) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=100)])

    pace.park(ENDPOINT, seconds)

    assert call(pace, clock) <= seconds + 0.001


def test_parking_beyond_the_bound_is_a_used_up_quota_that_says_until_when(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=100)])

    pace.park(ENDPOINT, 1740.0)

    with pytest.raises(QuotaError, match="2026-10-08 12:29 UTC"):
        pace.acquire(ENDPOINT)


def test_a_used_up_day_is_a_used_up_quota(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=50), Window(seconds=86400, limit=3)])
    for _ in range(3):
        call(pace, clock)

    with pytest.raises(QuotaError, match="2026-10-09 12:00 UTC"):
        pace.acquire(ENDPOINT)


def test_a_raised_limit_lets_the_next_call_go_at_once(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=1)])
    call(pace, clock)

    pace.learn(ENDPOINT, [Window(seconds=60, limit=5)])

    assert call(pace, clock) == 0.0


def statements_of(store: Store) -> list[str]:
    seen: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    return seen


def test_unlimited_windows_cost_no_write_and_still_see_the_parking(store: Store) -> None:
    clock = FakeClock()
    pace, other = a_pace(store, clock), a_pace(another(store), clock)
    pace.learn(ENDPOINT, [Window(seconds=s, limit=UNLIMITED) for s in (60, 3600, 86400)])
    seen = statements_of(store)

    for _ in range(500):
        call(pace, clock, seconds=0.01)

    assert not [s for s in seen if not s.startswith(("SELECT", "BEGIN"))]
    assert len(seen) <= 2 * 7  # five seconds, one look in each
    other.park(ENDPOINT, 30.0)
    clock.forward(1.0)
    assert call(pace, clock) == pytest.approx(29.0, abs=1.1)


def test_a_large_limit_costs_a_write_per_block_only(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=100_000)])
    seen = statements_of(store)

    for _ in range(2000):
        call(pace, clock, seconds=0.001)

    assert len([s for s in seen if s.startswith("UPDATE")]) <= 4


def test_an_answer_is_noted_even_while_the_database_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=1)])
    ticket = pace.acquire(ENDPOINT)

    def away(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", away)
        ticket.answered()
        pace.close()  # a paid answer must not be lost for this

    assert call(pace, clock) == pytest.approx(60.0, abs=0.01)


def test_an_interrupted_wait_gives_its_permission_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=4, limit=1)])
    call(pace, clock)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(clock, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pace.acquire(ENDPOINT)

    assert call(pace, clock) == pytest.approx(4.0, abs=0.01)


def test_a_clock_set_back_does_not_block_for_the_difference(store: Store) -> None:
    clock = FakeClock()
    pace = a_pace(store, clock)
    pace.learn(ENDPOINT, [Window(seconds=60, limit=1)])
    call(pace, clock)
    pace.close()

    clock.forward(-30 * 86400.0)

    assert call(pace, clock) <= 62.0


# --- the ledger alone


@settings(max_examples=200, deadline=None)
@given(data=st.data(), limit=st.integers(1, 6), size=st.integers(1, 3))
def test_whatever_the_order_of_permissions_and_answers_no_window_overflows(
    data: st.DataObject, limit: int, size: int
) -> None:
    windows = {3.0: limit, 10.0: 2 * limit}
    ledger, now = Ledger(), 0.0
    out: list[tuple[str, float]] = []
    arrivals: list[float] = []
    for number in range(40):
        now += data.draw(st.floats(0, 2), label="pause")
        gone = [call for call in out if call[1] <= now]  # the others are reserved and have not left yet
        if gone and data.draw(st.booleans(), label="answer one"):
            answered = data.draw(st.sampled_from(gone), label="which")
            out.remove(answered)
            ledger.answered(answered[0], 1, now, windows)
            arrivals.append(data.draw(st.sampled_from([answered[1], now]), label="arrived"))  # somewhere between
            continue
        wanted = min(size, limit)
        opens_at, certain = ledger.opens_at(now, wanted, windows)
        if not certain:
            continue
        ledger = Ledger(ledger.dump())
        ledger.grant(str(number), wanted, opens_at + 1000.0)
        out += [(str(number), opens_at)] * wanted
        ledger.forget(now, windows)

    arrivals = sorted(arrivals + [opened for _, opened in out])
    for seconds, most in windows.items():
        assert not arrivals or most_in_any(seconds, arrivals) <= most
