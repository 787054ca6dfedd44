"""Scenes of writing back: a run over changed values, an undo, a plan that is applied, what a person accepted, a bulk
job; with people who edit the records before, meanwhile and after. Each is told once without a kill, and must end the
same with one: field by field, and value by value in the order in which they came."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import func, select

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_WITH_ERRORS
from crm_sync.domain.records import FieldKind
from crm_sync.store.engine import Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.tables import reviews, runs, write_jobs
from crm_sync.store.vault import open_vault, ring_of
from tests.faults.forks import Child, Ended
from tests.faults.judge import Books, balanced, stuck
from tests.faults.office import leaks
from tests.faults.scenes import CRMS, SECRET, Command, Scene, loaded
from tests.faults.witness import Report

if TYPE_CHECKING:
    from tests.faults.crashes import Bench

#: A command that has to come to rest does so in so many.
_MOST = 5
TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
CITY = {"salesforce": "MailingCity", "hubspot": "city"}
PAGE = {"salesforce": "LinkedIn__c", "hubspot": "hs_linkedin_url"}
TOWN = {"salesforce": "BillingCity", "hubspot": "city"}
EMAIL = {"salesforce": "Email", "hubspot": "email"}
OBJECT = {"salesforce": "Contact", "hubspot": "contacts"}
EMPTY = {"salesforce": None, "hubspot": ""}
WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
_GONE = {"salesforce": {"IsDeleted": True}, "hubspot": {"archived": True}}

_TEXT = """
version: 1
apollo: {{workers: 1}}
crms: {{{crm}: {{type: {crm}, environment: sandbox, write: {write}}}}}
placeholders: ["[[unknown]]", "n/a", "-"]
keep: {{run_details: 1d, undo: {undo}}}
syncs:
  contacts:
    crm: {crm}
    object: {object}
{schedule}    choose: {{missing_any: [], after_no_match_wait: 7d}}
    match:
      send: {{email: {email}, first_name: {first}, last_name: {last}}}
{match}    fields:
      {title}: {{from: person.title, write: {rule}{transform}}}
      {city}: {{from: person.city, write: track{transform}}}
      {page}: person.linkedin_url
    account:
      via: {via}
      fields: {{{town}: organization.city}}
"""
_NAMES = {
    "salesforce": {"first": "FirstName", "last": "LastName", "via": "AccountId"},
    "hubspot": {"first": "firstname", "last": "lastname", "via": "associatedcompanyid"},
}


def text(
    crm: str,
    *,
    rule: str = "track",
    write: str = "auto",
    upper: bool = False,
    doubts: bool = False,
    undo: str = "60d",
    every: str = "",
) -> bytes:
    """`upper`: as if Apollo's values had changed. `doubts`: some answers wait for a person. `every`: runs by itself."""
    return _TEXT.format(
        crm=crm,
        rule=rule,
        write=write,
        undo=undo,
        schedule=f"    schedule: {{every: {every}}}\n" if every else "",
        transform=", transform: upper" if upper else "",
        match="      trust_when: {all: [domain_agrees]}\n      otherwise: review\n" if doubts else "",
        object=OBJECT[crm],
        title=TITLE[crm],
        city=CITY[crm],
        page=PAGE[crm],
        town=TOWN[crm],
        email=EMAIL[crm],
        **_NAMES[crm],
    ).encode()


# --- a story under way --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Play:
    """One installation in front of one world; `told`: what was violated so far."""

    bench: Bench
    crm: str
    settings: Mapping[str, str]
    mutant: Callable[[], None] | None = None
    told: list[str] = field(default_factory=list)
    minutes: float = 0
    shared: bool = False

    def configure(self, **options: Any) -> None:
        self.configure_with(text(self.crm, **options))

    def configure_with(self, content: bytes) -> None:
        def work() -> int:
            os.environ.update(self.settings)
            config = loaded(content).require()
            app = App()
            app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())
            app.close()
            return 0

        ended = Child.fork(work, self.bench.folder / "configure.out").wait()
        assert ended.code == 0, ended.output

    def command(self, *words: str, **more: Any) -> Ended:
        made = Command(
            crm=self.crm,
            scene=_SCENE,
            settings=self.settings,
            at=self.minutes,
            words=words,
            mutant=self.mutant,
            shared=self.shared,
            **more,
        )
        self.minutes += 2
        return self.bench.go(made)

    def well(self, *words: str) -> Ended:
        """A command that must end in order."""
        ended = self.command(*words)
        self._ends_well(ended)
        return ended

    def _ends_well(self, ended: Ended, *also: int) -> None:
        self.told += [f"a command printed {word!r}" for word in leaks(ended.output, [SECRET])]
        if ended.code not in (0, EXIT_WITH_ERRORS, *also):
            self.told.append(f"a command ended with {ended.code}: {' '.join(ended.output.split())[-300:]}")

    def until_rest(self, words: Sequence[str], *, over: int = 0) -> int:
        """Run the command until it changes nothing; how often it ran. `over`: the code of one that finds nothing to do."""
        for count in range(1, _MOST + 1):
            before = self.bench.sandbox.report()
            ended = self.command(*words)
            self._ends_well(ended, over)
            if (over and ended.code == over) or before.writes == self.bench.sandbox.report().writes:
                return count
        self.told.append(f"{_MOST} times {' '.join(words[:2])} did not come to rest")
        return _MOST

    # --- the people who edit --------------------------------------------------------------------------------------

    def ours(self) -> list[str]:
        """The ids of people whose title and city crm-sync has filled, in order."""
        touched = self.bench.sandbox.report().touched.get(OBJECT[self.crm], {})
        wanted = {TITLE[self.crm], CITY[self.crm]}
        return [record_id for record_id, fields in sorted(touched.items()) if wanted <= fields.keys()]

    def edit(self, record_id: str, **fields: Any) -> None:
        """`title`, `city`: what a colleague types there."""
        names = {"title": TITLE[self.crm], "city": CITY[self.crm]}
        self.bench.sandbox.edit(OBJECT[self.crm], record_id, {names[key]: value for key, value in fields.items()})

    def email(self, record_id: str) -> str:
        found = self.bench.sandbox.edit(OBJECT[self.crm], record_id, {})
        return str(found.get("properties", found)[EMAIL[self.crm]])

    def last_run(self, kind: str = "run") -> str:
        with _opened(self.settings) as store, store.read() as connection:
            query = select(runs.c.id).where(runs.c.kind == kind).order_by(runs.c.started_at.desc()).limit(1)
            return str(connection.execute(query).scalar_one())


class _opened:  # noqa: N801  (used as a function)
    def __init__(self, settings: Mapping[str, str]) -> None:
        self._store = Store(settings["CRM_SYNC_DATABASE_URL"])

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


_SCENE = Scene(name="story")


@dataclass(frozen=True, kw_only=True)
class Story:
    """`begin` comes before the command that is killed and gives its words; `after` when it has come to rest. `human`:
    whether people edit during the command, so that who came first may differ. `over`: how it ends when nothing is left."""

    name: str
    begin: Callable[[Play], Sequence[str]]
    after: Callable[[Play], None] = lambda _play: None
    crms: tuple[str, ...] = CRMS
    human: bool = False
    #: Rows of the audit are removed on purpose.
    forgets: bool = False
    over: int = 0
    #: Points to kill at beside those that nothing before reaches.
    also: tuple[str, ...] = ()
    at_most: int = 2


_RUN = ("run", "contacts")


def _first_run(play: Play, **options: Any) -> list[str]:
    play.configure(**options)
    play.well(*_RUN)
    return play.ours()


def _bought(play: Play, **options: Any) -> None:
    """A plan buys and writes nothing: what is killed then asks nobody, so that nobody is in doubt."""
    play.configure(**options)
    play.well("plan", "contacts", "--limit", "100", "--yes")


def _track(play: Play) -> Sequence[str]:
    people = _first_run(play)
    for at, record_id in enumerate(people[:6]):
        if at % 2:
            play.edit(record_id, city=EMPTY[play.crm])
        else:
            play.edit(record_id, title=f"Typed by a person {at}")
    play.configure(upper=True)
    return _RUN


def _undo(play: Play) -> Sequence[str]:
    people = _first_run(play)
    run = play.last_run()
    for at, record_id in enumerate(people[2:5]):
        play.edit(record_id, title=f"Typed since {at}")
    return ("undo", run, "--yes")


def _nothing_more(play: Play) -> None:
    """The next run of the sync must leave it as it is."""
    before = play.bench.sandbox.report()
    play.well(*_RUN)
    after = play.bench.sandbox.report()
    if after.writes != before.writes:
        play.told.append("the next run wrote again")


def _redo(play: Play) -> Sequence[str]:
    words = _undo(play)
    play.well(*words)
    return ("undo", play.last_run("undo"), "--yes")


def _apply(play: Play) -> Sequence[str]:
    play.configure()
    file = play.bench.folder / "plan.json"
    file.unlink(missing_ok=True)
    play.well("plan", "contacts", "--limit", "22", "--yes", "--out", str(file))
    planned = [each["id"] for each in orjson.loads(file.read_bytes())["records"] if each["object"] == OBJECT[play.crm]]
    for at, record_id in enumerate(planned[:3]):
        play.edit(record_id, title=f"Typed since the plan {at}")
    return ("apply", str(file), "--yes")


def _review(play: Play) -> Sequence[str]:
    play.configure(rule="review")
    play.well(*_RUN)
    with _opened(play.settings) as store, store.read() as connection:
        query = select(reviews.c.record_id).where(reviews.c.field == TITLE[play.crm]).order_by(reviews.c.record_id)
        waiting = [str(each) for each in connection.execute(query).scalars()]
    for at, record_id in enumerate(waiting[:2]):
        play.edit(record_id, title=f"Typed since {at}")
    return ("review", "accept", "--all", "--yes")


def _doubts(play: Play) -> Sequence[str]:
    play.configure(doubts=True)
    play.well(*_RUN)
    return ("review", "accept", "--all", "--yes")


def _bulk(play: Play) -> Sequence[str]:
    _bought(play, write="bulk")
    return _RUN


def _killed_before(begin: Callable[[Play], Sequence[str]], point: str) -> Callable[[Play], Sequence[str]]:
    """The same, and killed once there, so that the next one has to recover."""

    def begun(play: Play) -> Sequence[str]:
        words = begin(play)
        if not play.command(*words, kill=point).was_killed:
            play.told.append(f"{point}, which precedes, was not reached")
        return words

    return begun


def _same_time(play: Play) -> Sequence[str]:
    """Edits just before and just after calls that write; a record that is deleted and one that is merged there."""
    crm, write = play.crm, WRITE[play.crm]
    people = known_people(play.bench, crm)
    _bought(play)
    edits = [
        {"call": write, "nth": 1 + at % 4, "when": ("before", "after")[at % 2], "object": OBJECT[crm], "id": record_id,
         "fields": {TITLE[crm]: f"Typed at the same time {at}"}}
        for at, record_id in enumerate(people[2:])
    ]  # fmt: skip
    edits += [
        {"call": write, "nth": 1, "when": "before", "object": OBJECT[crm], "id": record_id, "fields": _GONE[crm]}
        for record_id in people[:2]
    ]
    play.bench.sandbox.edit_later(edits)
    return _RUN


def _release(play: Play) -> Sequence[str]:
    people = _first_run(play)
    play.edit(people[0], title="Typed by a person")
    play.edit(people[1], title="Typed by another")
    play.configure(upper=True)
    play.well(*_RUN)
    return ("release", people[0], "--yes")


def _run_to_rest(play: Play) -> None:
    play.until_rest(_RUN)


def _accept_the_rest(play: Play) -> None:
    """Of a record whose person was accepted, fields wait for a person in turn."""
    play.until_rest(_RUN)
    play.until_rest(("review", "accept", "--all", "--yes"), over=2)


def _purge(play: Play) -> Sequence[str]:
    people = _first_run(play, undo="1d")
    play.edit(people[0], title="Typed by a person")
    play.minutes += 3 * 24 * 60
    return ("purge",)


def _run_changed(play: Play) -> None:
    play.configure(upper=True)
    play.until_rest(_RUN)


def _erase(play: Play) -> Sequence[str]:
    people = _first_run(play)
    return ("erase", play.email(people[0]), "--yes")


_WORK = ("worker", "--once")


def _scheduled(play: Play) -> Sequence[str]:
    """Its first slot has come when the next command begins, and another one with each further command."""
    _bought(play, every="1m")
    play.well(*_WORK)
    return _WORK


def _shared(play: Play) -> Sequence[str]:
    """As _scheduled, of runs that several workers share."""
    play.shared = True
    return _scheduled(play)


_WRITING = ("write.", "runs.intend.after", "runs.settle", "wire.asked@write", "wire.answered@write")

_SHARING = ("chunks.", "shares.", "runs.make_one")

STORIES = (
    Story(name="track", begin=_track, also=(*_WRITING, "run.closing")),
    Story(name="undo", begin=_undo, after=_nothing_more, also=(*_WRITING, "amend.", "run.closed")),
    Story(name="redo", begin=_redo, after=_nothing_more, also=("write.answered", "runs.settle.after"), at_most=1),
    Story(name="apply", begin=_apply, also=(*_WRITING, "amend.")),
    Story(name="review", begin=_review, after=_accept_the_rest, also=(*_WRITING, "amend.", "review."), at_most=1),
    Story(name="doubts", begin=_doubts, after=_run_to_rest, over=2, also=("review.", "write.answered"), at_most=1),
    Story(name="bulk", begin=_bulk, crms=("salesforce",), also=(*_WRITING, "bulk.", "wire.asked@bulk"), at_most=3),
    Story(name="bulk_again", begin=_killed_before(_bulk, "bulk.closed:2"), crms=("salesforce",), also=("recover.",)),
    Story(name="same_time", begin=_same_time, human=True, also=_WRITING, at_most=3),
    Story(name="undo_again", begin=_killed_before(_undo, "write.answered:2"), after=_nothing_more, also=("recover.",)),
    Story(
        name="edited_again",
        begin=_killed_before(_same_time, "wire.answered@write:3"),
        crms=("hubspot",),
        human=True,
        also=("recover.",),
    ),
    Story(name="scheduled", begin=_scheduled, also=("queue.", "run.closing")),
    Story(name="scheduled_again", begin=_killed_before(_scheduled, "runs.intend.after:2"), also=("queue.", "recover.")),
    Story(name="shared", begin=_shared, also=(*_SHARING, "runs.settle", "run.closing")),
    Story(name="shared_again", begin=_killed_before(_shared, "runs.intend.after:2"), also=(*_SHARING, "recover.")),
    Story(name="release", begin=_release, after=_run_to_rest),
    Story(name="purge", begin=_purge, after=_run_changed, forgets=True, also=("purge.",)),
    Story(name="erase", begin=_erase, after=_run_changed, forgets=True, also=("erase.", "privacy.")),
)
BY_NAME = {story.name: story for story in STORIES}


def known_people(bench: Bench, crm: str) -> list[str]:
    """The ids of ten people whose title and city a run fills; found by a run of their own, once."""
    if crm not in bench.known_people:
        sandbox = bench.sandbox
        with bench.installation(crm, "sqlite") as settings:
            play = Play(bench=bench, crm=crm, settings=settings)
            bench.known_people[crm] = _first_run(play)[:10]
        sandbox.renew(crm)
    return bench.known_people[crm]


# --- what must hold -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What our database says in the end of the fields it wrote: (record, field) -> "ours", or "locked" where it holds
    something else by now; what waits for a person; bulk jobs that were never ended."""

    fields: Mapping[tuple[str, str], str]
    waiting: Mapping[tuple[str, str], str]
    jobs: int

    @classmethod
    def read(cls, crm: str, settings: Mapping[str, str], report: Report) -> Kept:
        with _opened(settings) as store:
            vault = open_vault(store, ring_of(SECRET, store), now=datetime.now(UTC))
            empty = EMPTY[crm]
            touched = report.touched.get(OBJECT[crm], {})
            ids = sorted(touched)
            found = Provenance(store, vault).last_writes(crm, OBJECT[crm], ids)
            with store.read() as connection:
                jobs = connection.execute(select(func.count()).select_from(write_jobs)).scalar_one()
                rows = connection.execute(select(reviews.c.record_id, reviews.c.field, reviews.c.state)).all()
        told = {}
        for record_id, of_record in found.items():
            for name, last in of_record.items():
                value = touched[record_id].get(name, empty)
                if last.holds(value, FieldKind.TEXT):
                    told[record_id, name] = "ours"
                elif not last.is_bare(value, FieldKind.TEXT):
                    told[record_id, name] = "locked"
        return cls(fields=told, waiting={(row[0], row[1]): row[2] for row in rows}, jobs=int(jobs))


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a story ends without a kill."""

    report: Report
    kept: Kept


def tell(play: Play, story: Story, *, kill: str = "") -> int:
    """Play it, killed or not; how often the command ran after that."""
    words = story.begin(play)
    if kill and not play.command(*words, kill=kill).was_killed:
        play.told.append("the point was not reached")
    count = play.until_rest(words, over=story.over)
    story.after(play)
    return count


def judge_story(story: Story, books: Books, report: Report, kept: Kept, clean: Told) -> Iterator[str]:
    yield from stuck(books)
    if not story.forgets:
        yield from balanced(books)
    if report.charged != clean.report.charged:
        yield "somebody else was paid for than without a kill"
    if kept.jobs:
        yield f"{kept.jobs} bulk jobs are open for ever"
    for kind in sorted(clean.report.touched.keys() | report.touched.keys()):
        wanted, found = clean.report.touched.get(kind, {}), report.touched.get(kind, {})
        for record_id in sorted(wanted.keys() | found.keys()):
            want, have = wanted.get(record_id, {}), found.get(record_id, {})
            if want != have:
                yield f"{kind} {record_id} holds {have}, and {want} without a kill"
    if kept.waiting != clean.kept.waiting:
        yield f"what waits for a person differs: {_difference(kept.waiting, clean.kept.waiting)}"
    if story.human:
        return
    for key in sorted(report.story.keys() | clean.report.story.keys()):
        want_all, have_all = clean.report.story.get(key, ()), report.story.get(key, ())
        if want_all != have_all:
            yield f"{key} got {have_all}, one after the other, and {want_all} without a kill"
    if kept.fields != clean.kept.fields:
        yield f"what is known as ours differs: {_difference(kept.fields, clean.kept.fields)}"


def _difference(have: Mapping[Any, str], want: Mapping[Any, str]) -> str:
    keys = sorted(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
    return "; ".join(f"{key} {have.get(key, 'nothing')} instead of {want.get(key, 'nothing')}" for key in keys[:4])
