"""What a collector is told: runs, paid calls, writes and deliveries by ids and counts, and nothing of people and keys.
By the real library, against a server of ours."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from crm_sync import spans, tracing
from crm_sync.domain.runs import RunStatus
from crm_sync.errors import ConfigError, StoreError
from tests.journeys.conftest import Open
from tests.journeys.phones.conftest import OpenPhones

pytest.importorskip("opentelemetry.sdk", reason="OPENTELEMETRY IS NOT INSTALLED: traces were not tried")


@dataclass(frozen=True)
class Told:
    name: str
    id: str
    parent: str
    trace: str
    facts: dict[str, Any]
    seconds: float
    failed: bool


class Collector:
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                collector.bodies.append(
                    gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                )
                collector.paths.append(self.path)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self._end = tracing.trace_to(self.url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def end(self) -> None:
        self._end()

    def told(self) -> list[Told]:
        """All that came until now, which is the end."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.end()
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += [_told(each) for each in scope.spans]
        return found


def _told(span: Any) -> Told:
    facts = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    assert not span.events
    assert not span.status.message
    return Told(
        name=span.name,
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        trace=span.trace_id.hex(),
        facts=facts,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        failed=span.status.code == 2,
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    try:
        yield made
    finally:
        made.end()
        made.server.shutdown()
        made.server.server_close()


def test_a_run_is_told_with_its_calls_and_writes(open_office: Open, collector: Collector) -> None:
    office = open_office(contacts=60, tidy=True)
    run = office.walk()

    told = collector.told()
    [whole] = [each for each in told if each.name == "run"]
    parts = [each for each in told if each.name != "run"]
    assert set(collector.paths) == {"/v1/traces"}
    assert whole.facts["crm_sync.run"] == run.id
    assert whole.facts["crm_sync.status"] == "Completed"
    assert whole.facts["crm_sync.updated"] == run.counts.updated == 60
    assert {each.name for each in parts} == {"apollo call", "crm write"}
    assert {(each.parent, each.trace) for each in parts} == {(whole.id, whole.trace)}
    calls = [each for each in parts if each.name == "apollo call"]
    assert sum(each.facts["crm_sync.keys"] for each in calls) >= 60
    assert len({each.facts["crm_sync.call"] for each in calls}) == len(calls)
    assert sum(each.facts.get("crm_sync.written", 0) for each in parts) == 60
    people = [office.sandbox.world.person(index) for index in range(60)]
    whole_text = b"".join(collector.bodies).decode(errors="replace")
    for canary in [
        *(person.email for person in people), *(person.last_name for person in people),
        *(value for value in office.sandbox.settings().values() if len(value) > 18 and not value.startswith("http")),
    ]:  # fmt: skip
        assert canary not in whole_text, canary


def test_a_delivery_is_told_from_its_arrival_to_its_end(open_phones: OpenPhones, collector: Collector) -> None:
    office = open_phones(tidy=True, contacts=20)
    office.order_phones()
    assert office.walk().status is RunStatus.WAITING_FOR_PHONES
    office.until(lambda: sum(office.told().values()) >= 1)
    office.carry_out(until=lambda: "new" not in office.told())

    told = [each for each in collector.told() if each.name == "delivery"]
    numbers = [phone.sanitized for index in office.targets for phone in office.numbers_of(index)]
    whole = b"".join(collector.bodies).decode(errors="replace")
    assert told
    assert all(each.facts["crm_sync.delivery"] and each.facts["crm_sync.order"] for each in told)
    assert sum(each.facts["crm_sync.people_with_numbers"] for each in told) >= 1
    assert all(0 < each.seconds < 60 for each in told)
    assert numbers
    assert not [number for number in numbers if number in whole or number.lstrip("+") in whole]


def test_of_an_error_the_kind_alone_is_told(collector: Collector) -> None:
    with pytest.raises(StoreError), spans.span("run", run="r1"):
        raise StoreError("Ada Lovelace was not taken")

    [told] = collector.told()
    assert (told.failed, told.facts) == (True, {"crm_sync.run": "r1", "error.type": "StoreError"})
    assert b"Lovelace" not in b"".join(collector.bodies)


def test_a_collector_that_refuses_is_told_once_and_stops_nothing(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    for _ in range(3):
        with spans.span("run", run="r1"):
            pass
        tracing_provider_flush()
    collector.end()

    assert [line for line in caplog.messages if "traces" in line] == [
        "traces are lost: the collector at CRM_SYNC_OTLP_ENDPOINT does not take them"
    ]


def tracing_provider_flush() -> None:
    [tracer] = spans._tracers
    tracer._provider.force_flush(5000)  # type: ignore[attr-defined]


@pytest.mark.parametrize("endpoint", ["collector:4318", "grpc://collector"])
def test_an_address_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="CRM_SYNC_OTLP_ENDPOINT is no address; write http://"):
        tracing.trace_to(endpoint)


def test_nothing_of_it_is_imported_without_the_setting() -> None:
    code = (
        "import sys\nfrom crm_sync.bootstrap import App, report, web_app\nreport(App())\nweb_app(App())\n"
        "import crm_sync.pipeline.run, crm_sync.pipeline.resolve\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry') or name == 'crm_sync.tracing'])\n"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out == "[]\n"


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ConfigError, match=r"install crm-sync\[otel\], or empty the setting"):
        tracing.trace_to("http://127.0.0.1:4318")
