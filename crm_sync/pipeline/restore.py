"""Whether this database may spend, or has forgotten what was bought.

Four things can have happened to a database between two runs: nothing; it was put back to an earlier state; it was
copied, so that two of it spend; it was lost, and a new one stands in its place. Only the first may go on by itself.
What tells them apart stands outside the database: an epoch in a file (store/instance.py), and the stamps on the CRM's
records (mapping/stamps.py). A hold that was found is kept in the database, where every process sees it before each
paid call, until the stamps have been read or a person has accepted the risk (pipeline/reconcile.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from crm_sync.errors import CrmSyncError
from crm_sync.mapping.stamps import Stamp
from crm_sync.pipeline.walk import DEFAULT_FRESH_FOR, Walk
from crm_sync.ports import Selection, Within
from crm_sync.services import Services
from crm_sync.store.instance import Hold, Instance, Mark, Standing

#: A stamp is our own time, to the second, so it is never newer than the journal. A person or a workflow of the CRM may
#: round it, or copy it from a neighbour.
TOLERANCE = timedelta(minutes=2)
#: A clock that is behind by less does no harm: budgets and windows are counted in days, and a day once begun never
#: goes back (store/journal.py).
_CLOCK_BEHIND = timedelta(days=1)

_CURE = (
    "Nothing is bought until `crm-sync restore reconcile` has read the stamps on the CRM's records, or a person says "
    "`crm-sync restore accept`"
)


class Why(StrEnum):
    """What must have happened to the database, in a word that is stored."""

    RESTORED = "restored"
    ANOTHER = "another"
    REPLACED = "replaced"
    MOVED = "moved"
    COPIED = "copied"
    STAMPED = "stamped"
    CLOCK = "clock"


#: After these the database goes on under a name of its own: the one it was copied from may still be spending.
NEW_NAME = (Why.ANOTHER, Why.REPLACED, Why.MOVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A record whose stamp the journal cannot explain."""

    where: str
    stamp: Stamp


def decide(
    *,
    database: Standing | None,
    file: Mark | None,
    file_path: Path | str,
    shared: bool,
    home: str,
    known_until: datetime | None,
    sighting: Sighting | None,
    now: datetime,
) -> Hold | None:
    """Whether spending must be held, and why; None when it may go on. The strongest evidence speaks.

    `shared`: a PostgreSQL, which several machines may use, each with a file of its own; there a missing file is a
    machine that joined, and `home` tells a copy instead.
    """
    hold = _by_file(database, file, file_path, shared=shared)
    if hold is None and database is not None and database.home != home:
        hold = _hold(
            Why.COPIED,
            f"This database was made on another server or as another database ({database.home or 'unknown'}, and this "
            f"is {home}): it is a copy, or was moved, and the one it came from may still be spending.",
        )
    if hold is None and database is not None and database.noted_at is not None:
        behind = database.noted_at - now
        if behind > _CLOCK_BEHIND:
            hold = Hold(
                why=Why.CLOCK,
                sentence=f"This machine's clock says {in_words(now)}, and the database has been used until "
                f"{in_words(database.noted_at)}: nothing is bought until the clock is right. If it was wrong then, "
                "`crm-sync restore accept` goes on from now",
                here_only=True,
            )
    if hold is None and sighting is not None and _is_news(sighting.stamp, known_until):
        hold = _hold(
            Why.STAMPED,
            f"{sighting.where} was stamped at {in_words(sighting.stamp.first)}, and this database knows of no call "
            + (f"after {in_words(known_until)}" if known_until is not None else "at all")
            + ": it was restored from a backup, or another installation fills the same CRM.",
        )
    return hold


def _by_file(database: Standing | None, file: Mark | None, path: Path | str, *, shared: bool) -> Hold | None:
    if database is None:
        if file is None or file.epoch == 0:
            return None
        return _hold(
            Why.REPLACED,
            f"The state file {path} belongs to a database that was used until {in_words(file.at)}, and this one is "
            "new: it knows nothing of what was bought.",
        )
    if file is None or (shared and file.epoch == 0):
        if shared or database.epoch == 0:
            return None
        return _hold(
            Why.MOVED,
            f"The state file {path} is missing, and this database has spent before: it was moved or copied here, and "
            "the one it came from may still be spending. (If the file was only lost, accept.)",
        )
    if file.id != database.id:
        if shared:
            return Hold(
                why=Why.ANOTHER,
                sentence=f"The state file {path} of this machine belongs to another database ({file.id}) than the one "
                f"in CRM_SYNC_DATABASE_URL ({database.id}). Correct the setting, or name another file in "
                "CRM_SYNC_STATE_FILE; `crm-sync restore accept` gives the file to this database",
                here_only=True,
            )
        return _hold(
            Why.ANOTHER,
            f"The state file {path} belongs to another database ({file.id}) than this one ({database.id}): it is a "
            "copy, or another installation's.",
        )
    if file.epoch > database.epoch:
        return _hold(
            Why.RESTORED,
            f"This database was restored from a backup: it has come to epoch {database.epoch}"
            + (f" ({in_words(database.noted_at)})" if database.noted_at is not None else "")
            + f", and the state file {path} has seen {file.epoch} ({in_words(file.at)}). What was bought in between is "
            "forgotten.",
        )
    return None


def _hold(why: Why, what: str) -> Hold:
    return Hold(why=why, sentence=f"{what} {_CURE}")


def _is_news(stamp: Stamp, known_until: datetime | None) -> bool:
    return known_until is None or stamp.first > known_until + TOLERANCE


def in_words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


# --- before a run --------------------------------------------------------------------------------------------------


def begin(walk: Walk, services: Services) -> None:
    """Before anything is asked: from here on this process may spend.

    Raises:
        HeldError: it may not.
        StoreError: the database, or the file beside it, cannot be relied upon.
        ProviderError: the CRM did not say whether it has newer stamps.
    """
    now = services.clock.now()
    known_until = services.instance.known_until()
    sighting = _look_for_news(walk, services, known_until, now)

    def judge(database: Standing | None, file: Mark | None, home: str) -> Hold | None:
        return decide(
            database=database,
            file=file,
            file_path=services.instance.file.path,
            shared=services.instance.is_shared,
            home=home,
            known_until=known_until,
            sighting=sighting,
            now=now,
        )

    services.journal.at_epoch = services.instance.begin(judge, now=now)


def advance(services: Services) -> None:
    """While a run spends.

    Raises:
        HeldError, StoreError: it may not go on spending.
    """
    services.journal.at_epoch = services.instance.advance(now=services.clock.now())


def _look_for_news(walk: Walk, services: Services, known_until: datetime | None, now: datetime) -> Sighting | None:
    """One record that was stamped after all that the journal knows; one question for each object the sync writes.

    A stamp in the future was not written by an installation of ours, and does not count.
    """
    first = max(known_until or now - longest_window(services), now - longest_window(services))
    for target in (walk.target, walk.parent):
        if target is None or not target.stamping.enriched_at:
            continue
        # A date is news only when it is a later day.
        begins = first + TOLERANCE + (timedelta(days=1) if target.stamping.is_date else timedelta(0))
        within = Within(field=target.stamping.enriched_at, first=begins, last=now + TOLERANCE)
        if within.first > within.last:
            continue
        selection = Selection(object_type=target.object_type, fields=target.stamping.fields, within=within)
        for page in walk.crm.select(selection, page_size=1):
            for record in page.records:
                stamp = target.stamping.read(record.values)
                if stamp is not None and _is_news(stamp, known_until):
                    return Sighting(where=f"{target.object_type} {record.ref.id}", stamp=stamp)
            break
    return None


def longest_window(services: Services) -> timedelta:
    """Older answers may be bought again anyway."""
    windows = [sync.choose.or_older_than or DEFAULT_FRESH_FOR for sync in services.config.syncs.values()]
    return max([*windows, *(sync.choose.after_no_match_wait for sync in services.config.syncs.values())])


# --- what a person sees --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Both sides of the ledger; `problem` says why the file cannot be read. `hold`: kept already, or what the next run
    would find (the stamps are looked at by runs only)."""

    database: Standing | None
    file: Mark | None
    file_path: Path
    problem: str
    known_until: datetime | None
    hold: Hold | None


def look(instance: Instance, *, now: datetime) -> Status:
    """Costs no call."""
    database, known_until = instance.standing(), instance.known_until()
    file, problem = None, ""
    try:
        file = instance.file.read()
    except CrmSyncError as error:
        problem = str(error)
    hold = None
    if database is not None and database.held:
        hold = Hold(why=database.why, sentence=database.held)
    elif problem:
        hold = Hold(why=Why.MOVED, sentence=problem)
    else:
        hold = decide(
            database=database,
            file=file,
            file_path=instance.file.path,
            shared=instance.is_shared,
            home=instance.home(),
            known_until=known_until,
            sighting=None,
            now=now,
        )
    return Status(
        database=database,
        file=file,
        file_path=instance.file.path,
        problem=problem,
        known_until=known_until,
        hold=hold,
    )
