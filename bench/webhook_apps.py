"""What the receiver is compared with: the same application and server that store nothing, or commit one at a time."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, request

from crm_sync.bootstrap import web_app
from crm_sync.store.arrivals import Arrival, Arrivals, Taken, _take
from crm_sync.web import create_app


def noop() -> Flask:
    """Reads the body and answers."""
    blueprint = Blueprint("noop", __name__)

    @blueprint.post("/webhooks/<path:path>")
    def deliver(path: str) -> Response:  # noqa: ARG001
        request.get_data()
        return Response(status=200)

    return create_app(check_ready=lambda: None, receiver=blueprint)


def alone() -> Flask:
    """The receiver with a commit for each request."""

    def take(self: Arrivals, arrival: Arrival) -> Taken:
        with self._store.write() as connection:
            return _take(connection, [arrival])[0]

    Arrivals.take = take  # type: ignore[method-assign]
    return web_app()
