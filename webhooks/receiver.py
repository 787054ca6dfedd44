"""POST /webhooks/apollo/<token>: a delivery is committed before it is acknowledged (design/reliability.md 4).

Everything that is not a delivery for an order of ours gets one and the same 404: it tells neither whether the address
exists, nor what a token looks like, nor whether an order was ever made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from flask import Blueprint, Response, request
from werkzeug.exceptions import ClientDisconnected

from crm_sync.complaints import Complaints
from crm_sync.errors import CrmSyncError
from crm_sync.store.deliveries import Taken

_log = logging.getLogger(__name__)

#: Ten people with all their numbers are far below.
MAX_BODY = 256 << 10
#: What is too long is read as far as the proxies of deploy/ and `crm-sync serve` let it through, and dropped: gunicorn
#: closes a connection whose body was not read, and the reset takes the 413 with it (Caddy says 502; seen 2026-11).
_READ_AT_MOST = 512 << 10
_CHUNK = 64 << 10
_RETRY_AFTER_S = 30
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]


class Inbox(Protocol):
    """store.deliveries.Deliveries, as far as the receiver needs it."""

    def take(self, order_id: str, raw: bytes, *, now: datetime) -> Taken: ...

    def need_poll(self, order_id: str) -> bool: ...


def receiver(
    *, read_token: Callable[[str], str | None], inbox: Callable[[], Inbox], now: Callable[[], datetime]
) -> Blueprint:
    """`read_token` gives the order of a token, None for none; it and `inbox` may raise a CrmSyncError while the
    database cannot be used."""
    blueprint = Blueprint("webhooks", __name__)
    complaints = Complaints(_log, "a delivery was not taken")

    @blueprint.route("/webhooks", defaults={"path": ""}, methods=_METHODS, strict_slashes=False)
    @blueprint.route("/webhooks/<path:path>", methods=_METHODS)
    def deliver(path: str) -> Response:
        maker, _, token = path.partition("/")
        if request.method != "POST" or maker != "apollo" or not token or request.query_string:
            return _nothing()
        try:
            order_id = read_token(token)
            if order_id is None:
                return _nothing()
            raw = _body()
            if raw is None:
                return _too_large() if inbox().need_poll(order_id) else _nothing()
            taken = inbox().take(order_id, raw, now=now())
            complaints.over()
            return _answer(taken)
        except CrmSyncError as error:
            complaints.about(error)
        except ClientDisconnected:
            _log.warning("a delivery broke off before its end")
        return Response(status=503, headers={"Retry-After": str(_RETRY_AFTER_S)})

    return blueprint


def _body() -> bytes | None:
    """The whole body, None when it is longer than MAX_BODY. Counted here: servers let Flask's own limit cut a chunked
    body short without a word (design/reliability.md 0.6, 2026-11).

    Raises:
        ClientDisconnected: less came than was announced.
    """
    parts: list[bytes] = []
    size = 0
    while size < _READ_AT_MOST and (part := request.stream.read(_CHUNK)):
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
    announced = request.content_length
    if max(size, announced or 0) > MAX_BODY:
        return None
    if announced is not None and size < announced:
        raise ClientDisconnected
    return b"".join(parts)


def _answer(taken: Taken) -> Response:
    if taken in (Taken.STORED, Taken.DUPLICATE):
        return Response(status=200)
    if taken is Taken.FLOOD:
        return Response(status=429, headers={"Retry-After": "3600"})
    return _nothing()


def _too_large() -> Response:
    return Response(status=413)


def _nothing() -> Response:
    return Response("not found\n", 404, mimetype="text/plain")
