"""Each long-lived process shows that it is at work, and looks whether the others and the database are as they must be.

What is wrong is said once on the log and stops nothing: `crm-sync doctor` says the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from crm_sync.complaints import Complaints
from crm_sync.domain.processes import Process, said_of
from crm_sync.errors import CrmSyncError
from crm_sync.store.processes import Processes
from crm_sync.store.speed import SLOW, Speed, is_slow, is_well

_log = logging.getLogger(__name__)

BEAT_S = 30.0
ONE_OF_A_KIND = "Give all processes of one database the same version and the same settings, and restart them"
NEAR_AND_IDLE = "Runs take longer and nothing is lost; put the database near crm-sync, or look at its load and its disk"


class Presence:
    """`once` is one sign of life; `run` gives one now and then until it is told to stop. Not for several threads."""

    def __init__(
        self,
        me: Callable[[], Process],
        processes: Callable[[], Processes],
        *,
        measure: Callable[[], Speed],
    ) -> None:
        """`me`: this process as it is now; `measure` asks the database. Both may raise a CrmSyncError."""
        self._me = me
        self._processes = processes
        self._measure = measure
        self._complaints = Complaints(_log, "this process does not show that it is at work")
        self._others = Complaints(_log, "")
        self._is_slow = False
        self._noted: str | None = None

    def run(self, stop: threading.Event, *, every_s: float = BEAT_S) -> None:
        """Whatever goes wrong is logged once, and ends nothing."""
        while not stop.is_set():
            try:
                self.once()
                self._complaints.over()
            except Exception as error:  # noqa: BLE001 - the next sign may be given
                self._complaints.about(error)
            stop.wait(every_s)
        self.leave()

    def once(self) -> None:
        """
        Raises:
            CrmSyncError: the database cannot be used, or a setting.
        """
        self._look_at_speed()
        me = self._me()
        self._processes().seen(me)
        self._noted = me.id
        different = [said for other in self._processes().alive(now=me.seen_at) if (said := said_of(me, other))]
        for said in different:
            self._others.tell(f"{said}. {ONE_OF_A_KIND}")
        if not different:
            self._others.over()

    def leave(self) -> None:
        """A clean end: it is not counted any more."""
        if self._noted is None:
            return
        try:
            self._processes().gone(self._noted)
        except CrmSyncError as error:
            _log.info("that this process has ended could not be noted: %s", error)
        self._noted = None

    def _look_at_speed(self) -> None:
        speed = self._measure()
        if not self._is_slow and is_slow(speed):
            self._is_slow = True
            _log.warning("the database answers slowly: %s (limits: %s). %s", speed.shown, SLOW.shown, NEAR_AND_IDLE)
        elif self._is_slow and is_well(speed):
            self._is_slow = False
            _log.info("the database answers well again: %s", speed.shown)
