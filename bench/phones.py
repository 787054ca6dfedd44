"""`python -m bench.phones [--deliveries 10000] [--crm salesforce]`: how fast waiting deliveries are carried out, beside
a loop that only reads and writes the same fields; and how long one takes from Apollo's post to the CRM when idle."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from bench.measure import sandbox
from crm_sync.bootstrap import App, web_app
from crm_sync.config.loader import load
from crm_sync.config.starter import starter
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.records import Record
from crm_sync.domain.reveals import Ordering
from crm_sync.domain.runs import RunKind
from crm_sync.pipeline.resolve import Resolver
from crm_sync.pipeline.run import opened
from crm_sync.pipeline.walk import compiled
from crm_sync.ports import Selection, WriteRequest
from crm_sync.services import Services
from crm_sync.store.exclusive import Exclusive
from crm_sync.store.journal import Expansion, Intent, Room
from crm_sync.store.orders import Ordered
from crm_sync.store.reveals import NewWait
from crm_sync.workers import PhoneWorker

_PHONES = {
    "salesforce": '    phones:\n      reveal_when: "Email != null"\n      route: {mobile: MobilePhone}\n',
    "hubspot": "    phones:\n      reveal_when: [{property: email, operator: HAS_PROPERTY}]\n"
    "      route: {mobile: mobilephone}\n",
}
_FIELD = {"salesforce": "MobilePhone", "hubspot": "mobilephone"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.phones", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--idle", type=int, default=20, help="deliveries one at a time")
    parser.add_argument("--crm", choices=("salesforce", "hubspot", "both"), default="both")
    given = parser.parse_args()
    console = Console(width=130)
    for crm in ("salesforce", "hubspot") if given.crm == "both" else (given.crm,):
        with sandbox(given.deliveries) as settings, tempfile.TemporaryDirectory() as folder:
            drained = drain(crm, settings, Path(folder), given.deliveries)
        console.print(
            f"{crm}: {given.deliveries:,} waiting deliveries carried out in {drained['seconds']:.1f} s "
            f"({drained['rate']:,.0f} a second; wanted {given.deliveries / 300:,.0f}), "
            f"CPU {drained['cpu_ms']:.2f} ms each, {drained['cpu_ratio']:.2f} x a loop that reads and writes the same"
        )
        with sandbox(max(given.idle, 50)) as settings, tempfile.TemporaryDirectory() as folder:
            waits = idle(crm, settings, Path(folder), given.idle)
        console.print(
            f"{crm}: idle, from the delivery to the field: median {statistics.median(waits):.2f} s, "
            f"longest {max(waits):.2f} s of {len(waits)} (wanted 5)"
        )


@contextmanager
def office(crm: str, settings: dict[str, str], folder: Path) -> Iterator[tuple[App, Services]]:
    os.environ.update({"CRM_SYNC_DATABASE_URL": f"sqlite:///{folder}/crm_sync.db"} | settings)
    app = App()
    client = app.crm(crm, crm)
    text = starter(crm, crm, {each: client.describe(each) for each in client.object_types()})
    before, sign, after = text.partition("    fields:")
    config = load((before + _PHONES[crm] + sign + after).encode()).require()
    app.versions.add(config.text, config.files, author="bench", note="", now=app.clock.now())
    try:
        yield app, app.services()
    finally:
        app.close()


def ordered(services: Services, crm: str, count: int) -> list[tuple[Record, str]]:
    """An order for one record each, as a run leaves it: (record, order)."""
    sync = next(each for each in services.config.syncs.values() if each.phones is not None)
    walk = compiled(sync, services)
    run = opened(services, sync=sync.name, crm=crm, object_type=sync.object_type, kind=RunKind.RUN, trigger="bench")
    now = services.clock.now()
    fields = tuple(dict.fromkeys(name for key in sync.match.send for name in key.fields))
    found: list[tuple[Record, str]] = []
    for page in services.crm(crm).select(Selection(object_type=sync.object_type, fields=fields)):
        records = [record for record in page.records if walk.keys_of(record.values).key][: count - len(found)]
        waits = [
            NewWait(
                record_id=each.ref.id,
                apollo_id=person_id(each),
                key=walk.keys_of(each.values).key,
                batch_id=0,
                position=0,
            )
            for each in records
        ]
        services.reveals.choose(waits, crm=crm, object_type=sync.object_type, sync=sync.name, run_id=run.id, now=now)
        keys = [MatchKeys(purpose=Purpose.PHONE, apollo_id=person_id(each)) for each in records]
        plan = services.journal.plan(
            Intent(
                run_id=run.id,
                sync=sync.name,
                purpose=Purpose.PHONE,
                calls=tuple((key,) for key in keys),
                single=False,
                endpoint="people/bulk_match",
                most=Decimal(9),
                day=now.date().isoformat(),
                fresh_since=now - timedelta(days=1),
                no_match_since=now - timedelta(days=1),
                gives_up_at=now + timedelta(days=3),
            ),
            lambda _spent: Room(),
            now=now,
        )
        accepted = Ordered(ordering=Ordering.ACCEPTED, reason="", to_come=Decimal(8), first_poll_at=None)
        for call in plan.calls:
            services.journal.sent(call.id, now=now, orders_phones=True)
        services.journal.expand(
            [Expansion(batch_id=call.id, rows=(), ordered=accepted, answered_at=now) for call in plan.calls], now=now
        )
        found += [(record, call.order_id) for record, call in zip(records, plan.calls, strict=True)]
        if len(found) >= count:
            break
    return found


def person_id(record: Record) -> str:
    return record.ref.id.rjust(24, "0")


def body_of(record: Record, number: int) -> bytes:
    sanitized = f"+1512555{100 + number % 100:04d}"
    entry = {
        "raw_number": sanitized, "sanitized_number": sanitized, "type_cd": "mobile", "status_cd": "valid_number",
        "confidence_cd": "high", "dnc_status_cd": "not_found", "position": 0,
    }  # fmt: skip
    people = [{"id": person_id(record), "status": "success", "phone_numbers": [entry]}]
    return orjson.dumps({"status": "success", "credits_consumed": 8, "people": people, "nth": number})


def drain(crm: str, settings: dict[str, str], folder: Path, count: int) -> dict[str, Any]:
    with office(crm, settings, folder) as (app, services):
        orders = ordered(services, crm, count)
        for number, (record, order_id) in enumerate(orders):
            app.deliveries.take(order_id, body_of(record, number), now=app.clock.now())
        resolver = Resolver(services)
        began, cpu = time.monotonic(), time.process_time()
        while resolver.drain().did_something:
            pass
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        resolver.runs.close_quiet(all_of_them=True)
        counts = app.reveals.counts()
        assert counts == {"applied": len(orders)}, counts
        bare = _bare(services, crm, [record for record, _ in orders])
    return {
        "seconds": seconds * count / len(orders),
        "rate": len(orders) / seconds,
        "cpu_ms": 1000 * cpu / len(orders),
        "cpu_ratio": cpu / bare,
    }


def _bare(services: Services, crm: str, records: list[Record]) -> float:
    """CPU seconds of reading and writing the same fields, and nothing else."""
    client = services.crm(crm)
    size = client.read_size
    began = time.process_time()
    for start in range(0, len(records), size):
        some = records[start : start + size]
        object_type = some[0].ref.object_type
        client.read(object_type, [each.ref.id for each in some], (_FIELD[crm],))
        values = {_FIELD[crm]: "+15125550199"}
        client.write(object_type, [WriteRequest(ref=each.ref, values=values) for each in some])
    return time.process_time() - began


def idle(crm: str, settings: dict[str, str], folder: Path, count: int) -> list[float]:
    """Seconds from a delivery over HTTP to the value in the CRM, one after the other."""
    import requests

    from crm_sync.web.serving import WebServer

    with office(crm, settings, folder) as (app, services):
        orders = ordered(services, crm, count)
        server = WebServer(web_app(app), host="127.0.0.1", port=0)
        stop = threading.Event()
        worker = PhoneWorker(app.services, Exclusive(app.store, "phones"))
        threads = [threading.Thread(target=server.run), threading.Thread(target=worker.run, args=(stop,))]
        for thread in threads:
            thread.start()
        waited: list[float] = []
        try:
            for number, (record, order_id) in enumerate(orders):
                token = app.hook_tokens.make(order_id, now=app.clock.now())
                began = time.monotonic()
                url = f"http://127.0.0.1:{server.port}/webhooks/apollo/{token}"
                assert requests.post(url, data=body_of(record, number), timeout=10).status_code == 200
                while not _value(services, crm, record):
                    time.sleep(0.02)
                waited.append(time.monotonic() - began)
        finally:
            stop.set()
            server.stop()
            for thread in threads:
                thread.join()
    return waited


def _value(services: Services, crm: str, record: Record) -> object:
    found = services.crm(crm).read(record.ref.object_type, [record.ref.id], (_FIELD[crm],))[0]
    return found.values.get(_FIELD[crm]) if found is not None else None


if __name__ == "__main__":
    main()
