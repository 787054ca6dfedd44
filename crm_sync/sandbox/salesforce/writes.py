"""Reading and writing records by id: collections and single rows, with one SaveResult per record."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crm_sync.sandbox.salesforce import auth, ids, rules, sources
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError, RowCode, RowError
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.schema import SObject

#: Records of one collections call (contracts/salesforce.md 2.2).
MAX_WRITE = 200
MAX_READ = 2_000
#: Runs of records of the same type in one call.
MAX_CHUNKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One record of a call: `id` as sent, "" for none; `values` typed but not yet judged."""

    sobject: SObject
    id: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A record that may be written."""

    object_name: str
    index: int
    values: Mapping[str, object]


class Writes:
    """The org's doors for reading and changing records by id."""

    def __init__(self, org: Org, validation_rules: tuple[rules.ValidationRule, ...]) -> None:
        self._org = org
        self._rules = validation_rules
        #: How many more attempts on a record (18-character id) find it locked by somebody else.
        self._locks: dict[str, int] = {}
        #: How many more writes of a single record find the service in trouble.
        self._failures: dict[str, int] = {}

    def lock(self, record_id: str, times: int) -> None:
        """Let the next `times` writes of a record fail with UNABLE_TO_LOCK_ROW."""
        self._locks[ids.normalise(record_id) or record_id] = times

    def fail(self, record_id: str, times: int) -> None:
        """Let the next `times` writes of a record by itself, not in a collection, fail with HTTP 503."""
        self._failures[ids.normalise(record_id) or record_id] = times

    def retrieve(self, name: str, record_ids: object, fields: object, *, root: str) -> list[dict[str, Any] | None]:
        """Answer POST and GET composite/sobjects/<Type>: by position, null for an id that is unknown or deleted.

        Raises:
            RequestError: 400 for the whole call: an unknown or hidden field, too many ids. Parents' fields
                ("Account.Name") are not known to work here, and are refused.
        """
        sobject = self._sobject(name)
        if not isinstance(record_ids, list) or not all(isinstance(value, str) for value in record_ids):
            raise _incomplete("ids")
        if not isinstance(fields, list) or not fields or not all(isinstance(value, str) for value in fields):
            raise _incomplete("fields")
        if len(record_ids) > MAX_READ:
            raise _too_many(MAX_READ)
        tree: dict[str, None] = {}
        for wanted in fields:
            field = sobject.field(wanted)
            if field is None:
                raise _no_column(wanted, sobject)
            tree[field.name] = None
        render = self._org.renderer(sobject.name, tree)
        answer: list[dict[str, Any] | None] = []
        for record_id in record_ids:
            index = self._org.index_of(sobject.name, record_id)
            row = None if index is None else self._org.row(sobject.name, index)
            answer.append(None if row is None or row.is_deleted else render(row, root))
        return answer

    def read(self, name: str, record_id: str, fields: Sequence[str], *, root: str) -> dict[str, Any]:
        """Answer GET sobjects/<Type>/<id>; no `fields` means all.

        Raises:
            RequestError: 404 for a record that is not there, 400 for an unknown field.
        """
        sobject = self._sobject(name)
        everything = [field.name for field in sobject.fields]
        tree: dict[str, None] = dict.fromkeys(["Id"] if fields else everything)
        for wanted in fields:
            field = sobject.field(wanted)
            if field is None:
                raise _no_column(wanted, sobject)
            tree[field.name] = None
        index = self._existing(sobject, record_id)
        return self._org.renderer(sobject.name, tree)(self._org.row(sobject.name, index), root)

    def last_modified(self, name: str, record_id: str) -> str:
        """Return a record's LastModifiedDate.

        Raises:
            RequestError: 404.
        """
        sobject = self._sobject(name)
        row = self._org.row(sobject.name, self._existing(sobject, record_id))
        return str(self._org.getter(sobject.name, "LastModifiedDate")(row))

    def update_one(self, name: str, record_id: str, raw: object, body: str, *, assign: bool) -> None:
        """Answer PATCH sobjects/<Type>/<id>.

        Raises:
            RequestError: 404 for a record that is not there, 400 with the reason otherwise.
        """
        sobject = self._sobject(name)
        full = ids.normalise(record_id)
        if full is not None and self._failures.get(full, 0) > 0:
            self._failures[full] -= 1
            raise RequestError(
                503, RequestCode.SERVER_UNAVAILABLE, "Server is temporarily unavailable; please try again."
            )
        if not isinstance(raw, dict):
            raise _incomplete("record")
        if any(key.lower() == "id" for key in raw):
            raise RequestError(
                400,
                RowCode.INVALID_FIELD_FOR_INSERT_UPDATE,
                "The Id field should not be specified in the sobject data.",
                ("Id",),
            )
        values = rules.values_of(sobject, raw, body)
        with self._org.lock:
            self._existing(sobject, record_id)
            verdict = self._judge(_Request(sobject=sobject, id=record_id, values=values), set())
            if isinstance(verdict, RowError):
                raise RequestError(400, verdict.code, verdict.message, verdict.fields)
            self._write([verdict], assign=assign)

    def update(self, payload: object, body: str, *, assign: bool) -> list[dict[str, Any]]:
        """Answer PATCH composite/sobjects: one SaveResult per record, in order; a failed one has no id.

        `assign`: the client did not switch assignment rules off, so each lead written gets a new owner.

        Raises:
            RequestError: 400, nothing was written.
        """
        if not isinstance(payload, dict) or not isinstance(payload.get("records"), list):
            raise _incomplete("records")
        all_or_none = payload.get("allOrNone", False)
        if not isinstance(all_or_none, bool):
            raise _incomplete("allOrNone")
        if foreign := [key for key in payload if key not in ("records", "allOrNone")]:
            raise RequestError(400, RequestCode.JSON_PARSER_ERROR, f'Unrecognized field "{foreign[0]}"')
        records = payload["records"]
        if len(records) > MAX_WRITE:
            raise _too_many(MAX_WRITE)
        requests = [self._request(record, body) for record in records]
        chunks = 1 + sum(a.sobject is not b.sobject for a, b in itertools.pairwise(requests))
        if chunks > MAX_CHUNKS:
            raise RequestError(
                400,
                RequestCode.LIMIT_EXCEEDED,
                f"Cannot have more than {MAX_CHUNKS} chunks in a single operation. Please rearrange the data to reduce"
                " chunking.",
            )
        with self._org.lock:
            seen: set[str] = set()
            verdicts = [self._judge(request, seen) for request in requests]
            changes = [verdict for verdict in verdicts if isinstance(verdict, _Change)]
            rolled_back = all_or_none and len(changes) < len(verdicts)
            if not rolled_back:
                self._write(changes, assign=assign)
        return [self._result(verdict, rolled_back) for verdict in verdicts]

    def update_rows(
        self, sobject: SObject, rows: Sequence[tuple[str, Mapping[str, object] | RowError]], seen: set[str]
    ) -> list[str | RowError]:
        """Write a batch of a bulk job, (id, values or the row's fault) each: the record's id, or why not, by position.
        `seen`: ids of the batches before. Assignment rules do not run."""
        with self._org.lock:
            verdicts = [
                values
                if isinstance(values, RowError)
                else self._judge(_Request(sobject=sobject, id=record_id, values=values), seen)
                for record_id, values in rows
            ]
            self._write([verdict for verdict in verdicts if isinstance(verdict, _Change)], assign=False)
        return [
            verdict if isinstance(verdict, RowError) else self._org.id_of(verdict.object_name, verdict.index)
            for verdict in verdicts
        ]

    def _request(self, record: object, body: str) -> _Request:
        if not isinstance(record, dict):
            raise _incomplete("record")
        attributes = record.get("attributes")
        name = attributes.get("type") if isinstance(attributes, dict) else None
        if not isinstance(name, str):
            raise RequestError(
                400, RequestCode.INVALID_TYPE, "sObject type is missing: each record needs attributes with a type"
            )
        sobject = self._sobject(name, status=400)
        sent = [value for key, value in record.items() if key.lower() == "id"]
        if len(sent) > 1 or not all(value is None or isinstance(value, str) for value in sent):
            raise _incomplete("id")
        return _Request(
            sobject=sobject, id=(sent[0] if sent else None) or "", values=rules.values_of(sobject, record, body)
        )

    def _judge(self, request: _Request, seen: set[str]) -> _Change | RowError:
        """Say whether one record may be written. `seen` are the ids before it in the same call."""
        sobject, org = request.sobject, self._org
        if not request.id:
            return RowError(RowCode.MISSING_ARGUMENT, "Id not specified in an update call")
        full = ids.normalise(request.id)
        if full is None:
            return RowError(RowCode.MALFORMED_ID, f"malformed id {request.id}", ("Id",))
        if full[:3] != sobject.prefix:
            return RowError(
                RowCode.MALFORMED_ID, f"{sobject.label} ID: id value of incorrect type: {request.id}", ("Id",)
            )
        if full in seen:
            return RowError(RowCode.DUPLICATE_VALUE, f"duplicate id specified: {full}", ("Id",))
        seen.add(full)
        if error := rules.refuse(sobject, request.values):
            return error
        index = org.index_of(sobject.name, full)
        if index is None:
            return RowError(RowCode.INVALID_CROSS_REFERENCE_KEY, "invalid cross reference id")
        row = org.row(sobject.name, index)
        if row.is_deleted:
            return RowError(RowCode.ENTITY_IS_DELETED, "entity is deleted")
        if sobject.name == "Lead" and org.getter("Lead", "IsConverted")(row):
            return RowError(RowCode.CANNOT_UPDATE_CONVERTED_LEAD, "cannot reference converted lead")
        if error := self._dangling(sobject, request.values):
            return error
        if error := rules.broken_rule(self._rules, sobject, request.values):
            return error
        if self._locks.get(full, 0) > 0:
            self._locks[full] -= 1
            return RowError(
                RowCode.UNABLE_TO_LOCK_ROW, f"unable to obtain exclusive access to this record or 1 records: {full}"
            )
        return _Change(object_name=sobject.name, index=index, values=request.values)

    def _dangling(self, sobject: SObject, values: Mapping[str, object]) -> RowError | None:
        """A parent's id must name a living record of the right object."""
        for name, value in values.items():
            field = sobject.by_name[name]
            if field.type != "reference" or value is None:
                continue
            full = ids.normalise(str(value)) or ""
            if field.name == "OwnerId":
                known = full in sources.OWNERS or full in (auth.INTEGRATION_USER, auth.HUMAN_USER)
                if not known and not (full == auth.LEAD_QUEUE and sobject.name == "Lead"):
                    return RowError(RowCode.INVALID_CROSS_REFERENCE_KEY, "invalid cross reference id")
                continue
            target = field.refers_to[0]
            if full[:3] != self._org.objects[target].prefix:
                return RowError(
                    RowCode.MALFORMED_ID, f"{field.label}: id value of incorrect type: {value}", (field.name,)
                )
            index = self._org.index_of(target, full)
            if index is None:
                return RowError(RowCode.INVALID_CROSS_REFERENCE_KEY, "invalid cross reference id")
            if self._org.row(target, index).is_deleted:
                return RowError(RowCode.ENTITY_IS_DELETED, "entity is deleted")
        return None

    def _write(self, changes: Sequence[_Change], *, assign: bool) -> None:
        for name in self._org.objects:
            mine = [change for change in changes if change.object_name == name]
            if not mine:
                continue
            # REST runs assignment rules unless told not to (contracts/salesforce.md 0.8).
            owner = {"OwnerId": auth.LEAD_QUEUE} if assign and name == "Lead" else {}
            self._org.write(
                name, ((change.index, {**change.values, **owner}) for change in mine), by=auth.INTEGRATION_USER
            )

    def _result(self, verdict: _Change | RowError, rolled_back: bool) -> dict[str, Any]:
        if rolled_back and isinstance(verdict, _Change):
            verdict = RowError(
                RowCode.ALL_OR_NONE_OPERATION_ROLLED_BACK,
                "Record rolled back because not all records were valid and the request was using AllOrNone header",
            )
        if isinstance(verdict, RowError):
            return {"success": False, "errors": [verdict.as_save_error()]}
        return {"id": self._org.id_of(verdict.object_name, verdict.index), "success": True, "errors": []}

    def _sobject(self, name: str, *, status: int = 404) -> SObject:
        known = self._org.object_name(name)
        if known is None:
            if status == 404:
                raise RequestError(404, RequestCode.NOT_FOUND, "The requested resource does not exist")
            raise RequestError(status, RequestCode.INVALID_TYPE, f"sObject type '{name}' is not supported.")
        return self._org.objects[known]

    def _existing(self, sobject: SObject, record_id: str) -> int:
        index = self._org.index_of(sobject.name, record_id)
        if index is None:
            if ids.normalise(record_id) is None:
                raise RequestError(400, RowCode.MALFORMED_ID, f"malformed id {record_id}", ())
            raise RequestError(404, RequestCode.NOT_FOUND, "The requested resource does not exist")
        if self._org.row(sobject.name, index).is_deleted:
            raise RequestError(404, RequestCode.ENTITY_IS_DELETED, "entity is deleted", ())
        return index


def _no_column(name: str, sobject: SObject) -> RequestError:
    return RequestError(400, RequestCode.INVALID_FIELD, f"No such column '{name}' on sobject of type {sobject.name}")


def _incomplete(what: str) -> RequestError:
    return RequestError(400, RequestCode.JSON_PARSER_ERROR, f"The Request body is either invalid or incomplete: {what}")


def _too_many(limit: int) -> RequestError:
    return RequestError(
        400,
        RequestCode.EXCEEDED_ID_LIMIT,
        f"record limit reached. cannot submit more than {limit} records in this operation",
    )
