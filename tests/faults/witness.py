"""The sandbox in a process of its own, and the witness in it: every paid request that reached Apollo, and its answer."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from crm_sync.sandbox.run import Sandbox
from tests.faults.forks import LIMIT_S, Child
from tests.faults.office import _STAMPS, twice_a_company

#: Among these 35 contacts and 5 companies are people Apollo does not know, an echo, namesakes and duplicates, a company
#: with two domains and one Apollo does not know.
SEED, CONTACTS = 5840, 35

_SILENCE_S = 0.4

PAID = ("people/bulk_match", "people/match", "organizations/bulk_enrich", "organizations/enrich")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One paid request that reached Apollo, and what Apollo answered before any fault spoilt it. `charged`: whom."""

    endpoint: str
    query: str
    request: bytes
    status: int
    body: bytes
    charged: tuple[str, ...]

    @property
    def question(self) -> tuple[str, str, bytes]:
        return self.endpoint, self.query, self.request


class Witness:
    """Stands right before the simulator of Apollo, behind the faults. Calls pass one after the other, so that each
    one's charges can be told. `hold`: the n-th waits, its work not begun, until `let_go`."""

    def __init__(self, app: Any, charged: Counter[str]) -> None:
        self._app = app
        self._charged = charged
        self._turn = threading.Lock()
        self.answers: list[Answer] = []
        self.hold = 0
        self.let_go = threading.Event()
        self.under_way = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        endpoint = environ["PATH_INFO"].removeprefix("/api/v1/")
        if endpoint not in PAID:
            return self._app(environ, start_response)
        request = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = _Body(request)
        with self._turn:
            self.under_way += 1
            is_held = self.under_way == self.hold
        if is_held:
            self.let_go.wait(LIMIT_S)
        kept: list[Any] = []

        def keep(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
            kept[:] = [status, headers]
            return lambda _: None

        with self._turn:
            before = Counter(self._charged)
            body = b"".join(self._app(environ, keep))
            self.answers.append(
                Answer(
                    endpoint=endpoint,
                    query=environ.get("QUERY_STRING", ""),
                    request=request,
                    status=int(kept[0].split()[0]),
                    body=body,
                    charged=tuple((self._charged - before).elements()),
                )
            )
        start_response(*kept)
        return [body]


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes:
        size = len(self._content) if size < 0 else size
        piece, self._content = self._content[:size], self._content[size:]
        return piece


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the services hold: edits by object and record, credits by Apollo id, all paid answers, writing calls, and
    every (object, number, field) that ever got two different values; `story`: all values that each of them got, in
    order."""

    touched: dict[str, dict[str, dict[str, Any]]]
    charged: dict[str, int]
    answers: tuple[Answer, ...]
    writes: int
    overwritten: tuple[tuple[str, int, str], ...]
    story: dict[tuple[str, int, str], tuple[str, ...]]


@dataclass
class SandboxProcess:
    """The sandbox in a process of its own, told what to do through a socket."""

    pid: int
    _wire: socket.socket
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, output: Path) -> SandboxProcess:
        ours, theirs = socket.socketpair()

        def serve() -> int:
            ours.close()
            _serve(theirs)
            return 0

        child = Child.fork(serve, output)
        theirs.close()
        made = cls(child.pid, ours)
        made.settings = made._ask("settings")
        return made

    def renew(
        self,
        crm: str,
        script: Iterable[tuple[str, Mapping[str, Any]]] = (),
        *,
        hold: int = 0,
        twice_a_company: bool = True,
    ) -> None:
        """Both services as new; `script`: (service, fault), "" for the CRM. `hold`: see Witness."""
        self._ask("renew", crm, tuple(script), hold, twice_a_company)

    def heal(self) -> None:
        """No more faults; what was held goes on."""
        self._ask("heal")

    def blank(self, object_type: str, record_id: str, fields: Iterable[str]) -> None:
        self._ask("blank", object_type, record_id, tuple(fields))

    def edit(self, object_type: str, record_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """As a colleague does; the record whole, also without any fields."""
        return self._ask("edit", object_type, record_id, dict(fields))

    def edit_later(self, script: Iterable[Mapping[str, Any]]) -> None:
        """Edits that come with calls to the CRM (crm_sync/sandbox/edits.py)."""
        self._ask("edits", list(script))

    def wait_for_silence(self) -> None:
        """Until nobody has called for a while, though somebody may be connected."""
        self._ask("silence")

    def report(self) -> Report:
        """After all that is under way has ended."""
        return self._ask("report")

    def stop(self) -> None:
        self._wire.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _ask(self, *question: Any) -> Any:
        _send(self._wire, question)
        answer = _receive(self._wire)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(wire: socket.socket) -> None:
    with Sandbox(contacts=CONTACTS, seed=SEED, unlimited=True, per_minute=None) as sandbox:
        told: dict[str, Any] = {}
        while True:
            try:
                verb, *rest = _receive(wire)
            except EOFError:
                return
            try:
                answer = _do(sandbox, told, verb, *rest)
            except Exception as error:
                answer = error
            _send(wire, answer)


def _do(sandbox: Sandbox, told: dict[str, Any], verb: str, *rest: Any) -> Any:
    if verb == "settings":
        return sandbox.settings()
    if verb == "renew":
        crm, script, hold, twice = rest
        sandbox.renew("apollo", crm)
        if twice:
            twice_a_company(sandbox, crm)
        app = sandbox.apps["apollo"]
        door: Any = app.wsgi_app
        witness = door._inner = Witness(door._inner, app.extensions["ledger"].charged)
        witness.hold = hold
        told.update(crm=crm, witness=witness, values={})
        _watch_writes(sandbox.apps[crm].extensions["simulator"], told["values"])
        for service, fault in script:
            sandbox.faults[service or crm].add([fault])
        return None
    if verb == "heal":
        for faults in sandbox.faults.values():
            faults.clear()
        told["witness"].let_go.set()
        return None
    if verb == "blank":
        object_type, record_id, fields = rest
        simulator = sandbox.apps[told["crm"]].extensions["simulator"]
        return simulator.edit(object_type, record_id, dict.fromkeys(fields, "" if told["crm"] == "hubspot" else None))
    if verb == "edit":
        return sandbox.apps[told["crm"]].extensions["simulator"].edit(*rest)
    if verb == "edits":
        return sandbox.edits[told["crm"]].add(rest[0])
    if verb == "silence":
        before: list[dict[str, int]] = []
        while before != (now := [traffic.calls() for traffic in sandbox.traffic.values()]):
            before = now
            time.sleep(_SILENCE_S)
        return None
    assert verb == "report"
    _quiet(sandbox)
    state = sandbox.apps[told["crm"]].extensions["simulator"].state()
    return Report(
        touched={
            name: {key: {f: v for f, v in edits.items() if f not in _STAMPS} for key, edits in records.items()}
            for name, records in state["touched"].items()
        },
        charged=dict(sandbox.apps["apollo"].extensions["ledger"].charged),
        answers=tuple(told["witness"].answers),
        writes=sum(
            count
            for call, count in sandbox.traffic[told["crm"]].calls().items()
            if call.startswith("PATCH ") or call.endswith(("/composite", "/batch/update"))
        ),
        overwritten=tuple(sorted(key for key, values in told["values"].items() if len(set(values)) > 1)),
        story={key: tuple(values) for key, values in told["values"].items()},
    )


def _quiet(sandbox: Sandbox) -> None:
    """Wait until nobody is connected any more: what dead clients asked for has been worked off then."""
    ports = {server.port for server in sandbox.servers.values()}
    here = psutil.Process()
    deadline = time.monotonic() + LIMIT_S
    while any(c.laddr.port in ports and c.raddr for c in here.net_connections(kind="tcp4")):
        if time.monotonic() > deadline:
            raise TimeoutError("the sandbox does not come to rest")
        time.sleep(0.002)


def _watch_writes(simulator: Any, values: dict[tuple[str, int, str], list[str]]) -> None:
    """Keep every value that ever reached a record, also those a later write covered."""
    holders = [("", simulator._org)] if hasattr(simulator, "_org") else list(simulator._portal.tables.items())
    for table, holder in holders:
        holder.write = _watched(holder.write, table, values)


def _watched(write: Any, table: str, values: dict[tuple[str, int, str], list[str]]) -> Any:
    def watched(*arguments: Any, **named: Any) -> Any:
        *before, changes = arguments
        changes = list(changes)
        for index, fields in changes:
            for name, value in fields.items():
                values.setdefault((before[0] if before else table, index, name), []).append(repr(value))
        return write(*before, changes, **named)

    return watched


def _send(wire: socket.socket, value: Any) -> None:
    content = pickle.dumps(value)
    wire.sendall(struct.pack(">I", len(content)) + content)


def _receive(wire: socket.socket) -> Any:
    (size,) = struct.unpack(">I", _exactly(wire, 4))
    return pickle.loads(_exactly(wire, size))


def _exactly(wire: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        piece = wire.recv(size - len(parts))
        if not piece:
            raise EOFError
        parts += piece
    return bytes(parts)
