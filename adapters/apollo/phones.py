"""Phone numbers that Apollo reveals later: how they are ordered, what is delivered, what a poll says. Pure.

Everything that is delivered may have been written by anybody who knows an address of ours (design/reliability.md 4), so
nothing here trusts the type, the length or the depth of anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from adapters.apollo import wire
from adapters.apollo.wire import PROVIDER, Question
from adapters.http import parse_object
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.reveals import (
    OrderAnswer,
    Ordering,
    PersonPhones,
    PhoneDelivery,
    PhoneNumber,
    Polled,
    PollState,
)
from crm_sync.errors import ContractError

POLL = "webhook_result"
#: "+8 when a mobile is returned", beside the 1 for the person (contracts/apollo.md 5, 2026-10).
CREDITS = Decimal(9)

_MOST_NUMBERS = 100  # of one person; Apollo's samples have two
_MOST_LETTERS = 60  # of a number as somebody typed it, and of a country's name
_MOST_OF_CODE = 40
_LONGEST_WAIT_S = 86_400.0
#: In the place of a code that is neither text nor null. It is no word of Apollo's, so that it is taken for an unknown
#: one: null would mean that no do-not-call check was told, and such a number may be used.
_UNREADABLE = "(unreadable)"


# --- ordering -----------------------------------------------------------------------------------------------------


def reveal_question(keys: Sequence[MatchKeys], callback: str, *, key_in_body: str = "") -> Question:
    """people/bulk_match that orders phone numbers, to be delivered at `callback`: for people whose Apollo id is known
    by that id alone, for others by what identifies them.

    `key_in_body`: the API key for the older contract (the seed's), which has flags and address in the body too.
    """
    endpoint = wire.BULK[Purpose.PHONE]
    details = [wire.person_keys(key) for key in keys]
    flags: dict[str, Any] = {"reveal_personal_emails": False, "reveal_phone_number": True, "webhook_url": callback}
    if key_in_body:
        body = orjson.dumps({"api_key": key_in_body, **flags, "details": details})
        return Question(endpoint=endpoint, method="POST", target=f"/{endpoint}", body=body)
    # In the body the flags were silently ignored: 200, no order, no delivery ever. The address is percent-encoded once
    # (contracts/apollo.md 2.1 and 3, 2026-10).
    query = {"reveal_personal_emails": "false", "reveal_phone_number": "true", "webhook_url": callback}
    target = f"/{endpoint}?{urlencode(query, quote_via=quote, safe='')}"
    return Question(endpoint=endpoint, method="POST", target=target, body=orjson.dumps({"details": details}))


def read_order_answer(tree: object) -> OrderAnswer:
    """What the answer to a reveal, parsed, says about what will be delivered (contracts/apollo.md 2.1, 2026-10)."""
    if not isinstance(tree, Mapping):
        return OrderAnswer(ordering=Ordering.NOTHING, reason="Apollo's answer is no JSON object")
    phones, waterfall = tree.get("phone_enrichment"), tree.get("waterfall")
    if isinstance(phones, Mapping):
        status = _code(phones.get("status"))
        if status == "pending":
            return OrderAnswer(ordering=Ordering.ACCEPTED)
        if status == "skipped":
            return OrderAnswer(
                ordering=Ordering.SKIPPED,
                reason="Apollo is revealing these people already, for an earlier order that brings their numbers",
            )
        return _nothing("phone_enrichment", phones)
    if isinstance(waterfall, Mapping):
        if _code(waterfall.get("status")) == "accepted":
            return OrderAnswer(ordering=Ordering.ACCEPTED)
        return _nothing("waterfall", waterfall)
    matches = tree.get("matches")
    if isinstance(matches, list) and all(_is_nobody(entry) for entry in matches):
        return OrderAnswer(ordering=Ordering.NOBODY, reason="Apollo found none of these people, so no number will come")
    return OrderAnswer(
        ordering=Ordering.NOTHING,
        reason="Apollo's answer does not speak of a reveal; was the flag understood?",
    )


def _nothing(name: str, told: Mapping[str, Any]) -> OrderAnswer:
    status, message = wire.shown(_code(told.get("status"))), told.get("message")
    words = f": {wire.shown(message)}" if isinstance(message, str) and message.strip() else ""
    return OrderAnswer(
        ordering=Ordering.NOTHING,
        reason=f"Apollo did not take the order ({name} is {status or 'without a status'}{words})",
    )


def _is_nobody(entry: object) -> bool:
    """A miss: null, or on waterfall calls an object with match_confidence none (contracts/apollo.md 2.1, 2026-10)."""
    return not entry or (isinstance(entry, Mapping) and _code(entry.get("match_confidence")) == "none")


# --- deliveries ---------------------------------------------------------------------------------------------------


def read_delivery(body: bytes) -> PhoneDelivery:
    """A delivery in any of Apollo's three shapes (contracts/apollo.md 3, 2026-10), or a poll's answer.

    An entry that cannot be used is left out: of a person without an id, of one whose list of numbers is no list, of a
    number that is not there. An id that comes twice is one person. A number that is too long is left out and not cut,
    since what is left would be somebody else's. Of a key that comes twice the last one counts.

    Raises:
        ContractError: it is none: no JSON in UTF-8, not an object, no list of people. The sentence shows nothing of it.
    """
    tree, text = _tree(body, "delivery")
    if _is_envelope(tree):
        result = tree.get("webhook_result")
        request_id = _request_id(tree, text)
        if result is None:
            return PhoneDelivery(people=(), credits=None, request_id=request_id, shape="envelope", finished=False)
        if not isinstance(result, dict):
            raise _unreadable("delivery", "its webhook_result is not an object")
        return PhoneDelivery(
            people=_people(result),
            credits=wire.credits_charged(result),
            request_id=request_id or _request_id(result, b""),
            shape="envelope",
        )
    return PhoneDelivery(
        people=_people(tree),
        credits=wire.credits_charged(tree),
        request_id=_request_id(tree, text),
        shape="waterfall" if _is_waterfall(tree) else "native",
    )


def _tree(body: bytes, what: str) -> tuple[dict[str, Any], bytes]:
    """The body as parsed, and without a byte order mark. The parser refuses bytes that are not UTF-8, NaN and numbers
    that are infinite as a double, lone surrogates, and more than 1,024 levels."""
    text = body.removeprefix(b"\xef\xbb\xbf")
    try:
        return parse_object(text, provider=PROVIDER, operation=what), text
    except ContractError:
        raise _unreadable(what, "it is no JSON object in UTF-8") from None


def _unreadable(what: str, why: str) -> ContractError:
    return ContractError(f"Apollo's {what} cannot be read: {why}", provider=PROVIDER, operation=what)


def _is_envelope(tree: Mapping[str, Any]) -> bool:
    return "people" not in tree and ("webhook_result" in tree or "webhook_status" in tree)


def _is_waterfall(tree: Mapping[str, Any]) -> bool:
    return any(name in tree for name in ("target_fields", "records_enriched", "request_initiated"))


def _people(tree: Mapping[str, Any]) -> tuple[PersonPhones, ...]:
    people = tree.get("people")
    if not isinstance(people, list):
        raise _unreadable("delivery", "it has no list of people")
    found: dict[str, list[PhoneNumber]] = {}
    for person in people:
        if not isinstance(person, dict):
            continue
        apollo_id, numbers = person.get("id"), person.get("phone_numbers")
        if not isinstance(apollo_id, str) or not _is_id(apollo_id):
            continue
        if numbers is None:
            numbers = []  # keys go missing rather than null (contracts/apollo.md 2.1, 2026-10)
        if not isinstance(numbers, list):
            continue  # "none" is an answer that closes the reveal, and this is not it
        found.setdefault(apollo_id, []).extend(_numbers(numbers))
    return tuple(
        PersonPhones(apollo_id=apollo_id, numbers=tuple(numbers[:_MOST_NUMBERS]))
        for apollo_id, numbers in found.items()
    )


def _is_id(value: str) -> bool:
    return 0 < len(value) <= 64 and value.isprintable() and not value.isspace()


def _numbers(entries: list[Any]) -> Iterator[PhoneNumber]:
    """Of people[].phone_numbers[] only: what a waterfall's vendors answered is not known to be the person's."""
    for entry in entries[:_MOST_NUMBERS]:
        if not isinstance(entry, dict):
            continue
        raw, sanitized = _line(entry.get("raw_number")), _line(entry.get("sanitized_number"))
        if not (raw or sanitized):
            continue
        check = entry.get("dnc_other_info")
        yield PhoneNumber(
            raw=raw,
            sanitized=sanitized,
            type=_code(entry.get("type_cd")),
            status=_code(entry.get("status_cd")),
            confidence=_code(entry.get("confidence_cd")),
            dnc=_code(entry.get("dnc_status_cd")),
            country=_line(check.get("country")) if isinstance(check, dict) else "",
            position=_position(entry.get("position")),
        )


def _line(value: object) -> str:
    """One short line, "" where it is none. Marks that cannot be seen (of writing direction, say) are taken out."""
    if not isinstance(value, str) or len(value) > 10 * _MOST_LETTERS:
        return ""
    line = " ".join(value.split())
    if not line.isprintable():
        line = "".join(c for c in line if unicodedata.category(c) != "Cf").strip()
    return line if len(line) <= _MOST_LETTERS and line.isprintable() else ""


def _code(value: object) -> str:
    """A code of Apollo's, trimmed and folded; "" for null. What it cannot be stays something that no known code is."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return _UNREADABLE
    code = value[: 10 * _MOST_OF_CODE].strip().casefold()[:_MOST_OF_CODE]
    return code if code.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in code)


def _position(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000 else None


def _request_id(tree: Mapping[str, Any], body: bytes) -> str:
    """The id as text, "" where it cannot be one: one cut short is another's. `body`: where its digits stand."""
    value = tree.get("request_id")
    if not isinstance(value, str):
        return wire.request_id_text(tree, body)
    text = value.strip() if len(value) <= 100 else ""
    return text if len(text) <= 40 and text.isprintable() else ""


# --- polls --------------------------------------------------------------------------------------------------------

_CODES = {
    "request_id_unknown": (PollState.UNKNOWN, "Apollo does not know this request"),
    "invalid_request_id": (PollState.UNKNOWN, "Apollo cannot read this request's id"),
    "request_id_expired": (PollState.EXPIRED, "Apollo keeps a result for 30 days, and they are over"),
}


def read_poll(status: int, body: bytes, *, request_id: str) -> Polled:
    """The answer of GET webhook_result/{request_id} (contracts/apollo.md 3, 2026-10).

    A result counts whatever Apollo says about its delivery: `webhook_status: failed` can hold the numbers. One that is
    said to be done and is not there may still come, so it is PENDING, as is a status that nobody knows.

    Raises:
        ContractError: it is no answer to that question (a web page, another request's result, a status of HTTP or a
            body that says nothing about the request).
    """
    if status in (401, 403) and not body.lstrip().startswith(b"<"):
        # Which words come with it changed between years (contracts/apollo.md 4, 2026-10); a page is somebody else's.
        reason = "Apollo refused the key" if status == 401 else "the key may not poll (scope webhook_result_read)"
        return Polled(state=PollState.NOT_ALLOWED, reason=reason)
    tree, text = _tree(body, POLL)
    if status == 200:
        return _result(tree, text, body, request_id)
    code = _code(tree.get("error_code"))
    if code == "result_pending":
        return Polled(state=PollState.PENDING, retry_after_s=_seconds(tree.get("retry_after_seconds")))
    if code in _CODES:
        state, reason = _CODES[code]
        return Polled(state=state, reason=reason)
    raise ContractError(
        f"Apollo answered {POLL} with HTTP {status} and no word about the request; check CRM_SYNC_APOLLO_URL",
        provider=PROVIDER,
        operation=POLL,
        status=status,
    )


def _result(tree: Mapping[str, Any], text: bytes, body: bytes, request_id: str) -> Polled:
    if not _is_envelope(tree):
        raise _unreadable("answer to a poll", "it speaks of no result")
    told = _request_id(tree, text)
    if told and told != request_id:
        raise _unreadable("answer to a poll", "it is about another request than the one asked for")
    result, state = tree.get("webhook_result"), _code(tree.get("webhook_status"))
    if result is not None and not isinstance(result, dict):
        raise _unreadable("answer to a poll", "its webhook_result is not an object")
    if state == "in_progress":
        return Polled(state=PollState.PENDING)
    if result is not None:
        return Polled(state=PollState.READY, body=body)
    if state == "failed":
        why = tree.get("failure_reason")
        words = f": {wire.shown(why)}" if isinstance(why, str) and why.strip() else ""
        return Polled(state=PollState.FAILED, reason=f"Apollo gave up{words}")
    return Polled(
        state=PollState.PENDING,
        reason=f"Apollo says {wire.shown(state) or 'nothing about its state'}, and the result is not there",
    )


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(max(float(value), 0.0), _LONGEST_WAIT_S)
