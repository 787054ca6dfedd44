"""Spans by OpenTelemetry, where a setting asks for them: the only module that knows it.

What OpenTelemetry would add of its own is left out: an error's words and traceback, which may hold a record's values
(opentelemetry-sdk 1.45, 2026-11).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from crm_sync import __version__, spans
from crm_sync.complaints import Complaints
from crm_sync.errors import ConfigError
from crm_sync.spans import Value

_log = logging.getLogger(__name__)

SETTING = "CRM_SYNC_OTLP_ENDPOINT"
_PATH = "/v1/traces"
#: A collector that hangs holds up nothing but the end of the process, for so long.
_TIMEOUT_S = 5.0


def trace_to(endpoint: str) -> Callable[[], None]:
    """Let spans be exported to `endpoint`, a collector's address, by OTLP over HTTP; the rest is said by
    OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, …). What is returned, or the end of
    the process, sends what has been told until then.

    Raises:
        ConfigError: it cannot be used, or OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            f"{SETTING} is set and OpenTelemetry is not installed: install crm-sync[otel], or empty the setting"
        ) from None
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"{SETTING} is no address; write http://HOST:4318 or https://HOST")
    # It logs each batch that is not taken, several times.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(
        resource=Resource.create({"service.name": "crm-sync", "service.version": __version__}), shutdown_on_exit=True
    )
    address = endpoint.rstrip("/").removesuffix(_PATH) + _PATH
    provider.add_span_processor(
        BatchSpanProcessor(_Complaining(OTLPSpanExporter(endpoint=address, timeout=_TIMEOUT_S)))
    )
    spans.listen(_OpenTelemetry(provider))

    def end() -> None:
        spans.listen(None)
        provider.shutdown()

    return end


class _Complaining:
    """opentelemetry's SpanExporter: as the one it has, and says once where that fails."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._complaints = Complaints(_log, "traces are lost")

    def export(self, batch: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        result = self._exporter.export(batch)
        if result is SpanExportResult.SUCCESS:
            self._complaints.over()
        else:
            self._complaints.tell(f"traces are lost: the collector at {SETTING} does not take them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


class _Open:
    def __init__(self, span: Any) -> None:
        self._span = span

    def tell(self, **facts: Value) -> None:
        self._span.set_attributes(_named(facts))


class _OpenTelemetry:
    """spans.Tracer."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("crm_sync", __version__)

    @contextmanager
    def span(self, name: str, facts: Mapping[str, Value]) -> Iterator[spans.Span]:
        from opentelemetry.trace import StatusCode

        with self._tracer.start_as_current_span(
            name, attributes=_named(facts), record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield _Open(made)
            except BaseException as error:
                made.set_attribute("error.type", type(error).__name__)
                made.set_status(StatusCode.ERROR)
                raise

    def note(self, name: str, began_at: datetime, facts: Mapping[str, Value]) -> None:
        begun = int(began_at.timestamp() * 1_000_000_000)
        self._tracer.start_span(name, attributes=_named(facts), start_time=begun).end()


def _named(facts: Mapping[str, Value]) -> dict[str, Value]:
    return {f"crm_sync.{name}": value for name, value in facts.items()}
