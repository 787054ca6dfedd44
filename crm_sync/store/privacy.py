"""All that is kept about one person, wherever it is kept: found, told, and removed.

Who is meant is known by an e-mail address. The paid answers are sealed, so finding somebody opens them all: their
positions in requests and answers, and by the answers proved to be theirs also their LinkedIn page, their other
addresses and the enricher's id, until nothing new is found. What was delivered about them is found by that id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Table, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from crm_sync import crash
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, Verdict
from crm_sync.domain.runs import RunKind
from crm_sync.errors import ContractError
from crm_sync.mapping.identities import of_apollo, of_record
from crm_sync.ports import Archive
from crm_sync.store.deliveries import delivery_name
from crm_sync.store.engine import Store
from crm_sync.store.journal import body_name, keys_of, request_name, request_of
from crm_sync.store.reveals import finish_runs
from crm_sync.store.runs import record_of
from crm_sync.store.suppressions import ERASED, Suppressions
from crm_sync.store.tables import (
    answers,
    batches,
    config_versions,
    deliveries,
    phone_waits,
    provenance,
    record_states,
    reveal_orders,
    reviews,
    run_records,
    runs,
    unmapped_values,
)
from crm_sync.store.traces import (
    AnswerTrace,
    CallTrace,
    DeliveryTrace,
    Person,
    RecordTrace,
    StateTrace,
    Traces,
    WaitTrace,
)
from crm_sync.store.vault import Vault

#: Calls, and deliveries, that are opened at a time.
_AT_ONCE = 200
#: What the index has about people: the answers, and that their phone was asked for.
_OF_PEOPLE = (Purpose.PERSON.value, Purpose.PHONE.value)


class Privacy:
    """Finds and erases. `archive` reads the enricher's answers."""

    def __init__(self, store: Store, vault: Vault, archive: Archive, suppressions: Suppressions) -> None:
        self._store = store
        self._vault = vault
        self._archive = archive
        self._suppressions = suppressions

    def find(self, address: str, known: Person | None = None) -> Traces:
        """Everything kept about the person with this (normalised) address, or about the person already `known`."""
        person = known or Person(emails={address})
        with self._store.read() as connection:
            while True:
                size = person.size
                calls = list(self._calls(connection, person))
                self._learn_from_waits(connection, person)
                if person.size == size:
                    break
            traces = Traces(person=person, calls=calls)
            digests = self._digests(connection, person)
            traces.index = self._index(connection, digests, [(call.id, at) for call in calls for at in call.positions])
            self._add_all(connection, traces, digests)
            traces.deliveries = self._deliveries(connection, person)
            self._add_texts(connection, traces)
        return traces

    def _add_all(self, connection: Connection, traces: Traces, digests: Sequence[bytes]) -> None:
        """The rows about their records; `digests`: what stands for them."""
        traces.waits = self._waits(connection, digests)
        traces.own_records.update((each.crm, each.object_type, each.record_id) for each in traces.waits)
        self._add_records(connection, traces)
        known = {each.id for each in traces.waits}
        for record in traces.own_records:
            found = connection.execute(select(phone_waits).where(_is_of(phone_waits, record)))
            traces.waits += [_wait(row) for row in found if row.id not in known]
        traces.states = self._states(connection, traces.own_records)
        traces.kept = self._kept(connection, traces.own_records)

    def find_again(self, digests: Collection[tuple[str, bytes]]) -> list[Traces]:
        """Everybody of whom these digests of suppressions are known: a restored database holds them again."""
        wanted = {digest for _, digest in digests}
        with self._store.read() as connection:
            people = self._recognised(connection, wanted)
            records = self._recognised_records(connection, wanted)
        found: list[Traces] = []
        for person in people:
            if not any(person.is_within(each.person) for each in found):
                found.append(self.find("", person))
        known = {record for traces in found for record in traces.own_records}
        waits = {each.id for traces in found for each in traces.waits}
        rows = {(row.purpose, row.key) for traces in found for row in traces.index}
        rest = self._of_records(records - known, wanted)
        rest.waits = [each for each in rest.waits if each.id not in waits]
        rest.index = [row for row in rest.index if (row.purpose, row.key) not in rows]
        return [traces for traces in (*found, rest) if traces.counts()]

    def _recognised(self, connection: Connection, wanted: set[bytes]) -> list[Person]:
        """The people behind the digests, as paid calls and deliveries have them."""
        digest = self._vault.digest
        people: dict[str, Person] = {}
        for row in _people_calls(connection):
            keys = keys_of(self._vault.unseal(row.request, request_name(row.fingerprint)))
            body = self._vault.unseal(row.body, body_name(row.id)) if row.body is not None else b""
            told: Sequence[Enrichment | None] = (None,) * len(keys)
            if body:
                with suppress(ContractError):
                    told = self._archive.read(Purpose.PERSON, keys, body).enrichments
            for key, enrichment in zip(keys, told, strict=True):
                person = Person(emails=set())
                person.learn(key, enrichment)
                for identity in person.identities():
                    if digest(identity) in wanted:
                        of_one = people.setdefault(identity, Person(emails=set()))
                        of_one.learn_identity(identity)
        for _, body in self._opened(connection):
            for apollo_id in self._archive.ids_in(body):
                if (identity := of_apollo(apollo_id)) and digest(identity) in wanted:
                    people.setdefault(identity, Person(emails=set())).learn_identity(identity)
        return list(people.values())

    def _recognised_records(self, connection: Connection, wanted: set[bytes]) -> set[tuple[str, str, str]]:
        """Records behind the digests: noted themselves, or asked for by a key that is."""
        digest = self._vault.digest
        columns = (runs.c.crm, run_records.c.object_type, run_records.c.record_id)
        joined = run_records.join(runs, runs.c.id == run_records.c.run_id)
        found: set[tuple[str, str, str]] = set()
        for some in _slices(sorted(wanted)):
            rows = connection.execute(select(*columns).select_from(joined).where(run_records.c.identity.in_(some)))
            found.update((row.crm, row.object_type, row.record_id) for row in rows)
        found.update((each.crm, each.object_type, each.record_id) for each in self._waits(connection, sorted(wanted)))
        states = select(runs.c.crm, record_states.c.object_type, record_states.c.record_id).join_from(
            record_states, runs, runs.c.id == record_states.c.run_id
        )
        tables = (provenance, reviews, phone_waits)
        kept = [select(t.c.crm, t.c.object_type, t.c.record_id).distinct() for t in tables]
        for query in (select(*columns).select_from(joined).distinct(), states, *kept):
            for crm, object_type, record_id in connection.execute(query):
                if digest(of_record(crm, object_type, record_id)) in wanted:
                    found.add((crm, object_type, record_id))
        return found

    def _of_records(self, records: set[tuple[str, str, str]], wanted: set[bytes]) -> Traces:
        """What is left of people of whom no paid call knows any more."""
        traces = Traces(person=Person(emails=set()), own_records=set(records))
        with self._store.read() as connection:
            traces.index = self._index(connection, sorted(wanted), ())
            self._add_all(connection, traces, ())
        return traces

    def erase(self, traces: Traces, *, now: datetime) -> int:
        """Remove all of it but the credits, and leave the digests that keep them from being asked for again, in one
        commit; how many digests are new."""
        with self._store.write() as connection:
            for call in traces.calls:
                self._empty(connection, call, traces.person.names())
            for row in traces.index:
                connection.execute(delete(answers).where(answers.c.purpose == row.purpose, answers.c.key == row.key))
            for found in traces.records:
                connection.execute(delete(run_records).where(_is_record(found)))
            for state in traces.states:
                connection.execute(delete(record_states).where(_is_state(state)))
            for table in (provenance, reviews):
                for record in traces.own_records:
                    connection.execute(delete(table).where(_is_of(table, record)))
            for delivery in traces.deliveries:
                self._cut(connection, delivery.id, traces.person.names())
            for some in _slices([each.id for each in traces.waits]):
                connection.execute(delete(phone_waits).where(phone_waits.c.id.in_(some)))
            if traces.waits:
                finish_runs(connection)  # that waited for this phone alone
            for sync, name, value in traces.unmapped:
                row_ = unmapped_values.c
                connection.execute(
                    delete(unmapped_values).where(row_.sync == sync, row_.field == name, row_.value == value)
                )
            if traces.errors:
                connection.execute(update(batches).where(batches.c.id.in_(traces.errors)).values(error=""))
            if traces.reasons:
                connection.execute(update(runs).where(runs.c.id.in_(traces.reasons)).values(reason=""))
            if traces.orders:
                connection.execute(update(reveal_orders).where(reveal_orders.c.id.in_(traces.orders)).values(reason=""))
            crash.point("privacy.erase.inside")
            return self._suppressions.add_in(connection, traces.identities(), ERASED, now=now)

    # --- paid calls -----------------------------------------------------------------------------------------------

    def _calls(self, connection: Connection, person: Person) -> Iterator[CallTrace]:
        """The calls in which they are, by what is known of them when each is opened; `person` learns from them."""
        names, size = person.names(), person.size
        for row in _people_calls(connection):
            keys = keys_of(self._vault.unseal(row.request, request_name(row.fingerprint)))
            body = self._vault.unseal(row.body, body_name(row.id)) if row.body is not None else b""
            asked = {at for at, key in enumerate(keys) if person.is_asked_by(key)}
            if not asked and not (body and self._archive.mentions(body, names)):
                continue
            positions = asked | self._told(person, keys, body, asked)
            if person.size != size:
                names, size = person.names(), person.size
            yield CallTrace(
                id=row.id,
                run_id=row.run_id,
                sync=row.sync,
                endpoint=row.endpoint,
                state=row.state,
                planned_at=row.planned_at,
                answered_at=row.answered_at,
                keys=keys,
                positions=frozenset(positions),
                entries=tuple(self._archive.theirs(keys, body, positions, names)) if body else (),
            )

    def _told(self, person: Person, keys: Sequence[MatchKeys], body: bytes, asked: Collection[int]) -> set[int]:
        """Where the answer proves to be about them; `person` learns from there and from the `asked` positions."""
        told: Sequence[Enrichment | None] = (None,) * len(keys)
        if body:
            with suppress(ContractError):  # an answer in doubt; what it holds is looked at as text
                told = self._archive.read(Purpose.PERSON, keys, body).enrichments
        theirs = {
            at
            for at, enrichment in enumerate(told)
            if enrichment is not None and enrichment.verdict is Verdict.MATCHED and person.is_told_by(enrichment)
        }
        for at in theirs.union(asked):
            # Their page beside another address is somebody's slip: it goes, and that address is not theirs.
            if at in theirs or not keys[at].email or keys[at].email in person.emails:
                person.learn(keys[at], told[at])
        return theirs

    def _empty(self, connection: Connection, call: CallTrace, names: Callable[[bytes], bool]) -> None:
        """As the row is now: somebody else in it may have been erased since it was looked at."""
        row = connection.execute(
            select(batches.c.purpose, batches.c.fingerprint, batches.c.request, batches.c.body)
            .where(batches.c.id == call.id, batches.c.request != b"")
            .with_for_update()
        ).one_or_none()
        if row is None:
            return  # purged meanwhile
        known = keys_of(self._vault.unseal(row.request, request_name(row.fingerprint)))
        nobody = MatchKeys(purpose=Purpose(row.purpose))
        request = request_of(nobody if at in call.positions else key for at, key in enumerate(known))
        fingerprint = hashlib.sha256(request).hexdigest()
        body = None
        if row.body is not None:
            opened = self._vault.unseal(row.body, body_name(call.id))
            rest = self._archive.without(known, opened, call.positions, names)
            body = self._vault.seal(rest, body_name(call.id)) if rest else None
        connection.execute(
            update(batches)
            .where(batches.c.id == call.id)
            .values(request=self._vault.seal(request, request_name(fingerprint)), fingerprint=fingerprint, body=body)
        )

    # --- phones -----------------------------------------------------------------------------------------------------

    def _learn_from_waits(self, connection: Connection, person: Person) -> None:
        """Apollo's id of somebody whose answers are not kept any more: their wait has its digest, a delivery the id."""
        identities = [self._vault.digest(key) for key in person.all_keys()]
        unknown = self._persons_of_waits(connection, identities) - set(identities)
        if unknown:
            for _, body in self._opened(connection):
                person.ids.update(each for each in self._archive.ids_in(body) if self._stands_for(each) in unknown)

    def _stands_for(self, apollo_id: str) -> bytes:
        return self._vault.digest(f"apollo:{apollo_id}")

    def _waits(self, connection: Connection, digests: Sequence[bytes]) -> list[WaitTrace]:
        """Waits for them, and for records that were looked up as theirs."""
        found: dict[int, WaitTrace] = {}
        for some in _slices(digests):
            which = or_(phone_waits.c.person.in_(some), phone_waits.c.identity.in_(some))
            found |= {row.id: _wait(row) for row in connection.execute(select(phone_waits).where(which))}
        return list(found.values())

    def _deliveries(self, connection: Connection, person: Person) -> list[DeliveryTrace]:
        names = person.names()
        return [
            DeliveryTrace(
                id=row.id,
                order_id=row.order_id,
                state=row.state,
                reason=row.reason,
                received_at=row.received_at,
                source=row.source,
                entries=tuple(self._archive.delivered(body, names)),
            )
            for row, body in self._opened(connection)
            if self._archive.delivery_mentions(body, names) or names(row.reason.lower().encode())
        ]

    def _opened(self, connection: Connection) -> Iterator[tuple[Row[Any], bytes]]:
        """Every delivery with its body, oldest first, some at a time."""
        after = 0
        while True:
            query = select(deliveries).where(deliveries.c.id > after).order_by(deliveries.c.id).limit(_AT_ONCE)
            rows = connection.execute(query).all()
            if not rows:
                return
            for row in rows:
                yield row, self._vault.unseal(row.body, delivery_name(row.order_id, bytes(row.digest)))
                after = row.id

    def cut_erased(self, delivery_id: int) -> frozenset[str]:
        """Cut everybody who was erased out of a delivery that came all the same; Apollo's ids of them."""
        with self._store.read() as connection:
            row = connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one_or_none()
        if row is None:
            return frozenset()
        body = self._vault.unseal(row.body, delivery_name(row.order_id, bytes(row.digest)))
        ids = {identity: each for each in self._archive.ids_in(body) if (identity := of_apollo(each))}
        erased = frozenset(ids[e.identity] for e in self._suppressions.entries(ids) if e.source == ERASED)
        if erased:
            with self._store.write() as connection:
                self._cut(connection, delivery_id, Person(emails=set(), ids=set(erased)).names())
        return erased

    def _cut(self, connection: Connection, delivery_id: int, names: Callable[[bytes], bool]) -> None:
        """As the row is now. It keeps its digest, so that the same bytes are not taken a second time."""
        row = connection.execute(
            select(deliveries.c.order_id, deliveries.c.digest, deliveries.c.body, deliveries.c.reason)
            .where(deliveries.c.id == delivery_id)
            .with_for_update()
        ).one_or_none()
        if row is None:
            return  # purged meanwhile
        place = delivery_name(row.order_id, bytes(row.digest))
        rest = self._archive.delivery_without(self._vault.unseal(row.body, place), names)
        reason = "" if names(row.reason.lower().encode()) else row.reason
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id == delivery_id)
            .values(body=self._vault.seal(rest, place), reason=reason)
        )

    # --- the other tables -----------------------------------------------------------------------------------------

    def _digests(self, connection: Connection, person: Person) -> list[bytes]:
        """What stands for them in the tables; of a phone that was asked for as theirs also where Apollo's id is not
        known any more."""
        known = [self._vault.digest(key) for key in person.all_keys()]
        return sorted({*known, *self._persons_of_waits(connection, known)})

    def _persons_of_waits(self, connection: Connection, identities: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for some in _slices(identities):
            rows = connection.execute(select(phone_waits.c.person).where(phone_waits.c.identity.in_(some))).scalars()
            found.update(bytes(each) for each in rows)
        return found

    def _index(
        self, connection: Connection, digests: Sequence[bytes], places: Sequence[tuple[int, int]]
    ) -> list[AnswerTrace]:
        found: dict[tuple[str, bytes], AnswerTrace] = {}
        conditions: list[ColumnElement[bool]] = [
            and_(answers.c.purpose.in_(_OF_PEOPLE), answers.c.key.in_(some)) for some in _slices(digests)
        ]
        conditions += [tuple_(answers.c.batch_id, answers.c.position).in_(some) for some in _slices(places)]
        for condition in conditions:
            for row in connection.execute(select(answers).where(condition)):
                found[row.purpose, bytes(row.key)] = AnswerTrace(
                    purpose=row.purpose,
                    key=bytes(row.key),
                    verdict=row.verdict,
                    source=row.source,
                    batch_id=row.batch_id,
                    position=row.position,
                    obtained_at=row.obtained_at,
                )
        return list(found.values())

    def _add_records(self, connection: Connection, traces: Traces) -> None:
        """Their records in runs: all rows of a record that was looked up as theirs, and rows that name them."""
        digests = [self._vault.digest(key) for key in traces.person.all_keys()]
        query = select(run_records, runs.c.crm, runs.c.kind).join(runs, runs.c.id == run_records.c.run_id)
        found: dict[tuple[str, str, str], RecordTrace] = {}

        def add(rows: Iterable[Row[Any]]) -> None:
            for row in rows:
                trace = RecordTrace(
                    run_id=row.run_id, kind=RunKind(row.kind), crm=row.crm, at=row.at, record=record_of(row)
                )
                found[row.run_id, row.object_type, row.record_id] = trace

        for some in _slices(digests):
            own = connection.execute(query.where(run_records.c.identity.in_(some)))
            traces.own_records.update((row.crm, row.object_type, row.record_id) for row in own)
        for crm, object_type, record_id in traces.own_records:
            record = (run_records.c.object_type == object_type, run_records.c.record_id == record_id)
            add(connection.execute(query.where(*record, runs.c.crm == crm)))
        traces.records = list(found.values())
        needles = [*traces.person.emails, *traces.person.pages]
        if not needles:
            return
        names = traces.person.names()
        texts = (_as_text(connection, run_records.c.decisions), func.lower(run_records.c.reason))
        rows = connection.execute(query.where(or_(*(_holds(connection, text, needles) for text in texts))))
        # A page or address that only begins like theirs is somebody else's.
        add(row for row in rows if names(_row_text(row)))
        traces.records = list(found.values())

    def _states(self, connection: Connection, records: Collection[tuple[str, str, str]]) -> list[StateTrace]:
        found = []
        for crm, object_type, record_id in records:
            rows = connection.execute(
                select(record_states)
                .outerjoin(runs, runs.c.id == record_states.c.run_id)
                .where(
                    record_states.c.object_type == object_type,
                    record_states.c.record_id == record_id,
                    # Of what a stamp told (pipeline/reconcile.py) no run tells the CRM.
                    or_(runs.c.crm == crm, runs.c.id.is_(None)),
                )
            )
            found += [
                StateTrace(
                    sync=row.sync,
                    object_type=row.object_type,
                    record_id=row.record_id,
                    outcome=row.outcome,
                    attempted_at=row.attempted_at,
                )
                for row in rows
            ]
        return found

    def _kept(
        self, connection: Connection, records: Collection[tuple[str, str, str]]
    ) -> dict[str, list[dict[str, Any]]]:
        """The rows about these records in the tables that hold digests and reasons, without the digests."""
        written: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []
        for record in records:
            for row in connection.execute(select(provenance).where(_is_of(provenance, record))):
                fields = {
                    name: {"at": datetime.fromtimestamp(at / 1000, UTC), "released": bool(released)}
                    for name, (_, at, released) in orjson.loads(row.fields).items()
                }
                written.append({**_named(record), "fields": fields})
            for row in connection.execute(select(reviews).where(_is_of(reviews, record))):
                told = ("sync", "field", "kind", "reason", "run_id", "state", "created_at", "resolved_at")
                asked.append({**_named(record), **{name: getattr(row, name) for name in told}})
        return {provenance.name: written, reviews.name: asked}

    def _add_texts(self, connection: Connection, traces: Traces) -> None:
        """Texts that should hold nobody, and configuration versions, which are kept byte for byte."""
        needles = sorted(traces.person.emails)
        if not needles:
            return

        def holding(*columns: Any, text: Any) -> Sequence[Row[Any]]:
            return connection.execute(select(*columns).where(_holds(connection, func.lower(text), needles))).all()

        value = unmapped_values.c
        rows = holding(value.sync, value.field, value.value, text=value.value)
        traces.unmapped = [(row.sync, row.field, row.value) for row in rows]
        traces.errors = [row.id for row in holding(batches.c.id, text=batches.c.error)]
        traces.reasons = [row.id for row in holding(runs.c.id, text=runs.c.reason)]
        traces.orders = [row.id for row in holding(reveal_orders.c.id, text=reveal_orders.c.reason)]
        names = traces.person.names()
        traces.versions = [
            row.number
            for row in connection.execute(select(config_versions.c.number, config_versions.c.text))
            if names(bytes(row.text).lower())
        ]


def _people_calls(connection: Connection) -> Iterator[Any]:
    """Every call for people that still has its request, oldest first, some at a time."""
    columns = (
        batches.c.id, batches.c.run_id, batches.c.sync, batches.c.endpoint, batches.c.state, batches.c.fingerprint,
        batches.c.planned_at, batches.c.answered_at, batches.c.request, batches.c.body,
    )  # fmt: skip
    after = 0
    while True:
        rows = connection.execute(
            select(*columns)
            .where(batches.c.id > after, batches.c.purpose.in_(_OF_PEOPLE), batches.c.request != b"")
            .order_by(batches.c.id)
            .limit(_AT_ONCE)
        ).all()
        if not rows:
            return
        for row in rows:
            yield row
            after = row.id


def _wait(row: Row[Any]) -> WaitTrace:
    return WaitTrace(**{name: getattr(row, name) for name in WaitTrace.__dataclass_fields__})


def _is_record(found: RecordTrace) -> ColumnElement[bool]:
    return and_(
        run_records.c.run_id == found.run_id,
        run_records.c.object_type == found.record.object_type,
        run_records.c.record_id == found.record.record_id,
    )


def _named(record: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("crm", "object_type", "record_id"), record, strict=True))


def _is_of(table: Table, record: tuple[str, str, str]) -> ColumnElement[bool]:
    crm, object_type, record_id = record
    return and_(table.c.crm == crm, table.c.object_type == object_type, table.c.record_id == record_id)


def _is_state(found: StateTrace) -> ColumnElement[bool]:
    return and_(
        record_states.c.sync == found.sync,
        record_states.c.object_type == found.object_type,
        record_states.c.record_id == found.record_id,
    )


def _as_text(connection: Connection, column: Any) -> ColumnElement[str]:
    """A JSON column of bytes, folded."""
    if connection.dialect.name == "postgresql":
        return func.lower(func.convert_from(column, "UTF8"))
    return func.lower(column)  # of bytes SQLite makes a text


def _holds(connection: Connection, text: Any, needles: Sequence[str]) -> ColumnElement[bool]:
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    return or_(*(find(text, needle) > 0 for needle in needles))


def _row_text(row: Row[Any]) -> bytes:
    return f"{bytes(row.decisions or b'').decode()}\n{row.reason}".lower().encode()


def _slices(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), 500):
        yield items[start : start + 500]
