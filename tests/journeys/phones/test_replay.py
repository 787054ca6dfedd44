"""Deliveries that are carried out once more, while others are at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from crm_sync import crash
from crm_sync.clock import SystemClock
from crm_sync.domain.runs import RunKind
from crm_sync.store.exclusive import Exclusive
from tests.cli.conftest import ROOT, Desk
from tests.journeys.phones.conftest import MOBILE, STATUS, OpenPhones, PhoneOffice, office_of
from tests.journeys.phones.test_worker import served, working

TYPED = "+1 512 555 0100"


@pytest.fixture
def crm() -> str:
    """What is the commands' own is the same with either."""
    return "salesforce"


@pytest.fixture
def office(crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[PhoneOffice]:
    monkeypatch.chdir(tmp_path)
    # Back-off is real and does not hold up the tests; a command waits for another one in steps of a quarter.
    monkeypatch.setattr(SystemClock, "sleep", lambda _self, seconds: time.sleep(min(seconds, 0.25)))
    with office_of(crm, database_url, monkeypatch, tidy=True, contacts=50) as made:
        assert len(made.targets) > 10
        yield made


@pytest.fixture
def desk(office: PhoneOffice, tmp_path: Path) -> Desk:
    return Desk(sandbox=office.sandbox, crm=office.crm, folder=tmp_path)


def type_over(office: PhoneOffice, value: str | None) -> None:
    for index in office.targets:
        office.edit(index, {MOBILE[office.crm]: value})


def is_kept(office: PhoneOffice) -> bool:
    return office.app.reveals.counts() == {"kept": len(office.targets)}


def applied_once(office: PhoneOffice) -> None:
    """Each number is in its field, by one write, and no run of two did it at the same time."""
    assert office.app.reveals.counts() == {"applied": len(office.targets)}
    assert office.with_mobile == office.targets
    runs = sorted(
        (run for run in office.app.runs.latest() if run.kind is RunKind.PHONES), key=lambda run: run.started_at
    )
    updated: Counter[str] = Counter()
    for run in runs:
        updated.update(r.record_id for r in office.app.runs.records(run.id) if r.outcome == "Updated")
    assert updated == dict.fromkeys(map(office.id_of, office.targets), 1)
    for one, other in pairwise(runs):
        assert one.finished_at is not None
        assert one.finished_at <= other.started_at
    office.books_agree()


@pytest.mark.parametrize("which", ["one", "state", "time"])
def test_beside_a_worker_it_is_the_worker_who_carries_out(office: PhoneOffice, desk: Desk, which: str) -> None:
    type_over(office, TYPED)
    with working(office):
        office.walk()
        office.until(lambda: is_kept(office))
        type_over(office, None)
        listed = [each.id for each in office.app.deliveries.listed()]
        today = f"{office.app.clock.now():%Y-%m-%d}"
        words = {"one": [*map(str, listed)], "state": ["--state", "applied"], "time": ["--since", today]}[which]
        said = desk.run("phones", "replay", *words)
        assert said.code == 0
        assert f"{len(listed)} deliver" in said.flat
        assert f"{len(office.targets)} records waiting again" in said.flat
        assert "another process" in said.flat
        office.until(lambda: office.app.reveals.counts() == {"applied": len(office.targets)})
    applied_once(office)


def test_beside_a_server_of_its_own(open_phones: OpenPhones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    office = open_phones(tidy=True, contacts=50)
    desk = Desk(sandbox=office.sandbox, crm=office.crm, folder=tmp_path)
    type_over(office, TYPED)
    with served(office, tmp_path):
        office.walk()
        office.until(lambda: is_kept(office))
        type_over(office, None)
        told = desk.run("phones", "replay", "--state", "applied", "--json").json
        assert (told["carried_out"], told["waiting_again"]) == (False, len(office.targets))
        office.until(lambda: office.app.reveals.counts() == {"applied": len(office.targets)})
        for _ in range(3):
            desk.run("phones", "replay", "--state", "applied")
        office.until(lambda: "new" not in office.told())
    office.app.reveals.finish_runs()
    assert office.with_mobile == office.targets
    office.books_agree()


def test_of_several_at_the_same_time_each_number_is_written_once(office: PhoneOffice, tmp_path: Path) -> None:
    type_over(office, TYPED)
    office.walk()
    office.carry_out()
    assert is_kept(office)
    type_over(office, None)
    command = [sys.executable, "-m", "crm_sync", "phones", "replay", "--state", "applied", "--json"]
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    told = [json.loads(child.communicate(timeout=60)[0]) for child in children]

    assert [child.returncode for child in children] == [0, 0, 0]
    assert any(each.get("carried_out") for each in told)
    assert "new" not in office.told(), "nobody else would carry it out"
    applied_once(office)


def test_one_that_finds_another_command_at_its_end_carries_out_itself(office: PhoneOffice, desk: Desk) -> None:
    """The other one has looked for the last time and has the lock still; no server runs that would do it."""
    type_over(office, TYPED)
    office.walk()
    office.carry_out()
    type_over(office, None)
    other = Exclusive(office.front.store, "phones")
    assert other.take()
    ends = threading.Timer(1.0, other.release)
    ends.start()
    told = desk.run("phones", "replay", "--state", "applied", "--json").json
    ends.join()

    assert (told["carried_out"], told["waits"]) == (True, {"applied": len(office.targets)})
    applied_once(office)


# --- in the very moment ---------------------------------------------------------------------------------------------


def at(monkeypatch: pytest.MonkeyPatch, point: str, then: Callable[[], object]) -> list[str]:
    """The first time that a point is passed, this happens, as if another process did it."""
    met: list[str] = []

    def passing(name: str, _detail: str = "") -> None:
        if name == point and not met:
            met.append(name)
            then()

    monkeypatch.setattr(crash, "point", passing)
    return met


@pytest.mark.parametrize("point", ["resolve.due", "resolve.read", "resolve.judged", "reveals.settle.before"])
def test_a_replay_of_what_is_carried_out_at_this_moment_is_not_lost(
    office: PhoneOffice, desk: Desk, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The field is empty by now, and whoever writes has read it before."""
    type_over(office, TYPED)
    office.walk()
    office.until(lambda: office.told().get("new", 0) >= 1)
    [first, *_] = office.app.deliveries.to_read(now=office.app.clock.now(), limit=1)

    def replay() -> None:
        type_over(office, None)
        said.append(desk.run("phones", "replay", str(first.id)).flat)

    said: list[str] = []
    monkeypatch.setattr("crm_sync.cli.phones._LOOKS", 1)
    worker = Exclusive(office.front.store, "phones")
    assert worker.take()
    met = at(monkeypatch, point, replay)
    office.carry_out()
    office.carry_out(until=lambda: "new" not in office.told())
    worker.release()

    assert met
    assert "another process" in said[0]
    mine = [w.state for index in office.targets for w in [office.wait_of(index)] if w.delivery_id == first.id]
    assert set(mine) == {"applied"}
    office.books_agree()


def test_whoever_asks_for_a_phone_while_it_is_carried_out_gets_it(
    office: PhoneOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another record of the same person, and the numbers were taken to whoever waited a moment before."""
    index = office.targets[0]
    twin = next(each for each in range(50) if each not in office.targets)
    person = office.sandbox.world.person(index)
    office.walk()
    office.until(lambda: office.sold["delivered"] >= 1)
    same = {"Email": person.email, "FirstName": person.first_name, "LastName": person.last_name}

    def ask() -> None:
        office.edit(twin, {**same, STATUS[office.crm]: "Target"})
        office.walk()

    bought = office.sold["ordered"]
    met = at(monkeypatch, "reveals.settle.before", ask)
    office.carry_out()

    assert met
    assert office.sold["ordered"] == bought
    assert office.value(twin, MOBILE[office.crm]) == office.numbers_of(index)[0].sanitized
    office.books_agree()


def test_a_replay_while_the_crm_is_down_is_tried_until_it_is_up(office: PhoneOffice, desk: Desk) -> None:
    type_over(office, TYPED)
    office.walk()
    office.carry_out()
    type_over(office, None)
    office.fault("salesforce", call="*", what="503", times=1000)
    said = desk.run("phones", "replay", "--state", "applied")
    assert said.code == 0
    assert "put off" in said.flat
    office.sandbox.faults["salesforce"].clear()
    office.later(timedelta(minutes=1))
    office.carry_out()
    applied_once(office)


def test_what_was_undone_can_be_written_again_without_buying_it(office: PhoneOffice, desk: Desk) -> None:
    """The numbers went into the wrong field: the run is undone, the route mended, and the delivery replayed."""
    office.order_phones(**{"mobile: MobilePhone": "mobile: AssistantPhone"})
    office.walk()
    office.carry_out()
    right = office.targets[0]
    office.edit(right, {"AssistantPhone": "+1 512 555 0100"})  # a rep mended this one by hand
    [run] = [run for run in office.app.runs.latest() if run.kind is RunKind.PHONES]
    assert "1 conflict" in desk.run("undo", run.id, "--yes").flat
    office.order_phones()

    told = desk.run("phones", "replay", "--state", "applied", "--json").json

    count = len(office.targets) - 1
    assert (told["waiting_again"], told["waits"]) == (count, {"applied": count})
    assert office.with_mobile == office.targets[1:]
    assert office.ended(right)[0] == "applied", "nobody took it back"
    again = desk.run("phones", "replay", "--state", "applied", "--json").json
    assert again["waiting_again"] == 0
    office.books_agree()
