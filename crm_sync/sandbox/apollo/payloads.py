"""The shapes phone numbers are delivered in (contracts/apollo-payloads/webhook_*.json)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from crm_sync.sandbox.numbers import Phone, other_number

_PHONE_ID = "64dbe1"
#: More than a receiver has to take (crm_sync takes 256 KiB).
_HUGE = 300 << 10
_OF_NO_KIND = Phone("(201) 555-0123", "+12015550123", None, "no_status", None, None, None)

#: A person's Apollo id and what was found for them; () is "failed".
Found = tuple[str, tuple[Phone, ...]]


def native(people: Sequence[Found], credits_consumed: int) -> dict[str, Any]:
    """webhook_phone_native.json: without a request id; a person is known by Apollo's id alone."""
    enriched = sum(bool(phones) for _, phones in people)
    return {
        "status": "success",
        "total_requested_enrichments": len(people),
        "unique_enriched_records": enriched,
        "missing_records": len(people) - enriched,
        "credits_consumed": credits_consumed,
        "people": [_person(apollo_id, phones) for apollo_id, phones in people],
    }


def with_foreigner(payload: dict[str, Any], apollo_id: str, phones: tuple[Phone, ...]) -> dict[str, Any]:
    """`payload` with somebody nobody asked for, whom its counters do not count."""
    return {**payload, "people": [*payload["people"], _person(apollo_id, phones)]}


def changed(people: Sequence[Found]) -> list[Found]:
    """The same people with other numbers; those who had none have one of no kind."""
    return [(apollo_id, tuple(_next_door(phone) for phone in phones) or (_OF_NO_KIND,)) for apollo_id, phones in people]


def waterfall(
    people: Sequence[Found], credits_consumed: int, request_id: int, initiated: str, completed: str
) -> dict[str, Any]:
    """webhook_waterfall.json, with nothing but phones asked for: other counters, no status of a person, fewer fields
    of a number, and the request id as text."""
    enriched = sum(bool(phones) for _, phones in people)
    return {
        "status": "success",
        "total_requested_enrichments": len(people),
        "target_fields": ["phone_numbers"],
        "records_enriched": enriched,
        "email_records_enriched": 0,
        "mobile_records_enriched": enriched,
        "enrichment_not_found": len(people) - enriched,
        "email_records_not_found": 0,
        "mobile_records_not_found": len(people) - enriched,
        "credits_consumed": credits_consumed,
        "request_id": str(request_id),
        "request_initiated": initiated,
        "request_completed": completed,
        "people": [
            {
                "id": apollo_id,
                "waterfall": {"emails": [], "phone_numbers": [{"vendors": [_vendor(phones)]}]},
                "phone_numbers": [_bare_number(apollo_id, phone, place) for place, phone in enumerate(phones)],
                "emails": [],
            }
            for apollo_id, phones in people
        ],
    }


def latin1(payload: dict[str, Any]) -> bytes:
    """`payload` in an encoding that is not JSON's, with a letter that shows it."""
    payload = orjson.loads(orjson.dumps(payload))
    numbers = [number for person in payload["people"] for number in person["phone_numbers"]]
    if numbers:
        numbers[0]["dnc_other_info"] = {"country": "Côte d'Ivoire"}
    else:
        payload["message"] = "numéro introuvable"
    return orjson.dumps(payload).decode().encode("latin-1")


def huge(payload: dict[str, Any]) -> bytes:
    return orjson.dumps({**payload, "sandbox_filler": "x" * _HUGE})


def _person(apollo_id: str, phones: tuple[Phone, ...]) -> dict[str, Any]:
    return {
        "id": apollo_id,
        "status": "success" if phones else "failed",
        "phone_numbers": [_number(apollo_id, phone, place) for place, phone in enumerate(phones)],
    }


def _number(apollo_id: str, phone: Phone, position: int) -> dict[str, Any]:
    phone_id = _phone_id(apollo_id, position)
    return {
        "_id": phone_id,
        "confidence_cd": phone.confidence_cd,
        "created_at": None,
        "direct_dial_source_cd": "contact_trusted" if phone.confidence_cd == "high" else None,
        "dnc_other_info": {} if phone.dnc_country is None else {"country": phone.dnc_country},
        "dnc_status_cd": phone.dnc_status_cd,
        "dnc_status_updated_at": f"2026-08-{1 + int(apollo_id[12:], 16) % 28:02d}T20:57:53.108+00:00",
        "position": position,
        "raw_number": phone.raw,
        "sanitized_number": phone.sanitized,
        "status_cd": phone.status_cd,
        "type_cd": phone.type_cd,
        "updated_at": None,
        "id": phone_id,
        "key": phone_id,
    }


def _bare_number(apollo_id: str, phone: Phone, position: int) -> dict[str, Any]:
    number = _number(apollo_id, phone, position)
    for name in ("created_at", "direct_dial_source_cd", "position", "updated_at"):
        del number[name]
    return number


def _vendor(phones: tuple[Phone, ...]) -> dict[str, Any]:
    return {
        "id": "dialhouse_mobile_finder-1",
        "name": "DialHouse",
        "status": "UNVERIFIED",
        "phone_numbers": [phone.raw for phone in phones],
        "usedForVerification": False,
        "statusCode": None,
        "statusMessage": None,
        "authMechanism": "native",
    }


def _next_door(phone: Phone) -> Phone:
    if not any(map(str.isdigit, phone.raw)):
        return _OF_NO_KIND
    return Phone(
        other_number(phone.raw),
        None if phone.sanitized is None else other_number(phone.sanitized),
        phone.type_cd,
        phone.status_cd,
        phone.confidence_cd,
        phone.dnc_status_cd,
        phone.dnc_country,
    )


def _phone_id(apollo_id: str, position: int) -> str:
    return f"{_PHONE_ID}{position:05x}{apollo_id[11:]}"
