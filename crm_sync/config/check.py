"""A configuration against the CRMs as they are now: what would fail is said before any money is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from crm_sync.config.apollo_attributes import Attribute, AttributeKind, find, vocabulary
from crm_sync.config.expressions import both
from crm_sync.config.model import Config, CrmConfig, FieldMapping, ParentMapping, Phones, Sync
from crm_sync.config.problems import Path, Problem, Severity, nearest, shown
from crm_sync.config.text import Document, ordered, parse
from crm_sync.domain.changes import WriteRule
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema
from crm_sync.errors import ConfigError
from crm_sync.mapping.opt_outs import missing, readable, unseen
from crm_sync.mapping.picklists import Choices, builtin_table
from crm_sync.mapping.stamps import misfit
from crm_sync.ports import Selection

_TEXTS = frozenset((FieldKind.TEXT, FieldKind.LONG_TEXT))
_CHOICES = frozenset((FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST))
_NUMBERS = frozenset((FieldKind.INTEGER, FieldKind.DECIMAL))
#: What a value of each kind fits into as it is.
_FITS: Mapping[AttributeKind, frozenset[FieldKind]] = {
    AttributeKind.TEXT: _TEXTS | _CHOICES,
    AttributeKind.LONG_TEXT: _TEXTS,
    AttributeKind.EMAIL: _TEXTS | {FieldKind.EMAIL},
    AttributeKind.PHONE: _TEXTS | {FieldKind.PHONE},
    AttributeKind.URL: _TEXTS | {FieldKind.URL},
    AttributeKind.INTEGER: _TEXTS | {FieldKind.INTEGER, FieldKind.DECIMAL},
    AttributeKind.NUMBER: _TEXTS | {FieldKind.INTEGER, FieldKind.DECIMAL},
    AttributeKind.BOOLEAN: _TEXTS | {FieldKind.BOOLEAN},
    AttributeKind.DATE: _TEXTS | {FieldKind.DATE, FieldKind.DATETIME},
    AttributeKind.LIST: frozenset((FieldKind.MULTI_PICKLIST,)),
}
#: A template is the admin's own text: it may build an address or a number too.
_TEMPLATE_FITS = _TEXTS | _CHOICES | {FieldKind.EMAIL, FieldKind.PHONE, FieldKind.URL}


class Describes(Protocol):
    """The part of ports.Crm a check needs."""

    def object_types(self) -> tuple[str, ...]: ...

    def describe(self, object_type: str) -> ObjectSchema: ...

    def check_selection(self, selection: Selection) -> list[str]: ...


def check(
    config: Config,
    crms: Mapping[str, Describes],
    *,
    unmapped: Mapping[tuple[str, str], int] | None = None,
    urls: Mapping[str, str] | None = None,
    no_callbacks: tuple[str, Severity] | None = None,
    file: str = "crm_sync.yaml",
) -> tuple[Problem, ...]:
    """What is wrong with `config` on these CRMs, from the top of the file to the bottom.

    `crms` by name in the configuration; one that is missing is not checked. `unmapped`: (sync, field) -> number of
    Apollo values seen so far that have no CRM value. `urls`: CRM name -> address, to compare with `environment`.
    `no_callbacks`: why Apollo could not deliver a phone number, and how bad that is; None when it can.

    Raises:
        ProviderError: a CRM could not be asked.
    """
    document = parse(config.text, file=file)
    checker = _Checker(document, config, unmapped or {})
    checker.no_callbacks = no_callbacks
    for name, crm in config.crms.items():
        checker.environment(crm, (urls or {}).get(name, ""))
    for sync in config.syncs.values():
        if sync.crm in crms:
            checker.sync(sync, crms[sync.crm])
    checker.stamps(crms)
    return ordered(checker.problems)


class _Checker:
    def __init__(self, document: Document, config: Config, unmapped: Mapping[tuple[str, str], int]) -> None:
        self._document = document
        self.no_callbacks: tuple[str, Severity] | None = None
        self._config = config
        self._unmapped = unmapped
        self._objects: set[tuple[str, str]] = set()
        self.problems: list[Problem] = []

    def _say(
        self,
        path: Path,
        message: str,
        suggestion: str = "",
        *,
        key: bool = False,
        severity: Severity = Severity.ERROR,
    ) -> None:
        # Some come from the CRM's adapter, or end with a reason of its schema.
        message = message if message.endswith((".", "?", "!")) else f"{message}."
        self.problems.append(self._document.problem(path, message, suggestion, key=key, severity=severity))

    def _has(self, path: Path) -> bool:
        return self._document.node(path) is not None

    def environment(self, crm: CrmConfig, url: str) -> None:
        """Salesforce's own addresses tell a sandbox from production; HubSpot has one address for all."""
        host = urlsplit(url).hostname or ""
        if crm.type != "salesforce" or not host.endswith(".salesforce.com"):
            return
        # A sandbox is <org>--<name>.sandbox.my.salesforce.com, an older one has no ".sandbox"; test. logs in to them.
        is_sandbox = "--" in host or ".sandbox." in host or host.startswith("test.")
        actual = "sandbox" if is_sandbox else "production"
        if actual != crm.environment:
            self._say(
                ("crms", crm.name, "environment"),
                f"this says {crm.environment}, and {host} looks like a {actual} org.",
                f"Write {actual}, or change CRM_SYNC_{crm.name.upper()}_URL.",
                severity=Severity.WARNING,
            )

    def stamps(self, crms: Mapping[str, Describes]) -> None:
        """On every object that a sync writes, accounts beside contacts too."""
        written = dict.fromkeys(
            (sync.crm, object_type)
            for sync in self._config.syncs.values()
            for object_type in (sync.object_type, *([sync.parent.object_type] if sync.parent else []))
            if sync.crm in crms
        )
        names = {"enriched_at": self._config.stamps.enriched_at, "status": self._config.stamps.status}
        for key, name in names.items():
            for crm, object_type in written if name else ():
                try:
                    schema = crms[crm].describe(object_type)
                except ConfigError:
                    continue  # said where the sync names the object
                field = self._known(("stamps", key), name, schema)
                problem = misfit(key, field) if field is not None else ""
                if problem:
                    self._say(("stamps", key), f"on {object_type}, {problem}.")

    # --- one sync ---

    def sync(self, sync: Sync, crm: Describes) -> None:
        at: Path = ("syncs", sync.name)
        try:
            schema = crm.describe(sync.object_type)
        except ConfigError as error:
            self._say((*at, "object"), str(error))
            return
        self._left_alone(sync, crm, schema)
        self._send(sync, crm, schema)
        self._selection(sync, crm, schema)
        for mapping in sync.fields:
            self._mapping((*at, "fields", mapping.field), mapping, schema, sync)
        if sync.parent is not None:
            self._parent((*at, "account"), sync.parent, crm, schema, sync)
        if sync.phones is not None:
            self._phones((*at, "phones"), sync, sync.phones, crm, schema)
        for position, name in enumerate(sync.job_change.keep if sync.job_change is not None else ()):
            self._known((*at, "job_change", "keep", position), name, schema)

    def _phones(self, at: Path, sync: Sync, phones: Phones, crm: Describes, schema: ObjectSchema) -> None:
        if self.no_callbacks is not None:
            why, severity = self.no_callbacks
            self._say(at, why, "No phone is ordered before that.", key=True, severity=severity)
        for kind, name in phones.route.items():
            field = self._known((*at, "route", kind), name, schema)
            if field is None:
                continue
            if not field.writable:
                why = field.why_not.strip() or "the CRM does not let this user write it."
                self._say((*at, "route", kind), f"{name} cannot be written: {why}", "Name another field, or skip.")
            elif field.kind not in _FITS[AttributeKind.PHONE]:
                self._say((*at, "route", kind), f"a phone number is no value for {name}, which is {_a(field.kind)}.")
        mark = self._known((*at, "do_not_call", "mark"), phones.mark, schema) if phones.mark else None
        if mark is not None and mark.kind is not FieldKind.BOOLEAN:
            self._say((*at, "do_not_call", "mark"), f"{mark.name} is {_a(mark.kind)}, not a checkbox.")
        elif mark is not None and not mark.writable:
            self._say((*at, "do_not_call", "mark"), f"{mark.name} cannot be written: {mark.why_not}")
        fields = tuple(name for name in dict.fromkeys(phones.route.values()) if name in schema.fields)
        selection = Selection(
            object_type=sync.object_type,
            fields=(),
            where=both(sync.choose.where, phones.reveal_when),
            missing_any=fields,
            placeholders=self._config.placeholders,
        )
        alone = Selection(object_type=sync.object_type, fields=(), where=phones.reveal_when)
        for sentence in dict.fromkeys([*crm.check_selection(alone), *crm.check_selection(selection)]):
            self._say((*at, "reveal_when"), sentence)
        if self._config.budget.phones_per_month is None:
            self._say(
                at,
                "a revealed phone costs up to nine credits, and `budget.phones_per_month` is not set: they are paid "
                "from the same limits as everything else.",
                "Set budget.phones_per_month to give them a purse of their own.",
                key=True,
                severity=Severity.NOTE,
            )

    def _left_alone(self, sync: Sync, crm: Describes, schema: ObjectSchema) -> None:
        """What cannot be seen of those who said no, once for each object."""
        if (sync.crm, sync.object_type) in self._objects:
            return
        self._objects.add((sync.crm, sync.object_type))
        hidden = unseen(sync.object_type, self._config.suppress, readable(schema, crm.check_selection))
        if hidden:
            names = " and ".join(f"{each.field} ({each.said})" for each in hidden)
            self._say(
                ("syncs", sync.name, "object"),
                f"this user sees no {names} on {sync.object_type}, so whoever opted out there is not known.",
                "Let the user read it, or name another field in `suppress.when`.",
                severity=Severity.NOTE,
            )
        for position, entry in enumerate(self._config.suppress.when):
            for name in missing(entry, schema):
                guess = nearest(name, schema.fields)
                self._say(
                    ("suppress", "when", position),
                    f"{sync.object_type} in {sync.crm} has no field {name}, or this user may not see it: this "
                    "condition does not apply there.",
                    f"Did you mean {guess}?" if guess else "",
                    severity=Severity.WARNING,
                )

    def _known(self, path: Path, name: str, schema: ObjectSchema, *, key: bool = False) -> FieldSchema | None:
        field = schema.fields.get(name)
        if field is None:
            by_label = {each.label.casefold(): each.name for each in schema.fields.values()}
            # Without the ending that all of Salesforce's own fields share, or any two of them look alike.
            stems = {each.removesuffix("__c"): each for each in schema.fields}
            stem = nearest(name.removesuffix("__c"), stems)
            guess = by_label.get(name.casefold()) or (stems[stem] if stem is not None else None)
            self._say(
                path,
                f"{schema.object_type} has no field {name}, or this user may not see it.",
                f"Did you mean {guess}?"
                if guess
                else f"`crm-sync fields {schema.crm} {schema.object_type}` lists them.",
                key=key,
            )
        return field

    def _send(self, sync: Sync, crm: Describes, schema: ObjectSchema) -> None:
        for key in sync.match.send:
            path: Path = ("syncs", sync.name, "match", "send", key.key)
            for name in key.fields:
                if self._readable(path, name, crm, schema):
                    selection = Selection(object_type=sync.object_type, fields=(name,))
                    for sentence in crm.check_selection(selection):
                        self._say(path, sentence)

    def _readable(self, path: Path, name: str, crm: Describes, schema: ObjectSchema) -> bool:
        relationship, dot, parent_field = name.partition(".")
        if not dot:
            return self._known(path, name, schema) is not None
        via = {each.relationship: each for each in schema.fields.values() if each.relationship}
        reference = via.get(relationship)
        if reference is None or not reference.refers_to:
            guess = nearest(relationship, via)
            self._say(
                path,
                f"{schema.object_type} has no parent {relationship}, or this user may not see it.",
                f"Did you mean {guess}.{parent_field}?" if guess else "",
            )
            return False
        try:
            parent = crm.describe(reference.refers_to[0])
        except ConfigError as error:
            self._say(path, str(error))
            return False
        return self._known(path, parent_field, parent) is not None

    def _selection(self, sync: Sync, crm: Describes, schema: ObjectSchema) -> None:
        """The filter, each field of `missing_any`, then all together (HubSpot bounds the whole)."""
        at: Path = ("syncs", sync.name, "choose")
        said: set[str] = set()

        def ask(path: Path, selection: Selection, *, key: bool = False) -> None:
            for sentence in crm.check_selection(selection):
                if sentence not in said:
                    said.add(sentence)
                    self._say(path, sentence, key=key)

        if sync.choose.where is not None:
            ask((*at, "where"), Selection(object_type=sync.object_type, fields=(), where=sync.choose.where))
        explicit = self._has((*at, "missing_any"))
        known: list[str] = []
        for position, name in enumerate(sync.choose.missing_any):
            path = (*at, "missing_any", position) if explicit else ("syncs", sync.name, "fields", name)
            # An unknown field that only stands under `fields` is reported there.
            if explicit and self._known(path, name, schema) is None:
                continue
            if name in schema.fields:
                known.append(name)
                ask(path, self._missing(sync, (name,)), key=not explicit)
        if known:
            whole = (*at, "missing_any") if explicit else ("syncs", sync.name, "fields")
            ask(whole, self._missing(sync, tuple(known)), key=not explicit)

    def _missing(self, sync: Sync, names: tuple[str, ...]) -> Selection:
        return Selection(
            object_type=sync.object_type,
            fields=(),
            where=sync.choose.where,
            missing_any=names,
            placeholders=self._config.placeholders,
        )

    def _parent(self, at: Path, parent: ParentMapping, crm: Describes, schema: ObjectSchema, sync: Sync) -> None:
        via = self._known((*at, "via"), parent.via, schema)
        if via is not None and parent.object_type not in via.refers_to:
            pointing = [f.name for f in schema.fields.values() if parent.object_type in f.refers_to]
            self._say(
                (*at, "via"),
                f"{parent.via} does not point at a record of {parent.object_type}.",
                f"Write {pointing[0]}." if pointing else "",
            )
        try:
            parent_schema = crm.describe(parent.object_type)
        except ConfigError as error:
            self._say(at, str(error), key=True)
            return
        for mapping in parent.fields:
            self._mapping((*at, "fields", mapping.field), mapping, parent_schema, sync)

    # --- one field ---

    def _mapping(self, at: Path, mapping: FieldMapping, schema: ObjectSchema, sync: Sync) -> None:
        field = self._known(at, mapping.field, schema, key=True)
        if field is None:
            return
        if not field.writable and mapping.rule is not WriteRule.NEVER:
            why = field.why_not.strip() or "the CRM does not let this user write it."
            hint = "Map another field, or set write: never to see the value in plans only."
            self._say(at, f"{field.name} cannot be written: {why}", hint, key=True)
            return
        if field.kind is FieldKind.BOOLEAN and mapping.rule is WriteRule.FILL:
            where = (*at, "write") if self._has((*at, "write")) else at
            self._say(
                where, f"{field.name} is a checkbox, which is never blank, so `fill` never writes it.", "Use replace."
            )
        is_salesforce = self._config.crms[sync.crm].type == "salesforce"
        # One of HubSpot's that nobody has ticked or cleared has no value yet.
        if field.kind is FieldKind.BOOLEAN and mapping.rule is WriteRule.TRACK and is_salesforce:
            self._say(
                (*at, "write"),
                f"{field.name} is a checkbox, which is never blank, so `track` never writes a first value; it only "
                "goes on with a checkbox that `replace` or an accepted review wrote and nobody changed since.",
                "Use replace, or review.",
                severity=Severity.WARNING,
            )
        if mapping.ignore_change_below and field.kind not in _NUMBERS:
            self._say(
                (*at, "ignore_change_below"),
                f"`ignore_change_below` compares numbers, and {field.name} is {_a(field.kind)}.",
                "Map a number field, or remove it.",
                key=True,
            )
        attribute = find(mapping.source) if mapping.source else None
        if self._fits(at, mapping, field, attribute):
            self._choices(at, mapping, field)
            self._length(at, mapping, field)
        if mapping.rule is WriteRule.REPLACE and "account" not in at:
            keys = [key.key for key in sync.match.send if mapping.field in key.fields]
            if keys:
                self._say(
                    (*at, "write"),
                    f"{mapping.field} is sent to Apollo as {keys[0]}; replacing it changes who is found next time.",
                    "Use fill.",
                    severity=Severity.WARNING,
                )
        seen = self._unmapped.get((sync.name, mapping.field), 0)
        if seen and field.kind in _CHOICES:
            have = "values seen so far have" if seen > 1 else "value seen so far has"
            self._say(
                at,
                f"{seen} Apollo {have} no CRM value.",
                f"`crm-sync picklists {sync.name}` lists them, and `picklists map` maps them; or set `unmapped`.",
                key=True,
                severity=Severity.NOTE,
            )

    def _fits(self, at: Path, mapping: FieldMapping, field: FieldSchema, attribute: Attribute | None) -> bool:
        """Whether a value of this kind can go into that field; says so when not."""
        target = f"{field.name} is {_a(field.kind)}"
        path = (*at, "template") if attribute is None else (*at, "from") if self._has((*at, "from")) else at
        if mapping.bands and field.kind not in _TEXTS | _CHOICES:
            self._say((*at, "bands"), f"{target}; `bands` give picklist values or text.", key=True)
            return False
        if mapping.picklist is not None and field.kind not in _CHOICES:
            return self._table_without_picklist(at, field)
        if attribute is None:
            if field.kind in _TEMPLATE_FITS:
                return True
            self._say(path, f"a template is text, and {target}.")
            return False
        kind = attribute.kind
        if "year" in mapping.transform and kind is AttributeKind.DATE:
            kind = AttributeKind.INTEGER
        elif mapping.bands or "domain" in mapping.transform or self._becomes_text(mapping, kind):
            kind = AttributeKind.TEXT
        if field.kind in _FITS[kind]:
            return True
        suggestion = ""
        if kind.is_number and field.kind in _CHOICES:
            suggestion = 'Add `bands`: a range such as "1..50" for each value of the picklist.'
        elif kind is AttributeKind.LIST and field.kind in _TEXTS:
            suggestion = 'Add join: "; ".'
        elif kind is AttributeKind.LIST and field.kind is FieldKind.PICKLIST:
            suggestion = "It holds one value; map the list to a multi-select picklist, or with `join` to a text field."
        elif kind is AttributeKind.BOOLEAN and field.kind in _CHOICES:
            suggestion = "Add `picklist` with a CRM value for true and one for false."
        said = "text" if kind is AttributeKind.TEXT else _a_word(kind.value)
        self._say(path, f"{attribute.path} is {said}, and {target}.", suggestion)
        return False

    @staticmethod
    def _becomes_text(mapping: FieldMapping, kind: AttributeKind) -> bool:
        """A joined list is one text; a table's value is one for a single word, and stays a list for a list."""
        return mapping.join is not None if kind is AttributeKind.LIST else mapping.picklist is not None

    def _table_without_picklist(self, at: Path, field: FieldSchema) -> bool:
        path = (*at, "picklist") if self._has((*at, "picklist")) else (*at, "picklist_file")
        self._say(path, f"{field.name} is {_a(field.kind)}, not a picklist.", "Remove the table.", key=True)
        return False

    def _choices(self, at: Path, mapping: FieldMapping, field: FieldSchema) -> None:
        if field.kind not in _CHOICES or not field.choices:
            return
        own = self._document.node((*at, "picklist"))
        entries = own.entries if own is not None else ()
        wanted: list[tuple[str, Path]] = [
            (name.text, (*at, "picklist", name.text)) for name, words in entries if not words.is_empty
        ]
        if self._has((*at, "picklist_file")):
            self._choices_of_file(at, mapping, field, own=frozenset(value for value, _ in wanted))
        wanted += [(band.value, (*at, "bands", band.value)) for band in mapping.bands]
        if mapping.unmapped == "use":
            wanted.append((mapping.unmapped_use, (*at, "unmapped")))
        live = Choices(field.choices)
        for value, path in wanted:
            if live.find(value) is None:
                self._say(path, *no_choice(value, field), key=path[-1] != "unmapped")
        attribute = find(mapping.source)
        words = vocabulary(attribute.vocabulary) if attribute is not None else ()
        if mapping.picklist is None and not mapping.transform and words and not any(live.find(word) for word in words):
            self._say(
                at,
                f"none of Apollo's {len(words)} words for {mapping.source} is a value of {field.name}, so nothing will "
                "be written.",
                "Add `picklist` with the CRM's values and Apollo's words for each.",
                key=True,
                severity=Severity.WARNING,
            )

    def _choices_of_file(self, at: Path, mapping: FieldMapping, field: FieldSchema, *, own: frozenset[str]) -> None:
        """`own` are values of the `picklist` beside a ready table, which have been looked at."""
        path = (*at, "picklist_file")
        live = Choices(field.choices)
        values = [value for value in dict.fromkeys((mapping.picklist or {}).values()) if value not in own]
        gone = [value for value in values if live.find(value) is None]
        node = self._document.node(path)
        name = node.text if node is not None else ""
        if not name.startswith("builtin:"):
            for value in gone:
                message, suggestion = no_choice(value, field)
                self._say(path, f"{name}: {message}", suggestion)
        elif gone:
            # Nobody can edit a shipped table, and orgs prune their lists: what is gone is treated as unmapped.
            some = ", ".join(gone[:5]) + (", …" if len(gone) > 5 else "")
            self._say(
                path,
                f"{len(gone)} of the {len(set(builtin_table(name.removeprefix('builtin:')).values()))} values in this "
                f"table are not active in {field.name} ({some}) and are never written.",
                "Activate them in the CRM, or use a picklist_file of your own.",
                severity=Severity.WARNING,
            )

    def _length(self, at: Path, mapping: FieldMapping, field: FieldSchema) -> None:
        if mapping.max is not None and field.length is not None and mapping.max > field.length:
            self._say(
                (*at, "max"), f"{field.name} holds {field.length} characters, fewer than {mapping.max}.",
                f"Write {field.length} or less.",
            )  # fmt: skip


def no_choice(value: str, field: FieldSchema) -> tuple[str, str]:
    """The sentence about a value that is no active one of this picklist, and what may be meant."""
    active = [c.value for c in field.choices if c.active]
    guess = nearest(value, active)
    is_there = any(value in (c.value, c.label) for c in field.choices)
    state = "is not active in" if is_there else "is not a value of"
    if guess is not None:
        return f"{shown(value)} {state} {field.name}.", f"Did you mean {guess}?"
    return (
        f"{shown(value)} {state} {field.name}.",
        f"Active: {', '.join(active[:12])}{', …' if len(active) > 12 else ''}.",
    )


def _a(kind: FieldKind) -> str:
    return kind.value if kind in _TEXTS else _a_word(kind.value)


def _a_word(word: str) -> str:
    return f"an {word}" if word[0] in "aeio" else f"a {word}"
