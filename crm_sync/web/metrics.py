"""/metrics: everything is counted in the database at the moment it is asked for, so that any number of processes say
the same, and none has to be asked in particular. Names after prometheus.io/docs/practices/naming; nothing about people.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from flask import Blueprint, Response, abort, current_app, request

from crm_sync import __version__
from crm_sync.domain.runs import RunStatus
from crm_sync.errors import CrmSyncError
from crm_sync.store.health import Snapshot

#: A run in one of these is still to become something else: it is counted as under way.
_UNDER_WAY = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_FOR_PHONES)
#: Left by a proxy that passes on what came from elsewhere.
_PASSED_ON = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")


def metrics(scrape: Callable[[], bytes], token: Callable[[], str]) -> Blueprint:
    """`scrape` makes the page; `token` is what whoever asks must bring, "": only this machine is served."""
    made = Blueprint("metrics", __name__)

    @made.get("/metrics")
    def page() -> Response:
        if not _is_welcome(token()):
            abort(404)  # as whatever is not there
        try:
            content = scrape()
        except CrmSyncError as error:
            current_app.logger.warning("no metrics: %s", error)
            return Response("not ready\n", 503, {"Retry-After": "10"}, mimetype="text/plain")
        return Response(content, content_type="text/plain; version=0.0.4; charset=utf-8")

    return made


def _is_welcome(token: str) -> bool:
    if token:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    if any(name in request.headers for name in _PASSED_ON):
        return False
    try:
        return ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def exposition(snapshot: Snapshot, budget: Mapping[str, tuple[Decimal, Decimal]], now: datetime) -> bytes:
    """The page in Prometheus' text format. `budget`: limit -> (credits, used of them)."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Everything:
        def collect(self) -> Iterator[Any]:
            return _families(snapshot, budget, now)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Everything())
    return bytes(generate_latest(registry))


def _families(snapshot: Snapshot, budget: Mapping[str, tuple[Decimal, Decimal]], now: datetime) -> Iterator[Any]:
    yield _gauge("build_info", "The version that answers.", {(__version__,): 1}, "version")
    yield from _runs(snapshot)
    yield from _money(snapshot, budget, now)
    yield _gauge(
        "deliveries", "What Apollo delivered and is kept, by what became of it.", _one(snapshot.deliveries), "state"
    )
    yield _gauge(
        "phones_waiting", "Phones that are awaited.", {(s,): n for s, (n, _) in snapshot.waits.items()}, "sync"
    )
    yield _gauge(
        "phones_oldest_wait_seconds",
        "For how long the oldest of them is.",
        {(sync,): _age(since, now) for sync, (_, since) in snapshot.waits.items()},
        "sync",
    )
    yield _gauge("reviews_open", "What waits for a person.", {(): snapshot.reviews})
    yield _gauge(
        "endpoint_parked_seconds",
        "For how long Apollo asks not to be called there.",
        {(endpoint,): max(until - now.timestamp(), 0.0) for endpoint, until in snapshot.parked.items()},
        "endpoint",
    )
    yield _gauge("alerts_firing", "What is wrong now, by alert.", _one(snapshot.firing), "alert")
    yield _gauge("notices_waiting", "Notices that could not be told yet.", {(): snapshot.untold})


def _runs(snapshot: Snapshot) -> Iterator[Any]:
    ended: dict[tuple[str, ...], float] = {}
    under_way: dict[tuple[str, ...], float] = {}
    for key, count in snapshot.runs.items():
        (under_way if key[2] in _UNDER_WAY else ended)[key] = count
    yield _counter("runs", "Runs that have ended.", ended, "sync", "kind", "status")
    yield _gauge("runs_under_way", "Runs that have not.", under_way, "sync", "kind", "status")
    last = snapshot.last_runs
    yield _gauge(
        "last_run_timestamp_seconds",
        "When the sync's newest run ended.",
        {(sync,): run.finished_at.timestamp() for sync, run in last.items()},
        "sync",
    )
    yield _gauge(
        "last_run_duration_seconds", "How long it took.", {(sync,): run.seconds for sync, run in last.items()}, "sync"
    )
    yield _gauge(
        "last_run_status", "How it ended.", {(sync, run.status): 1 for sync, run in last.items()}, "sync", "status"
    )
    yield _gauge(
        "last_run_records",
        "What became of its records.",
        {(sync, outcome): count for sync, run in last.items() for outcome, count in run.outcomes.items()},
        "sync",
        "outcome",
    )
    yield _gauge(
        "last_success_timestamp_seconds",
        "When a run of the sync ended as completed, with errors or without.",
        {(sync,): at.timestamp() for sync, at in snapshot.last_success.items()},
        "sync",
    )


def _money(snapshot: Snapshot, budget: Mapping[str, tuple[Decimal, Decimal]], now: datetime) -> Iterator[Any]:
    def credits_of(word: str) -> dict[tuple[str, ...], float]:
        return {(purse,): float(amount) for (purse, each), amount in snapshot.spent.items() if each == word}

    yield _counter("credits_settled", "Credits that Apollo has charged.", credits_of("settled"), "purse")
    yield _gauge(
        "credits_reserved", "Credits of calls under way or in doubt, at worst.", credits_of("reserved"), "purse"
    )
    yield _gauge("credits_doubted", "Credits of calls that were given up on, at worst.", credits_of("doubted"), "purse")
    yield _counter("paid_calls", "Paid calls that have left.", _one(snapshot.calls), "purse")
    calls, most, oldest = snapshot.in_doubt
    yield _gauge("calls_in_doubt", "Paid calls without an answer.", {(): calls})
    yield _gauge("calls_in_doubt_credits", "What they may have cost at worst.", {(): float(most)})
    yield _gauge(
        "calls_in_doubt_oldest_seconds",
        "For how long the oldest is.",
        {(): _age(oldest, now) if oldest is not None else 0.0},
    )
    limits: dict[tuple[str, ...], float] = {(name,): float(limit) for name, (limit, _) in budget.items()}
    left: dict[tuple[str, ...], float] = {
        (name,): float(max(limit - used, Decimal(0))) for name, (limit, used) in budget.items()
    }
    yield _gauge("budget_limit_credits", "Limits of the budget.", limits, "limit")
    yield _gauge("budget_left_credits", "What may still be spent of them.", left, "limit")


def _one(counts: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    return {(name,): count for name, count in counts.items()}


def _age(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)


def _gauge(name: str, meaning: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(f"crm_sync_{name}", meaning, labels=labels), values)


def _counter(name: str, meaning: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(f"crm_sync_{name}", meaning, labels=labels), values)


def _filled(family: Any, values: Mapping[tuple[str, ...], float]) -> Any:
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
