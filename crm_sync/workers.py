"""How work that waits is executed: queued runs, each by one of any number of processes; deliveries and polls, by one
process at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from crm_sync.complaints import Complaints
from crm_sync.domain.runs import SyncRun
from crm_sync.errors import CrmSyncError
from crm_sync.pipeline.recover import PAUSED, recover_everywhere
from crm_sync.pipeline.resolve import Resolver
from crm_sync.pipeline.run import run_queued
from crm_sync.pipeline.walk import Stop
from crm_sync.services import Services
from crm_sync.store.exclusive import Exclusive

_log = logging.getLogger(__name__)

#: How soon a delivery that came meanwhile is seen: one look at an index.
_LOOK_EVERY_S = 0.5
#: How soon a run that was queued meanwhile is seen: one look at an index.
_LOOK_FOR_RUNS_EVERY_S = 1.0
#: How often orders are looked at; the soonest of their times is two minutes.
_SWEEP_EVERY_S = 5.0
#: Another process has the lock, or the database does not answer.
_TRY_AGAIN_S = 2.0
#: An order without Apollo's answer for so long was asked by a process that has died: no call takes longer.
_LOST_AFTER = timedelta(seconds=90)


class RunWorker:
    """Walks queued runs, one after the other, until it is told to stop. Whatever goes wrong ends nothing."""

    def __init__(self, services: Callable[[], Services]) -> None:
        """`services` makes them for the newest applied configuration."""
        self._make_services = services
        self._services: Services | None = None
        self._walking = Stop()
        self._complaints = Complaints(_log, "queued runs wait")

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            pause = _LOOK_FOR_RUNS_EVERY_S
            try:
                if self.once(stop) is not None:
                    pause = 0.0
                self._complaints.over()
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is still there, and so are we
                self._complaints.about(error)
                self._services = None
                pause = _TRY_AGAIN_S
            if pause:
                stop.wait(pause)

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
