"""Apollo over loopback HTTP: enrichment of people and companies, phone reveals with their callbacks and polls, keys,
limits, and a ledger of every credit.

It stands on contracts/apollo.md sections 1 to 5. Where that page leaves two behaviours open, `variant` "a" and "b" play
one each. A waterfall is refused by name; only the shape of its callback is there, for a script of callbacks.

Rooms: `gate` (keys, scopes, limits), `flags` (what a call orders), `people` (answers), `phones` (orders, reveals,
polls), `courier` (delivery), `callbacks` (the script of what becomes of them), `payloads` (their shapes), `ledger`.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import orjson
from flask import Flask, Response, request

from crm_sync.sandbox.apollo.callbacks import Callbacks
from crm_sync.sandbox.apollo.controls import add_controls
from crm_sync.sandbox.apollo.errors import Refusal
from crm_sync.sandbox.apollo.errors import failed as _failed
from crm_sync.sandbox.apollo.flags import FLAGS, webhook_of
from crm_sync.sandbox.apollo.gate import Gate
from crm_sync.sandbox.apollo.ledger import Answered, Ledger
from crm_sync.sandbox.apollo.limits import Limits
from crm_sync.sandbox.apollo.people import (
    LOCKED_MAIL,
    Catalogue,
    company_id,
    namesake_index,
    person_id,
    person_index,
)
from crm_sync.sandbox.apollo.phones import Reveals
from crm_sync.sandbox.server import Api
from crm_sync.sandbox.world import Person, World

API_KEY = "sandbox-apollo-key"

_BULK_MATCH, _MATCH = "people/bulk_match", "people/match"
_BULK_ENRICH, _ENRICH = "organizations/bulk_enrich", "organizations/enrich"
_WEBHOOK_RESULT = "webhook_result"
_PERSON_KEYS = {
    "first_name", "last_name", "name", "email", "hashed_email", "organization_name", "domain", "id", "linkedin_url",
}  # fmt: skip
_COMPANY_KEYS = {"domain", "linkedin_url", "name", "website"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")


class Simulator:
    """The sandbox's own view of Apollo."""

    def __init__(self, world: World, ledger: Ledger, reveals: Reveals, *, limits: Limits, poll_limits: Limits) -> None:
        self._world, self._ledger, self._reveals = world, ledger, reveals
        self._limits, self._poll_limits = limits, poll_limits

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
            "phones": {**self._reveals.state(), "polls_refused_by_limit": self._poll_limits.refused},
            "refused_by_limit": self._limits.refused,
            "minutes": self._limits.minutes,
        }

    def close(self) -> None:
        """Stop sending callbacks; everything can still be looked at."""
        self._reveals.close()

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
    now: Callable[[], float] = time.monotonic,
    reveal_delay_s: float = 0.2,
    callbacks: Sequence[Mapping[str, Any]] = (),
    callback_tries: int = 3,
    callback_spacing_s: Sequence[float] = (0.5, 1.0),
    callback_timeout_s: float = 10.0,
    poll_retry_after_s: int = 10,
    poll_per_minute: int | None = 200,
    poll_per_hour: int | None = 400,
    poll_per_day: int | None = 2000,
) -> Flask:
    """Return Apollo as a Flask application; `app.extensions["simulator"]` is its Simulator.

    `key_in_body`: the older contract, with `api_key` in the body. `scopes`: the endpoint names the key may call, None
    for all. `variant` "b": missing companies are null entries instead of absent, and a company asked for by two domains
    counts once as missing; single misses are null or 404 instead of an empty answer, credits_consumed is not told, a
    wrong place for the key is a 401, and out of credits is a 422; a webhook_url encoded twice is refused, and a poll
    that comes too early is told in_progress instead of 404. `now` counts the limits and the days a result is kept.

    `reveal_delay_s`: how long a reveal takes. `callbacks`: a script of what becomes of their callbacks, as for POST
    /_sandbox/callbacks; it is `app.extensions["callbacks"]`. `callback_...`: how often and when one is tried that was
    not taken. `poll_...`: limits of the free endpoint webhook_result, and what a poll that comes too early is told.
    """
    if variant not in ("a", "b"):
        raise ValueError('variant is "a" or "b"')
    app = Api(__name__, static_folder=None)
    limits = Limits((per_minute, per_hour, per_day), now=now)
    poll_limits = Limits((poll_per_minute, poll_per_hour, poll_per_day), now=now)
    ledger = Ledger(Decimal(credits_left))
    catalogue = Catalogue(world)
    script = Callbacks(callbacks)
    reveals = Reveals(
        catalogue=catalogue,
        ledger=ledger,
        callbacks=script,
        delay_s=reveal_delay_s,
        retry_after_s=poll_retry_after_s,
        tries=callback_tries,
        spacing_s=callback_spacing_s,
        timeout_s=callback_timeout_s,
        variant=variant,
        now=now,
    )
    service = _Service(world, catalogue, ledger, reveals, variant, flags_in_body=key_in_body)
    gate = Gate(api_key, limits, key_in_body=key_in_body, scopes=scopes, variant=variant)
    simulator = Simulator(world, ledger, reveals, limits=limits, poll_limits=poll_limits)
    app.extensions["simulator"] = simulator
    app.extensions["ledger"] = ledger
    app.extensions["callbacks"] = script
    app.extensions["at_stop"] = [simulator.close]
    add_controls(app, script, reveals)

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

    @app.get(f"/api/v1/{_WEBHOOK_RESULT}/<request_id>")
    def webhook_result(request_id: str) -> Response:
        _, headers = gate.admit(_WEBHOOK_RESULT, limits=poll_limits)
        try:
            return _json(reveals.poll(request_id), headers)
        except Refusal as refusal:
            refusal.headers.update(headers)
            raise

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
        # A controller and its action, as the others are; that the action is called "show" is Rails' custom.
        usage[f'["api/v1/{_WEBHOOK_RESULT}", "show"]'] = poll_limits.usage(_WEBHOOK_RESULT)
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


class _Service:
    """What Apollo knows and what it charges for it."""

    def __init__(
        self,
        world: World,
        catalogue: Catalogue,
        ledger: Ledger,
        reveals: Reveals,
        variant: str,
        *,
        flags_in_body: bool,
    ) -> None:
        self._world, self._catalogue, self._ledger, self._variant = world, catalogue, ledger, variant
        self._reveals, self._flags_in_body = reveals, flags_in_body
        self._ids = random.Random(world.seed)
        self._lock = threading.Lock()

    # --- people -------------------------------------------------------------------------------------------------

    def bulk_match(self, content: dict[str, Any]) -> dict[str, Any]:
        webhook = self._webhook(content)
        unknown = set(content) - {"details"} - FLAGS
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
        matches = [self._match(detail, charged, with_reveal=webhook is not None) for detail in details]
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
            **self._reveal(matches, request_id, webhook),
            "request_id": request_id,
        }
        if self._variant == "b":
            del answer["credits_consumed"]
        return answer

    def match(self, content: dict[str, Any]) -> dict[str, Any]:
        webhook = self._webhook(content)
        detail = {key: value for key, value in content.items() if key not in FLAGS}
        _check_person(detail)
        charged: dict[str, bool] = {}
        found = self._match(detail, charged, with_reveal=webhook is not None)
        request_id = self._request_id()
        self._ledger.answered.append(Answered(_MATCH, str(request_id), sum(charged.values())))
        if found is None and self._variant == "b":
            raise Refusal(404, {"error": "Person not found"})
        return {"person": found, **self._reveal([found], request_id, webhook), "request_id": request_id}

    def _webhook(self, content: Mapping[str, Any]) -> str | None:
        return webhook_of(content, request.args, flags_in_body=self._flags_in_body, variant=self._variant)

    def _reveal(
        self, matches: Sequence[dict[str, Any] | None], request_id: int, webhook: str | None
    ) -> dict[str, dict[str, Any]]:
        """The answer's phone_enrichment; not there where none was ordered or nobody matched (contracts/apollo.md 2.1).

        An echo is no miss to Apollo: its reveal runs, and finds nothing.
        """
        people = [match["id"] for match in matches if match is not None]
        if webhook is None or not people:
            return {}
        return {"phone_enrichment": self._reveals.start(people, request_id, webhook)}

    def _match(
        self, detail: Mapping[str, Any], charged: dict[str, bool], *, with_reveal: bool
    ) -> dict[str, Any] | None:
        person = self._find(detail)
        if person is None or person.apollo == "unknown":
            return None
        first, last = detail.get("first_name", person.first_name), detail.get("last_name", person.last_name)
        if person.apollo == "echo":
            return self._catalogue.echo(first, last, f"{sorted(detail.items())}")
        by_name_alone = not detail.get("email") and not detail.get("linkedin_url") and not detail.get("id")
        if (person.apollo == "namesake" and by_name_alone) or namesake_index(detail.get("id", "")) is not None:
            found = self._catalogue.namesake(person)
        else:
            found = self._catalogue.person(person)
        key = found["id"]
        if key not in charged:
            charged[key] = self._charge(key, with_reveal=with_reveal)
        if not charged[key]:
            found = {**found, "email": LOCKED_MAIL, "email_status": None}
        return found

    def _find(self, detail: Mapping[str, Any]) -> Person | None:
        world = self._world
        if detail.get("id"):
            index = person_index(detail["id"])
            if index is None:
                index = namesake_index(detail["id"])
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

    def _charge(self, key: str, *, with_reveal: bool = False) -> bool:
        if self._ledger.charge(key, with_reveal=with_reveal):
            return True
        if self._variant == "b":
            raise Refusal(422, {"error": "You have insufficient credits to perform this action."})
        return False

    def _request_id(self) -> int:
        with self._lock:
            return self._ids.randrange(-(2**63), 2**63)


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


def _json(value: Any, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps(value), 200, dict(headers), content_type="application/json")


__all__ = ["API_KEY", "Answered", "Ledger", "Refusal", "Simulator", "create", "person_id"]
