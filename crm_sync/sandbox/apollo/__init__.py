"""Apollo over loopback HTTP: enrichment of people and companies, keys, limits, and a ledger of every credit.

It stands on contracts/apollo.md sections 1, 2, 4 and 5. Where that page leaves two behaviours open, `variant` "a" and
"b" play one each. Phone reveals, webhooks and waterfall come with the phone issue and are refused by name until then.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import orjson
from flask import Flask, Response, request

from crm_sync.sandbox.apollo.limits import Limits
from crm_sync.sandbox.apollo.people import LOCKED_MAIL, Catalogue, company_id, person_id, person_index
from crm_sync.sandbox.wordings import UNKNOWN_KEY
from crm_sync.sandbox.world import Person, World

API_KEY = "sandbox-apollo-key"

_BULK_MATCH, _MATCH = "people/bulk_match", "people/match"
_BULK_ENRICH, _ENRICH = "organizations/bulk_enrich", "organizations/enrich"
_PERSON_KEYS = {
    "first_name", "last_name", "name", "email", "hashed_email", "organization_name", "domain", "id", "linkedin_url",
}  # fmt: skip
_COMPANY_KEYS = {"domain", "linkedin_url", "name", "website"}
_FLAGS = {"reveal_personal_emails", "reveal_phone_number", "run_waterfall_email", "run_waterfall_phone", "webhook_url"}
_NOT_YET = ("reveal_phone_number", "run_waterfall_email", "run_waterfall_phone")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """An answer that is no 200. `text`: sent as text/plain."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None, *, text: bool = False) -> None:
        super().__init__(status)
        self.status, self.body, self.headers, self.text = status, body, dict(headers or {}), text


@dataclass(frozen=True, slots=True)
class Answered:
    """One question about people that was answered: `credits` charged for it, `request_id` as the caller was told."""

    endpoint: str
    request_id: str
    credits: int


class Ledger:
    """Every credit, by person and company, and each answer about people with what it cost."""

    def __init__(self, balance: Decimal) -> None:
        self._lock = threading.Lock()
        self.balance = balance
        self.begun_with = balance
        self.charged: Counter[str] = Counter()
        self.answered: list[Answered] = []

    def charge(self, apollo_id: str) -> bool:
        """One credit for one person or company; False when there is none left."""
        with self._lock:
            if self.balance < 1:
                return False
            self.balance -= 1
            self.charged[apollo_id] += 1
            return True


class Simulator:
    """The sandbox's own view of Apollo."""

    def __init__(self, world: World, ledger: Ledger, limits: Limits) -> None:
        self._world, self._ledger, self._limits = world, ledger, limits

    def state(self) -> dict[str, Any]:
        charged = self._ledger.charged
        return {
            "records": {"people": self._world.people, "companies": self._world.accounts},
            "credits": {
                "charged": sum(charged.values()),
                "balance": float(self._ledger.balance),
                "more_than_once": {key: count for key, count in charged.items() if count > 1},
                "by_id": dict(charged.most_common(1000)),
                "by_answer": [asdict(answer) for answer in self._ledger.answered[-1000:]],
            },
            "refused_by_limit": self._limits.refused,
        }

    def edit(self, object_type: str, record_id: str, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        raise ValueError("Apollo's people are the world's own; edit a record of a CRM")


def create(
    world: World,
    *,
    api_key: str = API_KEY,
    key_in_body: bool = False,
    scopes: Sequence[str] | None = None,
    per_minute: int | None = 1000,
    per_hour: int | None = None,
    per_day: int | None = None,
    credits_left: int = 1_000_000,
    variant: str = "a",
    now: Callable[[], float] | None = None,
) -> Flask:
    """Return Apollo as a Flask application; `app.extensions["simulator"]` is its Simulator.

    `key_in_body`: the older contract, with `api_key` in the body. `scopes`: the endpoint names the key may call, None
    for all. `variant` "b": missing companies are null entries instead of absent, and a company asked for by two domains
    counts once as missing; single misses are null or 404 instead of an empty answer, credits_consumed is not told, a
    wrong place for the key is a 401, and out of credits is a 422.
    """
    if variant not in ("a", "b"):
        raise ValueError('variant is "a" or "b"')
    app = Flask(__name__, static_folder=None)
    limits = Limits((per_minute, per_hour, per_day), **({"now": now} if now else {}))
    ledger = Ledger(Decimal(credits_left))
    service = _Service(world, Catalogue(world), ledger, variant)
    gate = _Gate(api_key, limits, key_in_body=key_in_body, scopes=scopes, variant=variant)
    app.extensions["simulator"] = Simulator(world, ledger, limits)
    app.extensions["ledger"] = ledger

    @app.errorhandler(Refusal)
    def refused(error: Refusal) -> Response:
        body = error.body if isinstance(error.body, bytes) else orjson.dumps(error.body)
        kind = "text/plain; charset=utf-8" if error.text else "application/json"
        return Response(body, error.status, error.headers, content_type=kind)

    @app.post(f"/api/v1/{_BULK_MATCH}")
    def bulk_match() -> Response:
        content, headers = gate.admit(_BULK_MATCH)
        return _json(service.bulk_match(content), headers)

    @app.post(f"/api/v1/{_MATCH}")
    def match() -> Response:
        content, headers = gate.admit(_MATCH)
        return _json(service.match({**content, **request.args.to_dict()}), headers)

    @app.post(f"/api/v1/{_BULK_ENRICH}")
    def bulk_enrich() -> Response:
        content, headers = gate.admit(_BULK_ENRICH)
        return _json(service.bulk_enrich(content, request.args.getlist("domains[]")), headers)

    @app.get(f"/api/v1/{_ENRICH}")
    def enrich() -> Response:
        _, headers = gate.admit(_ENRICH)
        return _json(service.enrich(request.args.to_dict()), headers)

    @app.get("/v1/auth/health")
    @app.get("/api/v1/auth/health")
    def health() -> Response:
        gate.check_key({})
        return _json({"healthy": True, "is_logged_in": True}, {})

    @app.post("/api/v1/usage_stats/api_usage_stats")
    def api_usage() -> Response:
        _, headers = gate.admit("usage_stats/api_usage_stats")
        usage = {}
        for path in (_BULK_MATCH, _MATCH, _BULK_ENRICH, _ENRICH):
            group, _, name = path.partition("/")
            usage[f'["api/v1/{group}", "{name}"]'] = limits.usage(path)
        return _json(usage, headers)

    @app.post("/api/v1/usage_stats/credit_usage_stats")
    def credit_usage() -> Response:
        _, headers = gate.admit("usage_stats/credit_usage_stats")
        used = ledger.begun_with - ledger.balance
        return _json(
            {
                "credit_usage_stats": {
                    "lead_credit": {
                        "limit": float(ledger.begun_with),
                        "consumed": float(used),
                        "left_over": float(ledger.balance),
                    }
                },
                "current_credit_cycle": {
                    "start_date": "2026-11-01T00:00:00.000Z",
                    "end_date": "2026-12-01T00:00:00.000Z",
                },
            },
            headers,
        )

    return app


class _Gate:
    """Keys, scopes, limits, and the body as an object."""

    def __init__(
        self, api_key: str, limits: Limits, *, key_in_body: bool, scopes: Sequence[str] | None, variant: str
    ) -> None:
        self._api_key = api_key
        self._limits = limits
        self._key_in_body = key_in_body
        self._scopes = scopes
        self._variant = variant

    def admit(self, endpoint: str) -> tuple[dict[str, Any], dict[str, str]]:
        """(the body, the answer's rate headers)."""
        content = self._content(endpoint)
        self.check_key(content)
        content.pop("api_key", None)
        if self._scopes is not None and endpoint not in self._scopes:
            raise Refusal(
                403,
                {
                    "error": f"This API key is not authorized to access api/v1/{endpoint}. Request an API key "
                    "from your administrator that includes this endpoint in its configured scope.",
                    "error_code": "API_INACCESSIBLE",
                },
            )
        headers, full = self._limits.take(endpoint)
        if full is not None:
            wait, window, most = full
            message = f"The maximum number of api calls allowed for api/v1/{endpoint} is {most} times per {window}."
            raise Refusal(429, {"message": message}, {**headers, "retry-after": str(wait)})
        return content, headers

    def check_key(self, content: Mapping[str, Any]) -> None:
        if self._key_in_body:
            given = content.get("api_key") or request.args.get("api_key")
        else:
            given = request.headers.get("x-api-key")
            if given is None and ("api_key" in content or "api_key" in request.args):
                if self._variant == "b":
                    raise Refusal(401, {"error": "Invalid access credentials."})
                message = "API key must be passed in the X-Api-Key header for security reasons"
                raise Refusal(422, {"error": message, "error_code": "INVALID_API_KEY_LOCATION"})
        if given != self._api_key:
            raise Refusal(401, UNKNOWN_KEY, text=True)

    def _content(self, endpoint: str) -> dict[str, Any]:
        raw = request.get_data()
        if not raw:
            return {}
        try:
            content = orjson.loads(raw)
        except ValueError:
            raise Refusal(400, _failed("INVALID_REQUEST", f"invalid request, no JSON body for {endpoint}")) from None
        if not isinstance(content, dict):
            raise Refusal(422, _failed("UNKNOWN_ERROR", "no implicit conversion of Symbol into Integer"))
        return content


class _Service:
    """What Apollo knows and what it charges for it."""

    def __init__(self, world: World, catalogue: Catalogue, ledger: Ledger, variant: str) -> None:
        self._world, self._catalogue, self._ledger, self._variant = world, catalogue, ledger, variant
        self._ids = random.Random(world.seed)
        self._lock = threading.Lock()

    # --- people -------------------------------------------------------------------------------------------------

    def bulk_match(self, content: dict[str, Any]) -> dict[str, Any]:
        _refuse_flags(content)
        unknown = set(content) - {"details"} - _FLAGS
        if unknown:
            raise Refusal(422, _failed("UNKNOWN_ERROR", f"sandbox: bulk_match takes no {', '.join(sorted(unknown))}"))
        details = content.get("details")
        if details is None:
            raise Refusal(400, _failed("INVALID_REQUEST", "invalid request, missing details"))
        if not isinstance(details, list) or not all(isinstance(detail, dict) for detail in details) or not details:
            raise Refusal(422, _failed("UNKNOWN_ERROR", "no implicit conversion of Symbol into Integer"))
        if len(details) > 10:
            raise Refusal(400, _failed("RECORD_LIMIT_EXCEEDED", "cannot enrich more than 10 in a single request"))
        for detail in details:
            _check_person(detail)
        charged: dict[str, bool] = {}
        matches = [self._match(detail, charged) for detail in details]
        paid = sum(charged.values())
        request_id = self._request_id()
        self._ledger.answered.append(Answered(_BULK_MATCH, str(request_id), paid))
        answer = {
            "status": "success",
            "error_code": None,
            "error_message": None,
            "total_requested_enrichments": len(details),
            "unique_enriched_records": paid,
            "missing_records": sum(match is None for match in matches),
            # Decimals are real: the seed shows 1.01.
            "credits_consumed": float(paid),
            "matches": matches,
            "request_id": request_id,
        }
        if self._variant == "b":
            del answer["credits_consumed"]
        return answer

    def match(self, content: dict[str, Any]) -> dict[str, Any]:
        _refuse_flags(content)
        detail = {key: value for key, value in content.items() if key not in _FLAGS}
        _check_person(detail)
        charged: dict[str, bool] = {}
        found = self._match(detail, charged)
        request_id = self._request_id()
        self._ledger.answered.append(Answered(_MATCH, str(request_id), sum(charged.values())))
        if found is None and self._variant == "b":
            raise Refusal(404, {"error": "Person not found"})
        return {"person": found, "request_id": request_id}

    def _match(self, detail: Mapping[str, Any], charged: dict[str, bool]) -> dict[str, Any] | None:
        person = self._find(detail)
        if person is None or person.apollo == "unknown":
            return None
        first, last = detail.get("first_name", person.first_name), detail.get("last_name", person.last_name)
        if person.apollo == "echo":
            return self._catalogue.echo(first, last, f"{sorted(detail.items())}")
        by_name_alone = not detail.get("email") and not detail.get("linkedin_url") and not detail.get("id")
        if person.apollo == "namesake" and by_name_alone:
            found = self._catalogue.namesake(person)
        else:
            found = self._catalogue.person(person)
        key = found["id"]
        if key not in charged:
            charged[key] = self._charge(key)
        if not charged[key]:
            found = {**found, "email": LOCKED_MAIL, "email_status": None}
        return found

    def _find(self, detail: Mapping[str, Any]) -> Person | None:
        world = self._world
        if detail.get("id"):
            index = person_index(detail["id"])
            return world.person(index) if index is not None and index < world.people else None
        if detail.get("email"):
            found = world.by_email(detail["email"])
            if found:
                return world.person(found[0])
        if detail.get("linkedin_url"):
            slug = detail["linkedin_url"].rstrip("/").rpartition("/")[2].lower()
            index = world.by_linkedin(slug)
            if index is not None:
                return world.person(index)
        first, last = detail.get("first_name", ""), detail.get("last_name", "")
        if not last and detail.get("name"):
            first, _, last = detail["name"].rpartition(" ")
        company = world.by_domain(detail["domain"]) if detail.get("domain") else None
        if company is not None and first and last:
            named = world.people_named(first, last, company)
            # Several who match equally well: one of them is picked (design/peers.md, A7).
            return world.person(named[0]) if named else None
        return None

    # --- companies ----------------------------------------------------------------------------------------------

    def bulk_enrich(self, content: dict[str, Any], domains_in_query: list[str]) -> dict[str, Any]:
        details = content.get("details")
        domains = content.get("domains", domains_in_query or None)
        if details is None and domains is None:
            message = "invalid request, missing domains"
            raise Refusal(400, orjson.dumps(_failed("INVALID_REQUEST", message), option=orjson.OPT_INDENT_2), text=True)
        asked = details if details is not None else [{"domain": domain} for domain in domains or ()]
        if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked) or not asked:
            raise Refusal(422, _failed("UNKNOWN_ERROR", "no implicit conversion of Symbol into Integer"))
        if len(asked) > 10:
            raise Refusal(400, _failed("RECORD_LIMIT_EXCEEDED", "domain count cannot be more than 10"))
        for one in asked:
            _check_company(one)
        indexes = list(dict.fromkeys(self._company_of(one) for one in asked))
        found = [index for index in indexes if index is not None and self._world.company(index).known]
        organizations: list[Any] = [
            self._catalogue.full(self._world.company(index)) for index in found if self._charge(company_id(index))
        ]
        distinct = len({_key(one) for one in asked})
        missing = distinct - len(organizations)
        if self._variant == "a":
            # "Inputs that matched nobody", as the page says of people: two domains of one company are both found.
            bought = {company["id"] for company in organizations}
            missing = len({_key(one) for one in asked if not self._is_among(bought, one)})
        # The array is an unordered bag (contracts/apollo.md 2.3).
        organizations.sort(key=lambda company: hashlib.md5(company["id"].encode()).digest())  # noqa: S324 - shuffles
        if self._variant == "b":
            organizations += [None] * missing
        by_domains = details is None
        return {
            "status": "success",
            "error_code": None,
            "error_message": None,
            "total_requested_records": None if by_domains else len(asked),
            "total_requested_domains": len(asked) if by_domains else None,
            "unique_domains": distinct if by_domains else None,
            "unique_records": None if by_domains else distinct,
            "unique_enriched_records": len(found),
            "missing_records": missing,
            "organizations": organizations,
        }

    def enrich(self, query: dict[str, str]) -> dict[str, Any]:
        wanted = {key: value for key, value in query.items() if key in _COMPANY_KEYS}
        if not any(wanted.get(key) for key in ("domain", "linkedin_url", "website")):
            # A name alone is no longer accepted (contracts/apollo.md 2.4, end of August 2026).
            raise Refusal(422, {"error": "Required parameter 'domain' missing"})
        _check_company(wanted)
        index = self._company_of(wanted)
        if index is None or not self._world.company(index).known or not self._charge(company_id(index)):
            return {} if self._variant == "a" else {"organization": None}
        return {"organization": self._catalogue.rich(self._world.company(index))}

    def _is_among(self, bought: Container[str], detail: Mapping[str, Any]) -> bool:
        index = self._company_of(detail)
        return index is not None and company_id(index) in bought

    def _company_of(self, detail: Mapping[str, Any]) -> int | None:
        site = detail.get("domain") or detail.get("website") or ""
        host = re.split(r"[/?#]", str(site).lower().partition("://")[2] or str(site).lower())[0].removeprefix("www.")
        if host:
            return self._world.by_domain(host)
        slug = str(detail.get("linkedin_url", "")).rstrip("/").rpartition("/")[2]
        stem = slug.replace("-", "")
        return self._world.by_domain(f"{stem}.example") if stem else None

    # --- money --------------------------------------------------------------------------------------------------

    def _charge(self, key: str) -> bool:
        if self._ledger.charge(key):
            return True
        if self._variant == "b":
            raise Refusal(422, {"error": "You have insufficient credits to perform this action."})
        return False

    def _request_id(self) -> int:
        with self._lock:
            return self._ids.randrange(-(2**63), 2**63)


def _refuse_flags(content: Mapping[str, Any]) -> None:
    for flag in _NOT_YET:
        if str(request.args.get(flag, content.get(flag, "false"))).lower() == "true":
            raise Refusal(422, {"error": f"sandbox: {flag} is not simulated yet"})
    if request.args.get("webhook_url") or content.get("webhook_url"):
        raise Refusal(422, {"error": "webhook_url is only allowed with reveal_phone_number"})


def _check_person(detail: Mapping[str, Any]) -> None:
    unknown = set(detail) - _PERSON_KEYS
    if unknown:
        raise Refusal(422, _failed("UNKNOWN_ERROR", f"sandbox: a detail has no {', '.join(sorted(unknown))}"))
    _check_texts(detail)
    if detail.get("email") and not _EMAIL.match(detail["email"]):
        raise Refusal(422, _failed("UNKNOWN_ERROR", "invalid value for email"))
    domain = detail.get("domain")
    if domain and ("/" in domain or "@" in domain or domain.startswith("www.")):
        raise Refusal(422, _failed("UNKNOWN_ERROR", "domain must be bare, without www. or @"))


def _check_company(detail: Mapping[str, Any]) -> None:
    unknown = set(detail) - _COMPANY_KEYS
    if unknown:
        raise Refusal(422, _failed("UNKNOWN_ERROR", f"sandbox: a detail has no {', '.join(sorted(unknown))}"))
    _check_texts(detail)


def _check_texts(detail: Mapping[str, Any]) -> None:
    for value in detail.values():
        if not isinstance(value, str):
            message = "undefined method `length' for an instance of ActionController::Parameters"
            raise Refusal(422, _failed("UNKNOWN_ERROR", message))
        if _CONTROL.search(value) or len(value) > 500:
            raise Refusal(422, _failed("UNKNOWN_ERROR", "invalid byte sequence in UTF-8"))


def _key(detail: Mapping[str, Any]) -> str:
    return str(detail.get("domain") or detail.get("website") or detail.get("linkedin_url") or detail.get("name"))


def _failed(code: str, message: str) -> dict[str, str]:
    return {"status": "failed", "error_code": code, "error_message": message}


def _json(value: Any, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps(value), 200, dict(headers), content_type="application/json")


__all__ = ["API_KEY", "Ledger", "Simulator", "create", "person_id"]
