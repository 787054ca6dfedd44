"""How a simulator is served: HTTP/1.1 on loopback, counted, and with scripts of faults and edits before the caller."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

import orjson
from cheroot import wsgi
from cheroot.server import HTTPConnection
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect, Rule

from crm_sync.sandbox.edits import Edits
from crm_sync.sandbox.faults import Answer, Faults

#: Paths of the simulators' own controls, which no fault meets and nobody counts.
_CONTROL = "/_sandbox/"


class Simulator(Protocol):
    """What the controls ask of a simulator."""

    def state(self) -> dict[str, Any]:
        """How many records there are and what was done to them."""
        ...

    def edit(self, object_type: str, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """A human's edit; returns the record's fields. Raises ValueError with a sentence."""
        ...

    def retire_choice(self, object_type: str, field: str, value: str) -> None:
        """An admin takes a value out of a picklist: from now on it is refused. Raises ValueError with a sentence."""
        ...

    def restore_choices(self) -> None:
        """All that were taken out are values again."""
        ...


class _Rule(Rule):
    """A route that is only matched. Werkzeug (3.1, 2026-11) compiles for each what builds its address, two functions
    that no simulator calls: three quarters of the time that making one took."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: ARG002
        return _builds_no_address


def _builds_no_address(rule: Rule, **_values: object) -> tuple[str, str]:
    raise RuntimeError(f"a simulator builds no addresses; {rule.rule} was asked for one")


class Api(Flask):
    """A simulator's application, which is made anew for each test and each demo."""

    url_rule_class = _Rule


class Traffic:
    """Counts calls by "METHOD path-template" and new connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self.connections = 0

    def count(self, call: str) -> None:
        with self._lock:
            self._calls[call] += 1

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def calls(self) -> dict[str, int]:
        with self._lock:
            return dict(self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
            self.connections = 0


class _Gateway(wsgi.Gateway_10):
    """Cheroot's WSGI gateway, with the socket for faults that break the connection."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ["crm_sync.socket"] = self.req.conn.socket
        if not getattr(self.req.conn, "crm_sync_counted", False):
            self.req.conn.crm_sync_counted = True
            environ["crm_sync.new_connection"] = True
        return environ


class _Connection(HTTPConnection):
    """Cheroot's connection; one that a fault has reset already is closed without a second shutdown."""

    def _close_kernel_socket(self) -> None:
        with suppress(OSError):
            super()._close_kernel_socket()  # type: ignore[misc]


class Server:
    """One simulator on one loopback port (0: a free one)."""

    def __init__(self, app: Flask, port: int = 0, host: str = "127.0.0.1") -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the sandbox listens on loopback only, not on {host}")
        self._app = app
        self._server = wsgi.Server((host, port), app, numthreads=24, server_name="sandbox", timeout=60)
        self._server.gateway = _Gateway
        self._server.error_log = lambda *_args, **_more: None  # type: ignore[method-assign]
        self._server.ConnectionClass = _Connection
        self._server.nodelay = True
        self._server.prepare()
        self.port: int = self._server.bind_addr[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve, name=f"sandbox-{self.port}", daemon=True)

    def serve(self, app: Flask) -> None:
        """Another application from the next request on; connections stay open."""
        self._app = app
        self._server.wsgi_app = app

    def start(self) -> Server:
        self._thread.start()
        return self

    def stop(self) -> None:
        # First what an application does by itself, beside its answers.
        for stop in self._app.extensions.get("at_stop", ()):
            stop()
        ending = threading.Thread(target=self._server.stop, name=f"sandbox-{self.port}-end", daemon=True)
        ending.start()
        # Cheroot's loop notices at the next thing that arrives, else after half a second (11.1, 2026-11): a connection
        # is one. The address is ours until the loop has ended.
        while self._thread.is_alive() and ending.is_alive():
            with suppress(OSError):
                socket.create_connection(self._server.bind_addr, timeout=1).close()
            self._thread.join(timeout=0.01)
        ending.join()


def control(
    app: Flask,
    simulator: Simulator,
    faults: Faults,
    *,
    edits: Edits | None = None,
    latency_s: Callable[[], float] | None = None,
) -> Traffic:
    """Add the /_sandbox controls and put counting, latency, edits and faults in front of `app`. `edits`: the script to
    use, where somebody else wants to hold it too."""
    traffic = Traffic()
    edits = edits or Edits(simulator.edit)

    @app.get("/_sandbox/calls", endpoint="_sandbox_1")
    def calls() -> Response:
        return _json(traffic.calls())

    @app.delete("/_sandbox/calls", endpoint="_sandbox_2")
    def forget_calls() -> Response:
        traffic.clear()
        return _json({})

    @app.get("/_sandbox/state", endpoint="_sandbox_3")
    def state() -> Response:
        return _json({**simulator.state(), "connections": traffic.connections})

    @app.post("/_sandbox/records/<object_type>/<record_id>", endpoint="_sandbox_4")
    def edit(object_type: str, record_id: str) -> Response:
        fields = request.get_json(force=True, silent=True)
        if not isinstance(fields, dict):
            return _json({"error": "send a JSON object of fields"}, 400)
        try:
            return _json(simulator.edit(object_type, record_id, fields))
        except ValueError as error:
            return _json({"error": str(error)}, 400)

    @app.get("/_sandbox/records/<object_type>/<record_id>", endpoint="_sandbox_5")
    def look(object_type: str, record_id: str) -> Response:
        try:
            return _json(simulator.edit(object_type, record_id, {}))
        except ValueError as error:
            return _json({"error": str(error)}, 404)

    @app.get("/_sandbox/faults", endpoint="_sandbox_6")
    def listed() -> Response:
        return _json(faults.listed())

    @app.post("/_sandbox/faults", endpoint="_sandbox_7")
    def script() -> Response:
        try:
            faults.add(request.get_json(force=True, silent=True))
        except (ValueError, TypeError) as error:
            return _json({"error": str(error)}, 400)
        return _json(faults.listed())

    @app.delete("/_sandbox/faults", endpoint="_sandbox_8")
    def forget_faults() -> Response:
        faults.clear()
        return _json([])

    @app.post("/_sandbox/choices/<object_type>/<field>", endpoint="_sandbox_12")
    def retire(object_type: str, field: str) -> Response:
        asked = request.get_json(force=True, silent=True)
        value = asked.get("retire") if isinstance(asked, dict) else None
        if not isinstance(value, str):
            return _json({"error": 'send {"retire": value}'}, 400)
        try:
            simulator.retire_choice(object_type, field, value)
        except (ValueError, AttributeError) as error:
            return _json({"error": str(error)}, 400)
        return _json({})

    @app.delete("/_sandbox/choices", endpoint="_sandbox_13")
    def restore() -> Response:
        try:
            simulator.restore_choices()
        except AttributeError as error:
            return _json({"error": str(error)}, 400)
        return _json({})

    @app.get("/_sandbox/edits", endpoint="_sandbox_9")
    def listed_edits() -> Response:
        return _json(edits.listed())

    @app.post("/_sandbox/edits", endpoint="_sandbox_10")
    def script_edits() -> Response:
        try:
            edits.add(request.get_json(force=True, silent=True))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(edits.listed())

    @app.delete("/_sandbox/edits", endpoint="_sandbox_11")
    def forget_edits() -> Response:
        edits.clear()
        return _json([])

    app.wsgi_app = _Door(app, traffic, faults, edits, latency_s)  # type: ignore[method-assign]
    return traffic


class _Door:
    """WSGI around the app: counts the call, waits, and lets the scripts have their way.

    An edit comes before or after the call's effect, and after means: before the caller learns of it. A call that a
    fault keeps from its effect has a before and an after all the same.
    """

    def __init__(
        self, app: Flask, traffic: Traffic, faults: Faults, edits: Edits, latency_s: Callable[[], float] | None
    ) -> None:
        self._app = app
        self._inner = app.wsgi_app
        self._traffic = traffic
        self._faults = faults
        self._edits = edits
        self._latency_s = latency_s

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.pop("crm_sync.new_connection", False):
            self._traffic.connected()
        if environ["PATH_INFO"].startswith(_CONTROL):
            return self._inner(environ, start_response)
        call = self._template(environ)
        self._traffic.count(call)
        if self._latency_s is not None:
            time.sleep(self._latency_s())
        edits = self._edits.take(call)
        self._edits.make(edits, "before")
        fault = self._faults.take(call)
        if fault is None:
            chunks = self._inner(environ, start_response)
            self._edits.make(edits, "after")
            return chunks
        # What the caller sends is read in any case: a service does not break off in the middle of a request.
        answer = None
        if fault.when == "after" or fault.what == "slow":
            answer = self._answer(environ)
        elif environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self._edits.make(edits, "after")
        status, headers, body = self._faults.spoil(fault, call, answer, environ.get("crm_sync.socket"))
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        kept: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[..., None]:
            kept[:] = [status, headers]
            return lambda _data: None

        chunks = self._inner(environ, start_response)
        try:
            body = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        return kept[0], list(kept[1]), body

    def _template(self, environ: dict[str, Any]) -> str:
        method = environ["REQUEST_METHOD"]
        try:
            rule, _ = self._app.url_map.bind_to_environ(environ).match(return_rule=True)
        except (RequestRedirect, MethodNotAllowed, HTTPException):
            return f"{method} (unknown)"
        return f"{method} {rule.rule}"


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), status, mimetype="application/json")
