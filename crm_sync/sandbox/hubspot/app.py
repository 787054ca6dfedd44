"""The service over HTTP: paths, tokens, limits, and answers in its own shape."""

from __future__ import annotations

import re
from typing import Any

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from crm_sync.sandbox.hubspot import search
from crm_sync.sandbox.hubspot.auth import Caller, Tokens
from crm_sync.sandbox.hubspot.batches import MOST_WITH_HISTORY, Batches
from crm_sync.sandbox.hubspot.errors import RequestError, bad_json, correlation_id, invalid
from crm_sync.sandbox.hubspot.limits import Limits
from crm_sync.sandbox.hubspot.portal import PORTAL_ID, UI_DOMAIN, Portal
from crm_sync.sandbox.hubspot.records import Table
from crm_sync.sandbox.server import Api

#: Somewhere above 5 KiB an address is too long (contracts/hubspot.md 5, 2026-11).
MAX_URI = 5_120
MOST_LISTED = 100
DEFAULT_LISTED = 10

_OBJECTS = "/crm/v3/objects/<kind>"
_JSON = "application/json;charset=utf-8"
_SENSITIVITIES = ("non_sensitive", "sensitive", "highly_sensitive")


class Shuffler:
    """Lets every n-th search come out of order: HubSpot does not always honour the sort (contracts/hubspot.md 0.9)."""

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._seen = 0

    def __call__(self, rows: list[Any]) -> list[Any]:
        if self._every is None:
            return rows
        self._seen += 1
        return rows[1:] + rows[:1] if self._seen % self._every == 0 else rows


def build(portal: Portal, tokens: Tokens, limits: Limits, batches: Batches, shuffle: Shuffler, time_zone: str) -> Flask:
    app = Api(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    _admission(app, portal, tokens, limits)
    _failures(app)
    _account_routes(app, tokens, limits, time_zone)
    _property_routes(app)
    _read_routes(app, portal, batches)
    _search_route(app, portal, shuffle)
    _batch_routes(app, batches)
    return app


def _admission(app: Flask, portal: Portal, tokens: Tokens, limits: Limits) -> None:
    @app.before_request
    def admit() -> Response | None:
        if request.url_rule is None or request.path.startswith("/_sandbox/"):
            return None
        if len(request.full_path) > MAX_URI or len(request.environ.get("REQUEST_URI", "")) > MAX_URI:
            return Response("<html><body><h1>414 Request-URI Too Large</h1></body></html>", 414, mimetype="text/html")
        if request.endpoint == "token":
            return None
        portal.check_moving()
        g.caller = tokens.check(request.headers.get("Authorization", ""))
        g.headers = limits.take(g.caller, is_search=request.endpoint == "find")
        if request.method in ("POST", "PATCH") and request.mimetype != "application/json":
            raise RequestError(415, f"Unsupported Media Type: {request.mimetype or 'none'}")
        if "kind" in (request.view_args or {}):
            g.table = portal.table(request.view_args["kind"])  # type: ignore[index]
        return None

    @app.after_request
    def tell_limits(response: Response) -> Response:
        response.headers.update(g.get("headers", {}))
        response.headers.setdefault("x-hubspot-correlation-id", correlation_id())
        return response


def _failures(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        response = _json(error.body(), error.status)
        response.headers.update(error.headers)
        return response

    @app.errorhandler(HTTPException)
    def unrouted(error: HTTPException) -> Response:
        if error.code == 404:
            return refused(RequestError(404, "The crm-sync sandbox does not simulate this path"))
        return refused(RequestError(error.code or 500, error.name))


def _account_routes(app: Flask, tokens: Tokens, limits: Limits, time_zone: str) -> None:
    @app.post("/oauth/v1/token")
    def token() -> Response:
        if request.mimetype != "application/x-www-form-urlencoded":
            raise RequestError(415, f"Unsupported Media Type: {request.mimetype or 'none'}")
        return _json(tokens.refresh(request.form))

    @app.get("/account-info/v3/details")
    def details() -> Response:
        offset = round(limits.utc_offset().total_seconds())
        hours, minutes = divmod(abs(offset) // 60, 60)
        return _json(
            {
                "portalId": PORTAL_ID,
                "accountType": "STANDARD",
                "timeZone": time_zone,
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": f"{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}",
                "utcOffsetMilliseconds": offset * 1000,
                "uiDomain": UI_DOMAIN,
                "dataHostingLocation": "na1",
            }
        )

    @app.get("/account-info/v3/api-usage/daily/private-apps")
    def usage() -> Response:
        return _json(
            {
                "results": [
                    {
                        "name": "private-apps-api-calls-daily",
                        "usageLimit": limits.daily,
                        "currentUsage": limits.used_today,
                        "fetchStatus": "SUCCESS",
                        "resetsAt": limits.resets_at(),
                    }
                ]
            }
        )


def _property_routes(app: Flask) -> None:
    listed: dict[tuple[str, bool], bytes] = {}

    def properties(table: Table, *, archived: bool) -> bytes:
        key = (table.name, archived)
        if key not in listed:
            listed[key] = orjson.dumps(
                {"results": [each.metadata() for each in table.properties.values() if each.archived is archived]}
            )
        return listed[key]

    @app.get("/crm/v3/properties/<kind>")
    def property_list(kind: str) -> Response:  # noqa: ARG001  g.table is made of it
        table = _table_for("schema")
        archived = _flag("archived")
        if _sensitivity() != "non_sensitive":
            return _json({"results": []})
        return Response(properties(table, archived=archived), content_type=_JSON)

    @app.get("/crm/v3/properties/<kind>/<name>")
    def property_one(kind: str, name: str) -> Response:  # noqa: ARG001
        table = _table_for("schema")
        found = table.properties.get(name)
        if found is None or found.archived is not _flag("archived") or _sensitivity() != "non_sensitive":
            raise RequestError(404, f"Property {name} does not exist on {table.name}", "OBJECT_NOT_FOUND")
        return _json(found.metadata())


def _read_routes(app: Flask, portal: Portal, batches: Batches) -> None:
    @app.get(_OBJECTS)
    def page(kind: str) -> Response:  # noqa: ARG001
        table = _table_for("read")
        with_history = _comma_list("propertiesWithHistory")
        limit = _limit(MOST_WITH_HISTORY if with_history else MOST_LISTED)
        archived = _flag("archived")
        with portal.lock:
            render = portal.renderer(
                table,
                _comma_list("properties"),
                with_history=with_history,
                associations=_comma_list("associations"),
            )
            first = table.first_from(_cursor())
            rows = _archived_rows(table, first, limit) if archived else _living_rows(table, first, limit)
            body: dict[str, Any] = {"results": [render(row) for row in rows[:limit]]}
        if len(rows) > limit:
            following = table.id_of(rows[limit].index)
            link = f"{request.base_url}?limit={limit}&after={following}"
            body["paging"] = {"next": {"after": following, "link": link}}
        return _json(body)

    @app.get(f"{_OBJECTS}/<record_id>")
    def one(kind: str, record_id: str) -> Response:  # noqa: ARG001
        table = _table_for("read")
        render = portal.renderer(
            table,
            _comma_list("properties"),
            with_history=_comma_list("propertiesWithHistory"),
            associations=_comma_list("associations"),
        )
        found = batches.read_one(
            table, record_id, request.args.get("idProperty"), archived=_flag("archived"), render=render
        )
        return _json(found)

    @app.patch(f"{_OBJECTS}/<record_id>")
    def update_one(kind: str, record_id: str) -> Response:  # noqa: ARG001
        table = _table_for("write")
        id_property, app_id = request.args.get("idProperty"), _caller().source_id
        return _json(batches.update_one(table, record_id, id_property, _body(), app=app_id))


def _search_route(app: Flask, portal: Portal, shuffle: Shuffler) -> None:
    @app.post(f"{_OBJECTS}/search")
    def find(kind: str) -> Response:  # noqa: ARG001
        table = _table_for("read")
        question = search.parse(request.get_data(), table.properties)
        with portal.lock:
            found = portal.searches[table.name].answer(question)
            render = portal.renderer(table, question.properties)
            body: dict[str, Any] = {"total": found.total, "results": [render(row) for row in shuffle(found.rows)]}
        after = question.after + len(found.rows)
        if after < found.total and found.rows:
            body["paging"] = {"next": {"after": str(after)}}
        return _json(body)


def _batch_routes(app: Flask, batches: Batches) -> None:
    @app.post(f"{_OBJECTS}/batch/read")
    def batch_read(kind: str) -> Response:  # noqa: ARG001
        table = _table_for("read")
        status, body = batches.read(table, _body(), archived=_flag("archived"))
        return _json(body, status)

    @app.post(f"{_OBJECTS}/batch/update")
    def batch_update(kind: str) -> Response:  # noqa: ARG001
        table = _table_for("write")
        status, body = batches.update(table, _body(), app=_caller().source_id)
        return _json(body, status)

    @app.post("/crm/v4/associations/<from_type>/<to_type>/batch/read")
    def associations(from_type: str, to_type: str) -> Response:
        if (from_type, to_type) not in (("contacts", "companies"), ("0-1", "0-2")):
            raise invalid(f"The crm-sync sandbox does not simulate associations from {from_type} to {to_type}")
        _caller().need("crm.objects.contacts.read")
        status, body = batches.associated(_body())
        return _json(body, status)


def _caller() -> Caller:
    return g.caller  # type: ignore[no-any-return]


def _table_for(what: str) -> Table:
    """The table the path names, if the caller may "read" or "write" its records or see its "schema".

    Raises:
        RequestError: 403 MISSING_SCOPES.
    """
    table: Table = g.table
    objects = f"crm.objects.{table.name}"
    if what == "schema":
        _caller().need(f"crm.schemas.{table.name}.read", f"{objects}.read", f"{objects}.write")
    else:
        _caller().need(f"{objects}.{what}")
    return table


def _living_rows(table: Table, first: int, limit: int) -> list[Any]:
    """The next `limit` living records and the one after them, if there is."""
    rows = []
    for row in table.rows(first, table.count):
        if row.is_living:
            rows.append(row)
            if len(rows) > limit:
                break
    return rows


def _archived_rows(table: Table, first: int, limit: int) -> list[Any]:
    return [table.row(index) for index in sorted(table.archived) if index >= first][: limit + 1]


# --- requests -------------------------------------------------------------------------------------------------------


def _body() -> object:
    """
    Raises:
        RequestError: 400, it is not JSON.
    """
    try:
        return orjson.loads(request.get_data())
    except orjson.JSONDecodeError as error:
        raise bad_json("Unexpected character or end of input") from error


def _comma_list(name: str) -> list[str]:
    """A parameter that is repeated, comma-joined, or both."""
    return [part.strip() for text in request.args.getlist(name) for part in text.split(",") if part.strip()]


def _flag(name: str) -> bool:
    text = request.args.get(name, "false")
    if text not in ("true", "True", "false", "False"):
        raise invalid(f"{name} must be true or false, it is {text}")
    return text.lower() == "true"


def _limit(most: int) -> int:
    text = request.args.get("limit", str(DEFAULT_LISTED))
    if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= most:
        raise invalid(f"limit must be between 1 and {most}, it is {text}")
    return int(text)


def _cursor() -> int:
    """The id to go on from; a search's offset is no cursor of a list, and the other way round."""
    text = request.args.get("after")
    if text is None:
        return 0
    if not re.fullmatch(r"\d{1,19}", text):
        raise invalid(f"after is not a cursor of a list: {text}")
    return int(text)


def _sensitivity() -> str:
    text = request.args.get("dataSensitivity", "non_sensitive")
    if text not in _SENSITIVITIES:
        raise invalid(f"dataSensitivity {text} is not one of [{', '.join(_SENSITIVITIES)}]")
    return text


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, content_type=_JSON)
