"""What is going on when the process is killed, and the command as it runs in a child."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson

from crm_sync import bootstrap, cli, crash
from crm_sync.bootstrap import App
from crm_sync.config import loader
from crm_sync.config.loader import Loaded, load
from crm_sync.domain.runs import RunKind
from crm_sync.pipeline import sharing
from crm_sync.pipeline.select import due_pages
from crm_sync.pipeline.walk import AS_BUDGETED, prepare
from tests.faults.office import _CONFIG, COMPANIES, PEOPLE, LeapingClock
from tests.faults.witness import PAID

CRMS = ("salesforce", "hubspot")
DATABASES = ("sqlite", "postgresql")
SECRET = "a-secret-for-the-crash-harness-only"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`minutes`: how long after the first command each further one begins; the last distance is kept on."""

    name: str
    syncs: tuple[str, ...] = ("people",)
    #: (service, fault) in force until the killed command has ended; "" is the CRM.
    script: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    workers: int = 1
    #: Keys of `budget:`.
    budget: Mapping[str, Any] = field(default_factory=dict)
    #: Settings of the killed command alone.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: A kill that precedes the one in question.
    before: str = ""
    minutes: tuple[float, ...] = (0, 2, 4)
    #: Apollo goes on working at the call that was on the wire until the next command has ended.
    late: bool = False
    #: From an empty database.
    first: bool = False
    #: The thread that comes to the point is not killed, it sleeps until the next command has ended, which finds a run
    #: that has shown no sign of life for ten minutes.
    frozen: bool = False
    #: Two commands begin together after the kill, one for each sync.
    twins: bool = False
    #: What is killed is a plan: it buys and writes nothing.
    plan: bool = False
    #: Points to kill at beside those that no earlier scene reaches; "*" for all it reaches.
    also: tuple[str, ...] = ()
    at_most: int = 4

    @property
    def is_early(self) -> bool:
        """Whether no command begins so late that Apollo's meter is weighed."""
        return max(self.minutes) < 10

    def starts(self) -> Iterator[float]:
        yield from self.minutes
        last, step = self.minutes[-1], self.minutes[-1] - self.minutes[-2]
        while True:
            last += step
            yield last


def _apollo(what: str, **more: Any) -> tuple[str, Mapping[str, Any]]:
    return ("apollo", {"call": f"POST /api/v1/{_BULK}", "what": what, **more})


_BULK = "people/bulk_match"
_EVERY_WRITE = tuple(
    ("", {"call": call, "what": "reset", "when": "after", "times": 999})
    for call in ("PATCH *", "POST */composite", "POST */batch/update")
)

SCENES = (
    Scene(name="people", also=("*",)),
    Scene(name="companies", syncs=("companies",), also=("*",)),
    Scene(name="refused", script=(_apollo("422", nth=2),), also=("journal.release",)),
    Scene(name="lost", script=(_apollo("cut", when="after", nth=2),)),
    Scene(
        name="unreachable",
        settings={"CRM_SYNC_APOLLO_URL": "http://127.0.0.1:9/api/v1"},
        also=("journal.release.before", "journal.release.after"),
    ),
    Scene(name="budget", budget={"per_run": 12}, also=("journal.plan.after", "run.closed"), at_most=2),
    Scene(
        name="daily",
        budget={"per_day": 15},
        minutes=(0, 2, 24 * 60, 48 * 60, 72 * 60),
        also=("journal.plan.after", "journal.received.after", "journal.expand.after"),
        at_most=2,
    ),
    Scene(name="unwritten", script=_EVERY_WRITE),
    Scene(name="recovery", before="journal.sent.after:2"),
    Scene(name="doubtful", before="journal.sent.after:2", minutes=(0, 30, 32, 34), also=("journal.release.inside",)),
    Scene(
        name="abandoned",
        before=f"wire.answered@{_BULK}:2",
        budget={"in_doubt": "abandon"},
        minutes=(0, 30, 32, 34),
    ),
    Scene(name="late", late=True, also=(f"wire.asked@{_BULK}",)),
    Scene(
        name="crowd",
        workers=3,  # four at once may leave before the first answer told a limit: their permissions outlive them
        also=(
            "journal.plan.after", "journal.sent.inside", "journal.sent.after", f"wire.asked@{_BULK}",
            f"wire.answered@{_BULK}", "journal.received.inside", "journal.received.after", "journal.expand.indexed",
            "runs.settle.before",
        ),
    ),
    Scene(name="both", syncs=("companies", "people"), also=("journal.expand.after", "write.parents", "run.closed")),
    Scene(
        name="plan",
        plan=True,
        also=("journal.plan.after", f"wire.asked@{_BULK}", "journal.received.after", "journal.expand.after", "run.closing"),
        at_most=2,
    ),
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
    """One kill. `point`: its name, with its detail."""

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


# --- what may be in doubt -----------------------------------------------------------------------------------------

#: Where a call is noted as sent and has reached nobody.
_UNSENT = ("journal.sent.after", "journal.release.before", "journal.release.inside")
#: Where an answer of Apollo's is lost.
_LOSING = (
    *(f"wire.{what}@{endpoint}" for what in ("asked", "answered") for endpoint in PAID),
    "journal.received.before", "journal.received.inside",
)  # fmt: skip
#: Points of the thread that asks Apollo. At any other point that thread may be anywhere, also at those above.
_ASKING = ("pace.", "journal.sent.", "journal.received.", "journal.doubt.", "enrich.read", "enrich.again", *_LOSING)


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """How many calls may be in doubt after the kill: `unsent` ones, that never reached Apollo, ones whose answer is
    `lost`, and `calls` in all, which is the bound that design/reliability.md 2.4 promises."""

    unsent: int
    lost: int
    calls: int


def allowed(cell: Cell) -> Allowed:
    scene = BY_NAME[cell.scene]
    if scene.frozen:
        return Allowed(unsent=0, lost=0, calls=0)
    points = [cell.point, *([scene.before.rpartition(":")[0]] if scene.before else [])]
    elsewhere = scene.workers - cell.point.startswith(_ASKING)
    lost_in_life = sum(fault.get("when") == "after" for service, fault in scene.script if service == "apollo")
    return Allowed(
        unsent=sum(point in _UNSENT for point in points) + elsewhere,
        lost=sum(point in _LOSING for point in points) + lost_in_life + elsewhere,
        calls=scene.workers + bool(scene.before) + lost_in_life,
    )


# --- the command --------------------------------------------------------------------------------------------------


def scale() -> None:
    """Make 35 contacts a crowd: pages, portions and commits as small as they are large in life. For a child only."""
    from adapters.apollo import client as apollo
    from adapters.hubspot import client as hubspot
    from adapters.hubspot import search
    from adapters.salesforce import client as salesforce
    from crm_sync.pipeline import enrich, recover, stages, writing_desk

    salesforce.PAGE = search.PAGE = 20
    salesforce._READ = 10
    salesforce.PORTION = hubspot.BATCH = 5
    apollo.ApolloEnricher.per_call = 5
    for client in (salesforce.SalesforceCrm, hubspot.HubSpotCrm):
        client.read_size, client.write_size = 10, 5
    stages._PLAN_AT = enrich._EXPAND_AT = 3
    writing_desk._BULK_CHUNK = 12
    recover._SILENT_FOR = timedelta(minutes=9)  # the clock here leaps over every pause, in each process by itself


class Later(LeapingClock):
    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self._ahead = ahead


#: What a company's own answer has and one that came with a person has not.
_OWN = {"salesforce": "Description", "hubspot": "description"}


def configuration(crm: str, scene: Scene) -> bytes:
    budget = ", ".join(f"{key}: {value}" for key, value in scene.budget.items())
    own = f"      {_OWN[crm]}: organization.short_description\n"
    before, companies, after = _CONFIG[crm].partition(f"  {COMPANIES[crm]}:\n")
    text = f"{before}{companies}{after.rstrip()}\n{own}"
    text = text.replace("apollo: {workers: 1}", f"apollo: {{workers: {scene.workers}}}\nbudget: {{{budget}}}")
    return text.encode()


@cache
def loaded(text: bytes) -> Loaded:
    """Kept by the process that forks: reading a configuration is a third of what a small run costs."""
    return load(text)


def configure(app: App, crm: str, scene: Scene) -> None:
    """Apply the scene's configuration, where none is applied yet."""
    config = loaded(configuration(crm, scene)).require()
    if app.versions.latest() is None:
        app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())


def names(crm: str, scene: Scene) -> tuple[str, ...]:
    return tuple({"people": PEOPLE, "companies": COMPANIES}[sync][crm] for sync in scene.syncs)


@dataclass(frozen=True, kw_only=True)
class Command:
    """`crm-sync run` as a child runs it: `at` minutes from now, ended at `kill`, with a `mutant` of the product."""

    crm: str
    scene: Scene
    settings: Mapping[str, str]
    at: float
    kill: str = ""
    #: Where to write how often each point was hit.
    counts: Path | None = None
    #: Only this one of the scene's syncs.
    only: int | None = None
    #: `crm-sync plan` instead.
    plan: bool = False
    #: Another command of crm-sync instead.
    words: tuple[str, ...] = ()
    #: Instead of being killed, wait until this file is there.
    wakes_by: Path | None = None
    mutant: Callable[[], None] | None = None
    #: Runs are shared, as where a broker is named; one worker at a time takes part.
    shared: bool = False

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

        if self.shared:
            SmallApp.hints = _Unheard()  # type: ignore[assignment]
            sharing.CHUNK = 4
        bootstrap.App = SmallApp
        loader.load = lambda text, **_: loaded(text)
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
        if self.plan:
            sys.argv = ["crm-sync", "plan", *syncs, "--limit", "22", "--yes"]
        if self.words:
            sys.argv = ["crm-sync", *self.words]
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        else:
            code = 0
        if self.counts is not None:
            self.counts.write_bytes(orjson.dumps(dict(met)))
        return code


class _Unheard:
    """Hints that nobody listens to: workers look for work."""

    def give(self) -> None: ...

    def close(self) -> None: ...


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
        walk = prepare(
            services.config.syncs[name], services, run_id="", kind=RunKind.PLAN, limit=None, spending=AS_BUDGETED,
            crm=services.crm(crm), enricher=services.enricher(),
        )  # fmt: skip
        for page in due_pages(walk, Counter()):
            found.update({due.record.ref.id: due.keys.key for due in page.due})
    return found
