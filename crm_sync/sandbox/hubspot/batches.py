"""Reading and writing records by id, alone and by the hundred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crm_sync.sandbox.hubspot import moments, values
from crm_sync.sandbox.hubspot.errors import (
    Finding,
    RequestError,
    bad_json,
    invalid,
    not_found,
    not_found_entry,
    values_errors,
    values_message,
    values_refused,
    wrong_type,
)
from crm_sync.sandbox.hubspot.portal import Portal, Renderer
from crm_sync.sandbox.hubspot.records import Table

MOST_INPUTS = 100
MOST_WITH_HISTORY = 50
MOST_ASSOCIATED = 1_000

#: How history names a write by API, beside the app behind the token.
BY_API = "INTEGRATION"
#: Properties of which no two records share a value; writing another record's is a conflict.
_DISTINCT = {"contacts": ("email", "external_key"), "companies": ("domain", "external_key")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What the contract pages leave open of batch update (contracts/hubspot.md 0.4, 0.5, 7 and 11, 2026-11).

    `vanished`: a record that is gone is "missing" from the results of a 200, or an "error" of a 207. `trace_ids`: with
    objectWriteTraceId on every input a bad value costs its own record only. `merged`: a write under an id that was
    merged away goes to the survivor ("follow") or counts as gone ("vanish"). `hidden_options`: hidden options of an
    enumeration may be written. `repeats`: a write of the value that stands there makes a version of its history.
    `history`: which end of a property's history comes first.
    """

    vanished: Literal["missing", "error"] = "missing"
    trace_ids: bool = True
    merged: Literal["follow", "vanish"] = "follow"
    hidden_options: bool = True
    repeats: bool = False
    history: Literal["newest", "oldest"] = "newest"


@dataclass(slots=True, kw_only=True)
class _Input:
    """One record's part of a batch update; `index` is the record it would write, None where there is none."""

    id: str
    properties: Mapping[str, str | None]
    trace_id: str | None = None
    index: int | None = None
    accepted: dict[str, str | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    conflict: tuple[str, str] | None = None


class Batches:
    def __init__(self, portal: Portal, habits: Habits) -> None:
        self._portal = portal
        self._habits = habits

    # --- reading ---

    def read_one(
        self, table: Table, record_id: str, id_property: str | None, *, archived: bool, render: Renderer
    ) -> dict[str, Any]:
        """
        Raises:
            RequestError: 404; 400 for an `id_property` that is not unique.
        """
        with self._portal.lock:
            index = self._find(table, record_id, id_property, archived=archived)
            if index is None:
                raise not_found()
            return render(table.row(index))

    def read(self, table: Table, raw: object, *, archived: bool) -> tuple[int, dict[str, Any]]:
        """Answer POST batch/read: status and body. Each record comes once, in an order of HubSpot's own.

        Raises:
            RequestError: 400.
        """
        body = _object(raw, ("inputs", "properties", "propertiesWithHistory", "idProperty"))
        properties = _names(body, "properties")
        with_history = _names(body, "propertiesWithHistory")
        inputs = _inputs(body, ("id",), most=MOST_WITH_HISTORY if with_history else MOST_INPUTS)
        id_property = body.get("idProperty")
        if "idProperty" in body and (not isinstance(id_property, str) or not id_property):
            raise wrong_type("idProperty", "java.lang.String")
        started = self._portal.now()
        with self._portal.lock:
            render = self._portal.renderer(table, properties, with_history=with_history)
            found: set[int] = set()
            missing: list[str] = []
            for each in inputs:
                index = self._find(table, each["id"], id_property, archived=archived)
                if index is None:
                    missing.append(each["id"])
                else:
                    found.add(index)
            results = [render(table.row(index)) for index in sorted(found, key=_own_order)]
        errors = [not_found_entry(table.singular, missing)] if missing else []
        return self._answer(results, errors, started)

    def _find(self, table: Table, key: str, id_property: str | None, *, archived: bool) -> int | None:
        if id_property in (None, "hs_object_id"):
            index = table.index_of(key)
        elif id_property == "email" and table.name == "contacts":
            # Works although its metadata says hasUniqueValue false (contracts/hubspot.md 6.1, 2026-11).
            index = table.by_unique("email", key.strip().lower())
        elif id_property in table.properties and table.properties[id_property].unique:
            index = table.by_unique(id_property, key)
        else:
            raise invalid(f"Property {id_property} is not a unique property of {table.name}")
        if index is None:
            return None
        index = table.survivor(index)
        stored = table.stored(index)
        return index if (stored is not None and "archived" in stored) is archived else None

    def associated(self, raw: object) -> tuple[int, dict[str, Any]]:
        """Answer POST crm/v4/associations/contacts/companies/batch/read: the primary companies.

        Raises:
            RequestError: 400.
        """
        inputs = _inputs(_object(raw, ("inputs",)), ("id", "after"), most=MOST_ASSOCIATED)
        started = self._portal.now()
        results, errors = [], []
        with self._portal.lock:
            table = self._portal.contacts
            company_of = table.getter("associatedcompanyid")
            for each in inputs:
                index = self._portal.living(table, each["id"])
                company = None if index is None else company_of(table.row(index))
                if company is None:
                    errors.append(
                        {
                            "status": "error",
                            "category": "OBJECT_NOT_FOUND",
                            "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                            "message": f"No company is associated with contact {each['id']}.",
                            "context": {"fromObjectId": [each["id"]]},
                        }
                    )
                    continue
                types = [
                    {"category": "HUBSPOT_DEFINED", "typeId": 1, "label": "Primary"},
                    {"category": "HUBSPOT_DEFINED", "typeId": 279, "label": None},
                ]
                to = [{"toObjectId": int(company), "associationTypes": types}]
                results.append({"from": {"id": each["id"]}, "to": to})
        return self._answer(results, errors, started)

    # --- writing ---

    def update_one(
        self, table: Table, record_id: str, id_property: str | None, raw: object, *, app: str
    ) -> dict[str, Any]:
        """Answer PATCH of one record by `app`, as histories name it.

        Raises:
            RequestError: 404, 400, 409 or 423; nothing was written.
        """
        body = _object(raw, ("properties",))
        with self._portal.lock:
            one = _Input(id=record_id, properties=_values(body))
            one.index = self._target(table, one.id, id_property)
            if one.index is None:
                raise not_found()
            self._judge_all(table, [one])
            self._refuse_whole(table, [one])
            return self._write(table, [one], app)[0]

    def update(self, table: Table, raw: object, *, app: str) -> tuple[int, dict[str, Any]]:
        """Answer POST batch/update by `app`: status and body.

        Raises:
            RequestError: 400, 409 or 423; nothing of the batch was written.
        """
        body = _object(raw, ("inputs",))
        listed = _inputs(body, ("id", "properties", "idProperty", "objectWriteTraceId"), most=MOST_INPUTS)
        started = self._portal.now()
        inputs = [
            _Input(id=each["id"], properties=_values(each), trace_id=each.get("objectWriteTraceId")) for each in listed
        ]
        with self._portal.lock:
            for one, each in zip(inputs, listed, strict=True):
                one.index = self._target(table, one.id, each.get("idProperty"))
            _refuse_twice(inputs)
            is_traced = self._habits.trace_ids and all(one.trace_id is not None for one in inputs)
            if is_traced and len({one.trace_id for one in inputs}) < len(inputs):
                raise invalid("Each objectWriteTraceId must be used once in a batch")
            self._judge_all(table, inputs)
            if not is_traced:
                self._refuse_whole(table, inputs)
            refused = [one for one in inputs if one.findings or one.conflict]
            left = [one for one in inputs if not (one.findings or one.conflict)]
            results = self._write(table, [one for one in left if one.index is not None], app)
        errors = [_refused_entry(table, one) for one in refused]
        gone = [one.id for one in left if one.index is None and (self._tells_gone or not one.id.isdecimal())]
        if gone:
            errors.append(not_found_entry(table.singular, gone))
        return self._answer(results, errors, started)

    @property
    def _tells_gone(self) -> bool:
        return self._habits.vanished == "error"

    def _target(self, table: Table, key: str, id_property: str | None) -> int | None:
        """The living record an input means."""
        if id_property is not None:
            property_ = table.properties.get(id_property)
            if property_ is None or not property_.unique:
                raise invalid(f"Unable to perform update/upsert by non-unique property {id_property}")
            index = table.by_unique(id_property, key)
        else:
            index = table.index_of(key)
        if index is None:
            return None
        survivor = table.survivor(index)
        if survivor != index and self._habits.merged == "vanish":
            return None
        return survivor if table.row(survivor).is_living else None

    def _judge_all(self, table: Table, inputs: Iterable[_Input]) -> None:
        """Fill each input's accepted values, findings and conflict."""
        claimed: dict[tuple[str, str], int] = {}
        for one in inputs:
            row = None if one.index is None else table.row(one.index)
            for name, text in one.properties.items():
                if text is None:
                    continue  # null leaves alone (contracts/hubspot.md 0.6, 2026-11)
                current = table.getter(name)(row) if row is not None and name in table.properties else None
                value, finding = values.judge(
                    table.properties, name, text, current, hidden_options=self._habits.hidden_options
                )
                finding = finding or self._dangling(table, name, value)
                if finding is not None:
                    one.findings.append(finding)
                elif not values.goes_back(name, value, current):
                    one.accepted[name] = value
            if one.index is not None and not one.findings:
                one.conflict = self._conflict(table, one, claimed)

    def _dangling(self, table: Table, name: str, value: str | None) -> Finding | None:
        """A company that another record points at must be there."""
        if value is None or table.properties[name].external != "COMPANY":
            return None
        if self._portal.living(self._portal.companies, value) is not None:
            return None
        return Finding(property=name, code="INVALID_OPTION", message=f"{value} is not the id of a company.")

    @staticmethod
    def _conflict(table: Table, one: _Input, claimed: dict[tuple[str, str], int]) -> tuple[str, str] | None:
        """(property, id of the record that has its value already)."""
        assert one.index is not None
        for name in _DISTINCT[table.name]:
            value = one.accepted.get(name)
            if value is None:
                continue
            holder = table.by_unique(name, value)
            if holder is None or not table.row(holder).is_living:
                holder = claimed.setdefault((name, value), one.index)
            if holder != one.index:
                return name, table.id_of(holder)
        return None

    @staticmethod
    def _refuse_whole(table: Table, inputs: Sequence[_Input]) -> None:
        """
        Raises:
            RequestError: 400 or 409 for all, when one of them is bad.
        """
        if findings := [finding for one in inputs for finding in one.findings]:
            # The same finding of several records stands there once: it does not say how many there are.
            raise values_refused(list(dict.fromkeys(findings)))
        for one in inputs:
            if one.conflict is not None:
                raise RequestError(409, _conflict_message(table, one.conflict[1]), "CONFLICT")

    def _write(self, table: Table, inputs: Sequence[_Input], app: str) -> list[dict[str, Any]]:
        """Write what was accepted and return the records as the answer shows them.

        Raises:
            RequestError: 423; nothing was written.
        """
        indexed = {one.index: one for one in inputs if one.index is not None}
        self._portal.check_locks(table, indexed)
        changes = ((index, one.accepted) for index, one in indexed.items())
        table.write(changes, source=BY_API, source_id=app, repeats=self._habits.repeats)
        renderers: dict[tuple[str, ...], Renderer] = {}
        results = []
        for index in sorted(indexed, key=_own_order):
            one = indexed[index]
            names = tuple(one.properties)
            render = renderers.get(names)
            if render is None:
                render = renderers[names] = self._portal.renderer(table, names or ("hs_object_id",), with_url=True)
            shown = render(table.row(index))
            if one.trace_id is not None and self._habits.trace_ids:
                shown["objectWriteTraceId"] = one.trace_id
            results.append(shown)
        return results

    def _answer(
        self, results: list[dict[str, Any]], errors: list[dict[str, Any]], started: float
    ) -> tuple[int, dict[str, Any]]:
        body: dict[str, Any] = {
            "status": "COMPLETE",
            "results": results,
            "startedAt": moments.iso(round(started * 1000)),
            "completedAt": moments.iso(round(self._portal.now() * 1000)),
        }
        if not errors:
            return 200, body
        return 207, body | {"numErrors": len(errors), "errors": errors}


def _own_order(index: int) -> int:
    """An order that is neither the caller's nor the ids': a batch answers in one of its own."""
    return index * 2_654_435_761 & 0xFFFFFFFF


def _refuse_twice(inputs: Iterable[_Input]) -> None:
    by_record: dict[int | str, list[str]] = {}
    for one in inputs:
        by_record.setdefault(one.id if one.index is None else one.index, []).append(one.id)
    twice = [record_id for ids in by_record.values() if len(ids) > 1 for record_id in dict.fromkeys(ids)]
    if twice:
        raise invalid(f"Duplicate IDs found in batch input: [{', '.join(twice)}]", context={"ids": twice})


def _refused_entry(table: Table, one: _Input) -> dict[str, Any]:
    """The entry of a 207 for an input whose values were refused."""
    context: dict[str, list[str]] = {"objectWriteTraceId": [str(one.trace_id)]}
    if one.conflict is not None:
        return {
            "status": "error",
            "category": "CONFLICT",
            "message": _conflict_message(table, one.conflict[1]),
            "context": {**context, "existingId": [one.conflict[1]]},
        }
    return {
        "status": "error",
        "category": "VALIDATION_ERROR",
        "message": values_message(one.findings),
        "errors": values_errors(one.findings),
        "context": context,
    }


def _conflict_message(table: Table, existing: str) -> str:
    return f"{table.singular.capitalize()} already exists. Existing ID: {existing}"


# --- bodies ---------------------------------------------------------------------------------------------------------


def _object(raw: object, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise wrong_type("the body", "com.hubspot.crm.BatchInput")
    if unknown := [key for key in raw if key not in keys]:
        raise bad_json(f'Unrecognized field "{unknown[0]}"')
    return raw


def _inputs(body: Mapping[str, Any], keys: Sequence[str], *, most: int) -> list[dict[str, Any]]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise invalid("Some required fields were not set: [inputs]")
    if len(inputs) > most:
        raise invalid(f"The maximum number of inputs supported in a batch request is {most}, it has {len(inputs)}")
    for each in inputs:
        if not isinstance(each, dict):
            raise wrong_type("an input", "com.hubspot.crm.Input")
        if unknown := [key for key in each if key not in keys]:
            raise bad_json(f'Unrecognized field "{unknown[0]}"')
        for key in keys:
            if key != "properties" and key in each and (not isinstance(each[key], str) or not each[key]):
                raise wrong_type(key, "java.lang.String")
        if "id" not in each:
            raise invalid("Some required fields were not set: [id]")
    return inputs


def _values(body: Mapping[str, Any]) -> dict[str, str | None]:
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise invalid("Some required fields were not set: [properties]")
    if not properties:
        raise invalid("No properties found to update, please provide at least one.")
    for name, value in properties.items():
        if value is not None and not isinstance(value, str):
            raise wrong_type(f"the property {name}", "java.lang.String")
    return properties


def _names(body: Mapping[str, Any], key: str) -> list[str]:
    names = body.get(key, [])
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise wrong_type(key, "java.util.ArrayList<java.lang.String>")
    return names
