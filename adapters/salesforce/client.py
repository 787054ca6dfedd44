"""Salesforce, as a Crm: what is asked, in which portions, and what each way of failing means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote_plus

from adapters.http import retry
from adapters.salesforce import where as soql
from adapters.salesforce import wire
from adapters.salesforce.session import API_VERSION, SalesforceCredentials, SalesforceSession
from crm_sync.domain.changes import WriteOutcome, Written
from crm_sync.domain.records import FieldKind, ObjectSchema, Record, RecordRef, Value
from crm_sync.errors import (
    ConfigError,
    ContractError,
    CredentialsError,
    CrmSyncError,
    ProviderError,
    QuotaError,
    RateLimitError,
    TransientError,
)
from crm_sync.ports import AccessCheck, Clock, Page, Selection, WriteRequest

if TYPE_CHECKING:
    from simple_salesforce import Salesforce

T = TypeVar("T")

_PAGE = 2_000  # rows of one REST query answer at most (contracts/salesforce.md 2.1)
_READ = 2_000  # ids of one POST collections retrieve (2.2)
_WRITE = 200  # records of one collections update (2.2)
_IDS_IN_QUERY = 200
_MOST_URI = 15_000  # bytes of the encoded query; URI and headers together end at 16,384 (1.3)
_LOCK_WAITS_S = (1.0, 2.0, 4.0, 8.0)
_MOST_BISECTIONS = 40  # calls spent on finding what spoils one collections call
_WRITE_HEADERS = {"Sforce-Auto-Assign": "FALSE"}  # REST's default TRUE may give a Lead another owner (0.8)
_TEXTS = (FieldKind.TEXT, FieldKind.EMAIL, FieldKind.PHONE, FieldKind.URL)
_COMPARED = (*_TEXTS, FieldKind.PICKLIST)


class _RefusedError(ProviderError):
    """A request-level 400 or 404: `code` and the platform's words; nothing of the request was done."""

    def __init__(self, code: str, said: str, **facts: Any) -> None:
        super().__init__(f"{facts['provider']} refused {facts['operation']}: {code}: {said}", **facts)
        self.code = code
        self.said = said


@dataclass(slots=True)
class _Row:
    """One record on its way: what is left to be sent, and what was dropped on the way."""

    place: int
    ref: RecordRef
    values: dict[str, Value]
    dropped: dict[str, str] = field(default_factory=dict)


class SalesforceCrm:
    """ports.Crm over simple-salesforce, with our own session below it (session.py)."""

    read_size = _READ
    write_size = _WRITE

    def __init__(
        self,
        *,
        name: str,
        url: str,
        credentials: SalesforceCredentials,
        clock: Clock,
        api_version: str = API_VERSION,
    ) -> None:
        """
        Raises:
            ConfigError: `url` is not https (or loopback).
        """
        self.name = name
        setting = "CRM_SYNC_" + "".join(c if c.isalnum() else "_" for c in name.upper()) + "_URL"
        self._session = SalesforceSession(name=name, url=url, setting=setting, credentials=credentials)
        self._clock = clock
        self._version = api_version
        self._lock = threading.Lock()
        self._client: Salesforce | None = None
        self._schemas: dict[str, ObjectSchema] = {}
        #: (object type, field) -> why the org refuses it whatever its value; not sent again by this client.
        self._dead: dict[tuple[str, str], str] = {}

    # --- the schema -----------------------------------------------------------------------------------------------

    def object_types(self) -> tuple[str, ...]:
        return ("Contact", "Lead", "Account")

    def describe(self, object_type: str) -> ObjectSchema:
        schema = self._schemas.get(object_type)
        if schema is None:
            if object_type not in self.object_types():
                raise ConfigError(
                    f"{self.name} has no object {object_type} that can be synced; "
                    f"there are {', '.join(self.object_types())}"
                )
            try:
                described = self._call(
                    f"describe {object_type}", lambda sf: sf.restful(f"sobjects/{object_type}/describe")
                )
            except _RefusedError as error:
                raise ConfigError(
                    f"{self.name} does not show {object_type} to this user ({error.code}); give its profile access"
                ) from error
            if not isinstance(described, Mapping) or not isinstance(described.get("fields"), list):
                raise ContractError(
                    f"{self.name} described {object_type} in a form that is not Salesforce's",
                    provider=self.name,
                    operation=f"describe {object_type}",
                )
            schema = self._schemas[object_type] = wire.object_schema(self.name, described)
        return schema

    def refresh(self) -> None:
        self._schemas.clear()
        self._dead.clear()

    # --- selecting ------------------------------------------------------------------------------------------------

    def check_selection(self, selection: Selection) -> list[str]:
        problems = []
        schema = self.describe(selection.object_type)
        for name in dict.fromkeys((*selection.fields, *selection.missing_any)):
            try:
                self._resolve(schema, name, filtered=False)
            except soql.WhereError as error:
                problems.append(str(error))
        if selection.where is not None:
            try:
                self._condition(schema, selection.where)
            except soql.WhereError as error:
                problems.append(str(error))
        return problems

    def select(self, selection: Selection, *, page_size: int | None = None) -> Iterator[Page]:
        schema = self.describe(selection.object_type)
        size = min(page_size or _PAGE, _PAGE)
        try:
            fields = [self._resolve(schema, name, filtered=False) for name in selection.fields]
            conditions = [] if selection.where is None else [soql.compose(self._condition(schema, selection.where))]
        except soql.WhereError as error:
            raise ConfigError(f"{self.name} {selection.object_type}: {error}") from error
        if "IsConverted" in schema.fields:
            # A converted lead takes no update (CANNOT_UPDATE_CONVERTED_LEAD, contracts/salesforce.md 2.3).
            conditions.append("IsConverted = false")
        missing, exact = self._missing(schema, selection)
        if missing:
            conditions.append(missing)
        columns = ", ".join(dict.fromkeys(["Id", *fields, *selection.missing_any]))
        read = wire.record_reader(self.name, schema, tuple(dict.fromkeys((*selection.fields, *selection.missing_any))))
        portions = [selection.ids[at : at + _IDS_IN_QUERY] for at in range(0, len(selection.ids), _IDS_IN_QUERY)] or [
            ()
        ]
        for ids in portions:
            after = selection.after
            while True:
                query = self._compose(columns, selection.object_type, [*conditions, *_keys(ids, after)], size)
                rows = self._query(query)
                records = tuple(read(row) for row in rows)
                if not records:
                    break
                after = records[-1].ref.id
                kept = records if exact else tuple(r for r in records if _lacks(r, selection))
                yield Page(records=kept, cursor=after)
                if len(records) < size:
                    break

    def _query(self, query: str) -> list[Mapping[str, Any]]:
        """All rows of one query; more answers than one only where the rows are too wide for one."""
        answer = self._call("query", lambda sf: _page(sf.query(query), self.name))
        rows = list(answer["records"])
        while not answer.get("done", True) and answer.get("nextRecordsUrl"):
            more = str(answer["nextRecordsUrl"])
            answer = self._call("query", partial(self._more, more))
            rows += answer["records"]
        return rows

    def _more(self, path: str, client: Salesforce) -> Mapping[str, Any]:
        return _page(client.query_more(path, identifier_is_url=True), self.name)

    def _compose(self, columns: str, object_type: str, conditions: list[str], size: int) -> str:
        clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        # Names are describe's, literals the escaper's, the size is a number of ours.
        query = f"SELECT {columns} FROM {object_type}{clause} ORDER BY Id LIMIT {size}"  # noqa: S608
        if len(quote_plus(query)) > _MOST_URI:
            raise ConfigError(
                f"The selection of {object_type} in {self.name} is too long for one query "
                f"({len(quote_plus(query)):,} of {_MOST_URI:,} characters): shorten `where`, `missing_any` or "
                "`placeholders`"
            )
        return query

    def _condition(self, schema: ObjectSchema, text: object) -> soql.Condition:
        if not isinstance(text, str):
            raise soql.WhereError('`where` must be a SOQL condition, such as "AccountId != null"')
        return soql.parse(text, lambda name: self._resolve(schema, name, filtered=True))

    def _resolve(self, schema: ObjectSchema, name: str, *, filtered: bool) -> str:
        """The API name as describe spells it; parents one step up.

        Raises:
            WhereError: there is no such field, or it cannot be filtered by.
        """
        own, dot, rest = name.partition(".")
        if dot:
            link = next((f for f in schema.fields.values() if f.relationship.casefold() == own.casefold()), None)
            parents = [each for each in (link.refers_to if link else ()) if each in self.object_types()]
            if link is None or not parents:
                known = sorted(
                    f.relationship for f in schema.fields.values() if set(f.refers_to) & {"Account", "Contact"}
                )
                raise soql.WhereError(
                    f"{schema.object_type} has no parent {own} that can be read; it has {', '.join(known) or 'none'}"
                )
            return f"{link.relationship}.{self._resolve(self.describe(parents[0]), rest, filtered=filtered)}"
        found = schema.fields.get(name) or next(
            (f for f in schema.fields.values() if f.name.casefold() == name.casefold()), None
        )
        if found is None:
            from difflib import get_close_matches

            near = get_close_matches(name, schema.fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise soql.WhereError(f"{schema.object_type} has no field {name}{hint}")
        if filtered and not found.filterable:
            raise soql.WhereError(f"Salesforce cannot filter by {found.name} ({found.native_type}); leave it out")
        return found.name

    def _missing(self, schema: ObjectSchema, selection: Selection) -> tuple[str, bool]:
        """(condition, whether it is exact); "" when every record has to be looked at."""
        if not selection.missing_any:
            return "", True
        parts = []
        for name in selection.missing_any:
            found = schema.fields[self._resolve(schema, name, filtered=False)]
            if found.kind is FieldKind.BOOLEAN:
                continue  # a checkbox is never blank
            if not found.filterable:
                return "", False
            parts.append(f"{found.name} = null")
            if selection.placeholders and found.kind in _COMPARED and not found.restricted:
                words = ", ".join(soql.literal(word.strip()) for word in selection.placeholders)
                parts.append(f"{found.name} IN ({words})")
        return f"({' OR '.join(parts)})" if parts else "(Id = null)", True

    # --- reading and writing --------------------------------------------------------------------------------------

    def read(self, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> list[Record | None]:
        """As ports.Crm.read; parents ("Account.Website") cannot be read here and are refused with ValueError."""
        dotted = [name for name in fields if "." in name]
        if dotted:
            raise ValueError(f"a re-read takes the record's own fields only, not {dotted[0]}")
        schema = self.describe(object_type)
        to_record = wire.record_reader(self.name, schema, fields)
        columns = list(dict.fromkeys(["Id", *fields]))
        found: list[Record | None] = []
        for at in range(0, len(ids), _READ):
            portion = [wire.long_id(each) for each in ids[at : at + _READ]]
            content = {"ids": portion, "fields": columns}
            answer = self._call(f"read {object_type}", partial(self._retrieve, object_type, content))
            found += [None if row is None or row.get("IsDeleted") is True else to_record(row) for row in answer]
        return found

    def _retrieve(self, object_type: str, content: dict[str, Any], client: Salesforce) -> list[Any]:
        answer = client.restful(f"composite/sobjects/{object_type}", method="POST", json=content)
        return _rows(answer, len(content["ids"]), self.name)

    def write(self, object_type: str, requests: Sequence[WriteRequest]) -> list[WriteOutcome]:
        outcomes: dict[int, WriteOutcome] = {}
        rows = [_Row(place, request.ref, dict(request.values)) for place, request in enumerate(requests)]
        for at in range(0, len(rows), _WRITE):
            portion = rows[at : at + _WRITE]
            try:
                outcomes.update(self._write_portion(object_type, portion))
            except CrmSyncError as error:
                if not outcomes:
                    raise
                # What was written before stays told; the rest certainly was not sent.
                for row in rows[at:]:
                    outcomes[row.place] = _rejected(row, type(error).__name__, str(error))
                break
        return [outcomes[place] for place in range(len(rows))]

    def _write_portion(self, object_type: str, rows: list[_Row]) -> dict[int, WriteOutcome]:
        outcomes: dict[int, WriteOutcome] = {}
        waiting, again = rows, True
        lock_waits = list(_LOCK_WAITS_S)
        while waiting:
            sent, waiting = waiting, []
            locked: list[_Row] = []
            for row, result in self._save(object_type, sent, outcomes):
                if result.success:
                    outcomes[row.place] = WriteOutcome(
                        ref=row.ref, written=Written.WRITTEN, dropped=tuple(row.dropped.items())
                    )
                elif result.is_locked and lock_waits:
                    locked.append(row)
                elif result.is_field_fault and again and set(result.fields) & set(row.values):
                    for name in result.fields:
                        if row.values.pop(name, None) is not None:
                            row.dropped[name] = f"{result.code}: {result.message}"
                    waiting.append(row)
                else:
                    outcomes[row.place] = _rejected(row, result.code, result.message)
            again = again and not waiting
            if locked and not waiting:
                self._clock.sleep(lock_waits.pop(0))
                again = True
            waiting += locked
        return outcomes

    def _save(
        self, object_type: str, rows: list[_Row], outcomes: dict[int, WriteOutcome], spent: list[int] | None = None
    ) -> Iterator[tuple[_Row, wire.SaveResult]]:
        """Send rows and pair them with their results; rows without any result go to `outcomes` themselves."""
        spent = spent if spent is not None else [0]
        rows = [row for row in rows if self._sendable(object_type, row, outcomes)]
        if not rows:
            return
        content = {
            "allOrNone": False,
            "records": [
                {
                    "attributes": {"type": object_type},
                    "id": row.ref.id,
                    **{name: wire.to_json(value) for name, value in row.values.items()},
                }
                for row in rows
            ],
        }
        try:
            answer = self._call(
                f"write {object_type}",
                lambda sf: sf.restful("composite/sobjects", method="PATCH", json=content, headers=_WRITE_HEADERS),
            )
        except _RefusedError as error:
            column = wire.unknown_column(error.said)
            if column and (object_type, column) not in self._dead:
                self._dead[object_type, column] = f"{error.code}: {error.said}"
                yield from self._save(object_type, rows, outcomes, spent)
            elif len(rows) == 1 or spent[0] >= _MOST_BISECTIONS:
                for row in rows:
                    outcomes[row.place] = _rejected(row, error.code, error.said)
            else:
                spent[0] += 1
                half = len(rows) // 2
                yield from self._save(object_type, rows[:half], outcomes, spent)
                yield from self._save(object_type, rows[half:], outcomes, spent)
            return
        except TransientError as error:
            for row in rows:
                outcomes[row.place] = WriteOutcome(
                    ref=row.ref, written=Written.UNACCOUNTED, reason=str(error), dropped=tuple(row.dropped.items())
                )
            return
        results = wire.save_results(answer, len(rows))
        if results is None:
            for row in rows:
                outcomes[row.place] = WriteOutcome(
                    ref=row.ref,
                    written=Written.UNACCOUNTED,
                    reason="Salesforce's answer does not account for every record",
                    dropped=tuple(row.dropped.items()),
                )
            return
        yield from zip(rows, results, strict=True)

    def _sendable(self, object_type: str, row: _Row, outcomes: dict[int, WriteOutcome]) -> bool:
        """Take out fields the org refuses as such; False when nothing is left to send."""
        for name in [name for name in row.values if (object_type, name) in self._dead]:
            del row.values[name]
            row.dropped[name] = self._dead[object_type, name]
        if row.values:
            return True
        reason = "; ".join(f"{name}: {why}" for name, why in row.dropped.items())
        outcomes[row.place] = _rejected(row, "NO_FIELD_LEFT", reason)
        return False

    # --- access ---------------------------------------------------------------------------------------------------

    def record_url(self, ref: RecordRef) -> str:
        return f"{self._session.base_url}/lightning/r/{ref.object_type}/{ref.id}/view"

    def check_access(self) -> list[AccessCheck]:
        checks = []

        def tried(name: str, act: Callable[[], str], cure: str) -> bool:
            try:
                checks.append(AccessCheck(name=f"{self.name} {name}", ok=True, detail=act()))
            except CrmSyncError as error:
                checks.append(AccessCheck(name=f"{self.name} {name}", ok=False, detail=str(error), cure=cure))
                return False
            return True

        if not tried("log-in", self._check_login, "check the CRM_SYNC_ settings of this CRM"):
            return checks
        for object_type in self.object_types():
            tried(object_type, partial(self._check_object, object_type), "give the user's profile access to it")
        tried("API calls", self._check_limits, "the integration user needs the API Enabled permission")
        return checks

    def _check_login(self) -> str:
        self._session.login()
        return f"logged in at {self._session.base_url}"

    def _check_object(self, object_type: str) -> str:
        schema = self.describe(object_type)
        page = next(iter(self.select(Selection(object_type=object_type, fields=("Id",)), page_size=1)), None)
        writable = sum(each.writable for each in schema.fields.values())
        hidden = [each for each in ("HasOptedOutOfEmail", "DoNotCall") if each not in schema.fields]
        note = f"; not visible to this user: {', '.join(hidden)}" if hidden and object_type != "Account" else ""
        return f"{len(schema.fields)} fields, {writable} writable, {'records found' if page else 'no record yet'}{note}"

    def _check_limits(self) -> str:
        limits: Any = self._call("limits", lambda sf: sf.limits())
        daily = limits.get("DailyApiRequests") if isinstance(limits, Mapping) else None
        if not isinstance(daily, Mapping):
            return "this user may not see how many API calls are left"
        return f"{daily.get('Remaining', 0):,} of {daily.get('Max', 0):,} API calls left in these 24 hours"

    def calls(self) -> dict[str, int]:
        return self._session.calls()

    def close(self) -> None:
        self._session.close()

    # --- the library ----------------------------------------------------------------------------------------------

    def _call(self, operation: str, act: Callable[[Salesforce], T]) -> T:
        """Run one call of the library with our retries; every call here may be repeated: reads, and updates by id
        with fixed values."""
        return retry(lambda: self._once(operation, act), harmless=True, clock=self._clock)

    def _once(self, operation: str, act: Callable[[Salesforce], T]) -> T:
        client = self._library()
        from simple_salesforce.exceptions import SalesforceError

        try:
            return act(client)
        except SalesforceError as error:
            raise self._translated(operation, error) from None
        except ValueError as error:
            if isinstance(error, CrmSyncError):
                raise
            # requests' JSON error: the text would show the body.
            raise TransientError(
                f"{self.name} answered {operation} with something that is not JSON; a proxy or the edge may stand "
                "between",
                provider=self.name,
                operation=operation,
            ) from None

    def _library(self) -> Salesforce:
        with self._lock:
            if self._client is None:
                from simple_salesforce import Salesforce

                self._client = Salesforce(
                    session_id="set by our session",
                    instance_url=self._session.base_url,
                    session=self._session,
                    version=self._version,
                    object_pairs_hook=None,
                )
            return self._client

    def _translated(self, operation: str, error: Any) -> ProviderError:
        status = int(error.status)
        code, said = _words(error.content)
        facts: dict[str, Any] = {"provider": self.name, "operation": operation, "status": status}
        if status == 401:
            return CredentialsError(f"{self.name} refuses the session ({code or 'HTTP 401'}); log in anew", **facts)
        if code == "REQUEST_LIMIT_EXCEEDED" and "TotalRequests" in said:
            return QuotaError(f"{self.name}'s API calls of these 24 hours are used up; a later run goes on", **facts)
        if code == "REQUEST_LIMIT_EXCEEDED":
            return RateLimitError(f"{self.name} is serving too many calls at once", **facts)
        if status in (406, 420, 429) or status >= 500 or code == "SERVER_UNAVAILABLE":
            return RateLimitError(f"{self.name} answered {operation} with HTTP {status}", **facts)
        if status == 403:
            return CredentialsError(
                f"{self.name} forbids {operation} to this user ({code or 'HTTP 403'}: {said[:200]})", **facts
            )
        return _RefusedError(code or f"HTTP {status}", said, **facts)


def _keys(ids: Sequence[str], after: str) -> list[str]:
    keys = []
    if ids:
        keys.append(f"Id IN ({', '.join(soql.literal(wire.long_id(each)) for each in ids)})")
    if after:
        keys.append(f"Id > {soql.literal(wire.long_id(after))}")
    return keys


def _page(answer: Any, provider: str) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping) or not isinstance(answer.get("records"), list):
        raise TransientError(
            f"{provider} answered a query in a form that is not Salesforce's", provider=provider, operation="query"
        )
    return answer


def _rows(answer: Any, asked: int, provider: str) -> list[Any]:
    if not isinstance(answer, list) or len(answer) != asked:
        raise TransientError(
            f"{provider} answered a re-read of {asked} records with another number of them",
            provider=provider,
            operation="read",
        )
    return answer


def _words(content: Any) -> tuple[str, str]:
    """(code, message) of a request-level error; ("", "") for a web page or other text."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, Mapping):
        return "", ""
    return str(first.get("errorCode") or first.get("error") or ""), str(first.get("message") or "")


def _rejected(row: _Row, code: str, message: str) -> WriteOutcome:
    return WriteOutcome(
        ref=row.ref,
        written=Written.REJECTED,
        code=code,
        reason=f"{code}: {message}" if message else code,
        dropped=tuple(row.dropped.items()),
    )


def _lacks(record: Record, selection: Selection) -> bool:
    blank = {word.strip().casefold() for word in selection.placeholders}
    for name in selection.missing_any:
        value = record.values.get(name)
        if (
            value is None
            or value == ()
            or (isinstance(value, str) and (not value.strip() or value.strip().casefold() in blank))
        ):
            return True
    return False
