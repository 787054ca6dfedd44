"""Every key of crm_sync.yaml: where it may stand and what it takes.

A shape reads one node, reports what does not fit and hands back the value; it never stops at the first mistake. What
spans several keys (does the CRM exist, does `need_one_of` name keys of `send`) is loader.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, available_timezones

from crm_sync.config import expressions
from crm_sync.config.apollo_attributes import attributes, find
from crm_sync.config.expressions import UnreadableError
from crm_sync.config.problems import Path, Problem, did_you_mean, dotted, nearest, shown
from crm_sync.config.slots import check_cron
from crm_sync.config.text import Document, Kind, Node
from crm_sync.domain.changes import WriteRule
from crm_sync.mapping.transforms import TRANSFORMS

#: What a shape hands back for a node that does not fit; the problem is already noted.
INVALID: Final = object()

#: Longer texts than this are a mistake (a missing quote), and would make the small parsers slow.
MAX_TEXT = 2000

PEOPLE_KEYS = ("email", "first_name", "last_name", "name", "organization_name", "domain", "linkedin_url")
COMPANY_KEYS = ("domain", "linkedin_url", "organization_name")
OBJECTS: Mapping[str, tuple[str, ...]] = {
    "salesforce": ("Contact", "Lead", "Account"),
    "hubspot": ("contacts", "companies"),
}


@dataclass(slots=True)
class Findings:
    """The problems of one file, in the order they are met."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def add(self, node: Node, path: Path, message: str, suggestion: str = "") -> None:
        """A problem with what stands at `node`."""
        self.problems.append(
            Problem(
                file=self.document.file,
                line=node.line,
                column=node.column,
                path=dotted(path),
                message=message,
                suggestion=suggestion,
            )
        )

    def add_at(self, path: Path, message: str, suggestion: str = "") -> None:
        """A problem with what is not there: it stands at the key it should be under."""
        self.problems.append(self.document.problem(path, message, suggestion))


class Shape(Protocol):
    """What may stand at one place of the file. `wanted` completes "expected …"."""

    @property
    def wanted(self) -> str: ...

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        """The value, or INVALID after saying why in `into`."""
        ...

    def below(self) -> Iterator[tuple[str, Key]]:
        """The keys right below, "*" for names the admin chooses; nothing for a plain value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a group. `default` is what holds when it is absent, in words for the documentation."""

    shape: Shape
    required: bool = False
    default: str = ""


def _unexpected(shape: Shape, node: Node, path: Path, into: Findings) -> Any:
    if node.kind is Kind.NULL:
        into.add_at(path, "there is no value here.", f"Write {shape.wanted}, or remove the key.")
    elif node.kind is not Kind.REFUSED:
        got = shown(node.text) if node.kind not in (Kind.MAP, Kind.LIST) else node.kind.value
        into.add(node, path, f"expected {shape.wanted}, got {got}.")
    return INVALID


class _Leaf:
    """A shape without keys of its own."""

    def below(self) -> Iterator[tuple[str, Key]]:
        return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(_Leaf):
    """One line of text, or what `parse` makes of it. Numbers and true/false are taken as they are written.

    `is_secret`: it may hold a password, and no message repeats it.
    """

    wanted: str = "text"
    parse: Callable[[str], Any] = str
    is_secret: bool = False

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind not in (Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN):
            return _unexpected(self, node, path, into)
        if len(node.text) > MAX_TEXT:
            into.add(node, path, f"this text has {len(node.text):,} characters; {MAX_TEXT:,} are allowed.")
            return INVALID
        if not node.text.strip():
            into.add(node, path, "there is no value here.", f"Write {self.wanted}, or remove the key.")
            return INVALID
        try:
            return self.parse(node.text)
        except UnreadableError as error:
            said = error.message if self.is_secret else f"{shown(node.text)}: {error.message}"
            into.add(node, path, said, error.suggestion)
            return INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbatim(_Leaf):
    """Text in which blanks count, "" included (a separator, a placeholder)."""

    wanted: str = "text"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind not in (Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN) or len(node.text) > MAX_TEXT:
            return _unexpected(self, node, path, into)
        return node.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(_Leaf):
    """One of a few words."""

    options: tuple[str, ...]
    what: str = "value"

    @property
    def wanted(self) -> str:
        return _either(self.options)

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind in (Kind.MAP, Kind.LIST, Kind.NULL, Kind.REFUSED):
            return _unexpected(self, node, path, into)
        if node.text not in self.options:
            into.add(node, path, f"unknown {self.what} {shown(node.text)}.", did_you_mean(node.text, self.options))
            return INVALID
        return node.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(_Leaf):
    """A whole number within bounds."""

    low: int = 0
    high: int = 10**9

    @property
    def wanted(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind is not Kind.INTEGER or not isinstance(node.value, int):
            return _unexpected(self, node, path, into)
        if not self.low <= node.value <= self.high:
            return _unexpected(self, node, path, into)
        return node.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Anything(_Leaf):
    """Any YAML; scalars as written, so that a HubSpot filter's `value: 007` stays what it is."""

    wanted: str = "a value"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind is Kind.NULL:
            return _unexpected(self, node, path, into)
        return _plain(node)


def _plain(node: Node) -> Any:
    if node.kind is Kind.MAP:
        return {name.text: _plain(value) for name, value in node.entries}
    if node.kind is Kind.LIST:
        return [_plain(item) for item in node.items]
    return node.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list; `or_one`: a single value stands for a list of one."""

    item: Shape
    or_one: bool = False
    least: int = 0

    @property
    def wanted(self) -> str:
        return f"a list of {self.item.wanted}"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if self.or_one and node.kind not in (Kind.LIST, Kind.NULL):
            only = self.item.read(node, path, into)
            return INVALID if only is INVALID else (only,)
        if node.kind is not Kind.LIST:
            return _unexpected(self, node, path, into)
        if len(node.items) < self.least:
            into.add(node, path, "the list is empty.", f"Write {self.wanted}.")
            return INVALID
        values = [self.item.read(item, (*path, position), into) for position, item in enumerate(node.items)]
        return INVALID if INVALID in values else tuple(values)

    def below(self) -> Iterator[tuple[str, Key]]:
        return self.item.below()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Fixed keys. Hands back a dict of those that are there and right."""

    known: Mapping[str, Key]
    what: str = "a group of keys"

    @property
    def wanted(self) -> str:
        return f"{self.what} ({', '.join(self.known)})"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind not in (Kind.MAP, Kind.NULL):
            return _unexpected(self, node, path, into)
        values: dict[str, Any] = {}
        meant: set[str] = set()
        for name, child in node.entries:
            key = self.known.get(name.text)
            if key is None:
                suggestion = did_you_mean(name.text, self.known, at_most=20)
                into.add(name, (*path, name.text), f"unknown key {shown(name.text)}.", suggestion)
                meant.add(nearest(name.text, self.known) or "")
                continue
            value = key.shape.read(child, (*path, name.text), into)
            meant.add(name.text)
            if value is not INVALID:
                values[name.text] = value
        for name_, key in self.known.items():
            if key.required and name_ not in meant:
                into.add_at(path, f"`{name_}` is missing.", f"Write {key.shape.wanted}.")
        return values

    def below(self) -> Iterator[tuple[str, Key]]:
        return iter(self.known.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Names the admin chooses, each with the same shape below. Hands back a dict of those that can be read."""

    item: Shape
    what: str
    check: Callable[[str], Any] = str
    least: int = 0

    @property
    def wanted(self) -> str:
        return f"names with {self.item.wanted}" if isinstance(self.item, _Leaf) else f"one group for each {self.what}"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind not in (Kind.MAP, Kind.NULL):
            return _unexpected(self, node, path, into)
        if len(node.entries) < self.least:
            into.add_at(path, f"there is no {self.what} here.", f"Write at least one {self.what}.")
            return INVALID
        values: dict[str, Any] = {}
        for name, child in node.entries:
            try:
                self.check(name.text)
            except UnreadableError as error:
                into.add(name, (*path, name.text), f"{shown(name.text)}: {error.message}", error.suggestion)
            value = self.item.read(child, (*path, name.text), into)
            if value is not INVALID:
                values[name.text] = value
        return values

    def below(self) -> Iterator[tuple[str, Key]]:
        yield "*", Key(shape=self.item)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordOrGroup:
    """A word, or a group of keys where the word needs a detail (`ask`, or {use: Other})."""

    word: Word | Text
    group: Group

    @property
    def wanted(self) -> str:
        return f"{self.word.wanted}, or {{{', '.join(self.group.known)}: …}}"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind is Kind.MAP:
            return self.group.read(node, path, into)
        # "use: Other" in quotes is what people write after the YAML error for the unquoted form.
        name, colon, detail = (part.strip() for part in node.text.partition(":"))
        if node.kind is Kind.TEXT and colon and name in self.group.known and detail:
            value = self.group.known[name].shape.read(_retyped(node, detail), path, into)
            return INVALID if value is INVALID else {name: value}
        if node.kind in (Kind.LIST, Kind.NULL):
            return _unexpected(self, node, path, into)
        return self.word.read(node, path, into)

    def below(self) -> Iterator[tuple[str, Key]]:
        return self.group.below()


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _retyped(node: Node, text: str) -> Node:
    number = text.isascii() and text.isdigit() and len(text) < 10
    return Node(
        kind=Kind.INTEGER if number else Kind.TEXT,
        line=node.line,
        column=node.column,
        text=text,
        value=int(text) if number else text,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOrGroup:
    """The short form of a group: a bare text stands for {`key`: text}."""

    key: str
    group: Group

    @property
    def wanted(self) -> str:
        return f"{self.group.known[self.key].shape.wanted} or {self.group.wanted}"

    def read(self, node: Node, path: Path, into: Findings) -> Any:
        if node.kind is Kind.MAP:
            return self.group.read(node, path, into)
        if node.kind in (Kind.LIST, Kind.NULL, Kind.REFUSED):
            return _unexpected(self, node, path, into)
        value = self.group.known[self.key].shape.read(node, path, into)
        return INVALID if value is INVALID else {self.key: value}

    def below(self) -> Iterator[tuple[str, Key]]:
        return self.group.below()


# --- what single values mean ------------------------------------------------------------------------------------

_CRM_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")
_SYNC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}\Z")
# They would share the prefix of their settings (CRM_SYNC_<NAME>_…) with settings that mean something else.
_RESERVED_CRM_NAMES = frozenset(
    ("apollo", "broker", "database", "log", "mail", "metrics", "notify", "public", "secret", "sentry", "slack")
)
_DOMAIN = re.compile(r"(?:[a-z0-9-]+\.)+[a-z0-9-]{2,}\Z", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+\Z", re.IGNORECASE)
_MAIL = re.compile(r"mailto:(?://)?[^\s@:/?]+@[^\s@:/?]+\Z", re.IGNORECASE)
_CHANNEL = re.compile(r"slack:[#@]?[\w.-]+\Z", re.IGNORECASE)
_NOTIFIER = re.compile(r"env:CRM_SYNC_NOTIFY_[A-Z0-9][A-Z0-9_]*\Z")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def crm_name(text: str) -> str:
    """
    Raises:
        UnreadableError: a CRM cannot be called so.
    """
    if _CRM_NAME.match(text) is None:
        near = re.sub(r"[^a-z0-9_]", "_", text.lower())
        hint = f"Write {near}. " if _CRM_NAME.match(near) else ""
        raise UnreadableError(
            "a CRM's name has lower-case letters, digits and underscores only.",
            f"{hint}It also names the CRM's settings: `salesforce` has CRM_SYNC_SALESFORCE_URL.",
        )
    if text in _RESERVED_CRM_NAMES:
        raise UnreadableError(f"this name is taken by the settings CRM_SYNC_{text.upper()}_….", "Choose another name.")
    return text


def _sync_name(text: str) -> str:
    if _SYNC_NAME.match(text) is None:
        raise UnreadableError("a sync's name has letters, digits, - and _ only, at most 61.")
    return text


def _version(text: str) -> int:
    if text != "1":
        raise UnreadableError("this program reads configurations of version 1.", "Write version: 1.")
    return 1


def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        suggestion = did_you_mean(text, sorted(available_timezones()), at_most=0)
        raise UnreadableError(
            "there is no such time zone.", suggestion or "Write a name such as Europe/Berlin or America/New_York."
        ) from None
    return text


def _apollo_path(text: str) -> str:
    """A dotted path of the catalogue."""
    name = text.strip()
    attribute = find(name)
    if attribute is not None and not attribute.refused:
        return name
    if attribute is not None:
        raise UnreadableError(f"this cannot be mapped: {attribute.refused}.")
    known = [each.path for each in attributes()]
    # "person.organization.name" and "title" are one word away from the path that is meant.
    tail = [path for path in known if name.endswith("." + path) or path.split(".", 1)[1] == name]
    guess = tail[0] if tail else nearest(name, known)
    raise UnreadableError(
        "Apollo has no such attribute.", f"Did you mean {guess}?" if guess else "`crm-sync fields apollo` lists them."
    )


def _when(text: str) -> str:
    for condition in expressions.parse_when(text):
        _apollo_path(condition.path)
    return text


def _opt_out(text: str) -> tuple[expressions.Condition, ...]:
    conditions = expressions.parse_when(text)
    for condition in conditions:
        expressions.field_name(condition.path)
    return conditions


def _template(text: str) -> str:
    for part in expressions.parse_template(text):
        if part.path:
            _apollo_path(part.path)
    return text


def _transform(text: str) -> str:
    if text not in TRANSFORMS:
        raise UnreadableError("there is no such transform.", did_you_mean(text, TRANSFORMS, at_most=30))
    return text


def _cron(text: str) -> str:
    text = " ".join(text.split())
    check_cron(text)
    return text


def _interval(text: str) -> timedelta:
    every = expressions.duration(text)
    if every < timedelta(minutes=1):
        raise UnreadableError("a sync runs once a minute at most.", "Write 1m or more.")
    return every


def _domain(text: str) -> str:
    if _DOMAIN.match(text) is None:
        raise UnreadableError("this is not a domain.", "Write it bare: gmail.com.")
    return text.lower()


def address(text: str) -> str:
    """Where an alert is told: slack:#channel, mailto:name@example.com (both by a setting of their own), env:NAME of a
    setting that holds the address, or an address of Apprise's. It may hold a password: no message repeats it.

    Raises:
        UnreadableError: it is none of these.
    """
    if text.lower().startswith("env:"):
        if _NOTIFIER.match(text) is None:
            raise UnreadableError(
                "this names no setting for an address of notices.",
                "Write env:CRM_SYNC_NOTIFY_ and a name of yours, for example env:CRM_SYNC_NOTIFY_OPS, and put the "
                "address into that setting.",
            )
        return text
    if not any(form.match(text) for form in (_MAIL, _CHANNEL, _ADDRESS)):
        raise UnreadableError(
            "this is not an address for notices.",
            "Write slack:#channel, mailto:name@example.com, or env:CRM_SYNC_NOTIFY_OPS for one that holds a secret.",
        )
    return text


def _relative_file(text: str) -> str:
    if text.startswith(("/", "~")) or "\\" in text or ":" in text or ".." in text.split("/"):
        raise UnreadableError(
            "the file must lie beside the configuration or below it.", 'Write a name such as "map.csv".'
        )
    return text


def _picklist_file(text: str) -> str:
    return text if text.startswith("builtin:") else _relative_file(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What an alert may be about. `figure`: the one key that says when it is too much, "" for none, and its `default`
    (a percentage, or a duration), None where nobody but the admin can know it. `of_syncs`: one sync at a time."""

    figure: str = ""
    default: Decimal | timedelta | None = None
    of_syncs: bool = False


EVENTS: Mapping[str, Event] = {
    "run_failed": Event(of_syncs=True),
    "rejected_share": Event(figure="above", default=Decimal(5), of_syncs=True),
    "did_not_start": Event(figure="after", default=timedelta(minutes=30), of_syncs=True),
    "budget_used": Event(figure="above", default=Decimal(80)),
    "match_rate": Event(figure="below", of_syncs=True),
    "credentials_refused": Event(),
    "public_url_unreachable": Event(figure="after", default=timedelta(minutes=10)),
    "in_doubt": Event(figure="after", default=timedelta(hours=1)),
    "phones_waiting": Event(figure="after", default=timedelta(hours=12), of_syncs=True),
}

FIELD = Text(wanted="the API name of a field", parse=expressions.field_name)
DURATION = Text(wanted="a duration such as 4h or 120d", parse=expressions.duration)
PERCENTAGE = Text(wanted="a percentage such as 5%", parse=expressions.percentage)
CREDITS = Text(wanted="a number of credits", parse=expressions.amount)
ATTRIBUTE = Text(wanted="an Apollo attribute such as person.title", parse=_apollo_path)
CONDITION = Text(wanted="a condition such as person.email_status = verified", parse=_when)
OPT_OUT = Text(wanted="a condition such as HasOptedOutOfEmail = true", parse=_opt_out)

# --- the whole file ---------------------------------------------------------------------------------------------

FIELD_MAPPING = TextOrGroup(
    key="from",
    group=Group(
        what="a mapping",
        known={
            "from": Key(shape=ATTRIBUTE),
            "template": Key(shape=Text(wanted="a template such as {{ person.city }}", parse=_template)),
            "write": Key(shape=Word(options=tuple(WriteRule), what="write rule"), default="fill"),
            "when": Key(shape=CONDITION, default="always"),
            "transform": Key(
                shape=ListOf(item=Text(wanted="the name of a transform", parse=_transform), or_one=True), default="none"
            ),
            "join": Key(shape=Verbatim(wanted='a separator such as "; "')),
            "max": Key(shape=Whole(low=1, high=1_000_000), default="the field's own length"),
            "round": Key(shape=Whole(low=1, high=10**12)),
            "picklist": Key(
                shape=Named(
                    item=ListOf(item=Text(wanted="an Apollo value"), or_one=True), what="value of the CRM", least=1
                )
            ),
            "picklist_file": Key(shape=Text(wanted="a file name or builtin:…", parse=_picklist_file)),
            "unmapped": Key(
                shape=WordOrGroup(
                    word=Word(options=("ask", "leave"), what="answer to an unmapped value"),
                    group=Group(what="use", known={"use": Key(shape=Text(wanted="a value of the CRM"), required=True)}),
                ),
                default="ask",
            ),
            "bands": Key(
                shape=Named(
                    item=Text(wanted='a range such as "1..50"', parse=expressions.band),
                    what="value of the CRM",
                    least=1,
                )
            ),
            "ignore_change_below": Key(shape=PERCENTAGE, default="0%"),
        },
    ),
)
FIELDS = Named(item=FIELD_MAPPING, what="field", check=expressions.field_name, least=1)

SCHEDULE = Group(
    what="a schedule",
    known={
        "days": Key(
            shape=ListOf(item=Word(options=("weekdays", "weekends", "daily", *_DAYS), what="day"), or_one=True)
        ),
        "at": Key(shape=Text(wanted='a time such as "02:30"', parse=expressions.time_of_day)),
        "cron": Key(shape=Text(wanted='a cron expression such as "0 4 * * 0"', parse=_cron)),
        "every": Key(shape=Text(wanted="a duration such as 4h", parse=_interval)),
        "jitter": Key(shape=DURATION, default="none"),
    },
)

#: What may prove an answer (mapping/trust.py) -> the keys of `send` of which it needs one.
PROOFS: Mapping[str, tuple[str, ...]] = {
    "last_name_agrees": ("last_name", "name"),
    "first_name_agrees": ("first_name", "name"),
    "domain_agrees": ("domain", "email"),
    "email_agrees": ("email",),
    "linkedin_agrees": ("linkedin_url",),
}
_PROOFS = ListOf(item=Word(options=tuple(PROOFS), what="proof"), or_one=True, least=1)
SYNC = Group(
    what="a sync",
    known={
        "crm": Key(shape=Text(wanted="the name of a CRM under `crms`"), required=True),
        "object": Key(
            shape=Text(wanted="Contact, Lead or Account (Salesforce), contacts or companies (HubSpot)"), required=True
        ),
        "schedule": Key(shape=SCHEDULE, default="by hand"),
        "choose": Key(
            shape=Group(
                what="what to choose",
                known={
                    "where": Key(shape=Anything(wanted="a filter in the CRM's own language"), default="all records"),
                    "missing_any": Key(
                        shape=ListOf(item=FIELD, or_one=True), default="every field mapped with fill or track"
                    ),
                    "or_older_than": Key(shape=DURATION, default="never again"),
                    "after_no_match_wait": Key(shape=DURATION, default="180d"),
                    "at_most": Key(shape=Whole(low=1, high=100_000_000), default="no limit"),
                },
            )
        ),
        "match": Key(
            required=True,
            shape=Group(
                what="how to match",
                known={
                    "send": Key(
                        required=True,
                        shape=Group(
                            what="what to send",
                            known={
                                key: Key(
                                    shape=ListOf(
                                        item=Text(wanted="a field such as Email", parse=expressions.key_field),
                                        or_one=True,
                                        least=1,
                                    )
                                )
                                for key in PEOPLE_KEYS
                            },
                        ),
                    ),
                    "need_one_of": Key(
                        shape=ListOf(
                            item=ListOf(item=Word(options=PEOPLE_KEYS, what="key of `send`"), or_one=True, least=1),
                            least=1,
                        ),
                        default="each of: email, linkedin_url, names with domain, as far as they are sent",
                    ),
                    "trust_when": Key(
                        shape=Group(what="proofs", known={"all": Key(shape=_PROOFS), "any": Key(shape=_PROOFS)})
                    ),
                    "otherwise": Key(shape=Word(options=("review", "skip")), default="review"),
                },
            ),
        ),
        "fields": Key(shape=FIELDS, required=True),
        "account": Key(
            shape=Group(
                what="the record's company",
                known={"via": Key(shape=FIELD, required=True), "fields": Key(shape=FIELDS, required=True)},
            )
        ),
        "phones": Key(
            shape=Group(
                what="phone reveals",
                known={
                    "order": Key(shape=Word(options=("after_match", "with_match")), default="after_match"),
                    "reveal_when": Key(shape=Anything(wanted="a filter in the CRM's own language"), required=True),
                    "write": Key(shape=Word(options=tuple(WriteRule), what="write rule"), default="fill"),
                    "format": Key(shape=Word(options=("e164", "national", "international")), default="e164"),
                    "route": Key(
                        required=True,
                        shape=Group(
                            what="phone types",
                            known={
                                kind: Key(shape=Text(wanted="a field, or skip", parse=expressions.field_name))
                                for kind in ("mobile", "work_direct", "home", "work_hq", "other")
                            },
                        ),
                    ),
                    "do_not_call": Key(
                        shape=Group(
                            what="what to do with listed numbers",
                            known={
                                "if_listed": Key(shape=Word(options=("skip", "write", "mark_only")), default="skip"),
                                "mark": Key(shape=FIELD),
                            },
                        )
                    ),
                    "wait": Key(shape=DURATION, default="2h"),
                    "give_up_after": Key(shape=DURATION, default="3d"),
                },
            )
        ),
        "job_change": Key(
            shape=Group(
                what="what a new employer means",
                known={
                    "notice_when": Key(shape=Word(options=("employer_domain_differs",)), required=True),
                    "then": Key(shape=Word(options=("flag", "review", "update")), required=True),
                    "keep": Key(shape=ListOf(item=FIELD, or_one=True), default="none"),
                },
            )
        ),
    },
)

SCHEMA = Group(
    what="a configuration",
    known={
        "version": Key(shape=Text(wanted="1", parse=_version), required=True),
        "timezone": Key(shape=Text(wanted="a time zone such as Europe/Berlin", parse=_time_zone), default="UTC"),
        "crms": Key(
            required=True,
            shape=Named(
                what="CRM",
                check=crm_name,
                least=1,
                item=Group(
                    what="a CRM",
                    known={
                        "type": Key(shape=Word(options=tuple(OBJECTS), what="CRM type"), required=True),
                        "environment": Key(
                            shape=Word(options=("sandbox", "production"), what="environment"), required=True
                        ),
                        "write": Key(shape=Word(options=("auto", "strict", "fast", "bulk")), default="auto"),
                    },
                ),
            ),
        ),
        "apollo": Key(
            shape=Group(what="Apollo", known={"workers": Key(shape=Whole(low=1, high=32), default="4")}),
        ),
        "budget": Key(
            shape=Group(
                what="spending limits",
                known={
                    "per_run": Key(shape=CREDITS, default="no limit"),
                    "per_day": Key(shape=CREDITS, default="no limit"),
                    "per_month": Key(shape=CREDITS, default="no limit"),
                    "phones_per_month": Key(shape=CREDITS, default="no limit"),
                    "at_limit": Key(shape=Word(options=("pause", "fail")), default="pause"),
                    "in_doubt": Key(
                        shape=WordOrGroup(
                            word=Word(options=("hold", "abandon")),
                            group=Group(what="", known={"retry_up_to": Key(shape=CREDITS, required=True)}),
                        ),
                        default="hold",
                    ),
                },
            )
        ),
        "suppress": Key(
            shape=Group(
                what="whom to leave alone",
                known={
                    "lists": Key(shape=ListOf(item=Text(wanted="file names", parse=_relative_file), or_one=True)),
                    "when": Key(shape=ListOf(item=OPT_OUT, or_one=True)),
                    "email_domains": Key(shape=ListOf(item=Text(wanted="domains", parse=_domain), or_one=True)),
                    "email_opt_out": Key(shape=Word(options=("leave_alone", "enrich")), default="leave_alone"),
                },
            )
        ),
        "stamps": Key(
            shape=Group(what="fields to stamp", known={"enriched_at": Key(shape=FIELD), "status": Key(shape=FIELD)})
        ),
        "placeholders": Key(shape=ListOf(item=Verbatim(wanted="texts"), or_one=True), default="none"),
        "syncs": Key(shape=Named(item=SYNC, what="sync", check=_sync_name, least=1), required=True),
        "alerts": Key(
            shape=ListOf(
                item=Group(
                    what="alerts",
                    known={
                        "when": Key(shape=Word(options=tuple(EVENTS), what="event"), required=True),
                        "above": Key(shape=PERCENTAGE, default="5%, for budget_used 80%"),
                        "below": Key(shape=PERCENTAGE),
                        "after": Key(shape=DURATION, default="by the event"),
                        "syncs": Key(shape=ListOf(item=Text(wanted="names of syncs"), or_one=True), default="all"),
                        "tell": Key(
                            shape=ListOf(
                                item=Text(wanted="addresses", parse=address, is_secret=True), or_one=True, least=1
                            ),
                            required=True,
                        ),
                    },
                )
            )
        ),
        "keep": Key(
            shape=Group(
                what="how long to keep things",
                known={
                    "answers": Key(shape=DURATION, default="180d"),
                    "run_details": Key(shape=DURATION, default="90d"),
                    "undo": Key(shape=DURATION, default="60d"),
                    "deliveries": Key(shape=DURATION, default="30d"),
                },
            )
        ),
    },
)


def walk_keys(shape: Shape = SCHEMA, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Key]]:
    """Every key of the file with its pattern ("syncs", "*", "choose", "where"), parents before children."""
    for name, key in shape.below():
        pattern = (*at, name)
        yield pattern, key
        yield from walk_keys(key.shape, pattern)
