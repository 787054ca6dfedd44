"""`python -m tests.faults.crashes`: the process killed at every named point of crm_sync/crash.py, at its first, second,
middle and last hit, on both databases and with both CRMs; then started again, and held against the sandbox's ledger.

One kill is a *cell*: salesforce/sqlite/people/journal.sent.after:3. In it a sandbox begins anew, the real command runs
in a child process that ends itself with SIGKILL at that hit, and is started again, as often as it takes until a run
finds nothing to do; then tests/faults/judge.py looks. `--cell NAME` runs one of them again, with all that it says.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from crm_sync import bootstrap, cli, crash
from crm_sync.bootstrap import App
from crm_sync.cli import EXIT_AT_BUDGET, EXIT_FAILED, EXIT_WITH_ERRORS
from crm_sync.config.loader import load
from crm_sync.domain.runs import RunKind
from crm_sync.pipeline.select import due_pages
from crm_sync.pipeline.walk import AS_BUDGETED, prepare
from tests.faults.forks import PAID, Child, Databases, Ended, Report, SandboxProcess, as_json
from tests.faults.judge import Books, Clean, Judgement, judge, lost_answers
from tests.faults.office import _CONFIG, COMPANIES, PEOPLE, LeapingClock, leaks
from tests.faults.pool import Pool, postgres, workshop

CRMS = ("salesforce", "hubspot")
DATABASES = ("sqlite", "postgresql")
SECRET = "a-secret-for-the-crash-harness-only"
#: A run that has to come to rest does so in so many.
MOST_RUNS = 5
ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "faults" / "out" / "latest.json"


# --- scenes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is going on when the process is killed.

    `minutes`: how long after the first command each further one begins; the last one's distance is kept on.
    """

    name: str
    syncs: tuple[str, ...] = ("people",)
    #: (service, fault) in force until the killed command has ended; "" is the CRM.
    script: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    workers: int = 1
    budget: str = ""
    #: Settings of the killed command alone.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: A kill that precedes the one in question.
    before: str = ""
    minutes: tuple[float, ...] = (0, 2, 4)
    #: Apollo goes on working at the call that was on the wire until the next command has ended.
    late: bool = False
    #: From an empty database.
    first: bool = False
    #: The thread that comes to the point is not killed, it sleeps until the next command has ended; who has shown no
    #: sign of life for ten minutes is taken for dead.
    frozen: bool = False
    #: Two commands begin together after the kill, one for each sync.
    twins: bool = False
    #: Points to kill at beside those that no earlier scene reaches; "*" for all it reaches.
    also: tuple[str, ...] = ()
    at_most: int = 4


def _lost(call: str, what: str, **more: Any) -> tuple[str, Mapping[str, Any]]:
    return ("apollo", {"call": f"POST /api/v1/{call}", "what": what, **more})


_BULK = "people/bulk_match"

SCENES = (
    Scene(name="people", also=("*",)),
    Scene(name="companies", syncs=("companies",), also=("*",)),
    Scene(
        name="refused",
        script=(_lost(_BULK, "422", nth=2),),
        also=("journal.release.before", "journal.release.inside", "journal.release.after"),
    ),
    Scene(name="lost", script=(_lost(_BULK, "cut", when="after", nth=2),)),
    Scene(
        name="unreachable",
        settings={"CRM_SYNC_APOLLO_URL": "http://127.0.0.1:9/api/v1"},
        also=("journal.release.before", "journal.release.after"),
    ),
    Scene(name="budget", budget="budget: {per_run: 12}", also=("journal.plan.after", "run.closed"), at_most=2),
    Scene(
        name="daily",
        budget="budget: {per_day: 15}",
        minutes=(0, 2, 24 * 60, 48 * 60, 72 * 60),
        at_most=2,
        also=("journal.plan.after", "journal.received.after", "journal.expand.after"),
    ),
    Scene(
        name="unwritten",
        script=(
            ("", {"call": "PATCH *", "what": "reset", "when": "after", "times": 999}),
            ("", {"call": "POST */batch/update", "what": "reset", "when": "after", "times": 999}),
        ),
    ),
    Scene(name="recovery", before="journal.sent.after:2"),
    Scene(name="doubtful", before="journal.sent.after:2", minutes=(0, 30, 32, 34), also=("journal.release.inside",)),
    Scene(
        name="abandoned",
        before="wire.answered@people/bulk_match:2",
        budget="budget: {in_doubt: abandon}",
        minutes=(0, 30, 32, 34),
    ),
    Scene(name="late", late=True, also=("wire.asked@" + _BULK,)),
    Scene(
        name="crowd",
        workers=3,  # four at once may leave before the first answer told a limit: their permissions outlive them
        also=(
            "journal.plan.after", "journal.sent.inside", "journal.sent.after", "wire.asked@" + _BULK,
            "wire.answered@" + _BULK, "journal.received.inside", "journal.received.after", "journal.expand.indexed",
            "runs.settle.before",
        ),
    ),  # fmt: skip
    Scene(name="both", syncs=("companies", "people"), also=("journal.expand.after", "write.parents", "run.closed")),
    Scene(
        name="frozen",
        frozen=True,
        minutes=(0, 12, 14, 16),
        also=(
            "journal.plan.after", "pace.granted", "journal.sent.before", f"wire.asked@{_BULK}", f"wire.answered@{_BULK}",
            "journal.received.after", "journal.expand.before", "journal.expand.after", "write.reread",
            "runs.intend.after", "runs.settle.before", "run.closing",
        ),
        at_most=2,
    ),
    Scene(
        name="twins",
        syncs=("companies", "people"),
        twins=True,
        also=("journal.plan.after", "journal.sent.after", "journal.received.after", "runs.intend.after", "run.closing"),
        at_most=3,
    ),
    Scene(name="first", first=True),
)  # fmt: skip
BY_NAME = {scene.name: scene for scene in SCENES}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`point`: the name, with its detail."""

    crm: str
    database: str
    scene: str
    point: str
    hit: int

    def __str__(self) -> str:
        return f"{self.crm}/{self.database}/{self.scene}/{self.point}:{self.hit}"

    @classmethod
    def of(cls, text: str) -> Cell:
        crm, database, scene, place = text.split("/", 3)
        point, _, hit = place.rpartition(":")
        return cls(crm=crm, database=database, scene=scene, point=point, hit=int(hit))


# --- the installation ---------------------------------------------------------------------------------------------


def scale() -> None:
    """Make 35 contacts a crowd: pages, portions and commits as small as they are large in life. For a child only."""
    from adapters.apollo import client as apollo
    from adapters.hubspot import client as hubspot
    from adapters.hubspot import search
    from adapters.salesforce import client as salesforce
    from crm_sync.pipeline import enrich, stages

    salesforce.PAGE = search.PAGE = 20
    salesforce._READ = 10
    salesforce.PORTION = hubspot.BATCH = 5
    apollo.ApolloEnricher.per_call = 5
    for client in (salesforce.SalesforceCrm, hubspot.HubSpotCrm):
        client.read_size, client.write_size = 10, 5
    stages._PLAN_AT = enrich._EXPAND_AT = 3


class Later(LeapingClock):
    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self._ahead = ahead


def configuration(crm: str, scene: Scene) -> str:
    text = _CONFIG[crm].replace("apollo: {workers: 1}", f"apollo: {{workers: {scene.workers}}}\n{scene.budget}")
    assert "workers: " in text
    return text


def configure(app: App, crm: str, scene: Scene) -> None:
    config = load(configuration(crm, scene).encode()).require()
    if app.versions.latest() is None:
        app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())


def names(crm: str, scene: Scene) -> tuple[str, ...]:
    return tuple({"people": PEOPLE, "companies": COMPANIES}[sync][crm] for sync in scene.syncs)


@dataclass(frozen=True, kw_only=True)
class Command:
    """`crm-sync run …` as it is to run in a child: `at` minutes from now, killed at `kill`."""

    crm: str
    scene: Scene
    settings: Mapping[str, str]
    at: float
    kill: str = ""
    counts: Path | None = None
    #: Only this one of the scene's syncs.
    only: int | None = None
    #: Instead of being killed, wait until this file is there.
    wakes_by: Path | None = None
    mutant: Callable[[], None] | None = None

    def __call__(self) -> int:
        for name in [name for name in os.environ if name.startswith("CRM_SYNC_")]:
            del os.environ[name]
        os.environ.update(self.settings)
        scale()
        clock = Later(timedelta(minutes=self.at))

        class SmallApp(App):
            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.__dict__["clock"] = clock

        bootstrap.App = SmallApp  # type: ignore[misc]
        if self.mutant is not None:
            self.mutant()
        met: Counter[str] = Counter()
        if self.counts is not None:
            crash.point = partial(_count, met)
        elif self.kill:
            crash.arm(self.kill)
        if self.wakes_by is not None:
            crash.end = partial(_sleep_until, self.wakes_by)
        if self.scene.first:
            app = SmallApp()
            configure(app, self.crm, self.scene)
            app.close()
        syncs = names(self.crm, self.scene)
        sys.argv = ["crm-sync", "run", *(syncs if self.only is None else syncs[self.only : self.only + 1])]
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        else:
            code = 0
        if self.counts is not None:
            self.counts.write_bytes(orjson.dumps(dict(met)))
        return code


def _sleep_until(file: Path) -> None:
    file.with_suffix(".asleep").touch()
    while not file.exists():
        time.sleep(0.005)


def _count(met: Counter[str], name: str, detail: str = "") -> None:
    assert name in crash.POINTS, f"no point is called {name}"
    met[f"{name}@{detail}" if detail else name] += 1


def keys_by_record(crm: str, scene: Scene, settings: Mapping[str, str]) -> dict[str, str]:
    """Record id -> MatchKeys.key, for all that is due before anything has run. For a child only."""
    os.environ.update(settings)
    services = App().services()
    found = {}
    for name in names(crm, scene):
        sync = services.config.syncs[name]
        walk = prepare(
            sync, services, run_id="", kind=RunKind.PLAN, limit=None, spending=AS_BUDGETED, crm=services.crm(crm),
            enricher=services.enricher(),
        )  # fmt: skip
        for page in due_pages(walk, Counter()):
            found.update({due.record.ref.id: due.keys.key for due in page.due})
    return found


# --- one cell -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Result:
    cell: Cell
    violations: tuple[str, ...]
    in_doubt: int
    charged_twice: int
    answers_lost: int
    runs: int
    seconds: float
    said: str = ""


@dataclass(kw_only=True)
class Bench:
    """A sandbox, and a place for databases and outputs, of one process that forks."""

    folder: Path
    databases: Mapping[str, Databases]
    sandbox: SandboxProcess
    clean: dict[tuple[str, tuple[str, ...], bool], Clean] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def set_up(cls, folder: Path, server: str) -> Iterator[Bench]:
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
    def office(self, crm: str, database: str, scene: Scene) -> Iterator[dict[str, str]]:
        """A fresh world and a fresh installation; yields its settings."""
        self._renew(crm, scene)
        fill = None if scene.first else partial(self._fill, crm, scene)
        url = self.databases[database].make(f"{crm}/{scene.workers}/{scene.budget}", fill)
        try:
            yield self._settings(url, scene)
        finally:
            self.databases[database].drop(url)

    def _renew(self, crm: str, scene: Scene, *, hold: int = 0) -> None:
        # With two domains of one company, who comes first decides what the account holds.
        self.sandbox.renew(crm, scene.script, hold=hold, twice_a_company=not scene.twins)

    def _settings(self, url: str, scene: Scene) -> dict[str, str]:
        settings = self.sandbox.settings | {"CRM_SYNC_DATABASE_URL": url, "CRM_SYNC_SECRET_KEY": SECRET}
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
        if (crm, scene.syncs, scene.twins) not in self.clean:
            calm = Scene(name="calm", syncs=scene.syncs, twins=scene.twins)
            with self.office(crm, "sqlite", calm) as settings:
                begun = self.sandbox.report()
                keys = self.folder / "keys.json"

                def look() -> int:
                    keys.write_bytes(orjson.dumps(keys_by_record(crm, calm, settings)))
                    return 0

                assert Child.fork(look, self.folder / "look.out").wait().code == 0
                ended = self.go(Command(crm=crm, scene=calm, settings=settings, at=0))
                assert ended.code == 0, ended.output
                self.clean[crm, scene.syncs, scene.twins] = Clean(
                    begun=begun,
                    ended=self.sandbox.report(),
                    keys=orjson.loads(keys.read_bytes()),
                    mixed=len(scene.syncs) > 1,
                )
        return self.clean[crm, scene.syncs, scene.twins]

    def census(self, crm: str, scene: Scene) -> dict[str, int]:
        """How often each point is met by the command that would be killed."""
        with self.office(crm, "sqlite", scene) as settings:
            at = iter(scene.minutes)
            if scene.before:
                ended = self.go(Command(crm=crm, scene=scene, settings=settings, at=next(at), kill=scene.before))
                assert ended.was_killed, ended.output
            counts = self.folder / "counts.json"
            self.go(Command(crm=crm, scene=scene, settings=settings | scene.settings, at=next(at), counts=counts))
            return orjson.loads(counts.read_bytes())


#: Where a call is noted as sent and has reached nobody: the one doubt that the ledger cannot explain.
UNSENT = ("journal.sent.after", "journal.release.before", "journal.release.inside")
#: Points of the thread that asks Apollo. At any other point that thread may be anywhere, also there.
_ASKING = ("pace.", "journal.sent.", "journal.received.", "journal.doubt.", "enrich.read", "enrich.again")
_PAID = tuple(f"wire.{what}@{endpoint}" for what in ("asked", "answered") for endpoint in PAID)


def most_unsent(cell: Cell) -> int:
    """How many calls may be in doubt at the kill without having reached Apollo."""
    scene = BY_NAME[cell.scene]
    certain = sum(point in UNSENT for point in (scene.before.rpartition(":")[0], cell.point))
    elsewhere = scene.workers - 1 if cell.point.startswith((*_ASKING, *_PAID)) else scene.workers
    return certain + elsewhere


def run_cell(bench: Bench, cell: Cell, *, mutant: Callable[[], None] | None = None) -> Result:
    scene = BY_NAME[cell.scene]
    clean = bench.clean_of(cell.crm, scene)
    began = time.monotonic()
    bench.said.clear()
    with bench.office(cell.crm, cell.database, scene) as settings:
        if scene.late:
            bench._renew(cell.crm, scene, hold=cell.hit)
        told, judgement, runs = _killed_and_started_again(bench, cell, scene, settings, clean, mutant)
    return Result(
        cell=cell,
        violations=tuple(told),
        in_doubt=judgement.in_doubt,
        charged_twice=judgement.charged_twice,
        answers_lost=judgement.answers_lost,
        runs=runs,
        seconds=time.monotonic() - began,
        said="\n".join(bench.said),
    )


def _killed_and_started_again(
    bench: Bench,
    cell: Cell,
    scene: Scene,
    settings: Mapping[str, str],
    clean: Clean,
    mutant: Callable[[], None] | None,
) -> tuple[list[str], Judgement, int]:
    told: list[str] = []
    minutes = _minutes(scene)
    make = partial(Command, crm=cell.crm, scene=scene, mutant=mutant)
    if scene.before and not bench.go(make(settings=settings, at=next(minutes), kill=scene.before)).was_killed:
        told.append(f"{scene.before}, which precedes, was not reached")
    killed = make(settings={**settings, **scene.settings}, at=next(minutes), kill=f"{cell.point}:{cell.hit}")
    runs = 0
    seen: Report | None = None
    if scene.frozen:
        told += _frozen_and_taken_for_dead(bench, killed, make(settings=settings, at=next(minutes)))
    elif not bench.go(killed).was_killed:
        told.append("the point was not reached")
    if scene.twins:
        told += _both_at_once(
            bench, [replace(killed, kill="", at=next(minutes), only=n) for n in range(len(scene.syncs))]
        )
    if not scene.late:
        bench.sandbox.heal()
        seen = bench.sandbox.report()
    for runs in range(1, MOST_RUNS + 1):
        ended = bench.go(make(settings=settings, at=next(minutes)))
        bench.sandbox.heal()
        told += _ends_well(ended)
        now = bench.sandbox.report()
        if seen is not None and ended.code != EXIT_AT_BUDGET and _nothing_happened(seen, now):
            break
        seen = now
    else:
        told.append(f"{MOST_RUNS} runs did not come to rest")
    secret = settings.get("CRM_SYNC_SECRET_KEY", "")
    books = Books.read(settings["CRM_SYNC_DATABASE_URL"], secret)
    judgement = judge(books, bench.sandbox.report(), clean, unsent=most_unsent(cell), strict=_is_early(scene))
    told += judgement.violations
    if books.doubts and _is_early(scene):
        # Apollo's meter is weighed, and proves that nothing was charged, or proves nothing.
        told += _ends_well(bench.go(make(settings=settings, at=next(minutes) + 30)))
        report = bench.sandbox.report()
        later = Books.read(settings["CRM_SYNC_DATABASE_URL"], secret)
        told += judge(later, report, clean, unsent=most_unsent(cell), strict=False).violations
        is_weighed = scene.syncs == ("people",) and not scene.settings  # companies' calls tell no cost
        if is_weighed and not any(answer.charged for answer in lost_answers(later, report)):
            told += [f"call {call.id} is still in doubt though the meter has not moved" for call in later.doubts]
    if len(scene.syncs) > 1 and not books.doubts:
        told += _serves_again(bench, make(settings=settings, at=next(minutes)), clean)
    return told, judgement, runs


def _frozen_and_taken_for_dead(bench: Bench, frozen: Command, successor: Command) -> list[str]:
    wakes_by = bench.folder / "wake"
    asleep = wakes_by.with_suffix(".asleep")
    for file in (wakes_by, asleep):
        file.unlink(missing_ok=True)
    first = Child.fork(replace(frozen, wakes_by=wakes_by), bench.folder / "frozen.out")
    deadline = time.monotonic() + 20
    while not asleep.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    told = [] if asleep.exists() else ["the point was not reached"]
    told += _ends_well(bench.go(successor))
    wakes_by.touch()
    ended = first.wait()
    bench.said.append(f"--- the one that slept -> {ended.code}\n{ended.output}")
    if ended.code not in (0, EXIT_FAILED, EXIT_WITH_ERRORS):
        told.append(f"the run that slept ended with {ended.code}: {' '.join(ended.output.split())[-300:]}")
    return told


def _both_at_once(bench: Bench, commands: Sequence[Command]) -> list[str]:
    children = [Child.fork(each, bench.folder / f"twin-{n}.out") for n, each in enumerate(commands)]
    told = []
    for child in children:
        ended = child.wait()
        bench.said.append(f"--- one of two -> {ended.code}\n{ended.output}")
        told += _ends_well(ended)
    return told


def _is_early(scene: Scene) -> bool:
    """Whether no run begins so late that doubt is weighed."""
    return max(scene.minutes) < 10


def _minutes(scene: Scene) -> Iterator[float]:
    yield from scene.minutes
    last, step = scene.minutes[-1], scene.minutes[-1] - scene.minutes[-2]
    while True:
        last += step
        yield last


def _ends_well(ended: Ended) -> list[str]:
    told = [f"a run printed {word!r}" for word in leaks(ended.output, [SECRET])]
    if ended.code not in (0, EXIT_WITH_ERRORS, EXIT_AT_BUDGET):
        told.append(f"a run after the kill ended with {ended.code}: {' '.join(ended.output.split())[-300:]}")
    return told


def _nothing_happened(before: Report, after: Report) -> bool:
    return before.writes == after.writes and len(before.answers) == len(after.answers)


def _serves_again(bench: Bench, command: Command, clean: Clean) -> Iterator[str]:
    """What was bought is still at hand: a blanked field is filled again, and nobody is asked."""
    before = bench.sandbox.report()
    blanked = []
    for kind, records in sorted(clean.ended.touched.items()):
        for record_id, want in sorted(records.items()):
            fields = [name for name in want if name not in clean.begun.touched.get(kind, {}).get(record_id, {})]
            if fields and record_id in clean.keys:
                bench.sandbox.blank(kind, record_id, fields)
                blanked.append((kind, record_id, {name: want[name] for name in fields}))
    yield from _ends_well(bench.go(command))
    after = bench.sandbox.report()
    if len(after.answers) != len(before.answers):
        yield f"{len(after.answers) - len(before.answers)} calls bought again what was stored"
    for kind, record_id, want in blanked:
        have = after.touched[kind].get(record_id, {})
        if not want.items() <= have.items():
            yield f"{kind} {record_id} was blanked and holds {have} instead of {want}"


# --- all of them --------------------------------------------------------------------------------------------------


def hits_of(count: int, most: int) -> list[int]:
    """The first, the second, the last ones and what lies in the middle, at most `most`."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1, 2, (count + 1) // 2, count})[:most]


def cells(census: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Cell]:
    found = []
    for crm in CRMS:
        covered: set[str] = set()
        for scene in SCENES:
            for point, count in census[crm, scene.name].items():
                is_wanted = any(also in ("*", point, point.partition("@")[0]) for also in scene.also)
                if point in covered and not is_wanted:
                    continue
                covered.add(point)
                for hit in hits_of(count, scene.at_most):
                    for database in DATABASES:
                        if point == "vault.key_file" and database == "postgresql":
                            continue  # it needs the setting
                        found.append(Cell(crm=crm, database=database, scene=scene.name, point=point, hit=hit))
    return found


def warm() -> None:
    """Import what a run imports, so that a child need not."""
    import alembic.command
    import hubspot  # noqa: F401
    import simple_salesforce  # noqa: F401

    import adapters.apollo.client
    import adapters.hubspot.client
    import adapters.salesforce.client  # noqa: F401
    import crm_sync.cli.run
    import crm_sync.store.vault  # noqa: F401

    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def at_work(server: str, folder: Path) -> Iterator[Callable[[Any], Any]]:
    with Bench.set_up(folder, server) as bench:
        yield partial(_do, bench)


def _do(bench: Bench, task: Any) -> Any:
    if isinstance(task, Cell):
        return run_cell(bench, task)
    crm, scene = task
    return task, bench.census(crm, BY_NAME[scene])


@contextlib.contextmanager
def pool(jobs: int, *, with_postgres: bool = True) -> Iterator[Pool]:
    warm()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workshop())
        server = stack.enter_context(postgres(folder)) if with_postgres else ""
        made = Pool(jobs, partial(at_work, server), folder)
        try:
            yield made
        finally:
            made.close()


def take_census(made: Pool) -> dict[tuple[str, str], dict[str, int]]:
    return dict(made.each([(crm, scene.name) for scene in SCENES for crm in CRMS]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crashes", description=__doc__)
    parser.add_argument("--cell", action="append", default=[], help="only this one, with all it says; may be repeated")
    parser.add_argument("--only", default="", help="only cells whose name holds this")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    began = time.monotonic()
    with pool(given.jobs) as made:
        if given.cell:
            results = list(made.each(Cell.of(text) for text in given.cell))
            for result in results:
                console.print(f"[bold]{result.cell}[/]", result.said, markup=False)
        else:
            chosen = [cell for cell in cells(take_census(made)) if given.only in str(cell)]
            results = list(_watched(made.each(chosen), len(chosen), console))
    console.print(table(results))
    broken = [result for result in results if result.violations]
    for result in broken:
        console.print(f"\n[red]{result.cell}[/]\n  again: python -m tests.faults.crashes --cell '{result.cell}'")
        for line in result.violations:
            console.print(f"  {line}", markup=False)
    took = time.monotonic() - began
    console.print(
        f"{len(results)} kills and {sum(r.runs for r in results)} restarts in {took:.0f} s: {_verdict(results)}"
    )
    if not given.cell and not given.only:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(as_json(figures(results, took)) + "\n")
        console.print(f"The same as JSON: {OUT.relative_to(ROOT)}")
    sys.exit(1 if broken else 0)


def _watched(results: Iterator[Result], total: int, console: Console) -> Iterator[Result]:
    told = began = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        if result.violations:
            console.print(f"violated: {result.cell}: {result.violations[0]}", style="red", markup=False)
        now = time.monotonic()
        if now - told > 15:
            told = now
            console.print(f"{done} of {total} cells, {(now - began) / done * (total - done):.0f} s left", style="dim")


def _verdict(results: Sequence[Result]) -> str:
    violations = sum(len(result.violations) for result in results)
    return (
        f"{violations} violations; charged twice: {sum(r.charged_twice for r in results)}, answers lost: "
        f"{sum(r.answers_lost for r in results)}; {sum(r.in_doubt for r in results)} calls in doubt, each where "
        "Apollo's ledger says so"
        if not violations
        else f"{violations} violations in {sum(bool(result.violations) for result in results)} cells"
    )


def table(results: Sequence[Result]) -> Table:
    """Points x hits x databases x CRMs: how often each was killed at, and what was violated."""
    made = Table(box=box.SIMPLE_HEAD, title="Killed at every named point, started again, compared with Apollo's ledger")
    made.add_column("Point", no_wrap=True)
    made.add_column("Hits")
    for column in (*(f"{crm}\n{database}" for crm in CRMS for database in DATABASES), "In doubt", "Violations"):
        made.add_column(column, justify="right")
    by_point: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: list(crash.POINTS).index(r.cell.point.partition("@")[0])):
        by_point.setdefault(result.cell.point, []).append(result)
    for point, group in by_point.items():
        kills = Counter((result.cell.crm, result.cell.database) for result in group)
        violations = sum(len(result.violations) for result in group)
        made.add_row(
            point,
            " ".join(str(hit) for hit in sorted({result.cell.hit for result in group})),
            *(str(kills[crm, database] or "") for crm in CRMS for database in DATABASES),
            str(sum(result.in_doubt for result in group) or ""),
            f"[red]{violations}[/]" if violations else "0",
        )
    return made


def figures(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seconds": round(seconds),
        "points": len({result.cell.point.partition("@")[0] for result in results}),
        "points_with_details": len({result.cell.point for result in results}),
        "kills": len(results),
        "restarts": sum(result.runs for result in results),
        "violations": sum(len(result.violations) for result in results),
        "charged_twice": sum(result.charged_twice for result in results),
        "answers_lost": sum(result.answers_lost for result in results),
        "in_doubt": sum(result.in_doubt for result in results),
        "cells": [
            {
                **asdict(result.cell),
                "runs": result.runs,
                "in_doubt": result.in_doubt,
                "violations": list(result.violations),
                "seconds": round(result.seconds, 2),
            }
            for result in sorted(results, key=lambda r: str(r.cell))
        ],
    }


if __name__ == "__main__":
    main()
