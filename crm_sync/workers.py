"""How work that waits is executed: queued runs, by any number of processes; deliveries and polls, by one at a time.

The only module that knows the distributed engine, Dramatiq.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

from crm_sync.complaints import Complaints
from crm_sync.domain.runs import SyncRun
from crm_sync.errors import ConfigError, CrmSyncError, TransientError
from crm_sync.pipeline.recover import PAUSED, recover_everywhere
from crm_sync.pipeline.resolve import Resolver
from crm_sync.pipeline.run import run_queued
from crm_sync.pipeline.sharing import help_out
from crm_sync.pipeline.walk import Stop
from crm_sync.services import Services
from crm_sync.store.exclusive import Exclusive

_log = logging.getLogger(__name__)

#: How soon a delivery that came meanwhile is seen: one look at an index.
_LOOK_EVERY_S = 0.5
#: How soon a run that was queued meanwhile is seen: one look at an index.
_LOOK_FOR_RUNS_EVERY_S = 1.0
#: … and where a broker tells of it, one whose hint was lost.
_LOOK_WITHOUT_A_HINT_EVERY_S = 5.0
_STOP_LISTENING_MS = 60_000
#: A broker that takes longer is away: a run does not wait for it.
_BROKER_TAKES_S = 5.0
#: More are not worth keeping: whoever is free has heard of the work.
_HINTS_THAT_WAIT = 100
BROKER_SETTING = "CRM_SYNC_BROKER_URL"
_AWAY = (
    f"the broker of {BROKER_SETTING} is away: start it, or correct the address; until then workers look for work by "
    "themselves every few seconds"
)
#: How often orders are looked at; the soonest of their times is two minutes.
_SWEEP_EVERY_S = 5.0
#: Another process has the lock, or the database does not answer.
_TRY_AGAIN_S = 2.0
#: An order without Apollo's answer for so long was asked by a process that has died: no call takes longer.
_LOST_AFTER = timedelta(seconds=90)


class Hints:
    """Word that there is something to do, from process to process, by Dramatiq over Redis or RabbitMQ.

    The database says what there is (store/run_queue.py, store/shares.py): a hint that is lost is made up for by the
    next look, and of one that comes twice the second finds nothing. So none is kept, retried or looked into.
    """

    def __init__(self, url: str, *, name: str) -> None:
        """`name` tells this installation from others that use the same broker.

        Raises:
            ConfigError: the address is none, or the libraries are not installed.
        """
        for library in ("dramatiq", "pika"):  # a broker that is away is told of once, by us
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        self._queue = f"crm-sync-{name}"
        self._broker = _broker(url)
        self._complaints = Complaints(_log, "hints")
        self._look: Callable[[], None] = _deaf
        self._actor = self._message()
        self._given: queue.Queue[str] = queue.Queue(maxsize=_HINTS_THAT_WAIT)
        self._sending: threading.Thread | None = None
        self._begun = threading.Lock()

    def give(self) -> None:
        """Tell one worker that is free. Never raises, and never waits for the broker: a free one looks by itself a
        little later."""
        with self._begun:
            if self._sending is None:
                self._sending = threading.Thread(target=self._send, name="hints", daemon=True)
                self._sending.start()
        with suppress(queue.Full):
            self._given.put_nowait("look")

    def _send(self) -> None:
        """One thread for all of a process: each that speaks to RabbitMQ has a connection, which outlives it."""
        while self._given.get():
            try:
                self._actor.send()
            except Exception as error:  # noqa: BLE001 - whatever the broker's library raises
                self._complaints.tell(f"{_AWAY} ({type(error).__name__})")
            else:
                self._complaints.over()

    @contextmanager
    def listening(self, look: Callable[[], None]) -> Iterator[None]:
        """Call `look`, one at a time, for each hint that comes."""
        from dramatiq import Worker

        self._look = look
        worker = Worker(self._broker, worker_threads=1)
        worker.queue_prefetch = 1  # what is fetched while this process is busy is a hint that nobody else hears
        worker.start()
        try:
            yield
        finally:
            worker.stop(timeout=_STOP_LISTENING_MS)

    def look_after(self) -> None:
        """Tell, once, of a broker that is away. Never raises."""
        try:
            self.check()
        except TransientError as error:
            self._complaints.tell(str(error))
        else:
            self._complaints.over()

    def check(self) -> None:
        """
        Raises:
            TransientError: the broker does not answer, or refuses us.
        """
        try:
            if (redis := getattr(self._broker, "client", None)) is not None:
                redis.ping()
            else:
                self._speak()
        except Exception as error:  # noqa: BLE001 - whatever the broker's library raises
            told = f"{_AWAY} ({type(error).__name__})"
            raise TransientError(told, provider="broker", operation="connect") from None

    def _speak(self) -> None:
        """With RabbitMQ, on this thread's connection: one on which nobody has spoken for a minute was closed by it."""
        connection = self._broker.connection
        try:
            connection.process_data_events(time_limit=0)
        except Exception:  # noqa: BLE001 - whatever the broker's library raises
            del self._broker.connection
            self._broker.connection  # noqa: B018 - opens it

    def close(self) -> None:
        """What was given is sent first, where the broker takes it in time."""
        if self._sending is not None:
            with suppress(queue.Full):  # nobody takes them
                self._given.put_nowait("")
                self._sending.join(timeout=_BROKER_TAKES_S)
        self._broker.close()

    def _message(self) -> Any:
        from dramatiq import actor

        def look() -> None:
            self._look()

        return actor(actor_name="look", queue_name=self._queue, broker=self._broker)(look)


def _deaf() -> None:
    """A hint that came to a process which does not listen."""


def _broker(url: str) -> Any:
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis", "rediss"):
            from dramatiq.brokers.redis import RedisBroker
            from redis import Redis

            client = Redis.from_url(url, socket_timeout=_BROKER_TAKES_S, socket_connect_timeout=_BROKER_TAKES_S)
            return RedisBroker(client=client, middleware=[])  # type: ignore[no-untyped-call]
        if scheme in ("amqp", "amqps"):
            from dramatiq.brokers.rabbitmq import RabbitmqBroker

            return RabbitmqBroker(url=url, middleware=[])
    except ImportError:
        raise ConfigError(
            f"{BROKER_SETTING} is set and its libraries are not installed: pip install 'crm-sync[broker]'"
        ) from None
    except ValueError:
        raise ConfigError(f"{BROKER_SETTING} is no address that can be used; write redis://HOST:6379/0") from None
    raise ConfigError(f"{BROKER_SETTING} begins with none of redis://, rediss://, amqp:// and amqps://")


class RunWorker:
    """Walks queued runs, one after the other, and takes part in those of others, until it is told to stop. Whatever
    goes wrong ends nothing."""

    def __init__(self, services: Callable[[], Services], hints: Hints | None = None) -> None:
        """`services` makes them for the newest applied configuration. `hints`: how it hears of work to do; None: it
        looks every second."""
        self._make_services = services
        self._hints = hints
        self._services: Services | None = None
        self._walking = Stop()
        self._turn = threading.Lock()
        self._complaints = Complaints(_log, "queued runs wait")

    def run(self, stop: threading.Event) -> None:
        every = _LOOK_FOR_RUNS_EVERY_S if self._hints is None else _LOOK_WITHOUT_A_HINT_EVERY_S
        with self._hints.listening(lambda: self._look(stop)) if self._hints is not None else nullcontext():
            while not stop.is_set():
                if self._hints is not None:
                    self._hints.look_after()
                self._look(stop)
                stop.wait(every)

    def _look(self, stop: threading.Event) -> None:
        """Do all that there is to do; one at a time, whoever says that there is something."""
        with self._turn:
            try:
                while self.once(stop) is not None or self.help(stop):
                    pass
                self._complaints.over()
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is still there, and so are we
                self._complaints.about(error)
                self._services = None
                stop.wait(_TRY_AGAIN_S)

    def once(self, stop: threading.Event) -> SyncRun | None:
        """Walk the run that waits longest, if one does.

        Raises:
            CrmSyncError: the database, or the configuration; what is queued stays so.
        """
        self._walking = Stop()
        if stop.is_set():
            return None
        ended = run_queued(self._current(), stop=self._walking)
        if ended is not None:
            _log.info(
                "%s of %s: %s%s", ended.id, ended.sync, ended.status, f" ({ended.reason})" if ended.reason else ""
            )
        return ended

    def help(self, stop: threading.Event) -> bool:
        """Take part in a run of another process, if there is one to be shared.

        Raises:
            CrmSyncError: as once; what it had taken is open again.
        """
        self._walking = Stop()
        if stop.is_set():
            return False
        services = self._current()
        share = help_out(services, stop=self._walking) if services.hint is not None else None
        if share is not None:
            _log.info("took part in %s as number %s", share.run_id, share.number)
        return share is not None

    def pause(self) -> None:
        """The process is to end: what is paid for is written, the rest of the run is queued for another one."""
        self._walking.pause(PAUSED)

    def _current(self) -> Services:
        if self._services is None or self._services.newest_version() != self._services.config_version:
            self._services = self._make_services()
        return self._services


class PhoneWorker:
    """Carries out what is delivered until it is told to stop. Whatever goes wrong is told, and ends nothing."""

    def __init__(self, services: Callable[[], Services], lock: Exclusive) -> None:
        """`services` makes them for the newest applied configuration."""
        self._services = services
        self._lock = lock
        self._resolver: Resolver | None = None
        self._complaints = Complaints(_log, "deliveries wait")
        #: Runs of this process, or of the one before it, may have been left without an end.
        self._is_new = True

    def run(self, stop: threading.Event) -> None:
        swept_at = -_SWEEP_EVERY_S
        while not stop.is_set():
            pause = _LOOK_EVERY_S
            try:
                if self._lock.take():
                    is_time = time.monotonic() - swept_at >= _SWEEP_EVERY_S
                    if is_time:
                        swept_at = time.monotonic()
                    pause = 0.0 if self.once(sweep=is_time) else _LOOK_EVERY_S
                    self._complaints.over()
                else:
                    pause = _TRY_AGAIN_S
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is still there, and so are we
                self._complaints.about(error)
                self._forget()
                pause = _TRY_AGAIN_S
            if pause:
                stop.wait(pause)
        self.close()

    def until_idle(self, stop: threading.Event) -> None:
        """Carry out what is there, unless another process does."""
        try:
            if self._lock.take():
                busy = self.once(sweep=True)
                while busy and not stop.is_set():
                    busy = self.once(sweep=False)
        finally:
            self.close()

    def once(self, *, sweep: bool) -> bool:
        """One look at what waits; True when there was something.

        Raises:
            CrmSyncError: the database, the configuration or Apollo's settings; nothing is lost.
        """
        resolver = self._current()
        services = resolver.services
        busy = False
        if sweep:
            self._recover(services)
            busy = resolver.sweep().did_something
            services.reveals.finish_runs()
            resolver.runs.close_quiet()
        return resolver.drain().did_something or busy

    def _recover(self, services: Services) -> None:
        """Close what a dead process left behind, at the beginning and where an order waits for Apollo's answer. A CRM
        that cannot be asked keeps its runs open, and nobody from getting numbers."""
        if not self._is_new and not services.reveals.unanswered(before=services.clock.now() - _LOST_AFTER):
            return
        self._is_new = False
        for problem in recover_everywhere(services):
            _log.warning("%s", problem)

    def close(self) -> None:
        """End the runs under way; what waits is carried out by the next one who has the lock."""
        try:
            if self._resolver is not None:
                self._resolver.runs.close_quiet(all_of_them=True)
        except CrmSyncError as error:
            _log.warning("the phones' run could not be closed: %s; the next run closes it", error)
        self._resolver = None
        self._lock.release()

    def _current(self) -> Resolver:
        """A resolver for the newest configuration."""
        if self._resolver is not None and self._resolver.services.config_version == self._newest():
            return self._resolver
        if self._resolver is not None:
            self._resolver.runs.close_quiet(all_of_them=True)
        self._resolver = Resolver(self._services())
        return self._resolver

    def _newest(self) -> int | None:
        assert self._resolver is not None
        return self._resolver.services.newest_version()

    def _forget(self) -> None:
        """What failed may be in any state: the next try begins anew, and recovers the run that was under way."""
        resolver, self._resolver = self._resolver, None
        if resolver is not None:
            resolver.runs.abandon()
        self._is_new = True
