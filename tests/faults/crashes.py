"""One kill and its restarts: a *cell*, named salesforce/sqlite/people/journal.sent.after:3.

A sandbox begins anew, the real command runs in a child process that ends itself with SIGKILL at that hit of that point
(crm_sync/crash.py), and is started again, as often as it takes until a run finds nothing to do; then
tests/faults/judge.py looks. `python -m tests.faults` does this for every point, on both databases, with both CRMs.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_AT_BUDGET, EXIT_FAILED, EXIT_WITH_ERRORS
from crm_sync.mapping.match_keys import registrable_domain
from tests.faults.forks import Child, Databases, Ended
from tests.faults.judge import Books, Clean, Judgement, judge, lost_answers
from tests.faults.office import leaks
from tests.faults.phone_judge import PhoneBooks, PhoneJudgement, PhonesTold, judge_end, judge_phones
from tests.faults.phone_stories import BY_NAME as PHONE_STORIES_BY_NAME
from tests.faults.phone_stories import PHONE_STORIES, POLL, RUN, PhoneStory, playing
from tests.faults.phone_stories import tell as tell_of_phones
from tests.faults.scenes import (
    BY_NAME,
    CRMS,
    DATABASES,
    SCENES,
    SECRET,
    Cell,
    Command,
    Scene,
    allowed,
    configuration,
    configure,
    keys_by_record,
    loaded,
)
from tests.faults.stories import BY_NAME as STORIES_BY_NAME
from tests.faults.stories import STORIES, Kept, Play, Story, Told, judge_story, tell
from tests.faults.witness import Report, SandboxProcess

#: A run that has to come to rest does so in so many.
MOST_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a cell. `said`: the output of every command."""

    cell: Cell
    violations: tuple[str, ...]
    in_doubt: int
    charged_twice: int
    answers_lost: int
    runs: int
    seconds: float
    said: str = ""
    deliveries_lost: int = 0
    applied_twice: int = 0


@dataclass(kw_only=True)
class Bench:
    """A sandbox, and a place for databases and outputs, of one process that forks."""

    folder: Path
    databases: Mapping[str, Databases]
    sandbox: SandboxProcess
    said: list[str] = field(default_factory=list)
    #: Ids of people who are written by a plain run, by CRM (tests/faults/stories.py).
    known_people: dict[str, list[str]] = field(default_factory=dict)
    _clean: dict[tuple[str, tuple[str, ...], bool], Clean] = field(default_factory=dict)
    _told: dict[tuple[str, str], Told] = field(default_factory=dict)
    _phones_told: dict[tuple[str, str], PhonesTold] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def set_up(cls, folder: Path, server: str) -> Iterator[Bench]:
        """`server`: the address of a PostgreSQL. This process works in `folder` from now on."""
        os.chdir(folder)  # no .env of anybody's
        sandbox = SandboxProcess.start(folder / "sandbox.out")
        try:
            yield cls(
                folder=folder,
                sandbox=sandbox,
                databases={kind: Databases(kind=kind, folder=folder, server=server) for kind in DATABASES},
            )
        finally:
            sandbox.stop()

    @contextlib.contextmanager
    def office(self, crm: str, database: str, scene: Scene, *, hold: int = 0) -> Iterator[dict[str, str]]:
        """A fresh world and a fresh installation; yields its settings."""
        # With two domains of one company it matters who comes first, and twins come together.
        self.sandbox.renew(crm, scene.script, hold=hold, twice_a_company=not scene.twins)
        loaded(configuration(crm, scene))
        fill = None if scene.first else partial(self._fill, crm, scene)
        url = self.databases[database].make(f"{crm}/{scene.workers}/{scene.budget}", fill)
        try:
            yield self._settings(url, scene)
        finally:
            self.databases[database].drop(url)

    @contextlib.contextmanager
    def installation(self, crm: str, database: str) -> Iterator[dict[str, str]]:
        """As office, with nothing configured yet."""
        self.sandbox.renew(crm)
        url = self.databases[database].make("story", partial(self._migrate, BY_NAME["people"]))
        try:
            yield self._settings(url, BY_NAME["people"])
        finally:
            self.databases[database].drop(url)

    def _migrate(self, scene: Scene, url: str) -> None:
        def work() -> int:
            os.environ.update(self._settings(url, scene))
            app = App()
            app.runs.latest()
            app.close()
            return 0

        ended = Child.fork(work, self.folder / "fill.out").wait()
        assert ended.code == 0, ended.output

    def told_of(self, crm: str, story: Story) -> Told:
        """The story without a kill, once."""
        key = (crm, story.name)
        if key not in self._told:
            with self.installation(crm, "sqlite") as settings:
                play = Play(bench=self, crm=crm, settings=settings)
                tell(play, story)
                assert not play.told, (key, play.told)
                report = self.sandbox.report()
                self._told[key] = Told(report=report, kept=Kept.read(crm, settings, report))
        return self._told[key]

    def phones_told_of(self, crm: str, story: PhoneStory) -> PhonesTold:
        """As told_of."""
        key = (crm, story.name)
        if key not in self._phones_told:
            with playing(self, crm, "sqlite") as play:
                tell_of_phones(play, story)
                report = self.sandbox.report()
                told = play.told + judge_phones(story, play.settings, report, None, None).violations
                assert not told, (key, told)
                self._phones_told[key] = PhonesTold(report=report, books=PhoneBooks.read(play.settings))
        return self._phones_told[key]

    def census_of(self, crm: str, story: Story | PhoneStory) -> dict[str, int]:
        """As census."""
        if isinstance(story, PhoneStory):
            with playing(self, crm, "sqlite") as play:
                counts = self.folder / "counts.json"
                tell_of_phones(play, story, counts=counts)
                counted: dict[str, int] = orjson.loads(counts.read_bytes())
                return counted
        with self.installation(crm, "sqlite") as settings:
            play = Play(bench=self, crm=crm, settings=settings)
            counts = self.folder / "counts.json"
            play.command(*story.begin(play), counts=counts)
            met: dict[str, int] = orjson.loads(counts.read_bytes())
            return met

    def _settings(self, url: str, scene: Scene) -> dict[str, str]:
        settings = self.sandbox.settings | {"CRM_SYNC_DATABASE_URL": url, "CRM_SYNC_SECRET_KEY": SECRET}
        if not url.startswith("sqlite"):  # it lies in the working directory, which all databases here share
            name = url.partition("?")[0].rpartition("/")[2]
            settings["CRM_SYNC_STATE_FILE"] = str(self.folder / f"{name}.instance")
        if scene.first and url.startswith("sqlite"):
            del settings["CRM_SYNC_SECRET_KEY"]  # the key file is made at the first start
        return settings

    def _fill(self, crm: str, scene: Scene, url: str) -> None:
        def work() -> int:
            os.environ.update(self._settings(url, scene))
            app = App()
            configure(app, crm, scene)
            app.close()
            return 0

        ended = Child.fork(work, self.folder / "fill.out").wait()
        assert ended.code == 0, ended.output

    def go(self, command: Command) -> Ended:
        ended = Child.fork(command, self.folder / "command.out").wait()
        self.said.append(f"--- at {command.at:g} min {command.kill} -> {ended.code}\n{ended.output}")
        return ended

    def clean_of(self, crm: str, scene: Scene) -> Clean:
        """The same commands without fault and without kill, once for all scenes that give them."""
        key = (crm, scene.syncs, scene.twins)
        if key not in self._clean:
            calm = Scene(name="calm", syncs=scene.syncs, twins=scene.twins)
            with self.office(crm, "sqlite", calm) as settings:
                begun = self.sandbox.report()
                found = self.folder / "keys.json"

                def look() -> int:
                    found.write_bytes(orjson.dumps(keys_by_record(crm, calm, settings)))
                    return 0

                looked = Child.fork(look, self.folder / "look.out").wait()
                assert looked.code == 0, looked.output
                ended = self.go(Command(crm=crm, scene=calm, settings=settings, at=0))
                assert ended.code == 0, ended.output
                self._clean[key] = Clean(
                    begun=begun,
                    ended=self.sandbox.report(),
                    keys=orjson.loads(found.read_bytes()),
                    mixed=len(scene.syncs) > 1,
                )
        return self._clean[key]

    def census(self, crm: str, scene: Scene) -> dict[str, int]:
        """How often each point is met by the command that would be killed."""
        with self.office(crm, "sqlite", scene) as settings:
            at = scene.starts()
            if scene.before:
                ended = self.go(Command(crm=crm, scene=scene, settings=settings, at=next(at), kill=scene.before))
                assert ended.was_killed, ended.output
            counts = self.folder / "counts.json"
            command = Command(crm=crm, scene=scene, settings=settings | scene.settings, at=next(at), plan=scene.plan)
            self.go(replace(command, counts=counts))
            met: dict[str, int] = orjson.loads(counts.read_bytes())
            return met


# --- one cell -----------------------------------------------------------------------------------------------------


def run_cell(bench: Bench, cell: Cell, *, mutant: Callable[[], None] | None = None) -> Result:
    if cell.scene in STORIES_BY_NAME:
        return run_story(bench, cell, mutant)
    if cell.scene in PHONE_STORIES_BY_NAME:
        return run_phone_story(bench, cell, mutant)
    scene = BY_NAME[cell.scene]
    clean = bench.clean_of(cell.crm, scene)
    began = time.monotonic()
    bench.said.clear()
    with bench.office(cell.crm, cell.database, scene, hold=cell.hit if scene.late else 0) as settings:
        try:
            trial = _Trial(bench=bench, cell=cell, scene=scene, settings=settings, clean=clean, mutant=mutant)
            trial.hold()
        finally:
            bench.sandbox.heal()
    return Result(
        cell=cell,
        violations=tuple(trial.told),
        in_doubt=trial.judgement.in_doubt,
        charged_twice=trial.judgement.charged_twice,
        answers_lost=trial.judgement.answers_lost,
        runs=trial.runs,
        seconds=time.monotonic() - began,
        said="\n".join(bench.said),
    )


def run_story(bench: Bench, cell: Cell, mutant: Callable[[], None] | None) -> Result:
    story = STORIES_BY_NAME[cell.scene]
    clean = bench.told_of(cell.crm, story)
    began = time.monotonic()
    bench.said.clear()
    with bench.installation(cell.crm, cell.database) as settings:
        play = Play(bench=bench, crm=cell.crm, settings=settings, mutant=mutant)
        count = tell(play, story, kill=f"{cell.point}:{cell.hit}")
        report = bench.sandbox.report()
        books = Books.read(settings["CRM_SYNC_DATABASE_URL"], SECRET)
        kept = Kept.read(cell.crm, settings, report)
        play.told += judge_story(story, books, report, kept, clean)
    return Result(
        cell=cell,
        violations=tuple(play.told),
        in_doubt=len(books.doubts),
        charged_twice=0,
        answers_lost=0,
        runs=count,
        seconds=time.monotonic() - began,
        said="\n".join(bench.said),
    )


def run_phone_story(bench: Bench, cell: Cell, mutant: Callable[[], None] | None) -> Result:
    story = PHONE_STORIES_BY_NAME[cell.scene]
    clean = bench.phones_told_of(cell.crm, story)
    began = time.monotonic()
    bench.said.clear()
    judgement = PhoneJudgement()
    with playing(bench, cell.crm, cell.database, mutant) as play:
        try:
            count = tell_of_phones(play, story, kill=f"{cell.point}:{cell.hit}")
            report = bench.sandbox.report()
            judgement = judge_phones(story, play.settings, report, clean, cell)
            if PhoneBooks.read(play.settings).lost:
                play.minutes += 3 * 24 * 60
                play.well(*POLL)
                play.well(*RUN)
                play.told += judge_end(play.settings, report, bench.sandbox.report())
        except Exception as error:
            if mutant is None:
                raise
            play.told.append(f"{type(error).__name__}: {error}")  # a bug may stop the story itself
            count = 0
    return Result(
        cell=cell,
        violations=(*play.told, *judgement.violations),
        in_doubt=judgement.in_doubt,
        charged_twice=judgement.charged_twice,
        answers_lost=judgement.answers_lost,
        runs=count,
        seconds=time.monotonic() - began,
        said="\n".join(bench.said),
        deliveries_lost=judgement.deliveries_lost,
        applied_twice=judgement.applied_twice,
    )


@dataclass(kw_only=True)
class _Trial:
    """A cell under way; `told`: what was violated so far."""

    bench: Bench
    cell: Cell
    scene: Scene
    settings: Mapping[str, str]
    clean: Clean
    mutant: Callable[[], None] | None
    told: list[str] = field(default_factory=list)
    judgement: Judgement = field(default_factory=Judgement)
    runs: int = 0

    def __post_init__(self) -> None:
        self._starts = self.scene.starts()

    def hold(self) -> None:
        self._kill()
        self._start_again()
        books = self._judge(strict=self.scene.is_early)
        if books.doubts and self.scene.is_early:
            self._weigh()
        if len(self.scene.syncs) > 1 and not books.doubts:
            self._serve_again()

    def _command(self, **more: Any) -> Command:
        """The next one; `more` is what it has otherwise."""
        made = Command(
            crm=self.cell.crm, scene=self.scene, settings=self.settings, at=next(self._starts), mutant=self.mutant
        )
        return replace(made, **more)

    def _kill(self) -> None:
        if self.scene.before and not self.bench.go(self._command(kill=self.scene.before)).was_killed:
            self.told.append(f"{self.scene.before}, which precedes, was not reached")
        killed = self._command(
            settings={**self.settings, **self.scene.settings},
            kill=f"{self.cell.point}:{self.cell.hit}",
            plan=self.scene.plan,
        )
        if self.scene.frozen:
            self._freeze(killed)
        elif not self.bench.go(killed).was_killed:
            self.told.append("the point was not reached")
        if self.scene.twins:
            self._both_at_once()

    def _freeze(self, command: Command) -> None:
        """It sleeps at the point, is taken for dead by the next one, and wakes when that one has ended."""
        wakes_by = self.bench.folder / "wake"
        asleep = wakes_by.with_suffix(".asleep")
        for file in (wakes_by, asleep):
            file.unlink(missing_ok=True)
        sleeper = Child.fork(replace(command, wakes_by=wakes_by), self.bench.folder / "sleeper.out")
        deadline = time.monotonic() + 20
        while not asleep.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        if not asleep.exists():
            self.told.append("the point was not reached")
        # Its other threads may be asking. No call is under way for the ten minutes that the next clock is ahead.
        self.bench.sandbox.wait_for_silence()
        self._ends_well(self.bench.go(self._command()))
        wakes_by.touch()
        ended = sleeper.wait()
        self.bench.said.append(f"--- the one that slept -> {ended.code}\n{ended.output}")
        self._ends_well(ended, EXIT_FAILED)

    def _both_at_once(self) -> None:
        both = [self._command(only=number) for number in range(len(self.scene.syncs))]
        children = [Child.fork(each, self.bench.folder / f"twin-{n}.out") for n, each in enumerate(both)]
        for child in children:
            ended = child.wait()
            self.bench.said.append(f"--- one of two -> {ended.code}\n{ended.output}")
            self._ends_well(ended)

    def _start_again(self) -> None:
        """Until a run finds nothing to do."""
        sandbox = self.bench.sandbox
        seen: Report | None = None
        if not self.scene.late:
            sandbox.heal()
            seen = sandbox.report()
        for self.runs in range(1, MOST_RUNS + 1):
            ended = self.bench.go(self._command())
            sandbox.heal()
            self._ends_well(ended)
            now = sandbox.report()
            if seen is not None and ended.code != EXIT_AT_BUDGET and _nothing_happened(seen, now):
                return
            seen = now
        self.told.append(f"{MOST_RUNS} runs did not come to rest")

    def _judge(self, *, strict: bool) -> Books:
        books = self._books()
        report = self.bench.sandbox.report()
        may_be = allowed(self.cell)
        self.judgement = judge(books, report, self.clean, may_be, strict=strict, budget=self.scene.budget)
        self.told += self.judgement.violations
        return books

    def _books(self) -> Books:
        return Books.read(self.settings["CRM_SYNC_DATABASE_URL"], self.settings.get("CRM_SYNC_SECRET_KEY", ""))

    def _weigh(self) -> None:
        """Half an hour on, Apollo's meter is weighed: it proves that nothing was charged, or it proves nothing."""
        command = self._command()
        self._ends_well(self.bench.go(replace(command, at=command.at + 30)))
        books, report = self._books(), self.bench.sandbox.report()
        self.told += judge(books, report, self.clean, allowed(self.cell), strict=False).violations
        # Companies' answers do not tell what they cost, and an Apollo that was not there did not show its meter.
        proves = self.scene.syncs == ("people",) and not self.scene.settings
        if proves and not any(answer.charged for answer in lost_answers(books, report)):
            self.told += [f"call {call.id} is in doubt still, though the meter has not moved" for call in books.doubts]

    def _serve_again(self) -> None:
        """What was bought is at hand: blanked fields are filled again, and nobody is asked."""
        sandbox = self.bench.sandbox
        blanked = []
        for kind, records in sorted(self.clean.ended.touched.items()):
            for record_id, want in sorted(records.items()):
                begun = self.clean.begun.touched.get(kind, {}).get(record_id, {})
                fields = [name for name in want if name not in begun]
                if fields and record_id in self.clean.keys:
                    sandbox.blank(kind, record_id, fields)
                    blanked.append((kind, record_id, {name: want[name] for name in fields}))
        before = sandbox.report()
        self._ends_well(self.bench.go(self._command()))
        after = sandbox.report()
        if len(after.answers) != len(before.answers):
            self.told.append(f"{len(after.answers) - len(before.answers)} calls bought again what is stored")
        for kind, record_id, want in blanked:
            have = after.touched[kind].get(record_id, {})
            if not want.items() <= have.items():
                self.told.append(f"{kind} {record_id} was blanked and holds {have} instead of {want}")

    def _ends_well(self, ended: Ended, *also: int) -> None:
        self.told += [f"a run printed {word!r}" for word in leaks(ended.output, [SECRET])]
        if ended.code not in (0, EXIT_WITH_ERRORS, EXIT_AT_BUDGET, *also):
            said = " ".join(ended.output.split())[-300:]
            self.told.append(f"a run after the kill ended with {ended.code}: {said}")


def _nothing_happened(before: Report, after: Report) -> bool:
    return before.writes == after.writes and len(before.answers) == len(after.answers)


# --- all of them --------------------------------------------------------------------------------------------------


def hits_of(count: int, most: int) -> list[int]:
    """All of them where they are few, else the first, the second, the middle one and the last."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1, 2, (count + 1) // 2, count})[:most]


def cells(census: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Cell]:
    found = []
    for crm in CRMS:
        covered: set[str] = set()
        for scene in SCENES:
            for point, count in census[crm, scene.name].items():
                is_wanted = any(also == "*" or point.startswith(also) for also in scene.also)
                if point in covered and not is_wanted:
                    continue
                covered.add(point)
                for hit in hits_of(count, scene.at_most):
                    for database in DATABASES:
                        if point == "vault.key_file" and database == "postgresql":
                            continue  # it needs the setting
                        found.append(Cell(crm=crm, database=database, scene=scene.name, point=point, hit=hit))
        for story in STORIES:
            if crm not in story.crms:
                continue
            for point, count in census[crm, story.name].items():
                if point in covered and not point.startswith(story.also):
                    continue
                covered.add(point)
                for hit in hits_of(count, story.at_most):
                    database = DATABASES[len(found) % 2]  # in turn: their product is large, and they tell the same
                    found.append(Cell(crm=crm, database=database, scene=story.name, point=point, hit=hit))
        for phones in PHONE_STORIES:
            if crm not in phones.crms:
                continue
            for point, count in census[crm, phones.name].items():
                if not point.startswith(phones.also):
                    continue
                is_new = point not in covered
                covered.add(point)
                for hit in hits_of(count, phones.at_most):
                    found += [
                        Cell(crm=crm, database=database, scene=phones.name, point=point, hit=hit)
                        for database in (DATABASES if is_new else [DATABASES[len(found) % 2]])
                    ]
    return found


def scenes_of(crm: str) -> list[str]:
    written = [story.name for story in STORIES if crm in story.crms]
    return [*(scene.name for scene in SCENES), *written, *(story.name for story in PHONE_STORIES if crm in story.crms)]


#: A kill of each kind, for `make test`.
SAMPLE: Sequence[str] = (
    "salesforce/sqlite/people/journal.plan.guarded:2",
    "hubspot/postgresql/people/journal.plan.after:1",
    "hubspot/sqlite/people/journal.sent.after:2",
    "salesforce/postgresql/people/wire.answered@people/bulk_match:2",
    "hubspot/sqlite/people/journal.received.inside:3",
    "salesforce/sqlite/people/journal.received.after:5",
    "salesforce/postgresql/people/journal.expand.settled:1",
    "hubspot/postgresql/people/wire.answered@write:3",
    "salesforce/sqlite/people/runs.settle.inside:3",
    "salesforce/sqlite/people/write.parents:1",
    "hubspot/sqlite/companies/enrich.again@single:1",
    "salesforce/sqlite/refused/enrich.again@half:2",
    "hubspot/sqlite/lost/journal.doubt.inside:1",
    "salesforce/sqlite/daily/journal.received.after:2",
    "hubspot/postgresql/recovery/recover.doubted:1",
    "salesforce/sqlite/doubtful/doubt.cleared:1",
    "salesforce/sqlite/late/wire.asked@people/bulk_match:2",
    "hubspot/sqlite/crowd/journal.received.inside:2",
    "salesforce/postgresql/frozen/journal.sent.before:1",
    "hubspot/postgresql/twins/journal.received.after:2",
    "salesforce/sqlite/first/vault.keys.inside:1",
    "salesforce/sqlite/track/runs.settle.before:1",
    "hubspot/postgresql/undo/write.answered:1",
    "salesforce/sqlite/apply/runs.intend.after:2",
    "hubspot/sqlite/review/review.written:1",
    "salesforce/postgresql/bulk/bulk.closed:1",
    "hubspot/sqlite/same_time/wire.answered@write:3",
    "salesforce/sqlite/same_time/write.moved:1",
    "salesforce/sqlite/order/orders.answered:2",
    "hubspot/postgresql/order_early/wire.answered@people/bulk_match:1",
    "salesforce/postgresql/order_with_match/journal.received.after:2",
    "hubspot/sqlite/receive/inbox.take.inside:3",
    "salesforce/postgresql/carry_out/reveals.settle.inside:2",
    "hubspot/sqlite/carry_out/wire.answered@write:1",
    "salesforce/sqlite/serve/inbox.take.after:2",
    "salesforce/sqlite/give_up/reveals.give_up.inside:2",
    "salesforce/postgresql/join/reveals.join.inside:1",
)


def warm() -> None:
    """Import what a run imports, so that a child need not."""
    for name in (
        "alembic.command", "flask", "hubspot", "phonenumbers", "simple_salesforce", "waitress", "webhooks.receiver",
        "adapters.apollo.client", "adapters.hubspot.client", "adapters.salesforce.client", "crm_sync.cli.phones",
        "crm_sync.cli.run", "crm_sync.store.config_versions", "crm_sync.store.pace", "crm_sync.store.vault",
        "crm_sync.web.serving", "crm_sync.workers", "encodings.punycode", "hubspot.crm.objects",
        "hubspot.crm.properties", "publicsuffixlist", "rich._emoji_codes",
    ):  # fmt: skip
        importlib.import_module(name)
    registrable_domain("example.com")  # it keeps the list of suffixes
    gc.collect()
    gc.freeze()
