"""How fast HubSpot is called: five searches in any second, the burst window, the day."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from adapters.hubspot.limits import HeaderPace, SearchPace
from tests.clocks import FakeClock


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_never_more_than_five_searches_are_open_or_answered_in_any_second() -> None:
    pace = SearchPace(per_s=5, clock=RealClock())
    spans: list[tuple[float, float]] = []

    def work() -> None:
        for _ in range(3):
            with pace.turn():
                began = time.monotonic()
                time.sleep(0.01)
                spans.append((began, time.monotonic()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    starts = sorted(began for began, _ in spans)
    assert len(starts) == 12
    assert all(later - earlier > 0.99 for earlier, later in zip(starts, starts[5:], strict=False))
    assert starts[-1] - starts[0] < 4.0


def test_a_search_that_fails_gives_its_turn_back_too() -> None:
    clock = FakeClock()
    pace = SearchPace(per_s=1, clock=clock)

    for _ in range(3):
        try:
            with pace.turn():
                raise ValueError
        except ValueError:
            continue

    assert sum(clock.slept) == 2.0


def _headers(**numbers: int) -> dict[str, str]:
    return {f"x-hubspot-ratelimit-{name.replace('_', '-')}": str(number) for name, number in numbers.items()}


def test_calls_are_held_back_only_while_the_burst_window_is_nearly_used_up() -> None:
    clock = FakeClock()
    pace = HeaderPace(clock=clock)

    pace.learn(_headers(max=100, remaining=50, interval_milliseconds=10_000))
    pace.wait()
    assert clock.slept == []

    pace.learn(_headers(max=100, remaining=4, interval_milliseconds=10_000))
    pace.wait()
    assert clock.slept == [2.0]
    assert pace.calls_per_s == 10.0


def test_answers_without_limit_headers_teach_nothing() -> None:
    pace = HeaderPace(clock=FakeClock())

    pace.learn({"content-type": "application/json"})
    pace.learn({"x-hubspot-ratelimit-max": "many"})

    assert pace.calls_per_s is None
    assert pace.day() is None


def test_a_day_that_is_nearly_used_up_is_known_for_a_while() -> None:
    clock = FakeClock()
    pace = HeaderPace(clock=clock)

    pace.learn(_headers(daily=250_000, daily_remaining=2_499))
    day = pace.day()
    assert day is not None
    assert day.is_low

    clock.forward(1_000)
    assert pace.day() is None
