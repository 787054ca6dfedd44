"""What a person does about a database that may have forgotten what was bought: learn it again from the CRM, or go on.

`reconcile` reads the stamps that are newer than the journal's last knowledge and puts a guard for each: whoever was
bought is not bought again while the answer would be fresh, though the answer itself is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from crm_sync.config.model import Sync
from crm_sync.domain.enrichment import MatchKeys, Purpose, Verdict
from crm_sync.domain.records import Record
from crm_sync.domain.runs import RecordOutcome, RunKind
from crm_sync.errors import CrmSyncError
from crm_sync.mapping.blanks import lacking
from crm_sync.mapping.stamps import Stamp
from crm_sync.pipeline.restore import NEW_NAME, TOLERANCE, Why, in_words, longest_window, look
from crm_sync.pipeline.select import selected_fields
from crm_sync.pipeline.walk import AS_BUDGETED, Walk, prepare, seen
from crm_sync.ports import Enricher, Page, Selection, Within
from crm_sync.services import Services
from crm_sync.store.instance import Hold, Instance
from crm_sync.store.journal import Journal, StampedAnswer
from crm_sync.store.runs import RecordState

#: What was bought shortly before a backup may have been committed after it: reading it again is harmless.
_MARGIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """What may have been bought and forgotten: `forgotten` credits since `since`, None where it cannot be told."""

    forgotten: Decimal | None
    since: datetime | None
    sentence: str


def worst(journal: Journal, enricher: Callable[[], Enricher], *, now: datetime) -> Worst:
    """Compare Apollo's meter with the last reading that this database kept. Costs no credit, and keeps no reading: the
    next look must compare with the same one."""
    before = journal.newest_meter()
    if before is None:
        return _untold(None, "this database has kept no reading of Apollo's meter")
    try:
        after = enricher().balance()
    except CrmSyncError as error:
        return _untold(before.at, str(error))
    if after is None:
        return _untold(before.at, "this key may not read Apollo's meter")
    if before.used is not None and after.used is not None:
        moved = after.used - before.used
    else:
        moved = before.left - after.left
    known = journal.told_between(before.at, now)
    if moved < known:
        return _untold(before.at, "Apollo's meter was reset or filled up since")
    return Worst(
        forgotten=moved - known,
        since=before.at,
        sentence=f"Apollo counts {_plain(moved)} credits used since {in_words(before.at)}, and this database knows of "
        f"{_plain(known)} of them: at most {_plain(moved - known)} could be spent again, fewer where others use the "
        "same credits.",
    )


def _plain(credits_: Decimal) -> str:
    return f"{credits_.normalize():f}"


def _untold(since: datetime | None, why: str) -> Worst:
    sentence = f"How much was bought since, and could be bought again at worst, cannot be told: {why}."
    return Worst(forgotten=None, since=since, sentence=sentence)


def erasures_file(instance: Instance) -> Path | None:
    """Erasures noted outside the database, which a restored one has forgotten; None where there is no such file."""
    path = instance.erasures_path
    return path if path.exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StampsRead:
    """What one sync's stamps told: `records` stamped since (`is_least`: and more), `guarded` identities. `problem`: why
    they could not be read."""

    sync: str
    object_type: str
    records: int = 0
    guarded: int = 0
    is_least: bool = False
    problem: str = ""


def survey(services: Services) -> list[StampsRead]:
    """How many records each sync's object has that were stamped since; looks at the first page only."""
    return [_each(services, sync, _count) for sync in services.config.syncs.values()]


def reconcile(services: Services, *, by: str) -> list[StampsRead]:
    """Put guards for all that was stamped since the journal's last knowledge, then let it spend again.

    It stays held when any sync's stamps could not be read: whoever was stamped there would be bought again.
    """
    instance = services.instance
    hold = look(instance, now=services.clock.now()).hold
    if hold is None or hold.here_only:
        return []
    instance.keep(hold, now=services.clock.now())  # what a run would find holds from now on, for every process
    services.clock.sleep(search_lag(services))
    found = [_each(services, sync, _guard) for sync in services.config.syncs.values()]
    if not any(each.problem for each in found):
        _release(instance, hold, by, services.clock.now())
    return found


def accept(instance: Instance, *, by: str, now: datetime) -> None:
    """A person takes the risk: go on without knowing what was bought."""
    hold = look(instance, now=now).hold
    if hold is None:
        return
    if hold.here_only and hold.why == Why.ANOTHER:
        instance.take_here(now=now)
    else:
        _release(instance, hold, by, now)


def search_lag(services: Services) -> float:
    """Seconds until a CRM's search shows all that was written before the hold was noticed."""
    standing = services.instance.standing()
    if standing is None or standing.held_at is None:
        return 0.0
    lag = max(
        (services.crm(name).select_lag_s for name in {s.crm for s in services.config.syncs.values()}), default=0.0
    )
    return max((standing.held_at + timedelta(seconds=lag) - services.clock.now()).total_seconds(), 0.0)


def _release(instance: Instance, hold: Hold, by: str, now: datetime) -> None:
    instance.release(by=by, new_name=hold.why in NEW_NAME, now=now)


def _each(services: Services, sync: Sync, act: Callable[[Services, Walk, Iterator[Page]], StampsRead]) -> StampsRead:
    """One sync's stamps; a problem of one CRM's does not keep us from reading the others."""
    try:
        walk = prepare(
            sync,
            services,
            run_id="restore",
            kind=RunKind.RUN,
            limit=None,
            spending=AS_BUDGETED,
            crm=services.crm(sync.crm),
            enricher=services.enricher(),
        )
        if not walk.target.stamping.enriched_at:
            problem = walk.target.stamping.problem or "no `stamps.enriched_at` is configured"
            return StampsRead(sync=sync.name, object_type=sync.object_type, problem=problem)
        return act(services, walk, _stamped_since(services, walk))
    except CrmSyncError as error:
        return StampsRead(sync=sync.name, object_type=sync.object_type, problem=str(error))


def _stamped_since(services: Services, walk: Walk) -> Iterator[Page]:
    now = services.clock.now()
    oldest = now - longest_window(services)
    known_until = services.instance.known_until()
    first = max(known_until - _MARGIN, oldest) if known_until is not None else oldest
    stamping = walk.target.stamping
    # Whatever the sync's own filter says: a record may have left it since, and come back.
    selection = Selection(
        object_type=walk.target.object_type,
        fields=tuple(dict.fromkeys((*selected_fields(walk), *stamping.fields))),
        within=Within(field=stamping.enriched_at, first=first, last=now + TOLERANCE),
    )
    return walk.crm.select(selection)


def _count(services: Services, walk: Walk, pages: Iterator[Page]) -> StampsRead:  # noqa: ARG001
    page = next(pages, None)
    found = StampsRead(sync=walk.sync.name, object_type=walk.target.object_type)
    if page is None:
        return found
    if page.expected is not None:
        return replace(found, records=page.expected)
    return replace(found, records=len(page.records), is_least=True)


def _guard(services: Services, walk: Walk, pages: Iterator[Page]) -> StampsRead:
    read = guarded = 0
    now = services.clock.now()
    for page in pages:
        answers: dict[tuple[Purpose, str], StampedAnswer] = {}
        states = []
        for record in page.records:
            stamp = walk.target.stamping.read(record.values)
            if stamp is None:
                continue
            read += 1
            keys = walk.keys_of(record.values)
            for key in identities(keys):
                known = answers.get((walk.purpose, key))
                if known is None or known.obtained_at < stamp.last:
                    answers[walk.purpose, key] = _answer(walk.purpose, key, stamp, now)
            states.append(_state(walk, record, keys, stamp))
        guarded += services.journal.guard_stamped(list(answers.values()))
        services.runs.remember(walk.sync.name, states, run_id=walk.run_id)
    return StampsRead(sync=walk.sync.name, object_type=walk.target.object_type, records=read, guarded=guarded)


def identities(keys: MatchKeys) -> tuple[str, ...]:
    """Every name by which only this person or company may be asked for: what it would be asked by now, and its e-mail
    address or domain and LinkedIn page, by which another record may ask."""
    ways = [keys]
    if keys.purpose is Purpose.COMPANY:
        ways += [MatchKeys(purpose=keys.purpose, domain=keys.domain)]
    else:
        ways += [MatchKeys(purpose=keys.purpose, email=keys.email)]
    ways += [MatchKeys(purpose=keys.purpose, linkedin_url=keys.linkedin_url)]
    return tuple(dict.fromkeys(way.key for way in ways if way.key))


_VERDICTS = {
    RecordOutcome.NO_MATCH.value: Verdict.NO_MATCH,
    RecordOutcome.NEEDS_REVIEW.value: Verdict.UNPROVED,
}


def _answer(purpose: Purpose, key: str, stamp: Stamp, now: datetime) -> StampedAnswer:
    """What the word leaves open counts as bought: a call in doubt may have been charged."""
    return StampedAnswer(
        purpose=purpose,
        key=key,
        verdict=_VERDICTS.get(stamp.word, Verdict.MATCHED),
        not_before=stamp.first,
        obtained_at=min(stamp.last, now),
    )


def _state(walk: Walk, record: Record, keys: MatchKeys, stamp: Stamp) -> RecordState:
    """As if this database had seen it: with the same keys, mapping and blanks there is nothing new to find."""
    blanks = lacking(record.values, walk.sync.choose.missing_any, walk.folded_placeholders)
    return RecordState(
        object_type=walk.target.object_type,
        record_id=record.ref.id,
        outcome=stamp.word or RecordOutcome.SKIPPED.value,
        seen=seen(walk, keys, blanks),
        attempted_at=stamp.first,
    )
