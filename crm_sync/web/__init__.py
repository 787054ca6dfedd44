"""The web application: alive and ready, metrics, and Apollo's callbacks; pages join it here."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Flask, Response
from werkzeug.middleware.proxy_fix import ProxyFix

from crm_sync.complaints import Complaints
from crm_sync.errors import CrmSyncError
from crm_sync.web.masking import mask_logs


def create_app(
    *, check_ready: Callable[[], None], receiver: Blueprint, metrics: Blueprint | None = None, trusted_proxies: int = 0
) -> Flask:
    """`check_ready` raises a CrmSyncError while the database cannot be used; `receiver` takes what is delivered;
    `metrics` is /metrics. `trusted_proxies`: how many proxies stand in front, whose X-Forwarded-… are believed; what is
    before them anybody may have written."""
    app = Flask(__name__, static_folder=None)
    mask_logs()
    if trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=trusted_proxies, x_proto=trusted_proxies, x_host=trusted_proxies
        )
    # A redirect would be an answer of its own to somebody who tries addresses.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.register_blueprint(receiver)
    if metrics is not None:
        app.register_blueprint(metrics)

    complaints = Complaints(app.logger, "not ready")

    @app.errorhandler(404)
    @app.errorhandler(405)
    def nothing(_error: Exception) -> Response:
        """The same for whatever is not there, so that nobody learns what is."""
        return Response("not found\n", 404, mimetype="text/plain")

    @app.get("/healthz")
    def healthz() -> Response:
        """The process answers."""
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> Response:
        """The database is there, with the schema this version knows. The cause is told to the log alone, once."""
        try:
            check_ready()
        except CrmSyncError as error:
            complaints.about(error)
            return Response("not ready\n", 503, {"Retry-After": "10"}, mimetype="text/plain")
        complaints.over()
        return Response("ready\n", mimetype="text/plain")

    return app
