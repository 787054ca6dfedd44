"""A change of state is told once, whoever sees it, and what could not be told is told later."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from crm_sync.domain.alerts import Address, Finding
from crm_sync.store.alerts import GIVE_UP_AFTER, Alerts, pause_after
from crm_sync.store.engine import Store
from tests.factories import NOON

RULE = "run_failed"
OPS, REVOPS = (
    Address(digest=b"o" * 16, shown="mailto:ops@example.com"),
    Address(digest=b"r" * 16, shown="slack:#revops"),
)
MINUTE = timedelta(minutes=1)


def a_finding(is_firing: bool = True, **changes: Any) -> Finding:
    values: dict[str, Any] = {
        "alert": RULE,
        "subject": "contacts",
        "is_firing": is_firing,
        "since": NOON,
        "title": "contacts has failed" if is_firing else "contacts runs again",
        "what": "It failed." if is_firing else "It ran.",
    }
    return Finding(**{**values, **changes})


def note(
    alerts: Alerts,
    *findings: Finding,
    now: datetime = NOON,
    to: Sequence[Address] = (OPS,),
    possible: Sequence[tuple[str, str]] = ((RULE, "contacts"),),
) -> int:
    def write(kind: str, finding: Finding, since: datetime, before: str) -> str:
        return f"{kind} since {since:%H:%M}: {finding.what} {before}".strip()

    return alerts.note(list(findings), possible=possible, tell={RULE: to}, write=write, now=now)


def told(alerts: Alerts) -> list[str]:
    return [f"{each.shown} {each.body}" for each in reversed(alerts.history(limit=100))]


@pytest.fixture
def alerts(store: Store) -> Alerts:
    return Alerts(store)


def test_the_beginning_is_told_once_to_everybody_and_so_is_the_end(alerts: Alerts) -> None:
    for minute in range(3):
        note(alerts, a_finding(), now=NOON + minute * MINUTE, to=(OPS, REVOPS))
    for notice in alerts.claim(now=NOON + 3 * MINUTE):
        alerts.told(notice.id, now=NOON + 3 * MINUTE)
    for minute in range(4, 7):
        note(alerts, a_finding(False), now=NOON + minute * MINUTE, to=(OPS, REVOPS))

    assert told(alerts) == [
        "mailto:ops@example.com began since 12:00: It failed.",
        "slack:#revops began since 12:00: It failed.",
        "mailto:ops@example.com recovered since 12:00: It ran. It failed.",
        "slack:#revops recovered since 12:00: It ran. It failed.",
    ]
    assert alerts.firing() == []


def test_what_is_fine_from_the_beginning_is_not_told(alerts: Alerts) -> None:
    assert note(alerts, a_finding(False)) == 0
    assert told(alerts) == []


def test_another_process_sees_what_was_told(alerts: Alerts, store: Store) -> None:
    note(alerts, a_finding())

    assert note(Alerts(store), a_finding(), now=NOON + MINUTE) == 0


def test_a_new_text_of_the_same_trouble_is_kept_and_not_told(alerts: Alerts) -> None:
    note(alerts, a_finding())

    assert note(alerts, a_finding(what="It failed twice."), now=NOON + MINUTE) == 0
    [firing] = alerts.firing()
    assert (firing.what, firing.since) == ("It failed twice.", NOON)


def test_what_has_to_last_is_told_when_it_has(alerts: Alerts) -> None:
    lasting = a_finding(lasts=10 * MINUTE)

    assert note(alerts, lasting) == 0
    assert [each.is_pending for each in alerts.firing()] == [True]
    assert note(alerts, a_finding(since=NOON + 9 * MINUTE, lasts=10 * MINUTE), now=NOON + 9 * MINUTE) == 0
    assert note(alerts, a_finding(since=NOON + 10 * MINUTE, lasts=10 * MINUTE), now=NOON + 10 * MINUTE) == 1
    assert told(alerts) == ["mailto:ops@example.com began since 12:00: It failed."]


def test_what_did_not_last_is_not_told_at_all(alerts: Alerts) -> None:
    note(alerts, a_finding(lasts=10 * MINUTE))

    assert note(alerts, a_finding(False), now=NOON + MINUTE) == 0
    assert (alerts.firing(), told(alerts)) == ([], [])


def test_where_nobody_could_look_all_stays_as_it_was(alerts: Alerts) -> None:
    note(alerts, a_finding())

    assert note(alerts, now=NOON + MINUTE) == 0
    assert len(alerts.firing()) == 1


def test_a_rule_that_left_the_configuration_is_forgotten_untold(alerts: Alerts) -> None:
    note(alerts, a_finding())

    assert note(alerts, now=NOON + MINUTE, possible=[]) == 0
    assert alerts.firing() == []
    assert alerts.claim(now=NOON + MINUTE) == []


def test_many_at_once_tell_it_once(database_url: str) -> None:
    count = 6
    stores = [Store(database_url) for _ in range(count)]
    stores[0].ready()
    for is_firing in (True, False):
        together = Barrier(count)

        def look(store: Store, is_firing: bool = is_firing, together: Barrier = together) -> int:
            together.wait()
            return note(Alerts(store), a_finding(is_firing))

        with ThreadPoolExecutor(count) as pool:
            assert sum(pool.map(look, stores)) == 1
    together = Barrier(count)

    def claim(store: Store) -> int:
        together.wait()
        return len(Alerts(store).claim(now=NOON))

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(claim, stores)) == 1
    for each in stores:
        each.close()


def test_who_could_not_be_told_is_tried_with_widening_pauses(alerts: Alerts) -> None:
    note(alerts, a_finding())
    now, tried = NOON, []
    for _ in range(9):
        [notice] = alerts.claim(now=now)
        alerts.not_told(notice, "refused", now=now)
        tried.append(int((now - NOON) / MINUTE))
        assert alerts.claim(now=now + pause_after(notice.attempts + 1) - MINUTE / 60) == []
        now += pause_after(notice.attempts + 1)

    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    [waiting] = alerts.undelivered(now=now)
    assert (waiting.state, waiting.attempts, waiting.error) == ("waiting", 9, "refused")


def test_one_whose_teller_died_is_told_by_the_next(alerts: Alerts) -> None:
    note(alerts, a_finding())
    alerts.claim(now=NOON)

    assert alerts.claim(now=NOON + MINUTE / 2) == []
    [notice] = alerts.claim(now=NOON + MINUTE)
    alerts.told(notice.id, now=NOON + MINUTE)
    assert alerts.claim(now=NOON + 2 * timedelta(hours=1)) == []
    assert alerts.last_told() == {(RULE, "contacts"): NOON + MINUTE}


def test_after_some_days_it_is_given_up_and_stays_to_be_seen(alerts: Alerts) -> None:
    note(alerts, a_finding())
    later = NOON + GIVE_UP_AFTER + MINUTE
    [notice] = alerts.claim(now=later)
    alerts.not_told(notice, "refused", now=later)

    assert alerts.claim(now=later + timedelta(days=1)) == []
    assert [each.state for each in alerts.undelivered(now=later)] == ["given up"]
    assert alerts.undelivered(now=later + timedelta(days=8)) == []


def test_a_notifier_that_comes_back_gets_the_newest_message_alone(alerts: Alerts) -> None:
    for nth in range(5):
        note(alerts, a_finding(since=NOON + 2 * nth * MINUTE), now=NOON + 2 * nth * MINUTE)
        note(alerts, a_finding(False), now=NOON + (2 * nth + 1) * MINUTE)

    [notice] = alerts.claim(now=NOON + timedelta(hours=1))

    assert notice.body == "recovered since 12:08: It ran. It failed."


def test_old_notices_are_forgotten_and_what_waits_is_not(alerts: Alerts) -> None:
    note(alerts, a_finding())
    [notice] = alerts.claim(now=NOON)
    alerts.told(notice.id, now=NOON)
    note(alerts, a_finding(False), now=NOON + MINUTE)

    assert alerts.forget_old(now=NOON + timedelta(days=91)) == 1
    assert len(alerts.waiting()) == 1
