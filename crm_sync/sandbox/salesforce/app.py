"""The service over HTTP: paths, versions, tokens, limits, and answers in its own shape."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from crm_sync.sandbox.salesforce import auth, clock, composite, describe
from crm_sync.sandbox.salesforce.bulk import Jobs
from crm_sync.sandbox.salesforce.bulk_query import QueryJobs
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError, not_found
from crm_sync.sandbox.salesforce.jobs import KeptJobs
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.query import Queries
from crm_sync.sandbox.salesforce.writes import Writes
from crm_sync.sandbox.server import Api

#: API versions the platform serves (contracts/salesforce.md 1).
FIRST_VERSION, LAST_VERSION = 31, 68
#: Bytes of a request line's URI, and of URI and headers together (contracts/salesforce.md 1.3).
MAX_URI = 16_384

_VERSION = re.compile(r"/services/data/v([^/]+)(?:/|\Z)")
_BATCH_SIZE = re.compile(r"\s*batchSize\s*=\s*(\d+)\s*\Z", re.IGNORECASE)
_JSON = "application/json;charset=UTF-8"
_ROOT = "/services/data/v<version>"


class Usage:
    """Counts the org's API calls of the day."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count one call.

        Raises:
            RequestError: 403, the day's calls are used up.
        """
        with self._lock:
            if self.used >= self.limit:
                raise RequestError(403, RequestCode.REQUEST_LIMIT_EXCEEDED, "TotalRequests Limit exceeded.")
            self.used += 1

    @property
    def header(self) -> str:
        return f"api-usage={self.used}/{self.limit}"


def build(
    org: Org,
    logins: auth.Logins,
    queries: Queries,
    writes: Writes,
    jobs: Jobs,
    query_jobs: QueryJobs,
    usage: Usage,
) -> Flask:
    app = Api(__name__, static_folder=None)
    # The service answers with and without the slash at the end, never with a redirect.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    _admission(app, logins, usage)
    _failures(app)
    _login_routes(app, logins)
    _data_routes(app, org, queries, writes, usage)
    _ingest_routes(app, jobs)
    _query_job_routes(app, query_jobs)
    return app


def _admission(app: Flask, logins: auth.Logins, usage: Usage) -> None:
    @app.before_request
    def admit() -> Response | None:
        if not request.path.startswith("/services/data"):
            return None
        if too_long := _too_long():
            return too_long
        match = _VERSION.match(request.path)
        if match is None:
            return None
        _check_version(match.group(1))
        if composite.ADMITTED in request.environ:
            return None
        logins.check(request.headers.get("Authorization", ""))
        g.admitted = True
        usage.count()
        wanted = "text/csv" if request.method == "PUT" else "application/json"
        if request.method in ("POST", "PATCH", "PUT") and request.mimetype != wanted:
            raise RequestError(
                415,
                RequestCode.UNSUPPORTED_MEDIA_TYPE,
                f"The requested resource does not support content type {request.mimetype or 'none'}",
            )
        return None

    @app.after_request
    def tell_usage(response: Response) -> Response:
        if g.get("admitted"):
            response.headers["Sforce-Limit-Info"] = usage.header
        return response


def _too_long() -> Response | None:
    """What the edge answers, before the service sees the request."""
    uri = max(len(request.environ.get("REQUEST_URI", "")), len(request.full_path))
    if uri > MAX_URI:
        return Response("<h1>Bad Message 414</h1><pre>reason: URI Too Long</pre>", 414, mimetype="text/html")
    headers = sum(len(name) + len(value) + 4 for name, value in request.headers.items())
    if uri + headers > MAX_URI:
        reason = "Request Header Fields Too Large"
        return Response(f"<h1>Bad Message 431</h1><pre>reason: {reason}</pre>", 431, mimetype="text/html")
    return None


def _check_version(text: str) -> None:
    major = text.removesuffix(".0")
    if not major.isdigit() or major == text or int(major) > LAST_VERSION:
        raise not_found()
    if int(major) < FIRST_VERSION:
        raise RequestError(
            410, RequestCode.UNSUPPORTED_API_VERSION, f"API version {text} is retired; use {FIRST_VERSION}.0 or later."
        )


def _failures(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return _json(error.body(), error.status, error.headers)

    @app.errorhandler(HTTPException)
    def unrouted(error: HTTPException) -> Response:
        if isinstance(error, MethodNotAllowed):
            allowed = ",".join(sorted(set(error.valid_methods or ()) - {"OPTIONS"}))
            wrong = RequestError(
                405,
                RequestCode.METHOD_NOT_ALLOWED,
                f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}",
                headers={"Allow": allowed},
            )
            return refused(wrong)
        return refused(not_found()) if error.code == 404 else app.make_response(error.get_response())

    @app.errorhandler(auth.OAuthError)
    def no_login(error: auth.OAuthError) -> Response:
        return _json(error.body, error.status)


def _login_routes(app: Flask, logins: auth.Logins) -> None:
    @app.post("/services/oauth2/token")
    def token() -> Response:
        answer = logins.oauth(request.form, request.headers.get("Authorization", ""), _base_url())
        return _json(answer)

    @app.post("/services/Soap/u/<version>")
    def soap(version: str) -> Response:
        if not re.fullmatch(r"\d{2}\.0", version) or not FIRST_VERSION <= float(version) <= LAST_VERSION:
            return Response("Invalid Api version specified on URL", 500, mimetype="text/plain")
        status, xml = logins.soap(request.get_data(as_text=True), version, _base_url())
        return Response(xml, status, content_type="text/xml; charset=utf-8")


def _data_routes(app: Flask, org: Org, queries: Queries, writes: Writes, usage: Usage) -> None:
    @app.get("/services/data")
    def versions() -> Response:
        return _json(
            [
                {"label": f"v{major}.0", "url": f"/services/data/v{major}.0", "version": f"{major}.0"}
                for major in range(FIRST_VERSION, LAST_VERSION + 1)
            ]
        )

    @app.get(f"{_ROOT}/sobjects")
    def sobjects(version: str) -> Response:
        return _json(describe.global_list(org.objects, version))

    @app.get(f"{_ROOT}/sobjects/<name>")
    def sobject(version: str, name: str) -> Response:
        return _json(describe.basic(org.objects[_known(org, name)], version))

    @app.get(f"{_ROOT}/sobjects/<name>/describe")
    def describe_object(version: str, name: str) -> Response:
        return _json(describe.full(org.objects, _known(org, name), version, _base_url()))

    @app.get(f"{_ROOT}/limits")
    def limits(version: str) -> Response:  # noqa: ARG001  the path carries it
        return _json(_limits(usage))

    @app.get(f"{_ROOT}/query")
    def query(version: str) -> Response:
        return _query(version, with_deleted=False)

    @app.get(f"{_ROOT}/queryAll")
    def query_all(version: str) -> Response:
        return _query(version, with_deleted=True)

    def _query(version: str, *, with_deleted: bool) -> Response:
        text = request.args.get("q")
        if text is None:
            raise RequestError(400, RequestCode.MALFORMED_QUERY, "SOQL query is missing: parameter q")
        answer = queries.run(text, root=_root(version), page=_page_size(), with_deleted=with_deleted)
        return _json(answer)

    @app.get(f"{_ROOT}/query/<locator>")
    def query_more(version: str, locator: str) -> Response:
        return _json(queries.more(locator, root=_root(version)))

    @app.post(f"{_ROOT}/composite/sobjects/<name>")
    def retrieve(version: str, name: str) -> Response:
        payload, _ = _body()
        if not isinstance(payload, dict):
            payload = {}
        return _json(writes.retrieve(name, payload.get("ids"), payload.get("fields"), root=_root(version)))

    @app.get(f"{_ROOT}/composite/sobjects/<name>")
    def retrieve_by_url(version: str, name: str) -> Response:
        record_ids, fields = (_comma_list(request.args.get(key, "")) for key in ("ids", "fields"))
        return _json(writes.retrieve(name, record_ids, fields, root=_root(version)))

    @app.patch(f"{_ROOT}/composite/sobjects")
    def update(version: str) -> Response:  # noqa: ARG001  the path carries it
        payload, body = _body()
        return _json(writes.update(payload, body, assign=_assigns()))

    @app.post(f"{_ROOT}/composite")
    def several(version: str) -> Response:  # noqa: ARG001  the path carries it
        payload, _ = _body()
        return _json(composite.run(app, payload))

    @app.get(f"{_ROOT}/sobjects/<name>/<record_id>")
    def read(version: str, name: str, record_id: str) -> Response:
        fields = _comma_list(request.args.get("fields", ""))
        return _json(writes.read(name, record_id, fields, root=_root(version)))

    @app.patch(f"{_ROOT}/sobjects/<name>/<record_id>")
    def update_one(version: str, name: str, record_id: str) -> Response:  # noqa: ARG001  the path carries it
        payload, body = _body()
        with org.lock:
            _check_precondition(writes.last_modified(name, record_id))
            writes.update_one(name, record_id, payload, body, assign=_assigns())
        return Response(status=204)


def _job_routes(app: Flask, kind: str, jobs: KeptJobs[Any]) -> str:
    """What both kinds of jobs answer; returns their path."""
    path = f"{_ROOT}/jobs/{kind}"

    def create(version: str) -> Response:
        payload, _ = _body()
        return _json(jobs.create(payload, version=version))

    def info(version: str, job_id: str) -> Response:  # noqa: ARG001  the path carries it
        return _json(jobs.info(job_id))

    def change(version: str, job_id: str) -> Response:  # noqa: ARG001  the path carries it
        payload, _ = _body()
        return _json(jobs.change(job_id, payload))

    def delete(version: str, job_id: str) -> Response:  # noqa: ARG001  the path carries it
        jobs.delete(job_id)
        return Response(status=204)

    app.add_url_rule(path, f"{kind}_create", create, methods=["POST"])
    for answer, method in ((info, "GET"), (change, "PATCH"), (delete, "DELETE")):
        app.add_url_rule(f"{path}/<job_id>", f"{kind}_{answer.__name__}", answer, methods=[method])
    return path


def _ingest_routes(app: Flask, jobs: Jobs) -> None:
    ingest = _job_routes(app, "ingest", jobs)

    @app.put(f"{ingest}/<job_id>/batches")
    def upload(version: str, job_id: str) -> Response:  # noqa: ARG001  the path carries it
        jobs.upload(job_id, request.get_data())
        return Response(status=201)

    @app.get(f"{ingest}/<job_id>/<kind>")
    def job_results(version: str, job_id: str, kind: str) -> Response:  # noqa: ARG001  the path carries it
        text, locator = jobs.results(job_id, kind, request.args.get("locator"))
        if not text:
            return Response(status=204)
        # Without a charset, as really sent (contracts/salesforce.md 1.5).
        return Response(text.encode(), headers={"Content-Type": "text/csv", "Sforce-Locator": locator})


def _query_job_routes(app: Flask, jobs: QueryJobs) -> None:
    path = _job_routes(app, "query", jobs)

    @app.get(f"{path}/<job_id>/results")
    def query_results(version: str, job_id: str) -> Response:
        locator, most = request.args.get("locator"), request.args.get("maxRecords")
        text, following, count = jobs.results(job_id, locator, most, version=version)
        headers = {
            "Content-Type": "text/csv",
            "Sforce-Locator": following,
            "Sforce-NumberOfRecords": str(count),
        }
        return Response(text.encode(), headers=headers)


def _known(org: Org, name: str) -> str:
    known = org.object_name(name)
    if known is None:
        raise not_found()
    return known


def _body() -> tuple[Any, str]:
    """The request's JSON value, and its text.

    Raises:
        RequestError: 400 JSON_PARSER_ERROR.
    """
    raw = request.get_data()
    try:
        return orjson.loads(raw), raw.decode()
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(
            400, RequestCode.JSON_PARSER_ERROR, f"Unexpected character or end of input: {error}"
        ) from error


def _comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _page_size() -> int | None:
    """What Sforce-Query-Options asks for; an unreadable header is refused."""
    header = request.headers.get("Sforce-Query-Options")
    if header is None:
        return None
    match = _BATCH_SIZE.match(header)
    if match is None:
        raise RequestError(400, RequestCode.INVALID_HTTP_HEADER, f"Invalid header Sforce-Query-Options: {header}")
    return int(match.group(1))


def _assigns() -> bool:
    """REST's default is TRUE (contracts/salesforce.md 0.8)."""
    return request.headers.get("Sforce-Auto-Assign", "TRUE").strip().upper() != "FALSE"


def _check_precondition(last_modified: str) -> None:
    """If-Unmodified-Since, to the second (contracts/salesforce.md 2.5)."""
    header = request.headers.get("If-Unmodified-Since")
    if header is None:
        return
    try:
        since = clock.render(parsedate_to_datetime(header))
    except ValueError:
        raise RequestError(
            400, RequestCode.INVALID_HTTP_HEADER, f"Invalid header If-Unmodified-Since: {header}"
        ) from None
    if last_modified > since:
        raise RequestError(412, RequestCode.PRECONDITION_FAILED, "The record was modified since the given time")


def _limits(usage: Usage) -> dict[str, dict[str, int]]:
    return {
        "DailyApiRequests": {"Max": usage.limit, "Remaining": usage.limit - usage.used},
        "DailyBulkApiBatches": {"Max": 15_000, "Remaining": 15_000},
        "DailyBulkV2QueryFileStorageMB": {"Max": 976_562, "Remaining": 976_562},
        "DailyBulkV2QueryJobs": {"Max": 10_000, "Remaining": 10_000},
        "DataStorageMB": {"Max": 10_240, "Remaining": 9_000},
        "FileStorageMB": {"Max": 10_240, "Remaining": 10_200},
    }


def _root(version: str) -> str:
    return f"/services/data/v{version}"


def _base_url() -> str:
    return request.host_url.rstrip("/")


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    pretty = request.headers.get("X-PrettyPrint", "0").strip() not in ("", "0", "false")
    option = orjson.OPT_INDENT_2 if pretty else None
    return Response(orjson.dumps(value, option=option), status, headers=dict(headers or {}), content_type=_JSON)
