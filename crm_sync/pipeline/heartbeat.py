"""The signs of life of a run, and of a worker's share in one, however long the CRM takes for a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crm_sync.errors import CrmSyncError, LostRunError
from crm_sync.pipeline.walk import Stop

#: How often a running run shows that it is alive; see recover.silent_for.
BEAT_S = 10.0


@contextmanager
def alive(beat: Callable[[], None], stop: Stop | None) -> Iterator[None]:
    """`beat` while it is at work; `stop` is raised where another process has taken it over."""
    ended = threading.Event()

    def beating() -> None:
        while not ended.wait(BEAT_S):
            try:
                beat()
            except LostRunError as error:
                if stop is not None:
                    stop.raise_(str(error), error)
                return
            except CrmSyncError:
                continue  # the database is away; the walk itself meets that too

    thread = threading.Thread(target=beating, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
