"""The neighbours we do not own, and what each promises in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from crm_sync.domain.changes import WriteMode, WriteOutcome
from crm_sync.domain.enrichment import CreditBalance, MatchKeys, Purpose, RawAnswer, Reading
from crm_sync.domain.records import ObjectSchema, Record, RecordRef, Value
from crm_sync.domain.reveals import OrderAnswer, PhoneDelivery, Polled


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Records whose date, or date and time, lies between `first` and `last`, both included; a date is compared by its
    day in UTC."""

    field: str
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records of one object a walk reads.

    `where` is the admin's filter in the CRM's own language, as configured: text (a SOQL condition) for Salesforce,
    an OR-list of AND-lists of {property, operator, value} for HubSpot; None for all. `missing_any` are the fields
    of which at least one must be blank or hold one of `placeholders` (compared trimmed, without case); empty: any
    record. `after` continues behind that record id. `ids`: only those among these records that satisfy the rest, and
    `within` likewise.
    """

    object_type: str
    fields: tuple[str, ...]
    where: Any = None
    missing_any: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()
    after: str = ""
    ids: tuple[str, ...] = ()
    within: Within | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether something beside `missing_any` and `ids` leaves records out."""
        return self.where is not None or self.within is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Records in rising id order, and where to go on: `cursor` goes into the next Selection.after.

    `expected` is the provider's own count of records that match, None where it does not tell.
    """

    records: tuple[Record, ...]
    cursor: str
    expected: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessCheck:
    """One line of `doctor`: what was tried, whether it works, and the cure when not."""

    name: str
    ok: bool
    detail: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """One record's new values; only keys to be written are present (an absent key leaves the field alone).

    A blank value (None, "") erases the field where `erase` names it, and is dropped elsewhere. `seen` is the record as
    `read` had it when the change was decided; a strict write is guarded by it, None: unguarded.
    """

    ref: RecordRef
    values: Mapping[str, Value]
    seen: Record | None = None
    erase: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What became of a record that `read` does not find. `ref`: where it lives on, None when nowhere; `how`: "merged",
    "converted", "deleted", or "unknown" (it may be hidden from this user); `reason` in a sentence."""

    ref: RecordRef | None
    how: str
    reason: str


class JobBook(Protocol):
    """Where a bulk write notes its jobs, so that another process can take one up after a crash."""

    def opened(self, job_id: str, object_type: str, requests: Sequence[WriteRequest]) -> None:
        """The CRM has made the job; nothing was uploaded yet."""
        ...

    def uploaded(self, job_id: str) -> None:
        """The CRM has the whole upload and was told to begin, or is about to be."""
        ...

    def ended(self, job_id: str) -> None:
        """Its results were fetched, or it certainly did nothing and never will."""
        ...


class Crm(Protocol):
    """A CRM. Safe to use from several threads. Raises only errors of crm_sync.errors."""

    name: str
    #: The most ids one `read` call, and the most records one `write` call, send in one request.
    read_size: int
    write_size: int
    #: The most records that one bulk job takes; 0 where the CRM has no such jobs.
    bulk_size: int
    #: For how long `select` may not see what was written; `read` sees it at once.
    select_lag_s: float

    def object_types(self) -> tuple[str, ...]:
        """The object types a sync may name on this CRM, in the CRM's own words."""
        ...

    def describe(self, object_type: str) -> ObjectSchema:
        """The object as it is now; cached for this instance's life, `refresh()` forgets it.

        Raises:
            ConfigError: the CRM has no such object, or hides it from this user.
        """
        ...

    def refresh(self) -> None: ...

    def check_selection(self, selection: Selection) -> list[str]:
        """Sentences about what is wrong with `where`, `missing_any` or `fields` (unknown or unfilterable field,
        syntax, operator); empty when sound. Costs no call beyond `describe`. Each sentence suggests a cure."""
        ...

    def select(self, selection: Selection, *, page_size: int | None = None) -> Iterator[Page]:
        """Pages of due records, lazily, by keyset on the id: never an offset, never a cursor that expires.

        Records come exactly once while nobody edits; a record that becomes due behind the cursor waits for the
        next run. Records whose `missing_any` are all filled are never returned.

        Raises:
            TransientError: after the adapter's own retries; go on later from the last page's cursor.
        """
        ...

    def read(self, object_type: str, ids: Sequence[str], fields: Sequence[str]) -> list[Record | None]:
        """The records as they are now, by position; None where it is gone. A merged record may come back under its
        survivor's id. Any number of ids: chunked by `read_size`."""
        ...

    def whereabouts(self, object_type: str, ids: Sequence[str]) -> list[Whereabouts]:
        """What became of records that `read` did not find, by position: the end of a chain of merges, the contact that
        a lead was converted to."""
        ...

    def write(
        self,
        object_type: str,
        requests: Sequence[WriteRequest],
        *,
        mode: WriteMode = WriteMode.FAST,
        jobs: JobBook | None = None,
    ) -> list[WriteOutcome]:
        """Send the changes; one outcome per request, in the order given. Any number: chunked by `write_size`.

        A record the CRM refuses is a REJECTED outcome, never an exception: one bad record must not stop its
        neighbours. What nobody could have had written (credentials, the day's calls) is NOT_WRITTEN, a lost answer
        makes UNACCOUNTED outcomes, and a record that a strict write found changed since `seen` is MOVED. Two requests
        must not name the same record. `jobs` is needed for WriteMode.BULK.

        Raises:
            ProviderError: nothing of it was written, and the same would become of the next call.
        """
        ...

    def resume(self, object_type: str, job_id: str, refs: Sequence[RecordRef], *, uploaded: bool) -> list[WriteOutcome]:
        """The end of a bulk job that another process began: waited for where it was `uploaded`, given up where it was
        not, so that it never does anything. One outcome per record of the job, in the order given.

        Raises:
            TransientError: the CRM cannot be asked now; ask later.
        """
        ...

    def look_after(self, object_type: str, requests: Sequence[WriteRequest]) -> list[WriteOutcome]:
        """What became of writes that another process sent, or not, before it died: UNACCOUNTED all of them, with the
        edits `restored` that they went over where a strict write guards itself afterwards. `seen` has no version."""
        ...

    def record_url(self, ref: RecordRef) -> str:
        """Where a person opens the record, "" when unknown."""
        ...

    def log_in(self) -> str:
        """See whether we are let in, by one free call that is made each time; says as whom, where that is told.

        Raises:
            CredentialsError: we are not.
            CrmSyncError: it cannot be told now.
        """
        ...

    def check_access(self) -> list[AccessCheck]:
        """One line per path the product needs (log in, describe, query, limits); never raises."""
        ...

    def calls(self) -> dict[str, int]:
        """Requests sent since this instance was made, by operation ("query", "write", "login", …)."""
        ...

    def close(self) -> None: ...


class Enricher(Protocol):
    """Apollo. Safe to use from several threads. Paid calls are `ask` and `ask_one` only; what reads bytes is pure.

    Phone numbers come later: an `ask` with a callback orders them, `order_answer` tells from its answer what will come,
    and `read_delivery` reads what came, to the callback or from a `poll`.
    """

    per_call: int

    def endpoint(self, purpose: Purpose, *, single: bool) -> str:
        """What the call is named by, in the ledger and in the enricher's own statistics."""
        ...

    def most(self, purpose: Purpose, *, reveals: bool = False) -> Decimal:
        """The credits that one record of a call may cost at worst; what a budget reserves. `reveals`: the call orders
        phone numbers too, as every one for Purpose.PHONE does; their part is charged with the delivery."""
        ...

    def ask(
        self,
        purpose: Purpose,
        keys: Sequence[MatchKeys],
        *,
        leaving: Callable[[], None],
        waiting: Callable[[float], None] | None = None,
        callback: str = "",
    ) -> RawAnswer:
        """One paid call for 1 to `per_call` MatchKeys. Waits for the pace; a 429 is waited out for all workers and
        sent again, since Apollo charged nothing.

        `leaving` is called after the last wait and before the first byte leaves, for each sending; what it raises is
        raised, and nothing has left. `waiting` is told, every two seconds at most, how many seconds the pace still
        asks to wait; what it raises ends the wait, and nothing has left either.

        `callback`: the address that the phone numbers of these people shall be delivered to, as it is, not encoded;
        needed for Purpose.PHONE, possible for PERSON. The delivery may come before this returns.

        Raises:
            RefusedError: 400 or 422; nothing charged; one of the keys may be at fault.
            CredentialsError: 401 or 403, or the callback is refused; nothing charged.
            QuotaError: out of credits, or a rate window so long that waiting makes no sense.
            TransientError: the request certainly did not leave (refused, DNS, TLS); nothing charged.
            DoubtError: it left, and no readable answer came: it may have been charged.
        """
        ...

    def ask_one(
        self,
        purpose: Purpose,
        keys: MatchKeys,
        *,
        leaving: Callable[[], None],
        waiting: Callable[[float], None] | None = None,
    ) -> RawAnswer:
        """The single-record endpoint, for what a bulk answer left open. Same price, same errors; orders no phones."""
        ...

    def read(self, purpose: Purpose, keys: Sequence[MatchKeys], body: bytes) -> Reading:
        """What `body` (an answer of `ask` or `ask_one`) says about each of `keys`; pure, no call. For Purpose.PHONE it
        is about the person, proved by the id alone.

        Raises:
            ContractError: it is not an answer to that question.
        """
        ...

    def order_answer(self, body: bytes) -> OrderAnswer:
        """What `body` (the answer of an `ask` with a callback) says about the numbers to come; pure, no call.

        Raises:
            ContractError: it is no JSON object.
        """
        ...

    def read_delivery(self, body: bytes) -> PhoneDelivery:
        """What was delivered, or what a READY poll holds; pure, no call. What is unusable about one number or person
        costs that one only. Whoever knows an order's address can have written it.

        Raises:
            ContractError: it is no delivery. The sentence shows nothing of it.
        """
        ...

    def poll(self, request_id: str) -> Polled:
        """What Apollo has for an order, by its answer's request id. Costs no credit; Apollo keeps it for 30 days.

        Raises:
            RateLimitError: no sooner than `retry_after_s`; nobody waits here for a parked endpoint.
            CredentialsError: the key came in a place where Apollo does not take it.
            TransientError: Apollo cannot be asked now.
            ContractError: its answer is none, or is about another request.
        """
        ...

    def balance(self) -> CreditBalance | None:
        """Credits left, None where the key may not ask. Costs no credit."""
        ...

    def log_in(self) -> str:
        """As Crm.log_in."""
        ...

    def check_access(self) -> list[AccessCheck]: ...

    def calls(self) -> dict[str, int]: ...

    def close(self) -> None: ...


class Callbacks(Protocol):
    """The address under which Apollo delivers what was ordered."""

    def url_of(self, order_id: str) -> str:
        """Where an order's numbers are to be delivered; whoever knows it may ring for that order alone."""
        ...

    def problem(self) -> str:
        """Why Apollo could not deliver there, in a sentence with its cure; "" when a delivery that we sent to our own
        public address has just come in."""
        ...


class Archive(Protocol):
    """The enricher's answers as they are kept. Pure: nothing here talks or costs, and no key is needed.

    `keys` are those a call asked for, `positions` those of them that are somebody's, and `names` tells whether folded
    JSON names that somebody (their addresses, pages and the enricher's ids).
    """

    def read(self, purpose: Purpose, keys: Sequence[MatchKeys], body: bytes) -> Reading:
        """As Enricher.read."""
        ...

    def mentions(self, body: bytes, names: Callable[[bytes], bool]) -> bool: ...

    def theirs(
        self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int], names: Callable[[bytes], bool]
    ) -> list[Any]:
        """The entries about that somebody, as they came."""
        ...

    def without(
        self, keys: Sequence[MatchKeys], body: bytes, positions: Collection[int], names: Callable[[bytes], bool]
    ) -> bytes:
        """`body` without those entries, everybody else's at their old places; b"" when it cannot be read and may hold
        them."""
        ...

    # --- what was delivered: it is not paired with keys, everybody in it stands under the enricher's id ---

    def ids_in(self, body: bytes) -> frozenset[str]:
        """Everything in a delivery that may be the enricher's id of somebody, theirs among it; also of one that cannot
        be read."""
        ...

    def delivery_mentions(self, body: bytes, names: Callable[[bytes], bool]) -> bool: ...

    def delivered(self, body: bytes, names: Callable[[bytes], bool]) -> list[Any]:
        """The entries about that somebody, with their numbers, as they came."""
        ...

    def delivery_without(self, body: bytes, names: Callable[[bytes], bool]) -> bytes:
        """`body` without those entries; an empty object when it cannot be read and may hold them."""
        ...


#: The limit of a window that the provider says is unlimited (Apollo sends an empty header).
UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One of the provider's rate windows: at most `limit` calls in `seconds`, UNLIMITED when it is told to be;
    `left` as last told."""

    seconds: float
    limit: int
    left: int | None = None


class Ticket(Protocol):
    """Permission for one call. `answered()` must follow, whatever became of the call."""

    def answered(self) -> None: ...


class Pace(Protocol):
    """When the next call may leave, for all threads and processes that share the store.

    A call counts against a window from its permission until one whole window after its **answer**
    (design/performance.md 5: departure(k) >= answer(k-N) + W >= arrival(k-N) + W whatever the network does). A
    permission whose process died counts until its call's time-out plus one window.
    """

    def acquire(self, endpoint: str, *, waiting: Callable[[float], None] | None = None) -> Ticket:
        """Wait until a call to `endpoint` may leave. `waiting` is told the seconds left, every two seconds at most;
        what it raises ends the wait.

        Raises:
            QuotaError: the wait would be longer than the pace's bound (an exhausted daily window).
        """
        ...

    def learn(self, endpoint: str, windows: Sequence[Window]) -> None:
        """Take the provider's own headers; an empty sequence means the answer told nothing."""
        ...

    def park(self, endpoint: str, seconds: float) -> None:
        """Nobody calls `endpoint` for that long (a 429 with retry-after)."""
        ...

    def parked_for(self, endpoint: str) -> float:
        """Seconds until somebody may call a parked `endpoint` again; 0 when it is not parked."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...
