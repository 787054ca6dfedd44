"""Each fault of the sandbox's script at the calls that write back: an undo, a plan that is applied, a bulk job, and records
that go away or are edited just before they are written. The run ends in a named status with balanced books, and the
same command after the fault is gone finishes the work."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from crm_sync.domain.runs import RunStatus, SyncRun
from tests.faults.office import PEOPLE, SHORT_READ_S, Ended, Office, Stage, World
from tests.faults.test_every_fault import _is_read, check_books, check_end

OBJECT = {"salesforce": "Contact", "hubspot": "contacts"}
TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
WRITE = {"salesforce": "POST */composite", "hubspot": "POST */batch/update"}
_GONE = {"salesforce": {"IsDeleted": True}, "hubspot": {"archived": True}}


@dataclass(frozen=True, kw_only=True)
class Story:
    """`begin` makes what comes before and gives the words of the command. `calls`: ends of those that it is about."""

    name: str
    begin: Callable[[Office], Sequence[str]]
    calls: tuple[str, ...]
    crms: tuple[str, ...] = tuple(PEOPLE)


def _undo(office: Office) -> Sequence[str]:
    ended = office.run(PEOPLE[office.crm])
    assert ended.run is not None
    return ("undo", ended.run.id, "--yes")


def _apply(office: Office) -> Sequence[str]:
    return ("apply", _planned(office), "--yes")


def _planned(office: Office) -> str:
    file = office.stage.folder / "plan.json"
    file.unlink(missing_ok=True)
    code, output = office.command("plan", PEOPLE[office.crm], "--limit", "30", "--yes", "--out", str(file))
    assert code == 0, output
    return str(file)


def _bought(office: Office) -> list[str]:
    """Everybody's answer is stored, and nothing written; the ids of those that a run will write."""
    _planned(office)
    run = office.books.runs.latest()[0]
    return sorted(
        record.record_id
        for record in office.books.runs.records(run.id, object_type=OBJECT[office.crm])
        if any(d.outcome.value == "Planned" and d.field == TITLE[office.crm] for d in record.decisions)
    )


def _bulk(office: Office) -> Sequence[str]:
    office.patch.setattr(
        "adapters.salesforce.bulk._SILENCE_S", 60.0
    )  # a quarter of an hour of silent polls takes minutes
    office.configure(write="bulk")
    _bought(office)
    return ("run", PEOPLE[office.crm])


def _moved(office: Office) -> Sequence[str]:
    """One record is deleted and one edited by a person, just before the call that writes people; the first one writes
    companies."""
    crm = office.crm
    deleted, edited = _bought(office)[:2]
    office.stage.sandbox.edits[crm].add(
        [
            {"call": WRITE[crm], "nth": 2, "object": OBJECT[crm], "id": record_id, "fields": fields}
            for record_id, fields in ((deleted, _GONE[crm]), (edited, {TITLE[crm]: "Typed by a person"}))
        ]
    )
    return ("run", PEOPLE[crm])


_WRITES = ("/composite", "/composite/sobjects", "/batch/update")
_READS = ("/composite/sobjects/<name>", "/query", "/batch/read", "/search")
STORIES = (
    Story(name="undo", begin=_undo, calls=(*_WRITES, *_READS)),
    Story(name="apply", begin=_apply, calls=_WRITES),
    Story(name="bulk", begin=_bulk, calls=("jobs/",), crms=("salesforce",)),
    Story(name="moved", begin=_moved, calls=("/composite", "/queryAll", "/batch/update")),
)
BY_NAME = {story.name: story for story in STORIES}


@dataclass(frozen=True, kw_only=True)
class Case:
    """As in test_every_fault, of a story."""

    crm: str
    story: str
    call: str
    what: str
    when: str
    times: int

    def __str__(self) -> str:
        path = self.call.replace("/services/data/v<version>", "").replace("/crm/v3", "")
        return f"{self.crm}-{self.story}-{path}-{self.what}-{self.when}-{'once' if self.times == 1 else 'lasting'}"

    @property
    def read_s(self) -> dict[str, float]:
        return {self.crm: SHORT_READ_S} if self.what in ("silence", "slow") else {}


@dataclass(frozen=True, kw_only=True)
class Clean:
    """A story without a fault, and the calls of its command."""

    ended: Ended
    world: World
    calls: tuple[str, ...]

    @property
    def run(self) -> SyncRun:
        assert self.ended.run is not None
        return self.ended.run


@dataclass(frozen=True, kw_only=True)
class Known:
    clean: Mapping[tuple[str, str], Clean]
    faults: Mapping[str, tuple[str, ...]]


@cache
def known() -> Known:
    clean: dict[tuple[str, str], Clean] = {}
    with tempfile.TemporaryDirectory() as folder, Stage.set_up(Path(folder)) as stage:
        for story in STORIES:
            for crm in story.crms:
                with stage.office(crm) as office:
                    words = story.begin(office)
                    before = Counter(stage.sandbox.traffic[crm].calls())
                    ended = office.ended(*words)
                    made = Counter(stage.sandbox.traffic[crm].calls()) - before
                    clean[crm, story.name] = Clean(ended=ended, world=office.world(), calls=tuple(sorted(made)))
        faults = {name: script.what for name, script in stage.sandbox.faults.items()}
    return Known(clean=clean, faults=faults)


#: What lasts for the whole run, and what wears off by itself after it has done its work; a token's end is told at every
#: call alike.
_WAYS = (("before", 999), ("after", 1))
_ELSEWHERE = ("401_expired",)


def _is_meant(story: Story, call: str) -> bool:
    return any(call.endswith(each) or (each.endswith("/") and each in call) for each in story.calls)


def _cases() -> Iterator[Case]:
    for (crm, name), clean in known().clean.items():
        for call in clean.calls:
            if not _is_meant(BY_NAME[name], call):
                continue
            for what in known().faults[crm]:
                for when, times in _WAYS[: 1 if _is_read(call) else 2]:
                    if what not in _ELSEWHERE and not (what == "slow" and when == "before" and not _is_read(call)):
                        yield Case(crm=crm, story=name, call=call, what=what, when=when, times=times)


#: Of so many cases one is tried by `make test`, all by `make test ARGS=--every-fault`: five minutes more.
_ONE_IN = 10


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        step = 1 if metafunc.config.getoption("--every-fault") else _ONE_IN
        metafunc.parametrize("case", [pytest.param(case, id=str(case)) for case in list(_cases())[::step]])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage.set_up(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


def test_what_was_begun_ends_in_order_and_is_finished_by_the_same_command(stage: Stage, case: Case) -> None:
    clean = known().clean[case.crm, case.story]
    with stage.office(case.crm, read_s=case.read_s) as office:
        words = BY_NAME[case.story].begin(office)
        office.spoil(case.crm, case.call, case.what, when=case.when, times=case.times)

        spoiled = office.ended(*words)
        fired = office.fired(case.crm)
        office.heal()
        mended = office.ended(*words)
        world = office.world()

        assert fired >= 1
        # A plan is written once: where nothing of it was left, there is nothing to run.
        is_done = case.story == "apply" and "nothing is left to write" in mended.output
        for ended in (spoiled, *(() if is_done else (mended,))):
            check_end(office, ended)
            check_books(ended)
        check_books(office.looked_at_again(spoiled))
        assert is_done or mended.run is not None
        if mended.run is not None:
            # What happened meanwhile is told by the run that met it, be it this one.
            assert mended.run.reason in ("", clean.run.reason)
        assert world.touched == clean.world.touched
        assert world.charged == clean.world.charged
        assert office.books.write_jobs.open() == []


def test_each_story_without_a_fault_does_its_work() -> None:
    for (crm, name), clean in known().clean.items():
        run = clean.run
        assert run.counts.updated >= 7, (crm, name, run.counts)
        put_back = crm == "hubspot" and name == "moved"
        assert (run.status is RunStatus.COMPLETED) == (not put_back), (crm, name, run.reason)
    assert any(call.endswith("/queryAll") for call in known().clean["salesforce", "moved"].calls)
    assert any("jobs/ingest" in call for call in known().clean["salesforce", "bulk"].calls)
