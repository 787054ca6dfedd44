"""The web application. So far it tells whether the installation is alive and ready; pages and receiver join it here."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response

from crm_sync.errors import CrmSyncError


def create_app(*, check_ready: Callable[[], None]) -> Flask:
    """`check_ready` raises a CrmSyncError while the database cannot be used."""
    app = Flask(__name__, static_folder=None)

    @app.get("/healthz")
    def healthz() -> Response:
        """The process answers."""
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        """The database is there, with the schema this version knows. The cause stays in the log."""
        try:
            check_ready()
        except CrmSyncError as error:
            app.logger.warning("not ready: %s", error)
            return Response("not ready\n", 503, {"Retry-After": "10"}, mimetype="text/plain")
        return Response("ready\n", mimetype="text/plain")

    return app
