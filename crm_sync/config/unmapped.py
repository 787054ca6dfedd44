"""Apollo's picklist values that nobody has mapped: where they belong, and what is to be written for them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from crm_sync.config.apollo_attributes import find
from crm_sync.config.check import no_choice
from crm_sync.config.edits import add_entries, add_rows
from crm_sync.config.loader import Loaded, kept, load
from crm_sync.config.model import Config, FieldMapping, Sync
from crm_sync.config.problems import Path, shown
from crm_sync.config.text import Document
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import BUILTIN_TABLES, Choices, builtin_table, fold
from crm_sync.mapping.suggest import Suggester, Suggestion

_CHOICES = (FieldKind.PICKLIST, FieldKind.MULTI_PICKLIST)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One mapping into a picklist, with the CRM's field as it is now. `name` is the field's as the command takes it:
    with "account." before it for a field of the record's company."""

    sync: str
    crm_type: str
    object_type: str
    name: str
    at: Path
    mapping: FieldMapping
    field: FieldSchema

    @cached_property
    def choices(self) -> Choices:
        return Choices(self.field.choices)

    @cached_property
    def _suggester(self) -> Suggester:
        attribute = find(self.mapping.source)
        ending = f"_{attribute.vocabulary}" if attribute is not None and attribute.vocabulary else "\0"
        names = sorted(
            (name for name in BUILTIN_TABLES if name.endswith(ending)),
            key=lambda name: not name.startswith(self.crm_type),
        )
        return Suggester(self.field.choices, [builtin_table(name) for name in names])

    def value_of(self, word: str) -> str | None:
        """The active value that a run writes for this word of Apollo's (as mapping/apply.py)."""
        table = self.mapping.picklist or {}
        return self.choices.find(table.get(fold(word), word))

    def suggest(self, word: str) -> tuple[Suggestion, ...]:
        return self._suggester.suggest(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A value that runs met so many times, and for which they wrote nothing."""

    place: Place
    value: str
    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An Apollo value that is to have a CRM value, both as somebody wrote them."""

    place: Place
    apollo: str
    crm_value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What has to be written: file name -> its new bytes; the configuration itself is "". `loaded` is the result as it
    reads, `mapped` what was added, `already` what stands there in the same way."""

    files: Mapping[str, bytes]
    loaded: Loaded
    mapped: tuple[Wish, ...]
    already: tuple[Wish, ...]


def places(syncs: Iterable[Sync], config: Config, describe: Callable[[str, str], ObjectSchema]) -> tuple[Place, ...]:
    """Every mapping of these syncs into a field with choices; `describe` takes a CRM's name and an object.

    A field that the CRM does not have (any more) has no place: `config check` tells that.
    """
    found = []
    for sync in syncs:
        for prefix, at, object_type, mappings in _groups(sync):
            schema = describe(sync.crm, object_type)
            for mapping in mappings:
                its_field = schema.fields.get(mapping.field)
                if its_field is None or its_field.kind not in _CHOICES or not its_field.choices or mapping.bands:
                    continue
                found.append(
                    Place(
                        sync=sync.name,
                        crm_type=config.crms[sync.crm].type,
                        object_type=object_type,
                        name=f"{prefix}{mapping.field}",
                        at=(*at, mapping.field),
                        mapping=mapping,
                        field=its_field,
                    )
                )
    return tuple(found)


def waiting(found: Sequence[Place], tally: Iterable[tuple[str, str, str, int]]) -> tuple[Waiting, ...]:
    """Of what runs have met (sync, CRM field, Apollo value, times), what is still without a value in these places.

    The tally does not tell a record's field from one of the same name on its company: such a value waits in both.
    """
    by_field: dict[tuple[str, str], list[Place]] = {}
    for place in found:
        by_field.setdefault((place.sync, place.mapping.field), []).append(place)
    return tuple(
        Waiting(place=place, value=value, seen=seen)
        for sync, name, value, seen in tally
        for place in by_field.get((sync, name), ())
        if place.value_of(value) is None
    )


def named(found: Sequence[Place], name: str, sync: Sync) -> Place:
    """The place of the field `name`: the record's own, or with "account." before it its company's.

    Raises:
        ConfigError: the sync fills no picklist of that name.
    """
    place = next((each for each in found if each.name == name), None)
    # A bare name is the company's where the record has no such field.
    place = place or next((each for each in found if each.mapping.field == name), None)
    if place is not None:
        return place
    fields = [f"{prefix}{mapping.field}" for prefix, _, _, mappings in _groups(sync) for mapping in mappings]
    known = ", ".join(dict.fromkeys(each.name for each in found)) or "none"
    if name in fields or f"account.{name}" in fields:
        banded = any(m.bands and name.endswith(m.field) for _, _, _, ms in _groups(sync) for m in ms)
        why = "takes its values from `bands`" if banded else "is no picklist, or the CRM shows no values of it"
        raise ConfigError(f"{sync.name} fills {name}, which {why}; picklists it fills: {known}")
    raise ConfigError(f"{sync.name} fills no field {name}; picklists it fills: {known}")


def pair(text: str, place: Place) -> Wish:
    """ "Apollo value=CRM value". Where there are several signs, the one counts behind which a value of the picklist is.

    Raises:
        ConfigError: one of the sides is blank.
    """
    signs = [at for at, character in enumerate(text) if character == "="]
    at = next((each for each in signs if place.choices.find(text[each + 1 :].strip())), signs[0] if signs else 0)
    apollo, crm_value = text[:at].strip(), text[at + 1 :].strip()
    if not signs or not apollo or not crm_value:
        raise ConfigError(f'{shown(text)} is no pair; write "Apollo value=CRM value"')
    return Wish(place=place, apollo=apollo, crm_value=crm_value)


def edited(before: Loaded, wishes: Sequence[Wish]) -> Edited:
    """The files with these wishes in them, proved: read again, they mean what they meant, and the wishes.

    Raises:
        ConfigError: a wish cannot be granted, one line for each; or the text cannot be edited by position.
    """
    config, document = before.require(), before.document
    mapped, already, problems = _sorted(wishes, document)
    if problems:
        raise ConfigError("\n".join(problems))
    texts: dict[str, bytes] = {}
    tables: dict[Path, dict[str, str]] = {}
    for change in _changes(mapped, document):
        if change.file:
            texts[change.file] = add_rows(texts.get(change.file, config.files[change.file]), change.entries)
        else:
            texts[""] = add_entries(texts.get("", document.text), change.at, change.entries)
        for at, mapping in _mappings(config):
            if at == change.at or (change.file and _csv_of(document, at) == change.file):
                words = {fold(word): value for value, some in change.entries.items() for word in some}
                tables[at] = {**tables.get(at, mapping.picklist or {}), **words}

    loaded = load(texts.get("", document.text), file=document.file, read_file=kept({**config.files, **texts}))
    if loaded.config is None or _meaning(loaded.config) != _meaning(_with_tables(config, tables)):
        values = ", ".join(f"{wish.apollo} = {wish.crm_value}" for wish in mapped)
        raise ConfigError(
            f"{document.file} is written in a way that this command cannot add to; nothing was changed. "
            f"Add it by hand: {values}"
        )
    return Edited(files=texts, loaded=loaded, mapped=tuple(mapped), already=tuple(already))


# --- deciding ---------------------------------------------------------------------------------------------------------


def _sorted(wishes: Sequence[Wish], document: Document) -> tuple[list[Wish], list[Wish], list[str]]:
    mapped: dict[tuple[object, str], Wish] = {}
    already: list[Wish] = []
    problems: list[str] = []
    for wish in wishes:
        key = (_csv_of(document, wish.place.at) or wish.place.at, fold(wish.apollo))
        wanted = wish.place.choices.find(wish.crm_value)
        if wanted is None:
            problems.append(" ".join(no_choice(wish.crm_value, wish.place.field)))
        elif not key[1]:
            problems.append(f"{shown(wish.apollo)} has no letter or digit to be recognised by.")
        elif key in mapped:
            other = mapped[key].crm_value
            if wish.place.choices.find(other) != wanted:
                problems.append(f"{shown(wish.apollo)} is to be {other} and {wish.crm_value}; choose one.")
        elif (told := _stands(wish, wanted, document)) is not None:
            if told:
                problems.append(told)
            else:
                already.append(wish)
        else:
            mapped[key] = wish
    return list(mapped.values()), already, problems


def _stands(wish: Wish, wanted: str, document: Document) -> str | None:
    """ "" when the entry stands there already, a sentence when another one does, None when there is none in the way.

    A ready table is in nobody's way: an entry beside it goes before it.
    """
    place, folded = wish.place, fold(wish.apollo)
    table = place.mapping.picklist or {}
    if folded not in table:
        return None
    value, line = table[folded], _line_of(document, place.at, folded)
    found = place.choices.find(value)
    if found == wanted:
        return ""
    file = _csv_of(document, place.at)
    if not line and not file:
        return None
    where = f"in line {line} of {document.file}" if line else f"in {file}"
    state = "" if found is not None else f", which is not active in {place.field.name}"
    return f"{shown(wish.apollo)} stands under {shown(value)}{state}, {where}; change it there."


@dataclass(slots=True, kw_only=True)
class _Change:
    """Entries for one picklist: `at` its field in the configuration, or `file` where they stand in a CSV file."""

    at: Path
    file: str
    entries: dict[str, list[str]] = field(default_factory=dict)


def _changes(wishes: Iterable[Wish], document: Document) -> Iterable[_Change]:
    """Together by table, each CRM value in the spelling that the table has for it already."""
    changes: dict[object, _Change] = {}
    for wish in wishes:
        place = wish.place
        file = _csv_of(document, place.at)
        change = changes.setdefault(file or place.at, _Change(at=place.at, file=file))
        there = (place.mapping.picklist or {}).values() if file else _own_values(document, place.at)
        wanted = place.choices.find(wish.crm_value)
        known = next((each for each in (*there, *change.entries) if place.choices.find(each) == wanted), wish.crm_value)
        words = change.entries.setdefault(known, [])
        if fold(wish.apollo) not in map(fold, words):
            words.append(wish.apollo)
    return changes.values()


# --- the configuration ------------------------------------------------------------------------------------------------


def _groups(sync: Sync) -> Iterator[tuple[str, Path, str, tuple[FieldMapping, ...]]]:
    """(what stands before a field's name, path, object, mappings) of the record and of its company."""
    yield "", ("syncs", sync.name, "fields"), sync.object_type, sync.fields
    if sync.parent is not None:
        yield "account.", ("syncs", sync.name, "account", "fields"), sync.parent.object_type, sync.parent.fields


def _mappings(config: Config) -> Iterator[tuple[Path, FieldMapping]]:
    for sync in config.syncs.values():
        for _, at, _, mappings in _groups(sync):
            for mapping in mappings:
                yield (*at, mapping.field), mapping


def _with_tables(config: Config, tables: Mapping[Path, Mapping[str, str]]) -> Config:
    def changed(at: Path, mappings: tuple[FieldMapping, ...]) -> tuple[FieldMapping, ...]:
        return tuple(
            replace(mapping, picklist=tables[(*at, mapping.field)]) if (*at, mapping.field) in tables else mapping
            for mapping in mappings
        )

    syncs = {}
    for name, sync in config.syncs.items():
        parent = sync.parent
        if parent is not None:
            parent = replace(parent, fields=changed(("syncs", name, "account", "fields"), parent.fields))
        syncs[name] = replace(sync, fields=changed(("syncs", name, "fields"), sync.fields), parent=parent)
    return replace(config, syncs=syncs)


def _meaning(config: Config) -> Config:
    """Without the text it was read from; the picklist files count as tables."""
    return replace(config, text=b"", files={}, warnings=())


def _csv_of(document: Document, at: Path) -> str:
    """The CSV file of the field's table, "" when it has none of its own."""
    node = document.node((*at, "picklist_file"))
    return "" if node is None or node.text.startswith("builtin:") else node.text


def _own_values(document: Document, at: Path) -> list[str]:
    node = document.node((*at, "picklist"))
    return [name.text for name, _ in node.entries] if node is not None else []


def _line_of(document: Document, at: Path, folded: str) -> int:
    """Where this Apollo word stands in the field's own table, 0 when it does not."""
    node = document.node((*at, "picklist"))
    for _, words in node.entries if node is not None else ():
        for word in words.items or (words,):
            if fold(word.text) == folded:
                return word.line
    return 0
