"""Apollo's requests and answers, translated. Pure: nothing here talks, and reading an answer costs no call."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import orjson

from crm_sync.domain.enrichment import (
    NO_MATCH,
    CreditBalance,
    Enrichment,
    MatchKeys,
    Purpose,
    Reading,
    Verdict,
)
from crm_sync.errors import ContractError

PROVIDER = "apollo"
#: What one call cannot cost; a delivery is written by whoever knows its address, and what it says is added up.
_MOST_CREDITS = 100_000
PER_CALL = 10  # "cannot enrich more than 10 in a single request" (contracts/apollo.md 2.1, 2026-10)

BULK = {
    Purpose.PERSON: "people/bulk_match",
    Purpose.COMPANY: "organizations/bulk_enrich",
    Purpose.PHONE: "people/bulk_match",
}
SINGLE = {Purpose.PERSON: "people/match", Purpose.COMPANY: "organizations/enrich", Purpose.PHONE: "people/match"}


# --- questions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request. `endpoint` names it for the pace; `target` is the path and query below the base address."""

    endpoint: str
    method: str
    target: str
    body: bytes | None


def bulk_question(purpose: Purpose, keys: Sequence[MatchKeys], *, key_in_body: str = "") -> Question:
    """`key_in_body`: the API key for the older contract (the seed's), "" when the key travels in a header.

    It orders no phone numbers; phones.reveal_question does.
    """
    endpoint = BULK[purpose]
    if purpose is not Purpose.COMPANY:
        content: dict[str, Any] = {"details": [person_keys(k) for k in keys]}
        if key_in_body:
            content = {"api_key": key_in_body, "reveal_personal_emails": False, **content}
            return Question(endpoint=endpoint, method="POST", target=f"/{endpoint}", body=orjson.dumps(content))
        # Flags belong in the query: in the body they were silently ignored (contracts/apollo.md 2.1, 2026-10).
        target = f"/{endpoint}?reveal_personal_emails=false"
        return Question(endpoint=endpoint, method="POST", target=target, body=orjson.dumps(content))
    if key_in_body and all(k.domain for k in keys):
        content = {"api_key": key_in_body, "domains": [k.domain for k in keys]}
    else:
        content = {"details": [_company_keys(k) for k in keys]}
        if key_in_body:
            content = {"api_key": key_in_body, **content}
    return Question(endpoint=endpoint, method="POST", target=f"/{endpoint}", body=orjson.dumps(content))


def single_question(purpose: Purpose, keys: MatchKeys, *, key_in_body: str = "") -> Question:
    endpoint = SINGLE[purpose]
    if purpose is Purpose.COMPANY:
        query = _company_keys(keys)
        if key_in_body:
            query = {"api_key": key_in_body, **query}  # the older contract's place for a GET
        return Question(endpoint=endpoint, method="GET", target=f"/{endpoint}?{urlencode(query)}", body=None)
    if key_in_body:
        content = {"api_key": key_in_body, "reveal_personal_emails": False, **person_keys(keys)}
        return Question(endpoint=endpoint, method="POST", target=f"/{endpoint}", body=orjson.dumps(content))
    query = {"reveal_personal_emails": "false", **person_keys(keys)}
    return Question(endpoint=endpoint, method="POST", target=f"/{endpoint}?{urlencode(query)}", body=b"")


def person_keys(keys: MatchKeys) -> dict[str, str]:
    if keys.apollo_id:
        return {"id": keys.apollo_id}  # alone it is a documented request, and nothing identifies better
    sent = {
        "email": keys.email,
        "first_name": keys.first_name,
        "last_name": keys.last_name,
        "name": keys.name,
        "organization_name": keys.organization_name,
        "domain": keys.domain,
        "linkedin_url": keys.linkedin_url,
    }
    return {name: value for name, value in sent.items() if value}


def _company_keys(keys: MatchKeys) -> dict[str, str]:
    sent = {"domain": keys.domain, "linkedin_url": keys.linkedin_url, "name": keys.organization_name}
    return {name: value for name, value in sent.items() if value}


# --- what stands on the envelope ----------------------------------------------------------------------------------


def credits_charged(tree: Mapping[str, Any]) -> Decimal | None:
    """`credits_consumed`, a decimal that may be fractional (1.01) or absent."""
    value = tree.get("credits_consumed")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)  # the shortest text of a float is the decimal Apollo wrote
    if len(text) > 40:
        return None
    try:
        charged = Decimal(text)
    except InvalidOperation:
        return None
    if not charged.is_finite() or not 0 <= charged <= _MOST_CREDITS:
        return None
    exponent = charged.as_tuple().exponent
    return round(charged, 6) if isinstance(exponent, int) and exponent < -6 else charged


def request_id_text(tree: Mapping[str, Any], body: bytes) -> str:
    """The top-level request id as text; it exceeds 2**53, so it never passes through a float."""
    value = tree.get("request_id")
    if isinstance(value, str):
        return value[:40]
    if isinstance(value, float):  # beyond 64 bits orjson gives a float; the standard library keeps every digit
        try:
            exact = json.loads(body).get("request_id")
            return str(exact)[:40] if isinstance(exact, int) else ""
        except (ValueError, RecursionError):  # thousands of digits, hundreds of levels
            return ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def missing_answer(purpose: Purpose, tree: Mapping[str, Any], *, single: bool) -> str:
    """Why `tree` is no answer to the question, in words; "" when it is one. Ids and counters are not looked at."""
    if single:
        name = "organization" if purpose is Purpose.COMPANY else "person"
        value = tree.get(name)
        if value is not None and not isinstance(value, dict):
            return f'"{name}" is not an object'
        if value is None and error_text(tree):
            return "it holds an error"
        return ""  # {} and null are how the single endpoints say "nobody" (contracts/apollo.md 2.2, 2.4)
    name = "organizations" if purpose is Purpose.COMPANY else "matches"
    if name not in tree:
        return f'it has no "{name}"'
    if tree[name] is not None and not isinstance(tree[name], list):
        return f'"{name}" is not a list'
    return ""


# --- errors -------------------------------------------------------------------------------------------------------

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,59}")
_PERSONAL = re.compile(r"\S+@\S+|\+?\d[\d\s().-]{6,}\d")


def error_text(tree: Mapping[str, Any]) -> str:
    """The words of any of Apollo's four error envelopes; "" when it holds none (`error_code: null` is no error)."""
    for name in ("error_message", "error", "message"):
        value = tree.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return error_code(tree)


def error_code(tree: Mapping[str, Any]) -> str:
    value = tree.get("error_code")
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def shown(text: str) -> str:
    """An error's words fit for a log: one short line without anything like an e-mail address or a number to dial."""
    line = " ".join(text[:1000].split())
    if not line.isprintable():
        line = "".join(c for c in line if c.isprintable())
    return _PERSONAL.sub("…", line)[:200]


def is_placeholder(email: object) -> bool:
    """A locked address: "email_not_unlocked@domain.com", also bare, in any case (contracts/apollo.md 2.1, 2026-10)."""
    return isinstance(email, str) and email[:18].casefold() == "email_not_unlocked"


def only_placeholders(tree: Mapping[str, Any]) -> bool:
    """Whether three or more people came back and every one of them with a locked address: credits may have run out."""
    people = [p for p in tree.get("matches") or () if isinstance(p, dict)]
    return len(people) >= 3 and all(is_placeholder(p.get("email")) for p in people)


def found_nothing(purpose: Purpose, tree: Mapping[str, Any]) -> bool:
    """Whether three or more companies were asked for and not one came: credits may have run out."""
    if purpose is not Purpose.COMPANY or any(tree.get("organizations") or ()):
        return False
    missing = tree.get("missing_records")
    return isinstance(missing, int) and missing >= 3


# --- people -------------------------------------------------------------------------------------------------------

# What an echo holds besides ids: what we sent, and flags of our own workspace (contracts/apollo.md 2.2, 2026-10).
_NO_FACT = frozenset({
    "id", "_id", "first_name", "last_name", "name", "match_confidence", "email", "linkedin_url", "email_status",
    "hashed_email", "show_intent", "revealed_for_current_team", "is_likely_to_engage", "organization",
    "organization_id", "organization_name", "account", "account_id", "contact", "contact_id", "phone_numbers",
})  # fmt: skip
# The team's own Apollo records, and the employer's switchboard, are no facts about the person.
_OURS = ("account", "account_id", "contact", "contact_id", "phone_numbers")


def read_answer(purpose: Purpose, keys: Sequence[MatchKeys], tree: dict[str, Any]) -> Reading:
    """One Enrichment per key, in the order of `keys`. `tree` is the parsed answer; its objects are cleaned in place
    and handed on, not copied.

    Raises:
        ContractError: it is no answer to a question for `keys`.
    """
    single = ("organizations" if purpose is Purpose.COMPANY else "matches") not in tree
    problem = missing_answer(purpose, tree, single=single)
    if not problem and single and len(keys) != 1:
        problem = f"it answers one question, and {len(keys)} were asked"
    if problem:
        raise ContractError(f"Apollo's answer cannot be read: {problem}", provider=PROVIDER)
    if purpose is not Purpose.COMPANY:
        if single:
            return Reading(enrichments=(_judge(keys[0], tree.get("person")),))
        return Reading(enrichments=tuple(_people(keys, tree["matches"] or [])))
    if single:
        return Reading(enrichments=(_company(keys[0], tree.get("organization")),))
    organizations = [e for e in tree["organizations"] or [] if isinstance(e, dict) and e]
    return Reading(
        enrichments=tuple(_companies(keys, organizations, tree.get("missing_records"))), outputs=len(organizations)
    )


def _people(keys: Sequence[MatchKeys], entries: list[Any]) -> list[Enrichment]:
    """Pair by position and prove each row; what its own position does not prove is looked for elsewhere.

    That order is kept is known at second hand only (contracts/apollo.md 2.1, 2026-10).
    """
    if len(entries) == len(keys):
        read = [_judge(key, entry) for key, entry in zip(keys, entries, strict=True)]
        strays = [i for i, e in enumerate(read) if e.verdict is Verdict.UNPROVED]
        if len(strays) + sum(entry is None for entry in entries) > 1:
            open_rows = [i for i, e in enumerate(read) if e.verdict is not Verdict.MATCHED]
            for i in open_rows:
                for j in strays:
                    if i != j and _proves(keys[i], entries[j]):
                        read[i] = _judge(keys[i], entries[j])
                        break
        return read
    used: set[int] = set()
    found: list[Enrichment | None] = []
    for key in keys:
        position = next((i for i, entry in enumerate(entries) if _proves(key, entry)), None)
        if position is not None:
            used.add(position)
        found.append(None if position is None else _judge(key, entries[position]))
    somebody_is_left = any(isinstance(e, dict) and i not in used for i, e in enumerate(entries))
    rest = NO_MATCH
    if somebody_is_left:
        rest = Enrichment(
            verdict=Verdict.UNPROVED,
            person={},
            organization={},
            reason=f"Apollo answered {len(keys)} questions with {len(entries)} entries, and none of them proves to be "
            "this person",
        )
    return [e or rest for e in found]


def _proves(key: MatchKeys, entry: object) -> bool:
    """Whether `entry` is provably the person asked for, judged without changing it."""
    if not isinstance(entry, dict):
        return False
    if key.purpose is Purpose.PHONE:
        return _confidence(entry) != "none" and _proof(key, entry, {})[0]
    if _confidence(entry) or _is_echo(key, entry):
        return False
    organization = entry.get("organization")
    return _proof(key, entry, organization if isinstance(organization, dict) else {})[0]


def _judge(key: MatchKeys, entry: object) -> Enrichment:
    if not isinstance(entry, dict) or not entry:
        return NO_MATCH
    confidence = _confidence(entry)
    if confidence == "none":
        return NO_MATCH
    # Who is asked for by Apollo's own id is that one or is not: a reveal is delivered under the id, and nothing else.
    by_id = key.purpose is Purpose.PHONE
    if not by_id and _is_echo(key, entry):
        return Enrichment(
            verdict=Verdict.NO_MATCH, person={}, organization={}, reason="Apollo gave back only what was asked"
        )
    employer = entry.get("organization")
    organization = _clean_company(employer) if isinstance(employer, dict) else {}
    for name in _OURS:
        entry.pop(name, None)
    if is_placeholder(entry.get("email")):
        del entry["email"]
        entry.pop("email_status", None)
    proved, reason = _proof(key, entry, organization)
    if confidence == "low" and not by_id:
        proved, reason = False, "Apollo itself calls this match unsure"
    return Enrichment(
        verdict=Verdict.MATCHED if proved else Verdict.UNPROVED,
        person=entry,
        organization=organization,
        apollo_id=_text(entry.get("id")),
        reason=reason,
    )


def _confidence(entry: Mapping[str, Any]) -> str:
    """ "none" or "low"; "" for anything else, the usual absence included."""
    value = entry.get("match_confidence")
    folded = value.casefold() if isinstance(value, str) else ""
    return folded if folded in ("none", "low") else ""


def _is_echo(key: MatchKeys, entry: Mapping[str, Any]) -> bool:
    """A fresh id, our own words and no fact about a person: no match, and its employer is a guess from the domain."""
    if entry.get("title") or entry.get("employment_history"):
        return False
    email = entry.get("email")
    if email and not is_placeholder(email) and _text(email).casefold() != key.email:
        return False
    if entry.get("email_status") and entry["email_status"] != "unavailable":
        return False
    slug = linkedin_slug(_text(entry.get("linkedin_url")))
    if slug and slug != linkedin_slug(key.linkedin_url):
        return False
    if key.apollo_id and entry.get("id") == key.apollo_id and (entry.get("name") or entry.get("last_name")):
        return False  # asked by id alone, the name is news
    return not any(value for name, value in entry.items() if name not in _NO_FACT)


_ANOTHER = "Apollo answered with another of its people than the one asked for by id"


def _proof(key: MatchKeys, entry: Mapping[str, Any], organization: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether some identifier we sent agrees with the answer, and the reason in words where a person needs it."""
    if key.apollo_id and entry.get("id") == key.apollo_id:
        return True, ""
    if key.purpose is Purpose.PHONE:
        return False, _ANOTHER
    if key.email and not is_placeholder(key.email):
        if _text(entry.get("email")).casefold() == key.email:
            return True, ""
        others = entry.get("personal_emails")
        if isinstance(others, list) and any(_text(other).casefold() == key.email for other in others):
            return True, ""
    if key.linkedin_url:
        slug = linkedin_slug(_text(entry.get("linkedin_url")))
        if slug and slug == linkedin_slug(key.linkedin_url):
            return True, ""
    if key.apollo_id:
        return False, _ANOTHER
    return _proof_by_name(key, entry, organization)


def _proof_by_name(key: MatchKeys, entry: Mapping[str, Any], organization: Mapping[str, Any]) -> tuple[bool, str]:
    first, last = key.first_name, key.last_name
    if not last and key.name:
        first, _, last = key.name.strip().rpartition(" ")
    their_last = _text(entry.get("last_name")) or _text(entry.get("name")).rpartition(" ")[2]
    if not last:
        return False, "Nothing that was asked with appears in Apollo's answer"
    if not _names_agree(last, their_last):
        return False, "Apollo answered with somebody of another last name"
    if not _first_names_agree(first, _text(entry.get("first_name"))):
        return False, "Apollo answered with somebody of the same last name and another first name"
    if not (key.domain or key.organization_name):
        return False, "Only the name agrees, and no employer was asked with"
    if _is_employer(key, organization) or _mail_domain(entry) == (key.domain or "-"):
        return True, ""
    # `domain` may name a former employer by design (contracts/apollo.md 2.1 and 6.3, 2026-10).
    history = entry.get("employment_history")
    for job in history if isinstance(history, list) else ():
        if isinstance(job, dict) and _names_company(key, _text(job.get("organization_name"))):
            if job.get("current"):
                return True, ""
            where = _text(organization.get("name"))
            return True, f"The employer asked with is a former one; now at {where}" if where else (
                "The employer asked with is a former one"
            )
    where = _text(organization.get("name"))
    return False, f"The same name at another employer{f' ({where})' if where else ''}"


def _is_employer(key: MatchKeys, organization: Mapping[str, Any]) -> bool:
    if not organization:
        return False
    if key.domain and (
        _within(_host(_text(organization.get("primary_domain"))), key.domain)
        or _within(_host(_text(organization.get("website_url"))), key.domain)
    ):
        return True
    return _names_company(key, _text(organization.get("name")))


def _names_company(key: MatchKeys, name: str) -> bool:
    """Whether a company's name is the one asked with, or the asked domain's own word ("orchardgrid.com")."""
    squeezed = _squeeze_company(name)
    if not squeezed:
        return False
    if key.organization_name and squeezed == _squeeze_company(key.organization_name):
        return True
    return bool(key.domain) and squeezed == key.domain.partition(".")[0].replace("-", "")


def _mail_domain(entry: Mapping[str, Any]) -> str:
    email = _text(entry.get("email"))
    return "" if is_placeholder(email) else email.rpartition("@")[2].casefold()


def _names_agree(ours: str, theirs: str) -> bool:
    """Equal without case and accents, or one holds every word of the other ("García" and "García López")."""
    if ours == theirs:
        return bool(ours)
    a, b = _words(ours), _words(theirs)
    return bool(a) and bool(b) and (a <= b or b <= a)


def _first_names_agree(ours: str, theirs: str) -> bool:
    """Not when both are known and differ from the first letter on: the name's other bearer at the same employer."""
    if ours == theirs or not ours or not theirs:
        return True
    a, b = "".join(sorted(_words(ours))), "".join(sorted(_words(theirs)))
    return not a or not b or a[0] == b[0] or a in b or b in a or bool(_words(ours) & _words(theirs))


# --- companies ----------------------------------------------------------------------------------------------------


def _companies(
    keys: Sequence[MatchKeys], organizations: list[dict[str, Any]], missing: object
) -> list[Enrichment | None]:
    """Pair an unordered bag with what was asked, by identifier only. What stays open is None: ask it singly.

    A lone output beside a lone input is a question, not a pair: a rebrand or subsidiary comes back under another
    domain (contracts/apollo.md 2.3, 2026-10). Such an output was charged, for one of the inputs that are open: asking
    any of them singly could buy the same company twice, so a person decides.
    """
    found: list[Enrichment | None] = []
    used: set[int] = set()
    for key in keys:
        position = next((i for i, o in enumerate(organizations) if _is_company(key, o)), None)
        if position is None:
            found.append(None)
            continue
        used.add(position)
        found.append(_matched_company(organizations[position]))
    open_rows = [i for i, e in enumerate(found) if e is None]
    # Everything that came back has found its question and Apollo counts exactly the rest as missing: not open at all.
    if open_rows and len(used) == len(organizations) and missing == len(open_rows):
        for i in open_rows:
            found[i] = _NO_COMPANY
    strays = [o for i, o in enumerate(organizations) if i not in used and _tells_something(o)]
    if strays:
        for i in open_rows:
            found[i] = _one_of(keys[i], strays, among=len(open_rows))
    return found


def _one_of(key: MatchKeys, strays: list[dict[str, Any]], *, among: int) -> Enrichment:
    """One of `among` inputs: one of these outputs may be its company, and nothing proves which."""
    if among == 1 and len(strays) == 1:
        return _under_another_domain(strays[0])
    own = key.domain or key.organization_name
    return Enrichment(
        verdict=Verdict.UNPROVED,
        person={},
        organization={},
        reason="Apollo answered under other domains, and nothing proves which answer is this company's"
        + (f" ({own})" if own else ""),
    )


def _company(key: MatchKeys, entry: object) -> Enrichment:
    if not isinstance(entry, dict) or not entry:
        return _NO_COMPANY
    if _is_company(key, entry):
        return _matched_company(entry)
    if not _tells_something(entry):
        return _NO_COMPANY
    if key.domain or key.linkedin_url:
        return _under_another_domain(entry)
    same = _squeeze_company(_text(entry.get("name"))) == _squeeze_company(key.organization_name)
    return _unproved_company(
        entry, "Only the company's name agrees" if same else "Apollo answered with a company of another name"
    )


def _tells_something(organization: Mapping[str, Any]) -> bool:
    """Whether it holds more than what was asked with."""
    asked = ("id", "_id", "name", "website_url", "primary_domain")
    return any(value for name, value in organization.items() if name not in asked)


def _under_another_domain(entry: dict[str, Any]) -> Enrichment:
    domain = _host(_text(entry.get("primary_domain")))
    return _unproved_company(
        entry, f"Apollo answered with a company under another domain{f' ({domain})' if domain else ''}"
    )


def _unproved_company(entry: dict[str, Any], reason: str) -> Enrichment:
    cleaned = _clean_company(entry)
    return Enrichment(
        verdict=Verdict.UNPROVED,
        person={},
        organization=cleaned,
        apollo_id=_text(cleaned.get("id")),
        reason=reason,
    )


_NO_COMPANY = Enrichment(
    verdict=Verdict.NO_MATCH, person={}, organization={}, reason="Apollo knows no company by these keys"
)


def _is_company(key: MatchKeys, organization: Mapping[str, Any]) -> bool:
    if key.domain and (
        _within(_host(_text(organization.get("primary_domain"))), key.domain)
        or _within(_host(_text(organization.get("website_url"))), key.domain)
    ):
        return True
    slug = linkedin_slug(key.linkedin_url)
    return bool(slug) and slug == linkedin_slug(_text(organization.get("linkedin_url")))


def _matched_company(entry: dict[str, Any]) -> Enrichment:
    cleaned = _clean_company(entry)
    return Enrichment(
        verdict=Verdict.MATCHED, person={}, organization=cleaned, apollo_id=_text(cleaned.get("id")), reason=""
    )


def _clean_company(organization: dict[str, Any]) -> dict[str, Any]:
    for name in ("account", "account_id", "intent_signal_account"):
        organization.pop(name, None)
    phone = organization.get("primary_phone")
    if isinstance(phone, dict) and _text(phone.get("source")).casefold() == "account":
        # It came from the team's own records (contracts/apollo.md 2.3, 2026-10): giving it back is no enrichment.
        for name in ("primary_phone", "phone", "sanitized_phone"):
            organization.pop(name, None)
    if "organization_revenue" in organization or "annual_revenue" in organization:
        _clean_revenue(organization)
    return organization


def _clean_revenue(organization: dict[str, Any]) -> None:
    """0.0 beside a null printed value means unknown (contracts/apollo.md 2.3, 2026-10). One figure, one name."""
    for name in ("organization_revenue", "annual_revenue"):
        if not organization.get(name) and not organization.get(f"{name}_printed"):
            organization.pop(name, None)
            organization.pop(f"{name}_printed", None)
    if "annual_revenue" not in organization and "organization_revenue" in organization:
        organization["annual_revenue"] = organization["organization_revenue"]
        organization["annual_revenue_printed"] = organization.get("organization_revenue_printed")


# --- comparing ----------------------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+")
_LEGAL_FORMS = frozenset({
    "inc", "incorporated", "llc", "ltd", "limited", "corp", "corporation", "co", "company", "gmbh", "ag", "se", "sa",
    "sas", "sarl", "srl", "spa", "bv", "nv", "ab", "oy", "as", "plc", "kg", "pty", "lp", "llp", "the",
})  # fmt: skip
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "'": None, "’": None, "‘": None}
)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _fold(text: str) -> str:
    folded = text.casefold().translate(_LETTERS)
    if folded.isascii():
        return folded
    return "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    """A name's words without case, accents and punctuation; "Müller" and "Mueller" are one word."""
    return frozenset(_WORD.findall(_fold(name).replace("ae", "a").replace("oe", "o").replace("ue", "u")))


@lru_cache(maxsize=4096)
def _squeeze_company(name: str) -> str:
    """A company's name as one word without accents and legal form: "Orchard Grid, Inc." is "orchardgrid"."""
    words = _WORD.findall(_fold(name))
    kept = [word for word in words if word not in _LEGAL_FORMS]
    return "".join(kept or words)


@lru_cache(maxsize=4096)
def linkedin_slug(url: str) -> str:
    """ "/in/jane-doe" and "/company/acme" as "in/jane-doe", "company/acme"; "" when it is no profile address."""
    if not url:
        return ""
    parts = urlsplit(url if "//" in url else f"//{url}").path.strip("/").split("/")
    if len(parts) < 2 or parts[0] not in ("in", "pub", "company", "school", "showcase"):
        return ""
    return f"{parts[0]}/{unquote(parts[1]).casefold()}"


@lru_cache(maxsize=4096)
def _host(address: str) -> str:
    """The bare host of a website or domain: no scheme, path, port, "www."."""
    if not address:
        return ""
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.").rstrip(".")


def _within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


# --- the balance --------------------------------------------------------------------------------------------------


def read_balance(tree: Mapping[str, Any]) -> CreditBalance | None:
    """The shared pool of usage_stats/credit_usage_stats; None when it is not told.

    On unified plans `lead_credit` is the pool and the lines must not be added up (contracts/apollo.md 4, 2026-10).
    """
    stats = tree.get("credit_usage_stats")
    pool = stats.get("lead_credit") if isinstance(stats, dict) else None
    if not isinstance(pool, dict):
        return None
    left = _decimal(pool.get("left_over"))
    if left is None:
        return None
    cycle = tree.get("current_credit_cycle")
    ends = cycle.get("end_date") if isinstance(cycle, dict) else None
    return CreditBalance(left=left, used=_decimal(pool.get("consumed")), renews_at=_text(ends))


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
