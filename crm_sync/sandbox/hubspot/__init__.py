"""A HubSpot portal over loopback HTTP: tokens, properties, list, search, batch read and batch update of contacts and
companies.

It stands on contracts/hubspot.md and is stricter than the service where the two are known to differ, never more
forgiving. Not simulated, and answered 404: creating, deleting, associations, workflows.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from crm_sync.sandbox.hubspot.limits import Limits
from crm_sync.sandbox.hubspot.portal import Portal, Record, stamp
from crm_sync.sandbox.hubspot.search import BadSearchError, compile_groups, groups_of
from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.world import World

TOKEN = "sandbox-hubspot-service-key"  # noqa: S105 - obviously made up
CLIENT = ("sandbox-client-id", "sandbox-client-secret", "sandbox-refresh-token")
OBJECT_TYPES = {"contacts": "contacts", "0-1": "contacts", "companies": "companies", "0-2": "companies"}
SCOPES = tuple(
    f"crm.{area}.{kind}.{right}"
    for kind in ("contacts", "companies")
    for area, right in (("objects", "read"), ("objects", "write"), ("schemas", "read"))
)
_SEARCH_CAP = 10_000
_SEARCH_BODY = 3_000
_MESSAGES = {
    "SECONDLY": "You have reached your secondly limit.",
    "TEN_SECONDLY_ROLLING": "You have reached your ten_secondly_rolling limit.",
    "DAILY": "You have reached your daily limit.",
}
_BASE = "/crm/v3/objects/<kind>"


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """An answer that is no 2xx."""

    def __init__(self, status: int, message: str, category: str = "VALIDATION_ERROR", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"status": "error", "message": message, "correlationId": "sandbox", "category": category, **more}


class Simulator:
    """The sandbox's own view of the portal."""

    def __init__(self, portals: Mapping[str, Portal], limits: Limits, tokens: Tokens) -> None:
        self._portals, self._limits, self._tokens = portals, limits, tokens

    def state(self) -> dict[str, Any]:
        return {
            "records": {kind: portal.count for kind, portal in self._portals.items()},
            "written": {kind: portal.written for kind, portal in self._portals.items()},
            "refused_by_limit": self._limits.refused,
            "logins": self._tokens.refreshed,
        }

    def edit(self, object_type: str, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """A human edits in the browser (history says CRM_UI). {"archived": true} archives, {"merge_into": id} merges.

        Raises:
            ValueError: no such object, record or property, or a value the portal would refuse.
        """
        portal = self._portals.get(OBJECT_TYPES.get(object_type, ""))
        if portal is None:
            raise ValueError(f"no object {object_type}; there are contacts and companies")
        index = portal.index_of(record_id)
        if index is None:
            raise ValueError(f"no {object_type} record with the id {record_id}")
        values = {key: value for key, value in fields.items() if key not in ("archived", "merge_into")}
        for name, value in values.items():
            if name not in portal.known:
                raise ValueError(f"no property {name} on {object_type}")
            if not isinstance(value, str):
                raise ValueError(f"{name} must be a text; an empty one erases")
            problem = portal.known[name].problem(value)
            if problem:
                raise ValueError(problem[1])
        if values:
            portal.write(index, values, source="CRM_UI")
        if "merge_into" in fields:
            survivor = portal.index_of(str(fields["merge_into"]))
            if survivor is None or survivor == index:
                raise ValueError("merge_into names no other record")
            portal.merge(index, survivor)
            index = survivor
        if "archived" in fields:
            portal.archive(index, archived=bool(fields["archived"]))
        record = portal.get(index)
        return {**_shown(record, object_type, list(portal.known)), "history": record.history}


class Tokens:
    """A lasting service key, and OAuth tokens that end."""

    def __init__(self, token: str, *, seconds: float, now: Callable[[], float]) -> None:
        self._lasting = token
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._issued: dict[str, float] = {}
        self.refreshed = 0

    def issue(self) -> str:
        with self._lock:
            token = f"sandbox-oauth-{secrets.token_hex(8)}"
            self._issued[token] = self._now() + self._seconds
            self.refreshed += 1
            return token

    def check(self, header: str) -> bool:
        """Whether the token is a lasting one.

        Raises:
            Refusal: 401.
        """
        scheme, _, token = header.partition(" ")
        if scheme == "Bearer" and token == self._lasting:
            return True
        ends = self._issued.get(token) if scheme == "Bearer" else None
        if ends is None:
            raise Refusal(401, "Authentication credentials not found.", "INVALID_AUTHENTICATION")
        if self._now() >= ends:
            ago = int(self._now() - ends)
            raise Refusal(
                401, f"The OAuth token used to make this call expired {ago} second(s) ago.", "EXPIRED_AUTHENTICATION"
            )
        return False


def create(
    world: World,
    *,
    token: str = TOKEN,
    scopes: Sequence[str] = SCOPES,
    token_seconds: float = 1800,
    burst: int | None = 190,
    daily: int | None = 625_000,
    searches_per_s: int | None = 5,
    lag_s: float = 5.0,
    trace_ids: bool = True,
    variant: str = "a",
    now: Callable[[], float] = time.time,
) -> Flask:
    """Return the portal as a Flask application; `app.extensions["simulator"]` is its Simulator.

    `scopes`: what the token may do. `burst` calls per 10 s, `daily` calls, `searches_per_s`: None is unlimited.
    `lag_s`: how far search lags behind writes. `trace_ids`: whether batch update honours objectWriteTraceId (open in
    the contract). `variant`: a vanished id in a batch update is missing from the results ("a") or an error ("b").
    """
    if variant not in ("a", "b"):
        raise ValueError('variant is "a" or "b"')
    app = Flask(__name__, static_folder=None)
    overlay = Overlay()
    weakref.finalize(app, overlay.close)
    portals = {kind: Portal(world, kind, overlay=overlay, lag_s=lag_s, now=now) for kind in ("contacts", "companies")}
    limits = Limits(burst=burst, daily=daily, search=searches_per_s, now=now)
    tokens = Tokens(token, seconds=token_seconds, now=now)
    service = _Service(portals, trace_ids=trace_ids, variant=variant, now=now)
    app.extensions["simulator"] = Simulator(portals, limits, tokens)

    @app.errorhandler(Refusal)
    def refused(error: Refusal) -> Response:
        return _json(error.body, error.status)

    @app.errorhandler(HTTPException)
    def unknown(error: HTTPException) -> Response:
        status = error.code or 500
        return _json({"status": "error", "message": "resource not found", "correlationId": "sandbox"}, status)

    @app.before_request
    def admit() -> Response | None:
        if request.path.startswith("/_sandbox/") or request.path == "/oauth/v1/token":
            return None
        if len(request.full_path) > 8_000:
            return _json({"status": "error", "message": "URI too long", "correlationId": "sandbox"}, 414)
        lasting = tokens.check(request.headers.get("Authorization", ""))
        is_search = request.path.endswith("/search")
        policy, headers = (limits.take_search(), {}) if is_search else limits.take()
        if not lasting:
            headers = {name: value for name, value in headers.items() if "Daily" not in name}
        request.environ["crm_sync.headers"] = headers
        if policy is not None:
            # No category and no retry-after, as documented (contracts/hubspot.md 4).
            body = {
                "status": "error",
                "message": _MESSAGES[policy],
                "errorType": "RATE_LIMIT",
                "correlationId": "sandbox",
                "policyName": policy,
                "requestId": "sandbox",
            }
            return _json(body, 429)
        return None

    @app.after_request
    def tell_limits(response: Response) -> Response:
        response.headers.update(request.environ.get("crm_sync.headers", {}))
        return response

    def portal(kind: str, area: str, right: str) -> Portal:
        name = OBJECT_TYPES.get(kind)
        if name is None:
            raise Refusal(400, f"Unable to infer object type from: {kind}")
        scope = f"crm.{area}.{name}.{right}"
        if scope not in scopes:
            raise Refusal(
                403,
                "This app hasn't been granted all required scopes to make this call.",
                "MISSING_SCOPES",
                errors=[
                    {
                        "message": "One or more of the following scopes are required.",
                        "context": {"requiredGranularScopes": [scope]},
                    }
                ],
            )
        return portals[name]

    @app.post("/oauth/v1/token")
    def token_of() -> Response:
        form = request.form
        if form.get("grant_type") != "refresh_token":
            raise Refusal(400, "missing or unknown grant type", "BAD_GRANT_TYPE")
        if (form.get("client_id"), form.get("client_secret")) != CLIENT[:2]:
            raise Refusal(400, "missing or unknown client id", "BAD_CLIENT_ID")
        if form.get("refresh_token") != CLIENT[2]:
            raise Refusal(400, "missing or unknown refresh token", "BAD_REFRESH_TOKEN")
        content = {"token_type": "bearer", "refresh_token": CLIENT[2], "access_token": tokens.issue()}
        return _json({**content, "expires_in": int(token_seconds)})

    @app.get("/account-info/v3/details")
    def account() -> Response:
        return _json(
            {
                "portalId": 77001,
                "accountType": "DEVELOPER_TEST",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": "-05:00",
                "utcOffsetMilliseconds": -18_000_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    @app.get("/crm/v3/properties/<kind>")
    def all_properties(kind: str) -> Response:
        known = portal(kind, "schemas", "read").known
        return _json({"results": [each.definition() for each in known.values()]})

    @app.get("/crm/v3/properties/<kind>/<name>")
    def one_property(kind: str, name: str) -> Response:
        known = portal(kind, "schemas", "read").known
        if name not in known:
            raise Refusal(404, f"Property {name} does not exist", "OBJECT_NOT_FOUND")
        return _json(known[name].definition())

    @app.get(_BASE)
    def listed(kind: str) -> Response:
        return _json(service.listed(portal(kind, "objects", "read"), request.args))

    @app.get(f"{_BASE}/<record_id>")
    def one(kind: str, record_id: str) -> Response:
        return _json(service.one(portal(kind, "objects", "read"), record_id, request.args))

    @app.patch(f"{_BASE}/<record_id>")
    def patch(kind: str, record_id: str) -> Response:
        return _json(service.patch(portal(kind, "objects", "write"), record_id, _body()))

    @app.post(f"{_BASE}/search")
    def search(kind: str) -> Response:
        found = portal(kind, "objects", "read")
        if len(request.get_data()) > _SEARCH_BODY:
            raise Refusal(400, f"The request body is longer than {_SEARCH_BODY} characters")
        return _json(service.search(found, _body()))

    @app.post(f"{_BASE}/batch/read")
    def batch_read(kind: str) -> Response:
        return _batch(service.batch_read(portal(kind, "objects", "read"), _body()))

    @app.post(f"{_BASE}/batch/update")
    def batch_update(kind: str) -> Response:
        return _batch(service.batch_update(portal(kind, "objects", "write"), _body()))

    return app


class _Service:
    def __init__(
        self, portals: Mapping[str, Portal], *, trace_ids: bool, variant: str, now: Callable[[], float]
    ) -> None:
        self._portals, self._trace_ids, self._variant, self._now = portals, trace_ids, variant, now

    # --- reading --------------------------------------------------------------------------------------------------

    def listed(self, portal: Portal, query: Any) -> dict[str, Any]:
        history = _names(query.getlist("propertiesWithHistory"))
        limit = _whole(query.get("limit", "10"), "limit", most=50 if history else 100)
        after = query.get("after")
        if after is not None and not after.isdigit():
            raise Refusal(400, "Cannot deserialize value of type `long` from String: after is no cursor of this list")
        records, following = portal.listed(after, limit, archived=_truth(query.get("archived")))
        names = _names(query.getlist("properties")) or _defaults(portal)
        answer: dict[str, Any] = {"results": [_shown(record, portal.object_type, names, history) for record in records]}
        if following is not None:
            answer["paging"] = {"next": {"after": following, "link": f"?after={following}"}}
        return answer

    def one(self, portal: Portal, record_id: str, query: Any) -> dict[str, Any]:
        record = portal.find(record_id, archived=_truth(query.get("archived")))
        if record is None:
            raise Refusal(404, "resource not found", "OBJECT_NOT_FOUND")
        names = _names(query.getlist("properties")) or _defaults(portal)
        return _shown(record, portal.object_type, names, _names(query.getlist("propertiesWithHistory")))

    def search(self, portal: Portal, body: dict[str, Any]) -> dict[str, Any]:
        unknown = set(body) - {"filterGroups", "filters", "sorts", "properties", "limit", "after", "query"}
        if unknown or body.get("query"):
            raise Refusal(400, f"Invalid input JSON: sandbox takes no {', '.join(sorted(unknown)) or 'query'}")
        limit = _whole(body.get("limit", 10), "limit", most=200)
        skip = _whole(body.get("after") or 0, "after", least=0)
        if skip + limit > _SEARCH_CAP:
            raise Refusal(400, f"Paging beyond {_SEARCH_CAP} results is not possible; narrow the search")
        try:
            groups = groups_of(body, portal.known)
            keyset, rest = _keyset(groups)
            test = compile_groups(rest, portal.known)
            total, records = portal.matching(orjson.dumps(rest).decode(), test, keyset)
            ordered = self._sorted(portal, body.get("sorts"), records, skip + limit)
        except BadSearchError as error:
            raise Refusal(400, str(error)) from None
        names = body.get("properties") or _defaults(portal)
        page = ordered[skip : skip + limit]
        answer: dict[str, Any] = {
            "total": total,
            "results": [_shown(record, portal.object_type, names) for record in page],
        }
        if skip + limit < total:
            answer["paging"] = {"next": {"after": str(skip + limit)}}
        return answer

    def _sorted(self, portal: Portal, sorts: Any, records: Any, wanted: int) -> list[Record]:
        if sorts is not None and (not isinstance(sorts, list) or len(sorts) > 1):
            raise BadSearchError("only one sort can be provided")
        sort = sorts[0] if sorts else {"propertyName": "createdate", "direction": "DESCENDING"}
        if isinstance(sort, str):
            sort = {
                "propertyName": sort.removeprefix("-"),
                "direction": "DESCENDING" if sort[:1] == "-" else "ASCENDING",
            }
        name, direction = sort.get("propertyName"), sort.get("direction", "ASCENDING")
        if name not in portal.known or direction not in ("ASCENDING", "DESCENDING"):
            raise BadSearchError(f"cannot sort by {name} {direction}")
        if name == "hs_object_id" and direction == "ASCENDING":
            return [record for _, record in zip(range(wanted), records, strict=False)]
        key = (lambda r: int(r.id)) if name == "hs_object_id" else (lambda r: r.values.get(name) or "")
        return sorted(records, key=key, reverse=direction == "DESCENDING")[:wanted]

    def batch_read(self, portal: Portal, body: dict[str, Any]) -> dict[str, Any]:
        inputs = _inputs(body, {"id"})
        by = body.get("idProperty")
        if by not in (None, "hs_object_id"):
            raise Refusal(400, f"sandbox: reading by {by} is not simulated")
        names = body.get("properties") or _defaults(portal)
        found: dict[str, Record] = {}
        missing = []
        for one in inputs:
            record = portal.find(one["id"])
            if record is None:
                missing.append(one["id"])
            else:
                found[record.id] = record
        # Results come in their own order (contracts/hubspot.md 2.3).
        ordered = sorted(found.values(), key=lambda record: record.id[::-1])
        history = body.get("propertiesWithHistory") or []
        results = [_shown(record, portal.object_type, names, history) for record in ordered]
        errors = []
        if missing:
            errors.append(
                {
                    "status": "error",
                    "category": "OBJECT_NOT_FOUND",
                    "message": "Could not get some objects, they may be deleted or not exist.",
                    "context": {"ids": missing},
                }
            )
        return self._told(results, errors, len(missing))

    # --- writing --------------------------------------------------------------------------------------------------

    def patch(self, portal: Portal, record_id: str, body: dict[str, Any]) -> dict[str, Any]:
        record = portal.find(record_id)
        if record is None:
            raise Refusal(404, "resource not found", "OBJECT_NOT_FOUND")
        values = _values(body)
        problems = _problems(portal, values)
        if problems:
            raise _invalid(problems)
        return _shown(portal.write(record.index, values, source="INTEGRATION"), portal.object_type, list(values))

    def batch_update(self, portal: Portal, body: dict[str, Any]) -> dict[str, Any]:
        inputs = _inputs(body, {"id", "properties", "objectWriteTraceId", "idProperty"})
        if any(one.get("idProperty") for one in inputs):
            name = next(one["idProperty"] for one in inputs if one.get("idProperty"))
            raise Refusal(400, f"Unable to perform update/upsert by non-unique property {name}")
        indexes = [portal.index_of(one["id"]) for one in inputs]
        seen: dict[Any, str] = {}
        repeated = []
        for one, index in zip(inputs, indexes, strict=True):
            # Two old ids of a merged pair collide too.
            key = one["id"] if index is None else index
            if key in seen:
                repeated.append(one["id"])
            seen[key] = one["id"]
        if repeated:
            raise Refusal(
                400, f"Duplicate IDs found in batch input: [{', '.join(repeated)}]", context={"ids": repeated}
            )
        traced = self._trace_ids and all(one.get("objectWriteTraceId") for one in inputs)
        checked = [(one, index, _values(one)) for one, index in zip(inputs, indexes, strict=True)]
        faults = {place: _problems(portal, values) for place, (_, _, values) in enumerate(checked)}
        faults = {place: problems for place, problems in faults.items() if problems}
        if faults and not traced:
            raise _invalid([problem for problems in faults.values() for problem in problems])
        results, errors = [], []
        with portal.lock:
            for place, (one, index, values) in enumerate(checked):
                if place in faults:
                    refusal = _invalid(faults[place]).body
                    context = {**refusal.get("context", {}), "objectWriteTraceId": [one["objectWriteTraceId"]]}
                    told = {key: value for key, value in refusal.items() if key != "correlationId"}
                    errors.append({**told, "context": context})
                    continue
                if index is None or portal.get(index).archived:
                    if self._variant == "b":
                        errors.append(_vanished(one, traced=traced))
                    continue
                record = portal.write(index, values, source="INTEGRATION") if values else portal.get(index)
                shown = _shown(record, portal.object_type, list(values))
                results.append({**shown, "url": f"https://app.hubspot.com/contacts/77001/record/{record.id}"})
        results.sort(key=lambda each: each["id"][::-1])
        return self._told(results, errors, len(errors))

    def _told(self, results: list[Any], errors: list[Any], count: int) -> dict[str, Any]:
        moment = stamp(self._now())
        answer: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": moment, "completedAt": moment}
        if errors:
            answer |= {"numErrors": count, "errors": errors}
        return answer


def _keyset(groups: list[list[dict[str, Any]]]) -> tuple[int, list[list[dict[str, Any]]]]:
    """Take the `hs_object_id GT x` that every group repeats out of the groups: it moves from page to page, and what
    matches the rest is then known once for all pages."""
    afters = []
    rest = []
    for group in groups:
        own = [one for one in group if one["propertyName"] == "hs_object_id" and one["operator"] in ("GT", "GTE")]
        if len(own) != 1 or not str(own[0]["value"]).isdigit():
            return -1, groups
        afters.append(int(own[0]["value"]) - (own[0]["operator"] == "GTE"))
        rest.append([one for one in group if one is not own[0]])
    return (afters[0], rest) if len(set(afters)) == 1 else (-1, groups)


def _shown(record: Record, object_type: str, names: Sequence[str], history: Sequence[str] = ()) -> dict[str, Any]:
    modified = "lastmodifieddate" if object_type in ("contacts", "0-1") else "hs_lastmodifieddate"
    values = record.values
    shown: dict[str, Any] = {
        "id": record.id,
        "properties": {
            **{name: values.get(name) for name in names},
            "createdate": values["createdate"],
            modified: values[modified],
            "hs_object_id": record.id,
        },
        "createdAt": values["createdate"],
        "updatedAt": values[modified],
        "archived": record.archived,
    }
    if history:
        shown["propertiesWithHistory"] = {name: record.history.get(name, []) for name in history}
    return shown


def _problems(portal: Portal, values: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(property, code, message) of everything the portal refuses."""
    found = []
    for name, value in values.items():
        known = portal.known.get(name)
        if known is None:
            found.append((name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist'))
            continue
        problem = known.problem(value)
        if problem:
            found.append((name, *problem))
    return found


def _invalid(problems: Sequence[tuple[str, str, str]]) -> Refusal:
    """Names properties, not records (contracts/hubspot.md 5)."""
    inside = [{"isValid": False, "message": text, "error": code, "name": name} for name, code, text in problems]
    return Refusal(
        400,
        f"Property values were not valid: {orjson.dumps(inside).decode()}",
        errors=[{"message": text, "code": code, "context": {"propertyName": [name]}} for name, code, text in problems],
    )


def _vanished(one: Mapping[str, Any], *, traced: bool) -> dict[str, Any]:
    context: dict[str, Any] = {"ids": [one["id"]]}
    if traced:
        context["objectWriteTraceId"] = [one["objectWriteTraceId"]]
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": "Could not get some objects",
        "context": context,
    }


def _inputs(body: Mapping[str, Any], keys: set[str]) -> list[dict[str, Any]]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise Refusal(400, "Invalid input JSON: inputs must be a list of objects")
    if len(inputs) > 100:
        raise Refusal(400, f"Batch size of {len(inputs)} is larger than the allowed 100")
    if not inputs:
        raise Refusal(400, "Invalid input JSON: inputs must not be empty")
    for one in inputs:
        unknown = set(one) - keys
        if unknown:
            raise Refusal(400, f"Invalid input JSON: an input has no {', '.join(sorted(unknown))}")
        if not isinstance(one.get("id"), str):
            raise Refusal(400, "Invalid input JSON: id must be a text")
    return inputs


def _values(one: Mapping[str, Any]) -> dict[str, str]:
    """What is to be written: null leaves alone, "" erases, everything is text (contracts/hubspot.md 3)."""
    given = one.get("properties")
    if not isinstance(given, dict):
        raise Refusal(400, "Invalid input JSON: properties must be an object")
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise Refusal(400, f"Invalid input JSON: the value of {name} must be a text")
    return {name: value for name, value in given.items() if value is not None}


def _body() -> dict[str, Any]:
    try:
        content = orjson.loads(request.get_data())
    except ValueError:
        raise Refusal(400, "Invalid input JSON on line 1, column 1: no content to map due to end-of-input") from None
    if not isinstance(content, dict):
        raise Refusal(400, "Invalid input JSON on line 1, column 1: cannot deserialize value of type object")
    return content


def _names(given: Sequence[str]) -> list[str]:
    return [name for each in given for name in each.split(",") if name]


def _defaults(portal: Portal) -> list[str]:
    return ["email", "firstname", "lastname"] if portal.object_type == "contacts" else ["name", "domain"]


def _whole(value: Any, name: str, *, least: int = 1, most: int | None = None) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Refusal(400, f"Cannot deserialize value of type `int`: {name} is no number") from None
    if number < least or (most is not None and number > most):
        raise Refusal(400, f"{name} must be between {least} and {most}")
    return number


def _truth(value: str | None) -> bool:
    return (value or "").lower() == "true"


def _batch(content: dict[str, Any]) -> Response:
    return _json(content, 207 if content.get("errors") else 200)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, content_type="application/json;charset=utf-8")
