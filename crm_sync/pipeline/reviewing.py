"""What a person accepted, written: a field at once, a whole record by its stored answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crm_sync.domain.changes import Amendment, FieldDecision, FieldOutcome
from crm_sync.domain.enrichment import Enrichment, MatchKeys
from crm_sync.domain.runs import RunKind, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.mapping.phones import phone_fields
from crm_sync.pipeline.amend import Amending
from crm_sync.pipeline.explain import chapters
from crm_sync.pipeline.phone_runs import marked
from crm_sync.pipeline.recover import recover
from crm_sync.pipeline.run import refuse_overlap
from crm_sync.pipeline.settled import Candidate
from crm_sync.pipeline.walk import compiled
from crm_sync.services import Services
from crm_sync.store.reveals import APPLIED, KEPT
from crm_sync.store.reviews import ACCEPTED, FIELD, REFUSED, Review

#: How the trigger of a run begins that writes what a person accepted.
ACCEPTED_BY = "review accepted by "


def proposed(reviews: Iterable[Review], services: Services) -> dict[int, FieldDecision]:
    """Number of a review of one field -> what was decided, as its run's record has it; nothing for one whose record is
    not kept any more."""
    found: dict[int, FieldDecision] = {}
    for review in reviews:
        record = services.runs.record(review.run_id, review.object_type, review.record_id)
        for decision in record.decisions if record is not None else ():
            if decision.field == review.field:
                found[review.id] = decision
    return found


def whom(reviews: Iterable[Review], services: Services) -> dict[int, tuple[str, str]]:
    """Number of a review of a whole record -> whom Apollo was asked for, and whom it found, as people name them;
    nothing for one whose answer is not kept any more."""
    found: dict[int, tuple[str, str]] = {}
    for review in reviews:
        run = services.runs.get(review.run_id)
        record = services.runs.record(review.run_id, review.object_type, review.record_id)
        if run is None or record is None:
            continue
        [chapter] = chapters([(run, record, review.created_at)], services)
        if chapter.sent is not None and chapter.enrichment is not None:
            found[review.id] = (_asked(chapter.sent), _found(chapter.enrichment))
    return found


def _asked(keys: MatchKeys) -> str:
    name = keys.name or f"{keys.first_name} {keys.last_name}".strip()
    return ", ".join(part for part in (name, keys.organization_name or keys.domain, keys.email) if part)


def _found(enrichment: Enrichment) -> str:
    person, company = enrichment.person, enrichment.organization
    where = company.get("name") or company.get("primary_domain")
    told = (person.get("name"), person.get("title"), where, person.get("email"))
    return ", ".join(str(part) for part in told if part)


def accepting(reviews: Sequence[Review], services: Services, *, by: str) -> Amending:
    """The run that writes fields of one sync that a person accepted: each only if it still holds what they saw.

    Raises:
        ConfigError: the configuration has no such sync any more.
    """
    first = reviews[0]
    sync = services.config.syncs.get(first.sync)
    if sync is None:
        raise ConfigError(f"The configuration has no sync {first.sync} any more: refuse its reviews, or bring it back")
    walk = compiled(sync, services)
    values = proposed(reviews, services)
    guards = walk.guards
    if sync.phones is not None and all(is_phone(review, services) for review in reviews):
        guards[sync.object_type] = marked(walk.target.guard, walk.target.schema, sync.phones)
    amendments: dict[str, dict[str, list[Amendment]]] = {}
    for review in reviews:
        decision = values.get(review.id)
        if decision is not None:
            amendments.setdefault(review.object_type, {}).setdefault(review.record_id, []).append(
                Amendment(
                    field=review.field,
                    source=decision.source,
                    rule=decision.rule,
                    expected=decision.old,
                    value=decision.new,
                    reason=f"accepted by {by}",
                )
            )
    return Amending(
        sync=sync.name,
        crm=sync.crm,
        object_type=sync.object_type,
        kind=RunKind.REVIEW,
        trigger=f"{ACCEPTED_BY}{by}",
        candidates={
            object_type: [Candidate(record_id=each, amendments=tuple(changes)) for each, changes in records.items()]
            for object_type, records in amendments.items()
        },
        guards=guards,
    )


def is_phone(review: Review, services: Services) -> bool:
    """Whether it is about a number that Apollo delivered."""
    sync = services.config.syncs.get(review.sync)
    if review.kind != FIELD or sync is None or sync.phones is None or sync.object_type != review.object_type:
        return False
    return review.field in phone_fields(sync.phones)


def tell_waits(reviews: Iterable[Review], word: str, services: Services, *, by: str, run_id: str = "") -> None:
    """What a person said of numbers (`word`: ACCEPTED, REFUSED), for those who wait for them. Who had two proposed, of
    which one is refused, waits for the other."""
    now = services.clock.now()
    said: dict[tuple[str, str, str, str], list[str]] = {}
    for review in reviews:
        if is_phone(review, services):
            place = (review.crm, review.object_type, review.record_id, review.sync)
            said.setdefault(place, []).append(f"{review.field}: {word} by {by}")
    still: set[tuple[str, str, str, str]] = set()
    if word == REFUSED:
        for sync in {sync for *_, sync in said}:
            open_ = [each for each in services.reviews.listed(sync=sync, kind=FIELD) if is_phone(each, services)]
            still |= {(each.crm, each.object_type, each.record_id, each.sync) for each in open_}
    for place, reasons in said.items():
        if place not in still:
            end = (APPLIED if word == ACCEPTED else KEPT, "; ".join(reasons))
            services.reveals.said(*place, end, run_id=run_id, now=now)


def believe(reviews: Sequence[Review], services: Services, *, by: str) -> None:
    """Say of whole records of one sync that their answers are right. They are due from then on, whatever was tried with
    them: where no answer is stored any more, or the run that is to write them fails, the next one takes them.

    Raises:
        BusyError: the sync is running; nothing was accepted.
    """
    recover(services, reviews[0].crm)
    refuse_overlap(reviews[0].sync, services)
    services.runs.forget_attempts(reviews[0].object_type, *(each.record_id for each in reviews))
    services.reviews.resolve([each.id for each in reviews], ACCEPTED, by=by, now=services.clock.now())


def written(run: SyncRun, reviews: Iterable[Review], services: Services) -> list[int]:
    """The numbers of those whose value the record holds after the run."""
    held = (FieldOutcome.WRITTEN, FieldOutcome.SAME)
    found = []
    for review in reviews:
        record = services.runs.record(run.id, review.object_type, review.record_id)
        if record is not None and any(d.field == review.field and d.outcome in held for d in record.decisions):
            found.append(review.id)
    return found
