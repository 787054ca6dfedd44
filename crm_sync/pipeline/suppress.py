"""Who is left alone, and in which words: looked at when a page is selected, before a paid call, and before a write."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crm_sync.config.model import Suppress, Sync
from crm_sync.domain.enrichment import Enrichment, MatchKeys
from crm_sync.domain.records import FieldKind, ObjectSchema, Value
from crm_sync.mapping.identities import (
    emails_in,
    implied,
    kind_of,
    of_apollo,
    of_domain,
    of_email,
    of_linkedin,
    phones_in,
)
from crm_sync.mapping.opt_outs import Sign, readable, signs
from crm_sync.ports import Crm
from crm_sync.store.suppressions import Suppressions

DO_NOT_ENRICH = "do not enrich"
_WORDS = {
    "email": "suppressed e-mail",
    "domain": "suppressed domain",
    "linkedin": "suppressed LinkedIn page",
    "record": "suppressed record",
    "phone": "suppressed phone",
    "apollo": "suppressed Apollo id",
}
#: HubSpot keeps a merged contact's other addresses here (contracts/hubspot.md 7).
_MORE_EMAILS = "hs_additional_emails"
#: Whether anybody was suppressed since the walk began is asked this often.
_LOOK_EVERY_S = 1.0

Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One object's ways of saying no, and which of its fields name somebody.

    `signs` hold on the record's own fields, `distant` ones on those of a parent ("Individual.ShouldForget"), which the
    CRM reads again only by a query; `links` are the own fields that lead there.
    """

    crm: str
    object_type: str
    signs: tuple[Sign, ...] = ()
    distant: tuple[Sign, ...] = ()
    links: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    email_domains: frozenset[str] = frozenset()

    def fields(self, kinds: frozenset[str]) -> tuple[str, ...]:
        """The own fields to read so that everybody in suppressions of these kinds is recognised."""
        names = dict.fromkeys(name for sign in self.signs for name in sign.fields)
        names.update(dict.fromkeys(self.links))
        if self.email_domains or kinds & {"email", "domain"}:
            names.update(dict.fromkeys(self.emails))
        if "phone" in kinds:
            names.update(dict.fromkeys(self.phones))
        if "linkedin" in kinds:
            names.update(dict.fromkeys(self.pages))
        return tuple(names)

    @property
    def distant_fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for sign in self.distant for name in sign.fields))

    def refusal(self, values: Values, keys: MatchKeys | None) -> str:
        """Why the record itself says no, "" when it does not."""
        for sign in self.signs:
            if sign.holds(values):
                return f"{DO_NOT_ENRICH}: {sign.words}"
        if self.email_domains:
            # The address that Apollo would be asked by counts, not a private one beside it.
            asked = keys.email if keys is not None else ""
            for address in [asked] if asked else [each for name in self.emails for each in emails_in(values.get(name))]:
                domain = _within(address.rpartition("@")[2], self.email_domains)
                if domain:
                    return f"{DO_NOT_ENRICH}: e-mail at {domain}"
        return ""

    def distant_refusal(self, values: Values) -> str:
        return next((f"{DO_NOT_ENRICH}: {sign.words}" for sign in self.distant if sign.holds(values)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Somebody about to be asked for or written: the record with what is known of whom it is about."""

    record_id: str
    values: Values
    keys: MatchKeys | None = None
    enrichment: Enrichment | None = None


def guard(
    sync: Sync, object_type: str, schema: ObjectSchema, crm: Crm, suppress: Suppress, *, is_parent: bool = False
) -> Guard:
    """The guard of a sync's own object, or of the parent in its `account:` section, as the CRM is now."""
    seen = signs(object_type, schema, suppress, readable(schema, crm.check_selection))
    distant = tuple(sign for sign in seen if "." in sign.fields[0])
    relations = {name.partition(".")[0] for sign in distant for name in sign.fields}
    own = tuple(schema.fields.values())
    is_person = not is_parent and not sync.is_company
    return Guard(
        crm=sync.crm,
        object_type=object_type,
        signs=tuple(sign for sign in seen if sign not in distant),
        distant=distant,
        links=tuple(each.name for each in own if each.relationship in relations),
        emails=tuple(e.name for e in own if e.kind is FieldKind.EMAIL or e.name == _MORE_EMAILS) if is_person else (),
        phones=tuple(each.name for each in own if each.kind is FieldKind.PHONE) if is_person else (),
        pages=() if is_parent else _pages(sync, schema),
        email_domains=frozenset(suppress.email_domains) if is_person else frozenset(),
    )


def _pages(sync: Sync, schema: ObjectSchema) -> tuple[str, ...]:
    """The fields that hold the record's LinkedIn page, as far as the configuration says: sent, or filled."""
    filled = "organization.linkedin_url" if sync.is_company else "person.linkedin_url"
    names = [name for key in sync.match.send if key.key == "linkedin_url" for name in key.fields]
    names += [mapping.field for mapping in sync.fields if mapping.source == filled]
    return tuple(dict.fromkeys(name for name in names if name in schema.fields))


class Screen:
    """The suppressions as one walk looks at them. Thread-safe."""

    def __init__(self, suppressions: Suppressions) -> None:
        self._suppressions = suppressions
        begun = suppressions.standing()
        #: The kinds there are when the walk begins: what a selection has to read for.
        self.kinds = begun.kinds
        self._begun_version = begun.version
        self._version = begun.version
        self._looked_at = time.monotonic()

    def kinds_now(self) -> frozenset[str]:
        return self._suppressions.standing().kinds

    def refusals(self, guard: Guard, subjects: Sequence[Subject], kinds: frozenset[str]) -> dict[str, str]:
        """Record id -> why it is left alone, for those that are. One question to the store for all of them, and none
        when nobody is suppressed (`kinds` is empty)."""
        found: dict[str, str] = {}
        named: list[tuple[str, str]] = []
        for subject in subjects:
            reason = guard.refusal(subject.values, subject.keys)
            if reason:
                found[subject.record_id] = reason
            elif kinds:
                named += [(subject.record_id, identity) for identity in _identities(guard, subject, kinds)]
        if named:
            barred = self._suppressions.among({identity for _, identity in named})
            for record_id, identity in named if barred else ():
                if identity in barred:
                    found.setdefault(record_id, words(identity))
        return found

    def suppressed_since(self, keys: Sequence[MatchKeys]) -> dict[str, str]:
        """MatchKeys.key -> why it is not asked for, of somebody suppressed since the walk began. Costs nothing while
        nobody is; a page was looked at when it was selected."""
        return self.suppressed(keys) if self._changed() else {}

    def suppressed(self, keys: Sequence[MatchKeys]) -> dict[str, str]:
        """MatchKeys.key -> why it must not be asked for, of somebody who is suppressed now."""
        kinds = self.kinds_now()
        named = [(key.key, identity) for key in keys for identity in _of_keys(key, kinds)]
        barred = self._suppressions.among({identity for _, identity in named})
        return {key: words(identity) for key, identity in named if identity in barred}

    def _changed(self) -> bool:
        now = time.monotonic()
        if self._version == self._begun_version and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._version = self._suppressions.standing().version
        return self._version != self._begun_version


def words(identity: str) -> str:
    return f"{DO_NOT_ENRICH}: {_WORDS[kind_of(identity)]}"


def _identities(guard: Guard, subject: Subject, kinds: frozenset[str]) -> Iterator[str]:
    """Everything by which this record, and what Apollo answered for it, could be in suppressions of these kinds."""
    values = subject.values
    if "record" in kinds:
        yield f"record:{guard.crm}:{guard.object_type}:{subject.record_id}"
    if subject.keys is not None:
        yield from _of_keys(subject.keys, kinds)
    if kinds & {"email", "domain"}:
        for name in guard.emails:
            for address in emails_in(values.get(name)):
                yield from (identity for identity in implied(address) if kind_of(identity) in kinds)
    if "phone" in kinds:
        for name in guard.phones:
            yield from phones_in(values.get(name))
    if "linkedin" in kinds:
        yield from filter(None, (of_linkedin(str(values.get(name) or "")) for name in guard.pages))
    if subject.enrichment is not None:
        yield from (identity for identity in _of_answer(subject.enrichment) if kind_of(identity) in kinds)


def _of_keys(keys: MatchKeys, kinds: frozenset[str]) -> Iterator[str]:
    if keys.email and "email" in kinds:
        yield f"email:{keys.email}"
    if "domain" in kinds:
        if keys.email and (domain := of_domain(keys.email)):
            yield domain
        if keys.domain:
            yield f"domain:{keys.domain}"
    if "linkedin" in kinds and keys.linkedin_url and (page := of_linkedin(keys.linkedin_url)):
        yield page
    if "apollo" in kinds and keys.apollo_id and (person := of_apollo(keys.apollo_id)):
        yield person


def _of_answer(enrichment: Enrichment) -> Iterator[str]:
    """Whom Apollo answered with: somebody who is left alone may come back under a key of another spelling."""
    person = enrichment.person
    for address in (person.get("email"), *_listed(person.get("personal_emails"))):
        if isinstance(address, str) and (identity := of_email(address)):
            yield identity
    if enrichment.apollo_id and (identity := of_apollo(enrichment.apollo_id)):
        yield identity
    page = person.get("linkedin_url") if person else enrichment.organization.get("linkedin_url")
    if isinstance(page, str) and (identity := of_linkedin(page)):
        yield identity


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else ()


def _within(host: str, domains: frozenset[str]) -> str:
    """The one of `domains` that `host` is, or lies below; "" for none."""
    while host:
        if host in domains:
            return host
        host = host.partition(".")[2]
    return ""
