"""A process that calls as fast as the shared pace lets it: arguments are database URL, port, threads, seconds.

A call is one byte there and one byte back over its thread's connection. Prints its CPU milliseconds per call.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from datetime import UTC, datetime

from crm_sync.store.engine import Store
from crm_sync.store.pace import StorePace

ENDPOINT = "people/bulk_match"
CALL_TIMEOUT_S = 1.0


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))


def main(url: str, port: int, threads: int, seconds: float) -> None:
    pace = StorePace(Store(url), clock=SystemClock(), call_timeout_s=CALL_TIMEOUT_S)
    ends = time.monotonic() + seconds
    calls = [0] * threads

    def work(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < ends:
                ticket = pace.acquire(ENDPOINT)
                try:
                    peer.sendall(b"?")
                    if not peer.recv(1):
                        return
                finally:
                    ticket.answered()
                calls[number] += 1

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pace.close()
    print(1000 * time.process_time() / max(1, sum(calls)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
