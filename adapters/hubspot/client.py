"""HubSpot, as a Crm: contacts and companies through hubspot-api-client."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from adapters.http import (
    MIB,
    BoundedSession,
    InDoubtError,
    LostAnswerError,
    UnprovenRefusalError,
    UnsentError,
    parse_object,
    retry,
)
from adapters.hubspot import search, wire
from adapters.hubspot.guard import Guard
from adapters.hubspot.history import MOST_WITH_HISTORY
from adapters.hubspot.library import TIMEOUT_S, Answer, Library, RefusedAnswer
from adapters.hubspot.limits import HeaderPace, SearchPace
from adapters.hubspot.search import Plan, Query
from adapters.hubspot.writing import (
    BATCH,
    LEAST_CALLS,
    MOST_CALLS,
    BatchUpdate,
    Input,
    LockedCallError,
    RefusedCallError,
    inputs_of,
)
from crm_sync.domain.changes import WriteMode, WriteOutcome, Written
from crm_sync.domain.records import ObjectSchema, Record, RecordRef
from crm_sync.errors import (
    ConfigError,
    ContractError,
    CredentialsError,
    CrmSyncError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.ports import AccessCheck, Clock, JobBook, Page, Selection, Whereabouts, WriteRequest

DEFAULT_URL = "https://api.hubapi.com"

_LIST_PAGE = 100
#: A query string beyond this is cut into a batch read; HubSpot answers 414 somewhere above 5 KiB (hubspot.md 5).
_LONGEST_QUERY = 4_000
_RENEW_EARLY_S = 300.0
_RENEWABLE = "EXPIRED_AUTHENTICATION"
_LOCKED = 423
#: "Not now", before anything was done: a locked record, too many calls.
_NOT_TAKEN = frozenset({_LOCKED, 429})
#: The out-of-the-box property list is 400 kB; 200 records of long texts may reach some MiB.
_LONGEST_ANSWER = 32 * MIB
#: HubSpot does not always honour the sort order (contracts/hubspot.md 0.9): ask again, then say so.
_ORDER_TRIES = 3
#: Tries of an update that meets a locked record, which lasts about 2 s (contracts/hubspot.md 3), while others wait for
#: it and where it is alone.
_LOCK_TRIES = (2, 3)
#: Calls to find bad values with, beyond one a batch: what a client may have saved up, and what each batch adds.
_MOST_SEARCHING = 110
_MORE_SEARCHING = 6

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSpotCredentials:
    """A `token` (service key or private-app token), or the three of an OAuth app."""

    token: str = field(default="", repr=False)
    client_id: str = field(default="", repr=False)
    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def is_oauth(self) -> bool:
        return not self.token

    def check(self, name: str, prefix: str = "") -> None:
        """
        Raises:
            ConfigError: neither a token nor all three of OAuth, both, or one that cannot stand in a header.
        """
        named = {each: getattr(self, each) for each in ("token", "client_id", "client_secret", "refresh_token")}
        oauth = tuple(named.values())[1:]
        if bool(self.token) == any(oauth) or (not self.token and not all(oauth)):
            raise ConfigError(
                f"{name} needs either {prefix}TOKEN (HubSpot > Settings > Integrations > Service keys) or, for an "
                f"OAuth app, {prefix}CLIENT_ID, {prefix}CLIENT_SECRET and {prefix}REFRESH_TOKEN together"
            )
        for each, text in named.items():
            if not text.isascii() or any(c.isspace() for c in text):
                raise ConfigError(
                    f"{name}: {prefix}{each.upper()} holds a blank or a character no key has; copy it again"
                )


class HubSpotCrm:
    """ports.Crm over hubspot-api-client, which is imported with the first call.

    Reads by search (an index some seconds to a minute behind) unless a list walk is quicker, and re-reads by batch from
    the primary store. What search returns may have been filled since: the walk reads again before it writes.
    `searches_per_s` is HubSpot's cap for all apps of an account together.
    """

    read_size = 100
    write_size = BATCH
    bulk_size = 0
    #: "A few moments" in HubSpot's words, 10 to 60 s in others' (contracts/hubspot.md 2.1, 2026-11).
    select_lag_s = 60.0

    def __init__(
        self,
        *,
        name: str,
        credentials: HubSpotCredentials,
        clock: Clock,
        url: str = DEFAULT_URL,
        searches_per_s: int = 5,
        prefix: str = "",
    ) -> None:
        """`prefix`: what its settings begin with (CRM_SYNC_HUBSPOT_), for sentences that name one.

        Raises:
            ConfigError: `url` is not https (or loopback), or the credentials are incomplete.
        """
        credentials.check(name, prefix)
        self.name = name
        self._prefix = prefix
        self._clock = clock
        self._session = BoundedSession(
            provider=name,
            base_url=url,
            setting=f"{prefix}URL" if prefix else "",
            connect_s=TIMEOUT_S[0],
            read_s=TIMEOUT_S[1],
            max_body=_LONGEST_ANSWER,
            operation_of=wire.operation_of,
        )
        self._tokens = _Tokens(credentials, fetch=self._fetch_token, clock=clock)
        self._search_pace = SearchPace(per_s=searches_per_s, clock=clock)
        self._searches_per_s = searches_per_s
        self._pace = HeaderPace(clock=clock)
        self._lock = threading.RLock()
        self._library: Library | None = None
        self._schemas: dict[str, ObjectSchema] = {}
        self._switched_off: dict[str, dict[str, str]] = {each: {} for each in wire.OBJECT_TYPES}
        self._searching = dict.fromkeys(wire.OBJECT_TYPES, _MOST_SEARCHING)
        self._portal: tuple[str, str] | None = None

    # --- schema ---

    def object_types(self) -> tuple[str, ...]:
        return wire.OBJECT_TYPES

    def describe(self, object_type: str) -> ObjectSchema:
        if object_type not in wire.OBJECT_TYPES:
            raise ConfigError(
                f"{self.name} has no object {object_type} for crm-sync; it fills {' and '.join(wire.OBJECT_TYPES)}"
            )
        with self._lock:
            schema = self._schemas.get(object_type)
            if schema is None:
                try:
                    body = self._call(self._held().properties, object_type)
                except RefusedError as error:
                    if error.status not in (400, 404):
                        raise
                    raise ConfigError(f"{self.name} does not show its {object_type}: {error}") from error
                schema = wire.object_schema(self.name, object_type, body.get("results") or ())
                self._schemas[object_type] = schema
            return schema

    def refresh(self) -> None:
        with self._lock:
            self._schemas.clear()

    def check_selection(self, selection: Selection) -> list[str]:
        return search.check(selection, self.describe(selection.object_type))

    # --- reading ---

    def select(self, selection: Selection, *, page_size: int | None = None) -> Iterator[Page]:
        """See ports.Crm. One query of up to five OR-groups where that says it all; else several merged by id, or all
        records of `where` sifted here, whichever costs fewer calls; or the list, where that is quicker.

        Raises:
            QuotaError: also when less than a hundredth of the day's calls is left: new work waits, writing goes on.
        """
        schema = self.describe(selection.object_type)
        walk = _Walk(
            selection=selection,
            plan=search.plan(selection, schema),
            limit=max(1, min(page_size or search.PAGE, search.PAGE)),
            lacks=wire.blank_checker(selection.missing_any, selection.placeholders, schema),
            record=self._record_maker(selection.object_type, schema, selection.fields),
        )
        if selection.ids:
            return self._by_ids(walk)
        if walk.plan.due is not None and len(walk.plan.due) == 1:
            return self._by_one_query(walk, walk.plan.due[0])
        return self._by_cheapest(walk)

    def read(self, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> list[Record | None]:
        schema = self.describe(object_type)
        make = self._record_maker(object_type, schema, fields)
        found = self._read_raw(object_type, ids, fields)
        return [make(raw) if (raw := found.get(each)) is not None else None for each in ids]

    def _record_maker(self, object_type: str, schema: ObjectSchema, fields: Sequence[str]) -> Callable[[Raw], Record]:
        values_of = wire.value_reader(schema, fields)
        crm = self.name

        def make(raw: Raw) -> Record:
            return Record(
                ref=RecordRef(crm=crm, object_type=object_type, id=raw["id"]),
                values=values_of(raw["properties"]),
                version=wire.version_of(raw),
            )

        return make

    # --- the ways to walk ---

    def _by_one_query(self, walk: _Walk, query: Query) -> Iterator[Page]:
        """Keyset search; after the first page of a large result, the list instead where that ends sooner."""
        first: int | None = None
        for raws, total in self._query_pages(walk, query, walk.selection.after):
            cursor = raws[-1]["id"] if raws else walk.selection.after
            is_first, first = first is None, total if first is None else first
            yield self._page(walk, raws, cursor, first)
            may_list = not walk.selection.is_filtered and total > search.WORTH_COUNTING
            if is_first and may_list and self._list_may_win():
                left = self._count(walk, cursor) if walk.selection.missing_any else total - len(raws)
                if self._list_is_quicker(-(-(total - len(raws)) // walk.limit), left):
                    yield from self._by_list(walk, cursor, first)
                    return

    def _by_cheapest(self, walk: _Walk) -> Iterator[Page]:
        """No one query says what is due: look at one page of all records, then take the way that costs fewest calls."""
        plan, cursor = walk.plan, walk.selection.after
        if len(plan.all) > 1:
            yield from self._by_merging(walk, plan.due if plan.due is not None else plan.all, cursor)
            return
        for raws, total in self._query_pages(walk, plan.all[0], cursor):
            cursor = raws[-1]["id"] if raws else cursor
            yield self._page(walk, raws, cursor, None)
            left = total - len(raws)
            if left <= 0 or not raws:
                return
            all_calls = -(-left // walk.limit)
            properties = [raw["properties"] for raw in raws]
            due_calls = all_calls
            if plan.due is not None and not plan.thin:
                due_calls = search.due_calls(properties, plan.conditions_of, left)
            if not walk.selection.is_filtered and self._list_is_quicker(min(all_calls, due_calls), left):
                yield from self._by_list(walk, cursor, None)
                return
            if plan.due is not None and due_calls < all_calls:
                yield from self._by_merging(walk, plan.due, cursor)
                return

    def _by_merging(self, walk: _Walk, queries: Sequence[Query], after: str) -> Iterator[Page]:
        """Several keyset searches at once, merged by id; a record that answers to two of them comes once."""
        last = int(after or 0)
        batch: list[Raw] = []
        for raw in heapq.merge(*(self._each(walk, query, after) for query in queries), key=_id):
            if _id(raw) == last:
                continue
            last = _id(raw)
            batch.append(raw)
            if len(batch) == walk.limit:
                yield self._page(walk, batch, batch[-1]["id"], None)
                batch = []
        if batch:
            yield self._page(walk, batch, batch[-1]["id"], None)

    def _each(self, walk: _Walk, query: Query, after: str) -> Iterator[Raw]:
        for raws, _ in self._query_pages(walk, query, after):
            yield from raws

    def _by_list(self, walk: _Walk, after: str, expected: int | None) -> Iterator[Page]:
        """All records, 100 a call, from the primary store, sifted here."""
        names = [*walk.plan.needed, wire.ID]
        thin = sum(len(name) + len("&properties=") for name in names) > _LONGEST_QUERY
        object_type, cursor = walk.selection.object_type, after
        kwargs: dict[str, Any] = {"limit": _LIST_PAGE, "properties": [wire.ID] if thin else names, "archived": False}
        if after:
            kwargs["after"] = str(int(after) + 1)  # a list's cursor is the id of the next record (hubspot.md 2.1)
        while True:
            body = self._call(self._held().list, object_type, **kwargs)
            raws = wire.records_of(body)
            if not wire.is_rising(raws, cursor):
                raise self._unordered("list")
            cursor = raws[-1]["id"] if raws else cursor
            yield self._page(walk, raws, cursor, expected, thin=thin)
            following = wire.next_after(body)
            if not following or not raws:
                return
            kwargs["after"] = following

    def _by_ids(self, walk: _Walk) -> Iterator[Page]:
        """Exactly these records, so far as they satisfy the rest; by batch read (no index lag) where there is no
        filter of the admin's."""
        selection = walk.selection
        last = int(selection.after or 0)
        ids = sorted({each for each in selection.ids if each.isdecimal() and int(each) > last}, key=int)
        if not selection.is_filtered:
            for chunk in _chunks(ids, self.read_size):
                found = self._read_raw(selection.object_type, chunk, walk.plan.needed)
                raws = [raw for each in chunk if (raw := found.get(each)) is not None and raw["id"] == each]
                yield self._page(walk, raws, chunk[-1], None, thin=False)
            return
        biggest = max(walk.plan.all, key=len)
        for chunk in search.id_chunks(ids, biggest, walk.plan.properties):
            by_id: dict[int, Raw] = {}
            for query in walk.plan.all:
                raws, _ = self._query(walk, query, search.ids_filter(chunk), "")
                by_id.update((_id(raw), raw) for raw in raws)
            yield self._page(walk, [by_id[each] for each in sorted(by_id)], chunk[-1], None)

    def _query_pages(self, walk: _Walk, query: Query, after: str) -> Iterator[tuple[list[Raw], int]]:
        """Keyset pages of one query, each with HubSpot's count of what was left before it. Each page is a fresh query
        without `after`, so the cap of 10,000 never bites."""
        while True:
            raws, total = self._query(walk, query, search.after_filter(after), after)
            yield raws, total
            if not raws or total <= len(raws):
                return
            after = raws[-1]["id"]

    def _query(self, walk: _Walk, query: Query, id_filter: search.Filter, after: str) -> tuple[list[Raw], int]:
        self._spare_the_day()
        body = search.body(query, walk.plan.properties, id_filter=id_filter, limit=walk.limit)
        for _ in range(_ORDER_TRIES):
            answer = self._call(self._held().search, walk.selection.object_type, body, paced=True)
            raws = wire.records_of(answer)
            total = wire.total_of(answer, len(raws) + 1)  # without a count: go on until a page is empty
            if wire.is_rising(raws, after):
                return raws, total
            if total <= len(raws):  # the whole result: put it in order here
                by_id = {_id(raw): raw for raw in raws if _id(raw) > int(after or 0)}
                return [by_id[each] for each in sorted(by_id)], len(by_id)
        raise self._unordered("search")

    def _count(self, walk: _Walk, after: str) -> int:
        body = search.body([()], (), id_filter=search.after_filter(after), limit=1)
        return wire.total_of(self._call(self._held().search, walk.selection.object_type, body, paced=True), 0)

    def _list_may_win(self) -> bool:
        """A list page holds half of what a search page does."""
        list_per_s = self._pace.calls_per_s
        return list_per_s is not None and list_per_s > 2 * self._searches_per_s

    def _list_is_quicker(self, searches: int, records: int) -> bool:
        list_per_s = self._pace.calls_per_s
        return list_per_s is not None and search.list_is_quicker(
            searches=searches, records=records, search_per_s=self._searches_per_s, list_per_s=list_per_s
        )

    def _page(
        self, walk: _Walk, raws: Sequence[Raw], cursor: str, expected: int | None, *, thin: bool | None = None
    ) -> Page:
        if raws and (walk.plan.thin if thin is None else thin):
            found = self._read_raw(walk.selection.object_type, [raw["id"] for raw in raws], walk.plan.needed)
            raws = [now for raw in raws if (now := found.get(raw["id"])) is not None and now["id"] == raw["id"]]
        self._learn_portal(raws)
        make, lacks = walk.record, walk.lacks
        return Page(
            records=tuple(make(raw) for raw in raws if lacks(raw["properties"])), cursor=cursor, expected=expected
        )

    def _spare_the_day(self) -> None:
        day = self._pace.day()
        if day is not None and day.is_low:
            raise QuotaError(
                f"{self.name}: only {day.left:,} of the account's {day.limit:,} API calls of this day are left, and "
                "all its apps share them; crm-sync begins nothing new before midnight of the account's time zone",
                provider=self.name,
                operation="search",
            )

    def _unordered(self, operation: str) -> TransientError:
        return TransientError(
            f"{self.name} answered {operation} out of order, so records could be skipped; run again later",
            provider=self.name,
            operation=operation,
        )

    # --- batch read ---

    def _read_raw(
        self, object_type: str, ids: Sequence[str], fields: Sequence[str], *, archived: bool = False
    ) -> dict[str, Raw]:
        """Records by the id asked for; a merged one is its survivor. What is gone is absent. `archived`: those in the
        recycle bin instead."""
        return self._read_chunks(object_type, ids, {"properties": self._names(object_type, fields)}, archived=archived)

    def _read_histories(self, object_type: str, ids: Sequence[str], properties: Sequence[str]) -> dict[str, Raw]:
        """As _read_raw, with the versions of some properties."""
        wanted = {"properties": self._names(object_type, properties), "propertiesWithHistory": list(properties)}
        return self._read_chunks(object_type, ids, wanted, size=MOST_WITH_HISTORY)

    def _names(self, object_type: str, fields: Sequence[str]) -> list[str]:
        names = list(dict.fromkeys((*fields, wire.ID)))
        return [*names, wire.MERGED_IDS] if wire.MERGED_IDS in self.describe(object_type).fields else names

    def _read_chunks(
        self,
        object_type: str,
        ids: Sequence[str],
        wanted: Mapping[str, list[str]],
        *,
        size: int = read_size,
        archived: bool = False,
    ) -> dict[str, Raw]:
        unique = [each for each in dict.fromkeys(ids) if each.isdecimal()]
        found: dict[str, Raw] = {}
        for chunk in _chunks(unique, size):
            self._read_chunk(object_type, chunk, wanted, found, archived=archived)
        return found

    def _read_chunk(
        self,
        object_type: str,
        ids: Sequence[str],
        wanted: Mapping[str, list[str]],
        found: dict[str, Raw],
        *,
        archived: bool,
    ) -> None:
        body = {**wanted, "inputs": [{"id": each} for each in ids]}
        answer = wire.batch_answer(self._call(self._held().read, object_type, body, archived=archived))
        self._learn_portal(answer.records)
        by_id = {raw["id"]: raw for raw in answer.records}
        asked = set(ids)
        left = [each for each in ids if each not in by_id]
        found.update((each, by_id[each]) for each in ids if each in by_id)
        if not left:
            return
        named = {each for problem in answer.problems for each in problem.ids}
        certain = all(asked.intersection(problem.ids) for problem in answer.problems)
        found.update(wire.pair_merged([e for e in left if e not in named], answer.records, asked, certain=certain))
        for each in left:
            if each not in named and each not in found:
                # In neither results nor errors: seen live (contracts/hubspot.md 5). Ask for it alone.
                raw = self._read_one(object_type, each, wanted, archived=archived)
                if raw is not None:
                    found[each] = raw

    def _read_one(
        self, object_type: str, record_id: str, wanted: Mapping[str, list[str]], *, archived: bool
    ) -> Raw | None:
        kwargs: dict[str, Any] = {"properties": wanted["properties"], "archived": archived}
        if "propertiesWithHistory" in wanted:
            kwargs["properties_with_history"] = wanted["propertiesWithHistory"]
        try:
            body = self._call(self._held().read_one, object_type, record_id, **kwargs)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        return next(iter(wire.records_of({"results": [body]})), None)

    # --- what became of it ---

    def whereabouts(self, object_type: str, ids: Sequence[str]) -> list[Whereabouts]:
        """See ports.Crm. Two calls for each hundred: those that live, then those in the recycle bin."""
        living = self._read_raw(object_type, ids, ())
        gone = [each for each in ids if each not in living]
        archived = self._read_raw(object_type, gone, (), archived=True)
        return [self._whereabouts(object_type, each, living.get(each), archived.get(each)) for each in ids]

    def _whereabouts(self, object_type: str, record_id: str, living: Raw | None, archived: Raw | None) -> Whereabouts:
        if living is not None:
            ref = RecordRef(crm=self.name, object_type=object_type, id=living["id"])
            if ref.id != record_id:
                return Whereabouts(ref=ref, how="merged", reason=f"merged in HubSpot, it lives on as {ref.id}")
            return Whereabouts(ref=ref, how="unknown", reason="it is in HubSpot: it was away for a moment or restored")
        return Whereabouts(ref=None, **wire.end_of(record_id, archived))

    # --- writing ---

    def write(
        self,
        object_type: str,
        requests: Sequence[WriteRequest],
        *,
        mode: WriteMode = WriteMode.FAST,
        jobs: JobBook | None = None,
    ) -> list[WriteOutcome]:
        """See ports.Crm. A strict write reads the history of what it wrote, two calls for each hundred, and puts back
        what it went over; no outcome is MOVED. There are no bulk jobs: WriteMode.BULK is as FAST."""
        del jobs
        self.describe(object_type)
        inputs = inputs_of(requests)
        seen = {one.trace_id: request.seen for one, request in zip(inputs, requests, strict=True)}
        outcomes: dict[str, WriteOutcome] = {}
        failed: CrmSyncError | None = None
        for chunk in _without_duplicates(inputs):
            if failed is not None:
                outcomes.update((one.trace_id, _not_written(one, failed)) for one in chunk)
                continue
            update = self._update(object_type, chunk)
            failed = update.error
            outcomes.update(update.outcomes)
            if failed is not None and all(o.written is Written.NOT_WRITTEN for o in outcomes.values()):
                raise failed  # the caller learns why at once
            if mode is WriteMode.STRICT:
                outcomes.update(self._guard(object_type).check(chunk, seen, update.outcomes))
        return [outcomes[one.trace_id] for one in inputs]

    def _update(self, object_type: str, inputs: Sequence[Input]) -> BatchUpdate:
        """Settle up to BATCH inputs, no two with one id."""
        schema, switched_off = self.describe(object_type), self._switched_off[object_type]
        with self._lock:
            allowed = self._searching[object_type]
        update = BatchUpdate(
            send=lambda group: self._send_batch(object_type, group),
            schema=schema,
            switched_off=switched_off,
            most_calls=max(LEAST_CALLS, min(MOST_CALLS, allowed)),
        )
        off_before = len(switched_off)
        update.run(inputs)
        with self._lock:
            left = self._searching[object_type] - (update.calls - 1) + _MORE_SEARCHING
            self._searching[object_type] = max(0, min(_MOST_SEARCHING, left))
            if len(switched_off) > off_before:  # an admin edits while we run: the next describe looks again
                self._schemas.pop(object_type, None)
        return update

    def _guard(self, object_type: str) -> Guard:
        def put_back(inputs: Sequence[Input]) -> dict[str, WriteOutcome]:
            outcomes: dict[str, WriteOutcome] = {}
            for chunk in _without_duplicates(inputs):
                outcomes.update(self._update(object_type, chunk).outcomes)
            return outcomes

        return Guard(
            histories=partial(self._read_histories, object_type), put_back=put_back, schema=self.describe(object_type)
        )

    def _send_batch(self, object_type: str, group: Sequence[Input]) -> wire.BatchAnswer:
        """
        Raises:
            InDoubtError: a try of it may have done its work.
            ProviderError: it certainly wrote nothing.
        """
        body = {"inputs": [one.as_json() for one in group]}
        tries: list[TransientError] = []
        most = _LOCK_TRIES[len(group) == 1]

        def note(error: TransientError) -> None:
            tries.append(error)
            if not isinstance(error, RateLimitError) or error.status != _LOCKED:
                return
            if sum(each.status == _LOCKED for each in tries) >= most and all(map(_did_nothing, tries)):
                raise LockedCallError(error) from None

        try:
            answer = wire.batch_answer(self._call(self._held().update, object_type, body, failed=note))
        except (RefusedCallError, LockedCallError):
            raise
        except ProviderError as error:
            if all(map(_did_nothing, (*tries, error))):
                raise
            raise InDoubtError(error) from error
        self._learn_portal(answer.records)
        return answer

    def look_after(self, object_type: str, requests: Sequence[WriteRequest]) -> list[WriteOutcome]:
        """See ports.Crm. The history tells whether a write arrived, and what it went over."""
        self.describe(object_type)
        inputs = inputs_of(requests)
        seen = {one.trace_id: request.seen for one, request in zip(inputs, requests, strict=True)}
        reason = "its process ended before it was confirmed"
        outcomes = {
            one.trace_id: WriteOutcome(ref=one.ref, written=Written.UNACCOUNTED, reason=reason) for one in inputs
        }
        for chunk in _without_duplicates(inputs):
            outcomes.update(self._guard(object_type).check(chunk, seen, outcomes))
        return [outcomes[one.trace_id] for one in inputs]

    def resume(self, object_type: str, job_id: str, refs: Sequence[RecordRef], *, uploaded: bool) -> list[WriteOutcome]:
        """
        Raises:
            ConfigError: always; HubSpot has no bulk jobs, so this one belongs to another CRM.
        """
        del refs, uploaded
        raise ConfigError(
            f"{self.name} has no bulk jobs, so there is no job {job_id} of {object_type} to take up again; "
            "is this database another CRM's?"
        )

    # --- about the account ---

    def record_url(self, ref: RecordRef) -> str:
        portal = self._portal
        return wire.record_url(*portal, ref.object_type, ref.id) if portal is not None else ""

    def _learn_portal(self, raws: Sequence[Raw]) -> None:
        if self._portal is None and raws:
            self._portal = wire.portal_of(raws[0])

    def check_access(self) -> list[AccessCheck]:
        checks = [self._tried("log-in", self.log_in)]
        if not checks[0].ok:
            return checks
        for object_type in wire.OBJECT_TYPES:
            checks.append(self._tried(f"properties of {object_type}", partial(self._check_schema, object_type)))
            checks.append(self._tried(f"search {object_type}", partial(self._check_search, object_type)))
        checks.append(self._tried("limits", self._check_limits))
        return checks

    def _tried(self, what: str, check: Callable[[], str]) -> AccessCheck:
        name = f"{self.name} {what}"
        try:
            return AccessCheck(name=name, ok=True, detail=check())
        except CredentialsError as error:
            key = f"{self._prefix}REFRESH_TOKEN" if self._tokens.is_oauth else f"{self._prefix}TOKEN"
            cure = f"Renew the key, or grant its scopes, in HubSpot; {key} holds it."
            return AccessCheck(name=name, ok=False, detail=str(error), cure=cure)
        except TransientError as error:
            cure = f"Check {self._session.setting}, the network and status.hubspot.com, then try again."
            return AccessCheck(name=name, ok=False, detail=str(error), cure=cure)
        except CrmSyncError as error:
            return AccessCheck(name=name, ok=False, detail=str(error), cure="See the sentence before.")

    def log_in(self) -> str:
        held = self._held()
        try:
            body = self._call(held.account)
        except RefusedError:
            return "the token is taken"  # the account's details are a courtesy; nothing needs them
        except CredentialsError as error:
            if error.status != 403:
                raise
            return "the token is taken (it may not see the account's details)"
        portal = str(body.get("portalId") or "")
        if portal.isdecimal():
            domain = body.get("uiDomain")
            self._portal = (portal, domain if isinstance(domain, str) and domain else "app.hubspot.com")
        return f"account {portal}" if portal else "the token is taken"

    def _check_schema(self, object_type: str) -> str:
        fields = self.describe(object_type).fields.values()
        return f"{len(fields)} properties, {sum(each.writable for each in fields)} of them writable"

    def _check_search(self, object_type: str) -> str:
        body = search.body([()], (), id_filter=search.after_filter(""), limit=1)
        answer = self._call(self._held().search, object_type, body, paced=True)
        return f"{wire.total_of(answer, 0):,} records"

    def _check_limits(self) -> str:
        day, burst = self._pace.day(), self._pace.calls_per_s
        parts = [f"{burst * 10:.0f} calls in 10 s"] if burst is not None else []
        if day is not None:
            parts.append(f"{day.left:,} of {day.limit:,} calls left today")
            if day.is_low:
                self._spare_the_day()
        return ", ".join(parts) or "HubSpot tells none for this kind of token"

    def calls(self) -> dict[str, int]:
        return self._session.calls()

    def close(self) -> None:
        self._session.close()

    # --- one call ---

    def _held(self) -> Library:
        library = self._library
        if library is None:
            with self._lock:
                library = self._library = self._library or Library(self._session)
        return library

    def _call(
        self,
        method: Callable[..., Any],
        *args: Any,
        paced: bool = False,
        failed: Callable[[TransientError], None] = lambda _error: None,
        **kwargs: Any,
    ) -> Raw:
        """One call of the library with its retries: all of them are harmless to repeat (reads, and updates to fixed
        values). `paced`: it is a search. `failed` is told of each try that failed for the moment.

        Raises:
            RefusedCallError: a 4xx that is about the content.
        """
        renewed = False

        def attempt() -> Raw:
            nonlocal renewed
            token = self._tokens.bearer()
            try:
                return self._sent(method, args, kwargs, token, paced=paced)
            except _ExpiredTokenError as error:
                if renewed or not self._tokens.renew(token):
                    raise
                renewed = True
                del error
            return self._sent(method, args, kwargs, self._tokens.bearer(), paced=paced)

        def watched() -> Raw:
            try:
                return attempt()
            except TransientError as error:
                failed(error)
                raise

        return retry(watched, harmless=True, clock=self._clock)

    def _sent(
        self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], token: str, *, paced: bool
    ) -> Raw:
        auth = {"type": "oauth2", "in": "header", "key": "Authorization", "value": f"Bearer {token}"}
        if paced:
            with self._search_pace.turn():
                return self._exchange(method, args, {**kwargs, "_request_auth": auth})
        self._pace.wait()
        return self._exchange(method, args, {**kwargs, "_request_auth": auth})

    def _exchange(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Raw:
        try:
            answer: Answer = method(*args, **kwargs, _preload_content=False, _request_timeout=TIMEOUT_S)
        except RefusedAnswer as refused:
            self._pace.learn(refused.answer.headers)
            raise self._refusal(refused.answer) from None
        self._pace.learn(answer.headers)
        try:
            return parse_object(answer.data, provider=self.name, operation=answer.operation, status=answer.status)
        except ContractError as error:
            # A proxy's page or a body cut where no length was told: the same question may be answered well.
            raise LostAnswerError(
                str(error), provider=self.name, operation=error.operation, status=answer.status
            ) from None

    def _refusal(self, answer: Answer) -> ProviderError:
        try:
            problem = wire.parse_problem(parse_object(answer.data, provider=self.name))
        except ContractError:
            problem = wire.Problem()
        error = wire.refusal(
            status=answer.status,
            headers=answer.headers,
            problem=problem,
            provider=self.name,
            operation=answer.operation,
            now=self._clock.now(),
            prefix=self._prefix,
        )
        if isinstance(error, CredentialsError) and problem.category == _RENEWABLE:
            return _ExpiredTokenError(str(error), provider=self.name, operation=answer.operation, status=answer.status)
        if isinstance(error, RefusedError):
            return RefusedCallError(
                str(error), problem=problem, provider=self.name, operation=answer.operation, status=answer.status
            )
        return error

    def _fetch_token(self, credentials: HubSpotCredentials) -> tuple[str, float]:
        body = self._exchange(
            self._held().token,
            (),
            {
                "grant_type": "refresh_token",
                "client_id": credentials.client_id,
                "client_secret": credentials.client_secret,
                "refresh_token": credentials.refresh_token,
            },
        )
        token, seconds = body.get("access_token"), body.get("expires_in")
        if not isinstance(token, str) or not token or not token.isascii() or any(c.isspace() for c in token):
            raise ContractError(
                f"{self.name} answered the token call without an access token", provider=self.name, operation="token"
            )
        return token, float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 1800.0


class _ExpiredTokenError(CredentialsError):
    """401 EXPIRED_AUTHENTICATION: an OAuth app may renew it once."""


class _Tokens:
    """The bearer token of the moment; an OAuth one is renewed by the clock, by one thread while the others wait."""

    def __init__(
        self,
        credentials: HubSpotCredentials,
        *,
        fetch: Callable[[HubSpotCredentials], tuple[str, float]],
        clock: Clock,
    ) -> None:
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token = credentials.token
        self._renew_at: datetime | None = None

    @property
    def is_oauth(self) -> bool:
        return self._credentials.is_oauth

    def bearer(self) -> str:
        if not self._credentials.is_oauth:
            return self._token
        with self._lock:
            if self._renew_at is None or self._clock.now() >= self._renew_at:
                self._renew()
            return self._token

    def renew(self, refused: str) -> bool:
        """Replace the token that HubSpot refused, unless another thread has; False where there is nothing to renew."""
        if not self._credentials.is_oauth:
            return False
        with self._lock:
            if self._token == refused:
                self._renew()
            return True

    def _renew(self) -> None:
        token, seconds = self._fetch(self._credentials)
        self._token = token
        # HubSpot's guidelines: renew by the clock, a 401 is no sign for it (contracts/hubspot.md 1.2, 2026-11).
        self._renew_at = self._clock.now() + timedelta(seconds=max(seconds - _RENEW_EARLY_S, seconds / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """One `select`, compiled."""

    selection: Selection
    plan: Plan
    limit: int
    lacks: Callable[[Mapping[str, Any]], bool]
    record: Callable[[Raw], Record]


def _id(raw: Raw) -> int:
    return int(raw["id"])


def _chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _without_duplicates(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """Pieces of at most BATCH inputs, none with one id twice: HubSpot refuses such a batch as a whole."""
    left = list(inputs)
    while left:
        piece: dict[str, Input] = {}
        later: list[Input] = []
        for one in left:
            if len(piece) < BATCH and one.ref.id not in piece:
                piece[one.ref.id] = one
            else:
                later.append(one)
        yield list(piece.values())
        left = later


def _did_nothing(error: ProviderError) -> bool:
    """Whether a write that failed so certainly wrote nothing; a RefusedCallError tells that by itself."""
    if error.operation == "token" or isinstance(error, UnsentError | QuotaError) or error.status in _NOT_TAKEN:
        return True
    return isinstance(error, CredentialsError) and not isinstance(error, UnprovenRefusalError)


def _not_written(one: Input, error: CrmSyncError) -> WriteOutcome:
    dropped = tuple(one.dropped.items())
    return WriteOutcome(ref=one.ref, written=Written.NOT_WRITTEN, reason=str(error), dropped=dropped)
