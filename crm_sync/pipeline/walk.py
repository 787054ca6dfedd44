"""What one run of one sync knows: compiled once, then only read (but for the stop sign)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from crm_sync.config.model import Budget, FieldMapping, Match, Stamps, Sync
from crm_sync.domain.changes import WriteMode, WriteRule
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose
from crm_sync.domain.records import ObjectSchema, Record, Value
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.apply import Mapper, sources
from crm_sync.mapping.blanks import placeholder_form
from crm_sync.mapping.match_keys import compile_keys
from crm_sync.mapping.stamps import Stamping, compile_stamps
from crm_sync.mapping.trust import compile_trust
from crm_sync.pipeline.ordering import Orders
from crm_sync.pipeline.suppress import Guard, Screen, guard
from crm_sync.ports import Clock, Crm, Enricher, JobBook
from crm_sync.services import Services
from crm_sync.store.answers import Answers
from crm_sync.store.journal import Journal
from crm_sync.store.provenance import Provenance
from crm_sync.store.reviews import Reviews
from crm_sync.store.runs import Runs

#: How long an answer serves when the sync sets no refresh window of its own.
DEFAULT_FRESH_FOR = timedelta(days=180)


class Stop:
    """A sign every stage looks at: take no new work, finish what is under way.

    The first one who raises it gives the reason; `error` is None when a person asked for it.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.reason = ""
        self.error: Exception | None = None
        #: The process is ending: what is left to do is queued, and another one goes on.
        self.is_pause = False

    def pause(self, reason: str) -> None:
        with self._lock:
            if not self._event.is_set():
                self.reason, self.is_pause = reason, True
                self._event.set()

    def raise_(self, reason: str, error: Exception | None = None) -> None:
        with self._lock:
            if not self._event.is_set():
                self.reason, self.error = reason, error
                self._event.set()

    def cancel(self) -> None:
        """A person said `crm-sync cancel`."""
        self.raise_("cancelled by crm-sync cancel")

    @contextmanager
    def told_first(self) -> Iterator[None]:
        """An error of whoever reads from the stages is why the walk stops; they themselves, when they are ended in
        mid-walk, know of none."""
        try:
            yield
        except CrmSyncError as error:
            self.raise_(str(error), error)
            raise

    def __bool__(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How much this run may spend beside the budget: `max_credits` at most; `free`: stored answers only."""

    max_credits: Decimal | None = None
    free: bool = False


AS_BUDGETED = Spending()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One selected record with what Apollo would recognise it by. `lacking`: which chosen fields are blank."""

    record: Record
    keys: MatchKeys
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A due record at the end of the enriching stage: `enrichment` to be mapped, or its final `outcome`. `unproved`:
    why nothing that was sent proves that the enrichment is about it.

    `reached` is False when the run ended before its turn: nothing was learnt about it. `answered_at` is when Apollo's
    answer came, or was lost; None where nobody was asked. The record is stamped with it.
    """

    due: Due
    enrichment: Enrichment | None = None
    unproved: str = ""
    outcome: RecordOutcome | None = None
    reason: str = ""
    batch_id: int | None = None
    position: int = 0
    reached: bool = True
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One object that a walk writes: the sync's own, or the parent of its `account:` section."""

    object_type: str
    schema: ObjectSchema
    mapper: Mapper
    read_fields: tuple[str, ...]
    guard: Guard
    #: The object that the audit tells its records as, where it is another: a lead that became a contact.
    told_as: str = ""
    #: Suppressions do not count: an undo takes back what was written.
    unguarded: bool = False
    stamping: Stamping = field(default_factory=Stamping)
    #: Whether a rule goes by what was written before; CRM field -> the share of change that is ignored.
    tracks: bool = False
    ignored: Mapping[str, Decimal] = field(default_factory=dict)
    #: Fields that hold an e-mail address of the person.
    email_fields: frozenset[str] = frozenset()

    def fields_to_read(self, kinds: frozenset[str]) -> tuple[str, ...]:
        """What is read of a record before it is written: beside `read_fields` all that may say it is to be left alone,
        where there are suppressions of these kinds."""
        also = () if self.unguarded else self.guard.fields(kinds)
        return tuple(dict.fromkeys((*self.read_fields, *also)))


@dataclass(slots=True, kw_only=True)
class WriteContext:
    """What writing needs to know of a run, whether its values come from Apollo or were settled before.

    `object_type` is the run's own object, as opposed to a parent's. `write`: auto, or a WriteMode.
    """

    run_id: str
    kind: RunKind
    sync_name: str
    object_type: str
    crm: Crm
    write: str
    runs: Runs
    provenance: Provenance
    reviews: Reviews
    answers: Answers
    jobs: JobBook
    screen: Screen
    clock: Clock
    folded_placeholders: frozenset[str]
    stop: Stop = field(default_factory=Stop)
    #: Which worker's part of the run this is, where several share it; 0: nobody shares it.
    share: int = 0
    #: Records that were sent to the CRM so far.
    changed: int = 0

    @property
    def mode(self) -> WriteMode:
        """How the next records are written."""
        return write_mode(self.write, self.changed, has_bulk=self.crm.bulk_size > 0)


#: `write: auto`, on a CRM that has bulk jobs: strict for so many records of a run, fast for so many, bulk above.
_STRICT_UP_TO, _FAST_UP_TO = 5_000, 50_000


def write_mode(configured: str, changed: int, *, has_bulk: bool) -> WriteMode:
    if configured != "auto":
        return WriteMode(configured)
    if changed < _STRICT_UP_TO or not has_bulk:
        return WriteMode.STRICT
    return WriteMode.FAST if changed < _FAST_UP_TO else WriteMode.BULK


@dataclass(slots=True, kw_only=True)
class Walk(WriteContext):
    """Everything the rooms of one run of a sync share."""

    sync: Sync
    purpose: Purpose
    enricher: Enricher
    journal: Journal
    budget: Budget
    timezone: str
    max_credits: Decimal | None
    #: Stored answers only: nothing is asked for.
    free: bool
    #: Only these records, whatever was tried with them before; empty: what is due.
    only: tuple[str, ...]
    keys_of: Callable[[Mapping[str, Value]], MatchKeys]
    match: Match
    #: Why an answer may be about somebody else than the record; "" when it is trusted.
    distrust: Callable[[MatchKeys, Enrichment], str]
    target: Target
    parent: Target | None
    placeholders: tuple[str, ...]
    sources_by_field: Mapping[str, frozenset[str]]
    mapping_digest: bytes
    at_most: int | None
    workers: int
    fresh_since: datetime
    no_match_since: datetime
    #: Its calls order phone numbers; None: they do not.
    orders: Orders | None = None
    #: Until when Apollo asked us to wait, as far as the workers know; None while calls leave.
    waiting_until: datetime | None = None

    @property
    def guards(self) -> dict[str, Guard]:
        """By object: whom to leave alone, of each object it writes."""
        targets = [self.target] if self.parent is None else [self.parent, self.target]
        return {target.object_type: target.guard for target in targets}

    def sources_of(self, fields: tuple[str, ...]) -> frozenset[str]:
        """The Apollo attributes that feed these fields; all mapped ones where none is named (a refresh)."""
        chosen = [self.sources_by_field[name] for name in fields if name in self.sources_by_field]
        return frozenset().union(*(chosen or self.sources_by_field.values()))


def prepare(
    sync: Sync,
    services: Services,
    *,
    run_id: str,
    kind: RunKind,
    limit: int | None,
    spending: Spending,
    only: tuple[str, ...] = (),
    share: int = 0,
    crm: Crm,
    enricher: Enricher,
) -> Walk:
    """Compile a sync against the live schema.

    Raises:
        ConfigError: the CRM has no such object.
    """
    config, now = services.config, services.clock.now()
    purpose = Purpose.COMPANY if sync.is_company else Purpose.PERSON
    schema = crm.describe(sync.object_type)
    fresh_for = sync.choose.or_older_than or DEFAULT_FRESH_FOR
    limits = [n for n in (limit, sync.choose.at_most) if n is not None]
    parent = None
    if sync.parent is not None:
        of_parent = crm.describe(sync.parent.object_type)
        parent = _target(
            of_parent,
            sync.parent.fields,
            (),
            guard(sync, sync.parent.object_type, of_parent, crm, config.suppress, is_parent=True),
            config.stamps,
        )
    return Walk(
        run_id=run_id,
        share=share,
        kind=kind,
        sync_name=sync.name,
        object_type=sync.object_type,
        sync=sync,
        purpose=purpose,
        crm=crm,
        write=config.crms[sync.crm].write,
        enricher=enricher,
        runs=services.runs,
        provenance=services.provenance,
        reviews=services.reviews,
        answers=services.answers,
        jobs=services.write_jobs.book(run_id, sync.crm, services.clock, share=share),
        journal=services.journal,
        screen=Screen(services.suppressions),
        budget=config.budget,
        timezone=config.timezone,
        max_credits=spending.max_credits,
        free=spending.free,
        only=only,
        clock=services.clock,
        keys_of=compile_keys(sync.match, purpose, placeholders=config.placeholders),
        match=sync.match,
        distrust=compile_trust(sync.match),
        target=_target(
            schema,
            sync.fields,
            sync.choose.missing_any,
            guard(sync, sync.object_type, schema, crm, config.suppress),
            config.stamps,
        ),
        parent=parent,
        placeholders=config.placeholders,
        folded_placeholders=frozenset(placeholder_form(word) for word in config.placeholders),
        sources_by_field={mapping.field: sources([mapping]) for mapping in sync.fields},
        mapping_digest=_digest(sync, config.placeholders),
        at_most=min(limits) if limits else None,
        workers=config.workers,
        fresh_since=now - fresh_for,
        no_match_since=now - sync.choose.after_no_match_wait,
    )


def compiled(sync: Sync, services: Services, *, limit: int | None = None) -> Walk:
    """A sync against the live schema, for what looks at it without running it.

    Raises:
        ConfigError: as prepare.
    """
    crm, enricher = services.crm(sync.crm), services.enricher()
    return prepare(
        sync, services, run_id="", kind=RunKind.PLAN, limit=limit, spending=AS_BUDGETED, crm=crm, enricher=enricher
    )


def seen(walk: Walk, keys: MatchKeys, lacking: tuple[str, ...]) -> bytes:
    """Digest of all that an attempt at a record was based on: nothing of it changed, nothing new can come out."""
    digest = hashlib.blake2b(walk.mapping_digest, digest_size=16)
    digest.update(keys.key.encode())
    digest.update("\0".join(lacking).encode())
    return digest.digest()


def _target(
    schema: ObjectSchema, fields: tuple[FieldMapping, ...], also: tuple[str, ...], its_guard: Guard, stamps: Stamps
) -> Target:
    stamping = compile_stamps(stamps, schema)
    names = dict.fromkeys([mapping.field for mapping in fields])
    names.update(dict.fromkeys((*also, *stamping.fields)))
    return Target(
        object_type=its_guard.object_type,
        schema=schema,
        mapper=Mapper(fields, schema),
        read_fields=tuple(names),
        guard=its_guard,
        stamping=stamping,
        tracks=any(mapping.rule is WriteRule.TRACK for mapping in fields),
        ignored={m.field: m.ignore_change_below for m in fields if m.ignore_change_below},
        email_fields=frozenset(m.field for m in fields if m.source == "person.email"),
    )


def _digest(sync: Sync, placeholders: tuple[str, ...]) -> bytes:
    text = repr((sync.fields, sync.match, sync.parent, sync.job_change, sync.choose.missing_any, placeholders))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
