"""Salesforce, as a Crm: Contact, Lead and Account through simple-salesforce."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from adapters.http import InDoubtError, OversizedError, UnprovenRefusalError, UnsentError, retry
from adapters.salesforce import bulk, composite, whereabouts, wire
from adapters.salesforce.bulk import BulkUpdate, Ingest
from adapters.salesforce.bulk_csv import MOST_ROWS
from adapters.salesforce.bulk_query import MANY, WINDOW, Windows
from adapters.salesforce.composite import OUTLAST_S, SUBREQUESTS, check_guards, fresh
from adapters.salesforce.selection import PAGE, Names, Plan, folded, lacks, plan, problems
from adapters.salesforce.session import API_VERSION, READ_S, SalesforceCredentials, SalesforceSession
from adapters.salesforce.where import WhereError
from adapters.salesforce.wire import RefusedRequestError, SaveResult
from adapters.salesforce.writing import PORTION, Row, Update, rows_of
from crm_sync.domain.changes import WriteMode, WriteOutcome, Written
from crm_sync.domain.records import ObjectSchema, Record, RecordRef
from crm_sync.errors import (
    ConfigError,
    CredentialsError,
    CrmSyncError,
    ProviderError,
    QuotaError,
    RateLimitError,
    TransientError,
)
from crm_sync.ports import AccessCheck, Clock, JobBook, Page, Selection, Whereabouts, WriteRequest

if TYPE_CHECKING:
    from simple_salesforce.api import Salesforce

T = TypeVar("T")

_log = logging.getLogger(__name__)

_OBJECT_TYPES = ("Contact", "Lead", "Account")
#: Of the org's calls in 24 hours, the share that is left to its other integrations.
_DAILY_RESERVE = 0.05
_READ = 2_000  # ids of one POST collections retrieve (contracts/salesforce.md 2.2)
_HEADERS = {"Sforce-Auto-Assign": "FALSE"}  # REST's default TRUE may give a Lead another owner (0.8)


class SalesforceCrm:
    """ports.Crm over simple-salesforce, which is imported with the first call, and our own session below it.

    `select` leaves converted leads out: they take no update. `read` reads a record's own fields only.
    """

    read_size = _READ
    write_size = PORTION
    bulk_size = MOST_ROWS
    select_lag_s = 0.0

    def __init__(
        self,
        *,
        name: str,
        url: str,
        credentials: SalesforceCredentials,
        clock: Clock,
        api_version: str = API_VERSION,
        read_s: float = READ_S,
        prefix: str = "",
    ) -> None:
        """`read_s`: how long an answer may stay silent. `prefix`: what its settings begin with (CRM_SYNC_SALESFORCE_),
        for sentences that name one.

        Raises:
            ConfigError: `url` is not https (or loopback), or the credentials are incomplete.
        """
        self.name = name
        self._session = SalesforceSession(
            name=name,
            url=url,
            setting=f"{prefix}URL" if prefix else "",
            credentials=credentials,
            clock=clock,
            read_s=read_s,
            prefix=prefix,
        )
        self._clock = clock
        self._version = api_version
        self._lock = threading.Lock()
        self._schema_lock = threading.Lock()
        self._library: Salesforce | None = None
        self._schemas: dict[str, ObjectSchema] = {}
        #: Object type -> field -> why the org refuses it whatever its value; not sent again by this client.
        self._switched_off: dict[str, dict[str, str]] = {each: {} for each in _OBJECT_TYPES}

    # --- schema ---------------------------------------------------------------------------------------------------

    def object_types(self) -> tuple[str, ...]:
        return _OBJECT_TYPES

    def describe(self, object_type: str) -> ObjectSchema:
        if object_type not in _OBJECT_TYPES:
            raise ConfigError(
                f"{self.name} has no object {object_type} for crm-sync; it fills {', '.join(_OBJECT_TYPES)}"
            )
        return self._describe(object_type)

    def refresh(self) -> None:
        with self._schema_lock:
            self._schemas.clear()
            for fields in self._switched_off.values():
                fields.clear()

    def _describe(self, object_type: str) -> ObjectSchema:
        """Also of objects that are parents only, such as User."""
        schema = self._schemas.get(object_type)
        if schema is not None:
            return schema
        with self._schema_lock:  # ten threads that start at once ask once
            schema = self._schemas.get(object_type)
            if schema is None:
                try:
                    described = self._call(lambda sf: sf.restful(f"sobjects/{object_type}/describe"))
                except RefusedRequestError as error:
                    if error.status != 404 and error.fault.code != "INVALID_TYPE":
                        raise
                    raise ConfigError(
                        f"{self.name} does not show {object_type} to the user that crm-sync logs in as "
                        f"({error.fault.code}); give its profile or permission set access to it"
                    ) from error
                schema = self._schemas[object_type] = wire.object_schema(self.name, described)
            return schema

    def _names(self, schema: ObjectSchema) -> Names:
        return Names(schema, self._describe)

    # --- selecting ------------------------------------------------------------------------------------------------

    def check_selection(self, selection: Selection) -> list[str]:
        schema = self.describe(selection.object_type)
        return problems(selection, self._names(schema), schema)

    def select(self, selection: Selection, *, page_size: int | None = None) -> Iterator[Page]:
        """As ports.Crm.select. `missing_any` on a field that Salesforce cannot filter by (a long text) reads every
        record that satisfies the rest, and leaves out here what lacks nothing: such pages may be empty.

        Raises:
            ConfigError: what check_selection would tell.
            RefusedError: the org refuses the query all the same.
        """
        schema = self.describe(selection.object_type)
        try:
            found = plan(selection, self._names(schema), schema)
        except WhereError as error:
            raise ConfigError(f"{self.name}, the selection of {selection.object_type}: {error}") from None
        if found is None:
            return
        if found.rest:
            _log.warning(
                "%s: the query of %s has no room for %s; they are read by id, one more call a page",
                self.name,
                selection.object_type,
                ", ".join(found.rest),
            )
        after = ""
        if selection.after:
            after = wire.long_id(selection.after) or ""
            if not after:
                raise ConfigError(f"{self.name} cannot go on behind {selection.after}: that is no record id")
        for ids in found.portions:
            yield from self._portion(selection, found, schema, ids, after, min(page_size or PAGE, PAGE))

    def _portion(
        self, selection: Selection, found: Plan, schema: ObjectSchema, ids: Sequence[str], after: str, size: int
    ) -> Iterator[Page]:
        to_record = wire.record_reader(self.name, schema, found.paths)
        placeholders = folded(selection.placeholders)
        first = not ids and not after
        for rows, is_last in self._row_pages(found, schema, ids, after, size):
            if rows:
                records = tuple(map(to_record, rows))
                if not found.exact:
                    records = tuple(record for record in records if lacks(record, selection, placeholders))
                yield Page(records=records, cursor=rows[-1]["Id"], expected=len(records) if first and is_last else None)
            first = False

    def _row_pages(
        self, found: Plan, schema: ObjectSchema, ids: Sequence[str], after: str, size: int
    ) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """The rows of a plan in pages, each with whether it is the last; a long one goes on by windows (bulk_query)."""
        read, may_go_on = 0, not ids
        while True:
            self._spare_the_day()
            rows = self._rows(found.query(ids=ids, after=after, limit=size))
            is_last = len(rows) < size
            if rows:
                after = rows[-1]["Id"]
                read += len(rows)
            yield self._with_rest(found, rows) if found.rest and rows else rows, is_last
            if is_last:
                return
            while may_go_on and read >= MANY:
                taken = 0
                for rows, is_last in self._window(found, schema, after, size):
                    yield rows, is_last
                    if is_last:
                        return
                    after = rows[-1]["Id"]
                    taken += len(rows)
                may_go_on = taken > 0
                if taken < WINDOW:
                    read = 0

    def _spare_the_day(self) -> None:
        """Nothing new is begun with the org's last calls, which all its integrations share; what is under way is
        written all the same.

        Raises:
            QuotaError: less than the reserve is left.
        """
        used, most = self._session.usage or (0, 0)
        if most and most - used < most * _DAILY_RESERVE:
            raise QuotaError(
                f"{self.name}: only {most - used:,} of the org's {most:,} API calls in 24 hours are left, and all its "
                "integrations share them; crm-sync begins nothing new until some are free again",
                provider=self.name,
                operation="query",
            )

    def _window(
        self, found: Plan, schema: ObjectSchema, after: str, size: int
    ) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        names = self._names(schema)
        kinds = {path: names.column(path, filtered=False).schema.kind for path in (*found.columns, *found.rest)}
        windows = Windows(self._session, version=self._version, clock=self._clock)
        return windows.rows(found.query(ids=(), after=after, limit=WINDOW, whole=True), kinds, size=size)

    def _rows(self, query: str, *, with_deleted: bool = False) -> list[dict[str, Any]]:
        """All rows of one query. They come in several answers where they are too wide for one; the locator of those
        may expire (INVALID_QUERY_LOCATOR), then the query is asked again."""
        for is_last_try in (False, True):
            try:
                answer = self._query(lambda sf: sf.query(query, include_deleted=with_deleted))
                rows: list[dict[str, Any]] = answer["records"]
                while answer.get("done") is False and isinstance(more := answer.get("nextRecordsUrl"), str):
                    answer = self._query(lambda sf, more=more: sf.query_more(more, identifier_is_url=True))  # type: ignore[misc]
                    rows += answer["records"]
            except RefusedRequestError as error:
                if is_last_try or error.fault.code != "INVALID_QUERY_LOCATOR":
                    raise
            else:
                return rows
        raise AssertionError("unreachable")

    def _query(self, act: Callable[[Salesforce], Any]) -> dict[str, Any]:
        def checked(client: Salesforce) -> dict[str, Any]:
            answer = act(client)
            if wire.rows_of(answer) is None:
                raise self._odd("query", "a query")
            return answer  # type: ignore[no-any-return]

        return self._call(checked)

    def _with_rest(self, found: Plan, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with the fields that the query had no room for; without those deleted in between."""
        others = self._retrieve(found.object_type, [row["Id"] for row in rows], ["Id", *found.rest])
        return [{**row, **other} for row, other in zip(rows, others, strict=True) if other is not None]

    # --- reading by id --------------------------------------------------------------------------------------------

    def read(self, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> list[Record | None]:
        """As ports.Crm.read. Merged records are None, like deleted ones; a converted lead is still there. The version
        is the record's LastModifiedDate as answered, "" in an org that does not describe it.

        Raises:
            ConfigError: a field is unknown, or a parent's ("Account.Website"): the call that reads 2,000 records at
                once is not known to serve parents (contracts/salesforce.md 1.3); select does.
        """
        schema = self.describe(object_type)
        names = self._names(schema)
        try:
            paths = {name: names.own(name).path for name in fields}
        except WhereError as error:
            raise ConfigError(f"{self.name} cannot read {object_type} again: {error}") from None
        versioned = wire.VERSION in schema.fields
        to_record = wire.record_reader(self.name, schema, paths, versioned=versioned)
        columns = list(dict.fromkeys(["Id", *paths.values(), *([wire.VERSION] if versioned else [])]))
        wanted = [wire.long_id(each) for each in ids]
        known = list(dict.fromkeys(each for each in wanted if each is not None))
        rows: dict[str, dict[str, Any] | None] = {}
        for at in range(0, len(known), _READ):
            portion = known[at : at + _READ]
            rows.update(zip(portion, self._retrieve(object_type, portion, columns), strict=True))
        return [to_record(row) if each is not None and (row := rows[each]) is not None else None for each in wanted]

    def _retrieve(self, object_type: str, ids: list[str], columns: list[str]) -> list[dict[str, Any] | None]:
        """Any of `ids` (at most _READ) by position; halved while the answer is larger than we take."""
        body = orjson.dumps({"ids": ids, "fields": columns})

        def checked(client: Salesforce) -> list[dict[str, Any] | None]:
            answer = client.restful(f"composite/sobjects/{object_type}", method="POST", data=body)
            rows = wire.retrieved(answer, ids)
            if rows is None:
                raise self._odd("read", f"a re-read of {len(ids)} records")
            return rows

        try:
            return self._call(checked)
        except OversizedError:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return self._retrieve(object_type, ids[:half], columns) + self._retrieve(object_type, ids[half:], columns)

    def whereabouts(self, object_type: str, ids: Sequence[str]) -> list[Whereabouts]:
        """As ports.Crm.whereabouts; a query for each 200 ids and each step of their trails.

        Raises:
            ProviderError: the org could not be asked.
        """
        self.describe(object_type)
        refs = [RecordRef(crm=self.name, object_type=object_type, id=each) for each in ids]
        return whereabouts.follow(refs, self._with_deleted)

    def _with_deleted(self, object_type: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        schema = self.describe(object_type)
        found = {}
        for at in range(0, len(ids), whereabouts.IDS):
            rows = self._rows(whereabouts.query(schema, ids[at : at + whereabouts.IDS]), with_deleted=True)
            found.update({row["Id"]: row for row in rows})
        return found

    # --- writing --------------------------------------------------------------------------------------------------

    def write(
        self,
        object_type: str,
        requests: Sequence[WriteRequest],
        *,
        mode: WriteMode = WriteMode.FAST,
        jobs: JobBook | None = None,
    ) -> list[WriteOutcome]:
        """As ports.Crm.write. A strict write names the version it was decided on, which has a resolution of one second
        (contracts/salesforce.md 2.5, 2026-11): records that were changed within the last seconds wait for one.

        Raises:
            ProviderError: with the first call; nothing was written. Later ones, and one that follows a lost answer, are
                told by outcome.
        """
        rows = rows_of(requests, self.describe(object_type))
        if mode is WriteMode.BULK:
            assert jobs is not None, "a bulk write notes its jobs"
            self._write_by_jobs(object_type, requests, rows, jobs)
            return [row.settled() for row in rows]
        if mode is WriteMode.STRICT:
            check_guards(rows)
            self._outlast(object_type, requests, rows)
        for at in range(0, len(rows), PORTION):
            portion = rows[at : at + PORTION]
            update = self._update(object_type, mode)
            update.run(portion)
            if update.error is not None:
                if at == 0 and not update.answered:
                    raise update.error
                for row in rows[at + PORTION :]:
                    row.leave(update.error)
                break
        return [row.settled() for row in rows]

    def _outlast(self, object_type: str, requests: Sequence[WriteRequest], rows: Sequence[Row]) -> None:
        """Wait until the second in which some rows were last changed is over, and settle those that were changed again
        in it, which their guard would not see: what they hold now is not what was read."""
        recent = fresh(rows, self._clock.now() + self._session.ahead)
        if not recent:
            return
        seen = {id(row): request.seen for row, request in zip(rows, requests, strict=True)}
        before = [record for row in recent if (record := seen[id(row)]) is not None]
        self._clock.sleep(OUTLAST_S)
        fields = dict.fromkeys(name for record in before for name in record.values)
        try:
            now = self.read(object_type, [record.ref.id for record in before], tuple(fields))
        except ProviderError as error:
            for row in recent:
                row.leave(error)
            return
        for row, was, found in zip(recent, before, now, strict=True):
            if found is not None and any(found.values[name] != value for name, value in was.values.items()):
                row.settle(Written.MOVED)

    def _write_by_jobs(
        self, object_type: str, requests: Sequence[WriteRequest], rows: Sequence[Row], jobs: JobBook
    ) -> None:
        write = BulkUpdate(
            ingest=self._ingest(),
            update=self._update(object_type, WriteMode.FAST),
            switched_off=self._switched_off[object_type],
            clock=self._clock,
            jobs=jobs,
        )
        write.run(object_type, requests, rows)
        if write.error is not None and not write.answered:
            raise write.error

    def resume(self, object_type: str, job_id: str, refs: Sequence[RecordRef], *, uploaded: bool) -> list[WriteOutcome]:
        """As ports.Crm.resume. Fields that a record was refused for are not dropped here: their values are not known,
        so the record is REJECTED, and written by a later run.

        Raises:
            ProviderError: the org cannot be asked now.
        """
        self.describe(object_type)
        return bulk.resume(self._ingest(), job_id, refs, self._clock, uploaded=uploaded)

    def look_after(self, object_type: str, requests: Sequence[WriteRequest]) -> list[WriteOutcome]:
        """As ports.Crm.look_after. A strict write that would go over an edit is refused, so nothing is left to see."""
        del object_type
        reason = "its process ended before it was confirmed"
        return [WriteOutcome(ref=each.ref, written=Written.UNACCOUNTED, reason=reason) for each in requests]

    def _ingest(self) -> Ingest:
        return Ingest(self._session, version=self._version, clock=self._clock)

    def _update(self, object_type: str, mode: WriteMode) -> Update:
        switched_off = self._switched_off[object_type]
        if mode is WriteMode.STRICT:
            return Update(
                send=self._save_guarded, switched_off=switched_off, clock=self._clock, size=SUBREQUESTS, together=False
            )
        return Update(send=self._save, switched_off=switched_off, clock=self._clock)

    def _save(self, rows: Sequence[Row]) -> list[SaveResult]:
        body = orjson.dumps({"allOrNone": False, "records": [row.as_json() for row in rows]})
        ids = [row.ref.id for row in rows]

        def checked(client: Salesforce) -> list[SaveResult]:
            answer = client.restful("composite/sobjects", method="PATCH", data=body, headers=dict(_HEADERS))
            results = wire.save_results(answer, ids)
            if results is None:
                raise self._odd("write", f"an update of {len(ids)} records")
            return results

        return self._written(checked, rows)

    def _save_guarded(self, rows: Sequence[Row]) -> list[SaveResult]:
        body = orjson.dumps(composite.body(rows, version=self._version, headers=_HEADERS))

        def checked(client: Salesforce) -> list[SaveResult]:
            answer = client.restful("composite", method="POST", data=body)
            results = composite.results(answer, len(rows))
            if results is None:
                raise self._odd("write", f"a guarded update of {len(rows)} records")
            return results

        return self._written(checked, rows)

    def _written(self, checked: Callable[[Salesforce], list[SaveResult]], rows: Sequence[Row]) -> list[SaveResult]:
        """The results of a write, tried again where an answer was lost: it sets fixed values, and where it is guarded
        the second try finds the first one's change.

        Raises:
            InDoubtError: it ended in an error, and a try may have done its work.
        """

        in_doubt = False

        def tried(client: Salesforce) -> list[SaveResult]:
            nonlocal in_doubt
            try:
                results = checked(client)
            except TransientError as error:
                in_doubt = in_doubt or not _did_nothing(error)
                raise
            for row in rows:
                row.in_doubt = row.in_doubt or in_doubt
            return results

        try:
            return self._call(tried)
        except RefusedRequestError:
            raise
        except ProviderError as error:
            if in_doubt or not _did_nothing(error):
                raise InDoubtError(error) from error
            raise

    # --- access ---------------------------------------------------------------------------------------------------

    def record_url(self, ref: RecordRef) -> str:
        return f"{self._session.target}/lightning/r/{ref.object_type}/{ref.id}/view"

    def check_access(self) -> list[AccessCheck]:
        checks: list[AccessCheck] = []

        def tried(what: str, act: Callable[[], str], cure: str) -> bool:
            try:
                checks.append(AccessCheck(name=f"{self.name} {what}", ok=True, detail=act()))
            except CrmSyncError as error:
                checks.append(AccessCheck(name=f"{self.name} {what}", ok=False, detail=str(error), cure=cure))
                return False
            return True

        if tried("log-in", self.log_in, f"check {self._session.setting} and the credentials beside it"):
            for each in _OBJECT_TYPES:
                tried(
                    each,
                    lambda each=each: self._check_object(each),  # type: ignore[misc]
                    f"give the user's profile or a permission set Read on {each} and on the fields it fills",
                )
            tried("API calls", self._check_limits, "give the user's profile or a permission set API Enabled")
        return checks

    def log_in(self) -> str:
        self._session.login()
        return f"logged in at {self._session.target}"

    def _check_object(self, object_type: str) -> str:
        schema = self.describe(object_type)
        page = next(self.select(Selection(object_type=object_type, fields=("Id",)), page_size=1), None)
        writable = sum(each.writable for each in schema.fields.values())
        # Field-level security hides these two in many orgs: absent is not "no" (contracts/salesforce.md 2.6).
        hidden = [n for n in ("HasOptedOutOfEmail", "DoNotCall") if object_type != "Account" and n not in schema.fields]
        note = f"; this user does not see {' and '.join(hidden)}" if hidden else ""
        return (
            f"{len(schema.fields)} fields, {writable} writable, {'records found' if page else 'no record found'}{note}"
        )

    def _check_limits(self) -> str:
        limits: Any = self._call(lambda sf: sf.limits())
        daily = limits.get("DailyApiRequests") if isinstance(limits, Mapping) else None
        left, most = (daily.get("Remaining"), daily.get("Max")) if isinstance(daily, Mapping) else (None, None)
        if not isinstance(left, int) or not isinstance(most, int):
            return "this user may not see how many API calls are left"
        return f"{left:,} of {most:,} API calls left in these 24 hours"

    def calls(self) -> dict[str, int]:
        return self._session.calls()

    def close(self) -> None:
        self._session.close()

    # --- the library ----------------------------------------------------------------------------------------------

    def _call(self, act: Callable[[Salesforce], T]) -> T:
        """Run one call of the library, and again while it fails for the moment: all of ours may be repeated, since
        they read, or set fixed values by id."""
        client = self._client()
        return retry(lambda: act(client), harmless=True, clock=self._clock)

    def _client(self) -> Salesforce:
        with self._lock:
            if self._library is None:
                from simple_salesforce.api import Salesforce

                self._library = Salesforce(
                    session_id="set by our session",
                    instance_url=self._session.base_url,
                    session=self._session,
                    version=self._version,
                )
            return self._library

    def _odd(self, operation: str, what: str) -> TransientError:
        return TransientError(
            f"{self.name} answered {what} in a form that is not Salesforce's", provider=self.name, operation=operation
        )


def _did_nothing(error: ProviderError) -> bool:
    """Whether a write that failed so certainly wrote nothing; a RefusedRequestError tells that by itself."""
    if error.operation == "login" or isinstance(error, UnsentError | RateLimitError | QuotaError):
        return True
    return isinstance(error, CredentialsError) and not isinstance(error, UnprovenRefusalError)
