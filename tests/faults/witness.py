"""The sandbox in a process of its own, and the witness in it: every paid request that reached Apollo, and its answer."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
#: Reveals take until they are told to be done, so that no story depends on time.
_UNTIL_TOLD_S = 3600.0
#: How often a callback is tried, and how long after each other: whoever is started again meanwhile gets one.
TRIES, _SPACING_S = 3, (0.1, 0.3)

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
class Sold:
    """One call that started reveals. `order_id`: what it is delivered under; `taken`: the SHA-256 of each body that was
    answered with a 200; `called` and `credits`: what the call itself and its numbers have cost; `is_sent`: whether its
    callback was tried; `refused`: how often somebody answered it otherwise."""

    order_id: str
    request_id: str
    taken: tuple[bytes, ...]
    called: int
    credits: int
    is_sent: bool
    refused: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the services hold: edits by object and record, credits by Apollo id, all paid answers, writing calls, and
    every (object, number, field) that ever got two different values; `story`: all values that each of them got, in
    order; `phones`: Apollo's own word about reveals, and its `orders`."""

    touched: dict[str, dict[str, dict[str, Any]]]
    charged: dict[str, int]
    answers: tuple[Answer, ...]
    writes: int
    overwritten: tuple[tuple[str, int, str], ...]
    story: dict[tuple[str, int, str], tuple[str, ...]]
    phones: dict[str, Any]
    orders: tuple[Sold, ...]


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

    def script(self, callbacks: Iterable[Mapping[str, Any]]) -> None:
        """What becomes of the callbacks of the orders to come (crm_sync/sandbox/apollo/callbacks.py)."""
        self._ask("script", list(callbacks))

    def deliver(self) -> None:
        """All reveals that were ordered so far are done now, one after the other, and their callbacks leave."""
        self._ask("deliver")

    def wait_for_callbacks(self) -> None:
        """Until each of them was taken or given up."""
        self._ask("callbacks")

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
    reveals = {"reveal_delay_s": _UNTIL_TOLD_S, "callback_tries": TRIES, "callback_spacing_s": _SPACING_S}
    with Sandbox(contacts=CONTACTS, seed=SEED, unlimited=True, per_minute=None, apollo_options=reveals) as sandbox:
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
        told.update(crm=crm, witness=witness, values={}, bodies={})
        _watch_callbacks(app.extensions["simulator"]._reveals, told["bodies"])
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
    if verb == "script":
        sandbox.apps["apollo"].extensions["callbacks"].add(rest[0])
        return None
    if verb in ("deliver", "callbacks"):
        reveals = sandbox.apps["apollo"].extensions["simulator"]._reveals
        (_deliver if verb == "deliver" else _wait_for_callbacks)(reveals)
        return None
    if verb == "silence":
        before: list[dict[str, int]] = []
        while before != (now := [traffic.calls() for traffic in sandbox.traffic.values()]):
            before = now
            time.sleep(_SILENCE_S)
        return None
    assert verb == "report"
    _quiet(sandbox)
    state = sandbox.apps[told["crm"]].extensions["simulator"].state()
    apollo = sandbox.apps["apollo"].extensions["simulator"]
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
        phones=apollo.state()["phones"],
        orders=tuple(_sold(apollo._reveals, told["bodies"])),
    )


def _deliver(reveals: Any) -> None:
    """One after the other; who is held back until a later one was sent comes right after it."""
    for order in list(reveals._orders.values()):
        if not order.is_finished:
            reveals._courier._end(order)
            _wait_for_callbacks(reveals, tries=1)


def _wait_for_callbacks(reveals: Any, tries: int = TRIES) -> None:
    deadline = time.monotonic() + LIMIT_S
    while any(
        not order.is_delivered and len(order.attempts) < tries
        for order in list(reveals._orders.values())
        if order.is_finished and order.what not in _NOT_SENT and order not in reveals._courier._held
    ):
        if time.monotonic() > deadline:
            raise TimeoutError("the callbacks do not come to rest")
        time.sleep(0.002)


#: Nobody tries to deliver these.
_NOT_SENT = ("never", "failed")


def _sold(reveals: Any, bodies: Mapping[int, list[bytes]]) -> Iterator[Sold]:
    called = {answer.request_id: answer.credits for answer in reveals._ledger.answered}
    for order in reveals._orders.values():
        yield Sold(
            order_id=order.url.rpartition("/")[2].split("_")[2],
            request_id=str(order.request_id),
            taken=tuple(bodies.get(order.number, ())),
            called=called[str(order.request_id)],
            credits=order.credits,
            is_sent=bool(order.attempts) and order.what not in _NOT_SENT,
            refused=sum((attempt.failure or "").startswith("the webhook answered") for attempt in order.attempts),
        )


def _watch_callbacks(reveals: Any, bodies: dict[int, list[bytes]]) -> None:
    """Keep a digest of what was taken."""
    courier, build = reveals._courier, reveals._courier._body
    sent: dict[int, bytes] = {}

    def built(order: Any) -> bytes:
        body: bytes = build(order)
        sent[order.number] = hashlib.sha256(body).digest()
        return body

    post = courier._post

    def posted(order: Any) -> str | None:
        failure: str | None = post(order)
        if failure is None:
            bodies.setdefault(order.number, []).append(sent[order.number])
        return failure

    courier._body, courier._post = built, posted


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
