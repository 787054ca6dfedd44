"""How `crm-sync serve` puts the web application on a port: waitress, with settings that survive slow senders."""

from __future__ import annotations

import logging
import resource
import socket
import time
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server

from crm_sync.web.masking import mask_logs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: More wait for each other: 64 in one process took 0.15 of what 12 do (design/performance.md 1, 2026-11).
THREADS = 12
#: Above what the receiver counts itself, so that its own 413 notes the order; what is longer yet is not kept for it.
LARGEST_BODY = 512 << 10
#: 300 connections that send a byte now and then end a stock waitress, which takes 100 (design/reliability.md 3.1).
MOST_CONNECTIONS = 2000
#: Files that the database, the log and the threads have open beside the connections.
_OTHER_FILES = 100
_GRACE_S = 8.0  # docker stop kills after ten


class WebServer:
    """The application on a port, which is bound at once (0: a free one).

    `run` serves until `stop`, which may be called by another thread or by a signal's handler.
    """

    def __init__(
        self, app: WSGIApplication, *, host: str, port: int, threads: int = THREADS, trusted_proxies: int = 0
    ) -> None:
        """`trusted_proxies`: more than 0 where `app` itself reads X-Forwarded-… (create_app); else they are cut out.

        Raises:
            OSError: the port is taken, or not for us.
        """
        mask_logs()
        # It warns of each request that waits for a thread, which under load is nearly each.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        # Bound here: one that waitress cannot bind stays open, and so do the threads that it began before.
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = listening.getsockname()[1]
        self._sockets: dict[int, Any] = {}
        self._server: Any = create_server(
            app,
            map=self._sockets,
            sockets=[listening],
            threads=threads,
            backlog=1024,
            connection_limit=_room_for_connections(),
            channel_timeout=30,
            cleanup_interval=10,
            max_request_header_size=16 << 10,
            max_request_body_size=LARGEST_BODY,
            inbuf_overflow=64 << 10,  # of 2,000 that send large bodies slowly 125 MiB are in memory, not 1 GiB
            ident=None,
            expose_tracebacks=False,
            log_socket_errors=False,  # one traceback for each client that goes away
            clear_untrusted_proxy_headers=trusted_proxies == 0,
            asyncore_use_poll=True,  # select() ends the whole server at file number 1024
        )
        self._is_stopping = False

    def run(self) -> None:
        """Serve until `stop`, then finish what is under way: requests that have begun get their answer, new connections
        are refused. Returns within ten seconds, whoever still sends."""
        try:
            while not self._is_stopping:
                wasyncore.poll2(1.0, self._sockets)
                # Each round looks at every connection, and each answer wakes it for one: 64 senders that wait for a
                # commit got 1,730 answers a second without this, and 2,540 with it (2 cores, 2026-11).
                time.sleep(0.001)
            self._finish()
        finally:
            self._is_stopping = True
            self._server.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._sockets, ignore_all=True)

    def stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._server.pull_trigger()  # one byte into a pipe, which a signal's handler may write

    def _finish(self) -> None:
        _accept_waiting(self._server)
        wasyncore.dispatcher.close(self._server)  # its own close takes the pipe too, by which threads wake this one
        until = time.monotonic() + _GRACE_S
        while channels := [each for each in self._sockets.values() if isinstance(each, HTTPChannel)]:
            if time.monotonic() > until:
                return
            wasyncore.poll2(0.1, self._sockets)
            for channel in channels:
                if channel.connected and not (channel.requests or channel.request or channel.total_outbufs_len):
                    channel.handle_close()


def _accept_waiting(server: Any) -> None:
    """Connections that wait in the kernel's backlog would be reset."""
    known = -1
    while known != len(server.active_channels):
        known = len(server.active_channels)
        server.handle_accept()


def _room_for_connections() -> int:
    """As many as the process may open, which is raised as far as it may be: systemd gives 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MOST_CONNECTIONS, soft - _OTHER_FILES)
