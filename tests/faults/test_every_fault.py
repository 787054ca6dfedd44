"""Each fault of the sandbox's script, at each call of a walk, before and after its effect: how the run ends, whether its
books balance, who is charged, and whether a run after the fault is gone finishes the work.

The calls are those that clean walks make, so a new one is covered as soon as a walk makes it; the faults are those that
the service in question can have (Faults.what). A fault comes once, which the adapters should get over, or it lasts for
the whole run, which they cannot.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from crm_sync.domain.runs import RunStatus
from crm_sync.sandbox import hubspot
from crm_sync.store.runs import WRITING
from tests.conftest import _with_database
from tests.faults.office import COMPANIES, PEOPLE, SHORT_READ_S, Ended, Office, Stage, World, leaks

#: README and `crm-sync --help`: 0 clean, 1 failed, 2 configuration, 3 completed with errors.
CODES = {RunStatus.COMPLETED: {0}, RunStatus.COMPLETED_WITH_ERRORS: {3}, RunStatus.FAILED: {1, 2}}
#: An OAuth app instead of a service key, for the token call.
OAUTH = dict(
    zip(
        ("CRM_SYNC_HUBSPOT_CLIENT_ID", "CRM_SYNC_HUBSPOT_CLIENT_SECRET", "CRM_SYNC_HUBSPOT_REFRESH_TOKEN"),
        hubspot.CLIENT,
        strict=True,
    ),
    CRM_SYNC_HUBSPOT_TOKEN="",
)

#: Apollo's own refusals, which it sends before it looks anybody up. Where the script lets them come after the effect,
#: Apollo charges and says that it did not; nobody can know (design/reliability.md 2.4, E2).
REFUSALS = frozenset({"400", "401", "403", "422", "429", "429_without_retry_after"})
SINGLE = ("people/match", "organizations/enrich")
PAID = ("people/bulk_match", "organizations/bulk_enrich", *SINGLE)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`times`: 1, or more than any run calls."""

    crm: str
    sync: str
    provider: str
    call: str
    what: str
    when: str
    times: int
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        path = self.call.replace("/services/data/v<version>", "").replace("/crm/v3", "").replace("/api/v1", "")
        return f"{self.crm}-{path}-{self.what}-{self.when}-{'once' if self.times == 1 else 'lasting'}"

    @property
    def is_paid(self) -> bool:
        return self.provider == "apollo" and self.call.endswith(PAID)

    @property
    def denies_a_charge(self) -> bool:
        """Whether Apollo charges here and then says, in words that mean so, that it did not."""
        return self.is_paid and self.when == "after" and (self.what in REFUSALS or self.denies_existence)

    @property
    def denies_existence(self) -> bool:
        """A single call's 404 is one way of saying "nobody" (contracts/apollo.md 2.2)."""
        return self.what == "404" and self.call.endswith(SINGLE)

    @property
    def read_s(self) -> dict[str, float]:
        return {self.provider: SHORT_READ_S} if self.what in ("silence", "slow") else {}


@dataclass(frozen=True, kw_only=True)
class Clean:
    """A command without any fault, and the calls it made."""

    ended: Ended
    world: World
    calls: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What stands before any case: the clean walks by (crm, sync), further calls, and the faults of each service."""

    clean: Mapping[tuple[str, str], Clean]
    of_oauth: tuple[tuple[str, str], ...]
    of_doctor: Mapping[str, tuple[tuple[str, str], ...]]
    faults: Mapping[str, tuple[str, ...]]


@cache
def known() -> Known:
    clean: dict[tuple[str, str], Clean] = {}
    doctor: dict[str, tuple[tuple[str, str], ...]] = {}
    with tempfile.TemporaryDirectory() as folder, Stage.set_up(Path(folder)) as stage:
        for crm in PEOPLE:
            for sync in (PEOPLE[crm], COMPANIES[crm]):
                with stage.office(crm) as office:
                    ended = office.run(sync)
                    clean[crm, sync] = Clean(ended=ended, world=office.world(), calls=office.calls())
            with stage.office(crm) as office:
                office.command("doctor")
                doctor[crm] = office.calls()
        with stage.office("hubspot", **OAUTH) as office:
            office.run(PEOPLE["hubspot"])
            of_oauth = office.calls()
        faults = {name: script.what for name, script in stage.sandbox.faults.items()}
    return Known(clean=clean, of_oauth=of_oauth, of_doctor=doctor, faults=faults)


def _calls(crm: str) -> dict[tuple[str, str], tuple[str, Mapping[str, str]]]:
    """(provider, call) -> the first sync that makes it, and what settings it takes."""
    people = PEOPLE[crm]
    met = {call: (people, {}) for call in known().clean[crm, people].calls}
    met = {call: (COMPANIES[crm], {}) for call in known().clean[crm, COMPANIES[crm]].calls} | met
    if crm == "hubspot":
        met = dict.fromkeys(known().of_oauth, (people, OAUTH)) | met
    return met


#: (when, times). What passes before its effect is a simpler matter than what passes after it; and where there is no
#: effect, before and after it are the same.
_WAYS = (("before", 999), ("after", 999), ("after", 1))
_WAYS_OF_A_READ = (("before", 999), ("after", 1))


def _is_read(call: str) -> bool:
    paid = call.endswith(PAID)
    return not paid and (
        call.startswith("GET ") or call.endswith(("/search", "/batch/read", "/composite/sobjects/<name>"))
    )


def _cases() -> Iterator[Case]:
    for crm in PEOPLE:
        for (provider, call), (sync, settings) in _calls(crm).items():
            for what in known().faults[provider]:
                for when, times in _WAYS if not _is_read(call) else _WAYS_OF_A_READ:
                    if what == "slow" and when == "before" and not _is_read(call):
                        continue  # it always comes after the effect
                    # Only an OAuth app's token expires.
                    oauth = OAUTH if what == "401_expired" else settings
                    yield Case(
                        crm=crm, sync=sync, provider=provider, call=call, what=what, when=when, times=times,
                        settings=oauth,
                    )  # fmt: skip


def _at_doctor() -> Iterator[Case]:
    for crm in PEOPLE:
        for provider, call in known().of_doctor[crm]:
            if (provider, call) not in _calls(crm):
                for what in known().faults[provider]:
                    yield Case(crm=crm, sync="", provider=provider, call=call, what=what, when="after", times=999)


#: Of so many cases one is tried by `make test`, all by `make test ARGS=--every-fault`.
_ONE_IN = 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    step = 1 if metafunc.config.getoption("--every-fault") else _ONE_IN
    for name, cases in (("case", _cases), ("at_doctor", _at_doctor)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [pytest.param(case, id=str(case)) for case in list(cases())[::step]])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage.set_up(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


# --- what must hold -----------------------------------------------------------------------------------------------


def check_end(office: Office, ended: Ended) -> None:
    """A named status, the exit code that goes with it, and nothing printed that should not be."""
    assert leaks(ended.output, office.secrets()) == []
    assert ended.run is not None, ended.output
    assert leaks(ended.run.reason + " ".join(r.reason for r in ended.records), office.secrets()) == []
    assert ended.run.status in CODES, ended.run.status
    assert ended.code in CODES[ended.run.status], ended.output
    assert ended.run.finished_at is not None
    assert bool(ended.run.reason) == (ended.run.status is not RunStatus.COMPLETED)
    assert ended.run.status is RunStatus.COMPLETED or ended.run.reason[:60] in " ".join(ended.output.split())


def check_books(ended: Ended) -> None:
    """selected = updated + unchanged + no match + skipped + needs review + invalid + rejected + in doubt, and the audit
    holds exactly so many records of each outcome; the same for the companies of the account: section."""
    run = ended.run
    assert run is not None
    parents = {r.object_type for r in ended.records} - {run.object_type}
    assert len(parents) <= 1
    for counts, kind in ((run.counts, run.object_type), (run.parents, next(iter(parents), ""))):
        told = {
            "Updated": counts.updated, "Unchanged": counts.unchanged, "No match": counts.no_match,
            "Skipped": counts.skipped, "Needs review": counts.needs_review, "Invalid": counts.invalid,
            "Rejected": counts.rejected, "In doubt": counts.in_doubt,
        }  # fmt: skip
        assert counts.selected == sum(told.values())
        audited = Counter(r.outcome for r in ended.records if r.object_type == kind)
        assert WRITING not in audited
        assert dict(audited) == {name: count for name, count in told.items() if count}


def check_money(case: Case, world: World, clean: World, runs: tuple[Ended, ...], fired: int) -> None:
    """Nobody is charged more often than on a clean walk, but where Apollo itself denied a charge; and a run whose
    answers all arrived says what Apollo charged."""
    lies = fired if case.denies_a_charge else 0
    for key, count in world.charged.items():
        assert count <= clean.charged.get(key, 1) + lies
    told = sum(int(ended.run.credits) for ended in runs if ended.run is not None)
    assert told <= sum(world.charged.values())
    is_lost = any(ended.ids("In doubt") for ended in runs)
    if case.sync == PEOPLE[case.crm] and not is_lost and not case.denies_a_charge:
        assert told == sum(world.charged.values())


def check_records(office: Office, clean: World, world: World, held: set[str]) -> None:
    """Field by field as after the clean walk. Those `held` in doubt are as they were before it, and what only they
    would have brought to their companies may be missing there."""
    for kind in clean.touched.keys() | world.touched.keys():
        wanted, found = clean.touched.get(kind, {}), world.touched.get(kind, {})
        for record_id in wanted.keys() | found.keys():
            want, have = wanted.get(record_id, {}), found.get(record_id, {})
            if record_id in held:
                assert have == office.begun.touched[kind].get(record_id, {}), (kind, record_id)
            elif held and kind in ("Account", "companies"):
                assert have.items() <= want.items(), (kind, record_id)
            else:
                assert have == want, (kind, record_id)


def check_writes(office: Office) -> None:
    """No field of a record ever got two values that differ."""
    values: dict[tuple[str, int, str], set[str]] = {}
    for kind, index, name, value in office.written:
        values.setdefault((kind, index, name), set()).add(value)
    assert {key: each for key, each in values.items() if len(each) > 1} == {}


# --- the matrix ---------------------------------------------------------------------------------------------------


def test_a_run_ends_in_order_and_a_later_one_finishes(stage: Stage, case: Case) -> None:
    with stage.office(case.crm, read_s=case.read_s, **case.settings) as office:
        check_case(office, case)


def check_case(office: Office, case: Case) -> None:
    clean = known().clean[case.crm, case.sync]
    office.spoil(case.provider, case.call, case.what, when=case.when, times=case.times)

    spoiled = office.run(case.sync)
    fired = office.fired(case.provider)
    between = office.world()
    office.heal()
    office.clock.leap(timedelta(days=8))  # what Apollo did not know is asked again after 7
    mended = office.run(case.sync)
    world = office.world()

    assert fired >= 1
    for ended in (spoiled, mended):
        check_end(office, ended)
        check_books(ended)
    held = spoiled.ids("In doubt")
    assert not held or case.is_paid
    assert mended.run is not None
    assert mended.run.status is RunStatus.COMPLETED
    if held and unexplained(spoiled, between, case) == 0:
        held = set()  # Apollo's meter proved that the lost calls cost nothing, so they were made again
    assert mended.run.left_out.get("in doubt", 0) == len(held)
    check_records(office, clean.world, world, held)
    check_money(case, world, clean.world, (spoiled, mended), fired)
    check_writes(office)
    if spoiled.code == 0 and not case.denies_existence:
        assert between.touched == clean.world.touched


def unexplained(spoiled: Ended, between: World, case: Case) -> int:
    """The credits on Apollo's meter that no answer of its own told: companies' answers tell none."""
    assert spoiled.run is not None
    told = int(spoiled.run.credits) if case.sync == PEOPLE[case.crm] else 0
    return sum(between.charged.values()) - told


def test_a_walk_without_a_fault_completes(stage: Stage) -> None:
    """What the matrix compares with is whole: people and companies written, most of what is due."""
    for (crm, sync), clean in known().clean.items():
        run = clean.ended.run
        assert run is not None
        assert run.status is RunStatus.COMPLETED, (crm, sync)
        assert run.counts.updated >= run.counts.selected // 2
        assert run.counts.no_match + run.counts.needs_review >= 1
        assert bool(run.parents.updated) == (sync == PEOPLE[crm])


def test_a_run_of_companies_tells_what_it_cost(stage: Stage) -> None:
    for crm, sync in COMPANIES.items():
        clean = known().clean[crm, sync]
        assert clean.ended.run is not None
        assert clean.ended.run.credits == sum(clean.world.charged.values())


# --- beyond the matrix --------------------------------------------------------------------------------------------


def test_doctor_tells_every_fault_without_a_trace(stage: Stage, at_doctor: Case) -> None:
    case = at_doctor
    with stage.office(case.crm, read_s=case.read_s) as office:
        office.spoil(case.provider, case.call, case.what, when=case.when, times=case.times)

        code, output = office.command("doctor")

        assert office.fired(case.provider) >= 1
        assert leaks(output, office.secrets()) == []
        assert code in (0, 1)
        assert office.world().charged == {}


#: One fault of each kind, at a call of each service.
SAMPLE = (
    ("salesforce", "salesforce", "POST */composite", "reset", "after", 1),
    ("salesforce", "salesforce", "POST */composite", "403_daily", "before", 99),
    ("salesforce", "apollo", "POST /api/v1/people/bulk_match", "cut", "after", 1),
    ("salesforce", "apollo", "POST /api/v1/people/bulk_match", "401", "before", 99),
    ("hubspot", "hubspot", "POST */search", "477", "before", 99),
    ("hubspot", "hubspot", "POST */batch/update", "not_utf8", "after", 1),
    ("hubspot", "hubspot", "POST */batch/read", "redirect", "before", 99),
    ("hubspot", "apollo", "POST /api/v1/people/bulk_match", "502_html", "after", 99),
)
_SAMPLE = pytest.mark.parametrize(("crm", "provider", "call", "what", "when", "times"), SAMPLE)


@_SAMPLE
def test_the_same_holds_on_postgresql(
    stage: Stage, postgres_url: str, crm: str, provider: str, call: str, what: str, when: str, times: int
) -> None:
    name = f"fault_{uuid.uuid4().hex}"
    admin = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create database {name}"))
    admin.dispose()
    case = Case(crm=crm, sync=PEOPLE[crm], provider=provider, call=call, what=what, when=when, times=times)

    with stage.office(crm, database_url=_with_database(postgres_url, name)) as office:
        check_case(office, case)


@_SAMPLE
def test_the_same_holds_for_the_real_command(
    stage: Stage, crm: str, provider: str, call: str, what: str, when: str, times: int
) -> None:
    with stage.office(crm) as office:
        office.spoil(provider, call, what, when=when, times=times)
        command = [sys.executable, "-m", "crm_sync", "run", PEOPLE[crm]]

        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)

        run = office.books.runs.latest()[0]
        assert ended.returncode in CODES[run.status]
        assert run.counts.balanced
        assert run.parents.balanced
        assert leaks(ended.stdout + ended.stderr, office.secrets()) == []
        assert re.search(run.status.value, ended.stdout)
