"""Carries what was revealed to the receiver: when its time comes, again when it was not taken, or as a script says."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import requests

_CHUNK = 512
_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a callback left. `failure`: why it counts as not taken, None when it was."""

    at: str
    failure: str | None


@dataclass(slots=True, kw_only=True)
class Order:
    """One call that started reveals: its `people` by Apollo's ids, and `what` becomes of its callback, "" for nothing
    special.

    `ordered_at` by the simulator's clock, `due` by time.monotonic. `unpaid`: for whose mobile the credits did not do.
    `edition`: how often the body was changed before it was sent last.
    """

    number: int
    request_id: int
    url: str
    people: tuple[str, ...]
    what: str
    seconds: float
    ordered: str
    ordered_at: float
    due: float
    is_finished: bool = False
    finished: str = ""
    unpaid: frozenset[str] = frozenset()
    credits: int = 0
    edition: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def is_delivered(self) -> bool:
        return any(attempt.failure is None for attempt in self.attempts)


class Pool:
    """Does jobs when their time comes, in a few daemon threads that begin with the first job."""

    def __init__(self, threads: int = 4) -> None:
        self._most = threads
        self._changed = threading.Condition()
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def at(self, when: float, job: Callable[[], None]) -> None:
        """`when` by time.monotonic. After close() it is not done any more."""
        with self._changed:
            if self._is_closed:
                return
            heapq.heappush(self._jobs, (when, next(self._numbers), job))
            if len(self._threads) < self._most:
                name = f"sandbox-callbacks-{len(self._threads) + 1}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()

    def close(self) -> None:
        """What has not begun is not done; waits a little for what has."""
        with self._changed:
            self._is_closed = True
            self._jobs.clear()
            self._changed.notify_all()
        until = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0.0))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._is_closed:
                wait = self._jobs[0][0] - time.monotonic() if self._jobs else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._jobs)[2]
                self._changed.wait(wait)
            return None


class Courier:
    """Sends the callbacks. `body` is an order's as it stands, `finish` ends its reveals.

    Apollo "may retry" and publishes neither how often nor when (contracts/apollo.md 3): each body is tried `tries`
    times, with `spacing_s` in between, of which the last one is repeated. Anything but a 2xx counts as not taken.
    """

    def __init__(
        self,
        *,
        body: Callable[[Order], bytes],
        finish: Callable[[Order], None],
        tries: int,
        spacing_s: Sequence[float],
        timeout_s: float,
    ) -> None:
        if tries < 1 or not spacing_s:
            raise ValueError("a callback is tried at least once, and there is a time between two tries")
        self._body, self._finish = body, finish
        self._tries, self._spacing_s, self._timeout_s = tries, tuple(spacing_s), timeout_s
        self._pool = Pool()
        self._lock = threading.Lock()
        self._held: list[Order] = []
        self._sent = 0  # the latest order whose callback was sent

    def expect(self, order: Order) -> None:
        """The order's callback leaves when its reveals have finished, unless its script says otherwise."""
        self._pool.at(order.due, lambda: self._end(order))

    def deliver_now(self, order: Order) -> None:
        """Before this returns it was sent once."""
        self._finish(order)
        self._send(order)

    def close(self) -> None:
        self._pool.close()

    def held(self) -> int:
        """How many wait for a later order's callback."""
        return len(self._held)

    def _end(self, order: Order) -> None:
        self._finish(order)
        if order.what == "never":
            return
        if order.what == "failed":
            order.attempts.append(Attempt(utc(), "sandbox: the webhook URL could not be reached"))
        elif order.what == "late":
            self._pool.at(time.monotonic() + order.seconds, lambda: self._send(order))
        elif order.what != "reversed" or not self._hold(order):
            self._send(order)

    def _hold(self, order: Order) -> bool:
        """False when a later order's callback was sent already."""
        with self._lock:
            if self._sent > order.number:
                return False
            self._held.append(order)
            return True

    def _send(self, order: Order, *, copy: int = 0, attempt: int = 0) -> None:
        if copy and order.what == "changed":
            order.edition = copy
        failure = self._post(order)
        order.attempts.append(Attempt(utc(), failure))
        if failure is None:
            if copy == 0 and order.what in ("double", "changed"):
                self._send(order, copy=1)
        elif attempt + 1 < self._tries:
            wait = self._spacing_s[min(attempt, len(self._spacing_s) - 1)]
            self._pool.at(time.monotonic() + wait, lambda: self._send(order, copy=copy, attempt=attempt + 1))
        self._release(order)

    def _release(self, sent: Order) -> None:
        """Those that were held until a later one was sent."""
        with self._lock:
            self._sent = max(self._sent, sent.number)
            free = [order for order in self._held if order.number < sent.number]
            self._held = [order for order in self._held if order.number >= sent.number]
        for order in free:
            self._pool.at(time.monotonic(), lambda order=order: self._send(order))  # type: ignore[misc]

    def _post(self, order: Order) -> str | None:
        """Why it was not taken, None when it was."""
        body = self._body(order)
        headers = {"Content-Type": "application/json", "User-Agent": "sandbox-apollo"}
        try:
            with requests.Session() as session:
                # A proxy of this machine's environment would take it elsewhere.
                session.trust_env = False
                with session.post(
                    order.url,
                    data=_chunks(body) if order.what == "chunked" else body,
                    headers=headers,
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    status = answer.status_code
        except requests.Timeout:
            return f"no answer within {self._timeout_s:g} s"
        except (requests.RequestException, OSError, ValueError) as error:
            return f"the request failed: {type(error).__name__}"
        return None if 200 <= status < 300 else f"the webhook answered {status}"


def utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _chunks(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), _CHUNK):
        yield body[begin : begin + _CHUNK]
