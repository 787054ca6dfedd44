"""Where a test kills this process, and what the next one must make of what it finds (docs/decisions/0005).

CRM_SYNC_CRASH="journal.sent.after:3" ends the process with SIGKILL at the third hit of that point; where a point has
details, "wire.asked@write:1" counts only the hits that have that one. It is read once, at import, from the environment
alone: a point that is not armed is a call of an empty function. It is no setting, and belongs into no installation.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import Protocol

from crm_sync.errors import ConfigError

SETTING = "CRM_SYNC_CRASH"


@dataclass(frozen=True, slots=True)
class Point:
    """`found`: what the next process finds. `must`: what has to come of it."""

    found: str
    must: str


_AS_BEFORE = "the same as before it: the transaction was never committed"
_IN_DOUBT = "in doubt: nobody in it is asked for again by itself"
_FROM_RESULTS = "every record gets the end that the job's results tell; none is sent twice"
_READ_AGAIN = "read again and compared with what the record holds; no value is written twice"
_UNCONFIRMED = "closed as not confirmed; " + _READ_AGAIN

POINTS: dict[str, Point] = {
    # --- choosing ---
    "select.page": Point("a page was read from the CRM; nothing of it is stored", "selected again; nobody is skipped"),
    "select.sifted": Point("what is due was decided; nothing of it is stored", "selected again; nobody is skipped"),
    "batch.formed": Point("ten keys wait for a worker; nothing of it is stored", "asked for later"),
    # --- planning a paid call ---
    "journal.plan.before": Point("nothing of the call is stored", "asked for later"),
    "journal.plan.row": Point("inside: the call has a row, its keys have no guard", _AS_BEFORE),
    "journal.plan.guarded": Point("inside: the keys are guarded, no credit is reserved", _AS_BEFORE),
    "journal.plan.after": Point("planned", "certainly unsent: guard and reservation are released, asked for again"),
    "pace.before": Point("planned, waiting for the pace", "certainly unsent: released, asked for again"),
    "pace.granted": Point("planned, with the pace's permission", "released; the permission lapses by itself"),
    # --- on its way ---
    "journal.sent.before": Point("planned", "certainly unsent: released, asked for again"),
    "journal.sent.inside": Point("inside: sent, not committed", _AS_BEFORE),
    "journal.sent.after": Point("sent; no byte has left, and nobody can know", _IN_DOUBT),
    "wire.asked": Point(
        "a request has left whole and no answer has come; detail: the operation",
        "a paid one: in doubt, whatever the balance says now; another: made again",
    ),
    "wire.answered": Point(
        "an answer is in memory, none of it stored; detail: the operation",
        "a paid one: in doubt; a write: " + _READ_AGAIN,
    ),
    "journal.received.before": Point("sent; the answer was understood and is in memory only", _IN_DOUBT),
    "journal.received.inside": Point("inside: the answer's bytes, not committed", _IN_DOUBT),
    "journal.received.after": Point("received: the bytes are stored, nothing has read them", "read and indexed"),
    # --- understanding it ---
    "enrich.read": Point("received; read in memory, not indexed", "read again from the bytes and indexed"),
    "journal.expand.before": Point("received, several of them", "read again from the bytes and indexed"),
    "journal.expand.indexed": Point("inside: indexed, not settled", _AS_BEFORE),
    "journal.expand.settled": Point("inside: settled, not committed", _AS_BEFORE),
    "journal.expand.after": Point("done: indexed and settled", "served from the store; never bought again"),
    "enrich.again": Point(
        "a part of a call is to be asked for again; detail: half (of a refused call) or single",
        "what was answered is kept, the rest is asked for later",
    ),
    # --- other ends of a call ---
    "journal.doubt.before": Point("sent; its answer was lost in life", _IN_DOUBT),
    "journal.doubt.inside": Point("inside: in doubt, its guard not yet", _IN_DOUBT),
    "journal.doubt.after": Point("in doubt", "stays so"),
    "journal.release.before": Point("sent; refused, or it never left, and only we know", _IN_DOUBT),
    "journal.let_go.before": Point("planned, by a process that is dead", "certainly unsent: released, asked for again"),
    "journal.release.inside": Point("inside: refused or unsent, the guard still there", _IN_DOUBT),
    "journal.release.after": Point("refused or unsent: guard and reservation are gone", "asked for later"),
    "budget.stop": Point("a limit is used up; the run has not said so yet", "the next run's limit counts all of it"),
    # --- writing ---
    "follow.found": Point("where missing records went is known in memory; nothing is intended there", _READ_AGAIN),
    "write.reread": Point("records were read for writing; nothing is intended", _READ_AGAIN),
    "runs.intend.before": Point("nothing is intended", _READ_AGAIN),
    "runs.intend.inside": Point("inside: intended, not committed", _READ_AGAIN),
    "runs.intend.after": Point("Writing; the CRM was not asked", _UNCONFIRMED),
    "write.answered": Point("Writing; the CRM has taken it", _UNCONFIRMED),
    "write.unaccounted": Point("Writing; the CRM's answer was lost in life", _UNCONFIRMED),
    "write.moved": Point(
        "Writing; some changed after they were read, so that nothing of ours is in them", _UNCONFIRMED
    ),
    "write.gone": Point(
        "Writing; the CRM calls some of them gone", "closed as not confirmed; followed by the next run"
    ),
    "runs.settle.before": Point("Writing; the CRM has taken it", _UNCONFIRMED),
    "runs.settle.inside": Point("inside: confirmed, the attempts not remembered", _AS_BEFORE),
    "runs.settle.after": Point("confirmed and remembered", "left out by the next run"),
    "write.parents": Point("companies wait in memory, the people who brought them unwritten", "both written later"),
    # --- writing what was settled before: an undo, a plan that is applied, what was accepted ---
    "amend.opened": Point("Running; nothing else", "closed as failed; the same command does it all"),
    "amend.closed": Point("ended", "the same command finds everything as it should be, and writes nothing"),
    "review.written": Point(
        "written; what was accepted is still open", "accepted again, it is already so, and gets its end"
    ),
    "review.accepted": Point("accepted, and nothing of it is written", "the next run writes it"),
    "release.forgotten": Point("its attempts are forgotten, the field is still locked", "released by the same command"),
    # --- running unattended ---
    "queue.slot.inside": Point("inside: the slot is noted as taken, its run not queued", _AS_BEFORE),
    "queue.slot.after": Point("Queued", "run by the next worker; its slot queues no other"),
    "queue.take.inside": Point("inside: Running, not committed", "still Queued, and run by the next worker"),
    "queue.take.after": Point("Running; nothing else", "closed as failed; the run that is queued with its end goes on"),
    "queue.end.inside": Point("inside: the run has its end and the one that goes on is queued", _AS_BEFORE),
    "runs.make_one.inside": Point(
        "inside: records have one row each, not committed", "made so by whoever closes the run"
    ),
    "chunks.add.inside": Point(
        "inside: a chunk of what is due, not committed", "selected again by the run that goes on"
    ),
    "chunks.add.after": Point(
        "open: anybody may take it", "selected again by the run that goes on, once nobody is at it"
    ),
    "chunks.take.inside": Point("inside: taken, not committed", "open, and taken by the next one"),
    "chunks.take.after": Point("taken; nothing of it is done", "given back with its share, and taken by the next one"),
    "shares.join.inside": Point("inside: a share, not committed", "nobody knows of it"),
    "shares.join.after": Point("working; no chunk is taken", "closed by the next one"),
    "shares.walked": Point("all it has taken has its end but itself", "closed by the next one"),
    "shares.end.inside": Point(
        "inside: ended, what it did not do is open", "closed by the next one, which opens the same"
    ),
    "shares.end.after": Point("ended; what it did not do is open", "others go on with it"),
    "shares.closed": Point("the run's records are told as one, its chunks and shares are gone", "it gets its end"),
    "recover.share": Point("a dead worker's share is this process's, and has no end", "given its end by the next one"),
    "recover.share.closing": Point("its calls and writes have their end, it has none", "closed again, with the same"),
    "recover.taken": Point("a dead run is this process's, and has no end", "given its end by the next one"),
    # --- ordering phone numbers (docs/phones.md) ---
    "probe.sent": Point("an order without a call, to try the public address with", "nobody waits for it; purged"),
    "probe.answered": Point("our own delivery under an order without a call", "nobody reads it; purged"),
    "reveals.chosen": Point("it is noted who waits (due); nothing is planned", "ordered by the next run"),
    "orders.planned": Point("inside: an order with its token and who waits for it, no guard", _AS_BEFORE),
    "orders.answered": Point("inside: what Apollo said about an order, not committed", "read again from the bytes"),
    "reveals.ordered": Point(
        "all is ordered; a second record of somebody whose phone was asked for is not joined to that order",
        "joined when the dead run is closed; one purchase, and both get the number",
    ),
    "reveals.join.inside": Point("inside: it waits for another's order, whose deliveries are read again", _AS_BEFORE),
    # --- what is delivered: reliability.md 2.3, 20 to 22 ---
    "inbox.take.before": Point(
        "a delivery is in memory, nothing of it is stored, and nobody got a 200", "sent again, or fetched by a poll"
    ),
    "inbox.take.inside": Point("inside: a delivery, not committed, and nobody got a 200", _AS_BEFORE),
    "inbox.take.after": Point("new; the 200 has not left", "carried out; the same bytes once more change nothing"),
    # --- carrying it out: 23 to 29 ---
    "resolve.due": Point("new, acknowledged; nobody has read it", "carried out"),
    "resolve.read": Point("new, counted as tried and read in memory; not confirmed by Apollo", "read again"),
    "resolve.differs": Point(
        "new, and what Apollo itself tells beside it; it is not put aside yet", "put aside; Apollo's own is carried out"
    ),
    "phone_runs.opened": Point("a run of kind phones is Running; nothing else", "closed as failed; carried out"),
    "resolve.judged": Point(
        "records were read and numbers judged in memory; nothing is intended", "judged again, by what holds then"
    ),
    "reveals.settle.before": Point(
        "the number is in the field and confirmed; its delivery, its bill and whoever waited are open",
        "found in place; no value is written twice",
    ),
    "reveals.settle.inside": Point("inside: billed, the waits and the delivery ended, its order not", _AS_BEFORE),
    "reveals.settle.after": Point("a delivery has its end, its run has none", "closed as failed; nothing is repeated"),
    "phone_runs.closed": Point("all of it has an end", "nothing is left to do"),
    # --- asking for what was not delivered ---
    "resolve.polled": Point("Apollo's own copy is in memory", "asked for again; costs nothing"),
    "resolve.fetched": Point("Apollo's own copy is new; that it was asked is not noted", "asked again; one delivery"),
    "reveals.give_up.inside": Point("inside: an order and whoever waits expired, its run does not know", _AS_BEFORE),
    "reveals.given_up": Point(
        "one order of several is given up, at its worst cost", "the others too; nobody buys it again while fresh"
    ),
    "reveals.replay.inside": Point("inside: who got no number waits again, its delivery is not read again", _AS_BEFORE),
    # --- letting go of what was kept ---
    "purge.kept": Point("inside: what a run wrote is kept as digests, its rows are still there", _AS_BEFORE),
    "purge.run": Point("the rows of one run of several are gone", "ours is known as before; the rest goes later"),
    "erase.noted": Point("noted outside the database; nothing is erased", "the same command erases all of it"),
    "erase.suppressed": Point("left alone from now on; nothing is erased", "the same command erases all of it"),
    "privacy.erase.inside": Point("inside: the rows are gone, not committed", _AS_BEFORE),
    # --- a bulk job (docs of ports.JobBook) ---
    "bulk.created": Point("a job that nobody has noted; nothing is in it", "it never does anything; written later"),
    "bulk.opened": Point("opened: nothing is in it", "given up; written later"),
    "bulk.sent": Point("opened: all is in it, and it was not told to begin", "given up; written later"),
    "bulk.uploaded": Point("uploaded: it was not told to begin, and nobody can know", "given up if it did not begin"),
    "bulk.closed": Point("uploaded: it works", "waited for; " + _FROM_RESULTS),
    "bulk.polled": Point("uploaded: it works, or is done", "waited for; " + _FROM_RESULTS),
    "bulk.done": Point("uploaded: it is done, its results are in the CRM", _FROM_RESULTS),
    "bulk.fetched": Point("uploaded: its results are in memory", _FROM_RESULTS),
    "bulk.ended": Point("ended: its results are in memory", _UNCONFIRMED),
    "bulk.again": Point("ended: refused fields were dropped, the rest is not sent again", _READ_AGAIN),
    # --- the run itself ---
    "run.opened": Point("Running; nothing else", "closed as failed"),
    "epoch.file": Point("a state file, and no epoch in the database", "the file's name is taken; not held"),
    "epoch.inside": Point("inside: the epoch is raised, not committed", _AS_BEFORE),
    "epoch.raised": Point("the epoch is raised, and the state file does not know it", "raised again; not held"),
    "epoch.noted": Point("the epoch is raised and noted; nothing was spent", "raised again; not held"),
    "run.closing": Point("Running; all its work is done", "closed as failed, with the audit's books"),
    "run.closed": Point("ended", "nothing is left to do"),
    # --- recovering from an earlier death ---
    "recover.found": Point("a dead run, untouched", "recovered by the next process"),
    "recover.released": Point("one of its planned calls is released", "the rest is recovered by the next process"),
    "recover.doubted": Point("one of its sent calls is in doubt", "the rest is recovered by the next process"),
    "recover.expanding": Point("its stored answers were read, not indexed", "read again and indexed, once"),
    "recover.expanded": Point("its stored answers are indexed and settled", "not settled a second time"),
    "recover.job": Point("uploaded: what became of it is known in memory", "asked again; " + _FROM_RESULTS),
    "recover.looked": Point("edits that its writes went over were put back, and nobody has noted it", "found in place"),
    "recover.closing": Point("its intended writes have an end, the run has none", "closed, with the same books"),
    "recover.closed": Point("it is closed; the new run is not open", "nothing is left to do"),
    # --- resolving doubt ---
    "doubt.weighed": Point("in doubt; the meter proves that nothing was charged", "weighed again, and then cleared"),
    "doubt.cleared": Point(
        "one call of several is cleared", "its people may be asked for; the others are weighed again"
    ),
    "doubt.accepted": Point("one call of several is accepted, as budget.in_doubt says", "counts at worst cost, once"),
    # --- the first start ---
    "store.migrate.before": Point("an empty database", "made"),
    "store.migrate.inside": Point("inside: the tables, not committed", "made"),
    "store.migrate.after": Point("an empty schema of this version", "used"),
    "vault.key_file": Point("a key was written beside its place (SQLite)", "another is made; nothing was sealed yet"),
    "vault.keys.inside": Point("inside: one of two data keys", "both are made anew"),
    "vault.keys.after": Point("both data keys, nothing sealed", "used"),
}


class _Hit(Protocol):
    def __call__(self, name: str, detail: str = "") -> None: ...


def _nothing(name: str, detail: str = "") -> None:
    """What every point is while none is armed."""


#: Called as `crash.point("name")`, through the module: arming puts another function in its place.
point: _Hit = _nothing


def arm(text: str) -> None:
    """Let this process end at "name:n" or "name@detail:n".

    Raises:
        ConfigError: there is no such point.
    """
    global point  # noqa: PLW0603  (the one place where a point becomes something)
    place, _, number = text.rpartition(":")
    wanted, _, only = place.partition("@")
    if wanted not in POINTS or not number.isdecimal() or int(number) < 1:
        raise ConfigError(
            f'{SETTING} is for tests and reads "point:n"; {text!r} names none of the {len(POINTS)} points in '
            f"{__name__}. Unset it"
        )
    left = int(number)
    lock = threading.Lock()

    def hit(name: str, detail: str = "") -> None:
        nonlocal left
        if name == wanted and only in ("", detail):
            with lock:
                left -= 1
                if left == 0:
                    end()

    point = hit


def end() -> None:
    """As a power cut would, for this process."""
    os.kill(os.getpid(), signal.SIGKILL)


if SETTING in os.environ:
    arm(os.environ[SETTING])
