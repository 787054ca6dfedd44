"""The restore drill: run, back up, run more, restore. Nobody is bought twice by the sandbox's own ledger."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

from crm_sync.cli import cli
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun
from crm_sync.pipeline.run import run_sync
from crm_sync.pipeline.walk import Spending
from crm_sync.sandbox.run import Sandbox
from crm_sync.store.exclusive import Exclusive
from tests.conftest import _with_database
from tests.journeys.conftest import Office
from tests.postgres import programs_in_path

STAMPS = {
    "salesforce": "stamps: {enriched_at: Apollo_Enriched_At__c, status: Apollo_Status__c}",
    "hubspot": "stamps: {enriched_at: apollo_enriched_at, status: apollo_status}",
}
TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}


@dataclass
class Drill:
    """One installation whose database can be backed up and put back."""

    office: Office
    database_url: str
    backup_url: str
    admin_url: str = ""
    copies: list[str] = field(default_factory=list)

    def back_up(self) -> None:
        self.office.app.close()
        if self.admin_url:
            self._say(f"create database {_name(self.backup_url)} template {_name(self.database_url)}")
        else:
            _empty_the_journal(_path(self.database_url))
            shutil.copy(_path(self.database_url), _path(self.backup_url))
        self.office.restart()

    def put_back(self) -> None:
        """The backup in the place of the database; what lies outside it stays."""
        self.office.app.close()
        if self.admin_url:
            self._say(f"drop database {_name(self.database_url)} with (force)")
            self._say(f"alter database {_name(self.backup_url)} rename to {_name(self.database_url)}")
        else:
            for leftover in ("", "-wal", "-shm"):
                Path(f"{_path(self.database_url)}{leftover}").unlink(missing_ok=True)
            shutil.copy(_path(self.backup_url), _path(self.database_url))
        self.office.restart()

    def _say(self, statement: str) -> None:
        admin = create_engine(self.admin_url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(statement))
        admin.dispose()

    def run(self, sync: str = "contacts", *, limit: int | None = None, **more: Any) -> SyncRun:
        services = self.office.app.services()
        values = {"kind": RunKind.RUN, "trigger": "test", "limit": limit, **more}
        return run_sync(services.config.syncs[sync], services, **values)

    def command(self, *words: str, say: str = "") -> Result:
        return CliRunner().invoke(cli, list(words), input=say)

    def json(self, *words: str, code: int = 0) -> Any:
        result = self.command(*words)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    @property
    def ledger(self) -> dict[str, Any]:
        """What Apollo itself says it charged."""
        return requests.get(f"{self.office.sandbox.apollo_url}/_sandbox/state", timeout=5).json()["credits"]

    def paid_calls(self) -> int:
        calls = self.office.calls("apollo")
        return sum(count for call, count in calls.items() if "match" in call or "enrich" in call)


def _path(url: str) -> str:
    return url.removeprefix("sqlite:///")


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _empty_the_journal(path: str) -> None:
    """What SQLite still has in its write-ahead log goes into the file: the copy is whole, as VACUUM INTO makes it."""
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


Start = Callable[..., Drill]


@pytest.fixture
def start(
    crm: str, database_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Start]:
    running: list[Drill] = []

    def start_(*, stamps: bool = True, **options: Any) -> Drill:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("adapters.hubspot.client.HubSpotCrm.select_lag_s", 0.0)  # the sandbox's index is at once
        monkeypatch.setattr("crm_sync.clock.SystemClock.sleep", lambda _clock, seconds: time.sleep(min(seconds, 0.01)))
        sandbox = Sandbox(**{"contacts": 60, "tidy": True, "unlimited": True, "per_minute": None, **options}).start()
        office = Office(sandbox, crm, database_url, monkeypatch)
        if stamps:
            office.apply(f"{office.text}\n{STAMPS[crm]}\n")
        if database_url.startswith("sqlite"):
            drill = Drill(office=office, database_url=database_url, backup_url=f"{database_url}.backup")
        else:
            server = request.getfixturevalue("postgres_url")
            drill = Drill(
                office=office,
                database_url=database_url,
                backup_url=_with_database(server, f"{_name(database_url)}_b"),
                admin_url=server.replace("postgresql://", "postgresql+psycopg://"),
            )
        running.append(drill)
        return drill

    yield start_
    for drill in running:
        drill.office.app.close()
        drill.office.sandbox.stop()


def test_the_drill(start: Start, crm: str) -> None:
    drill = start()
    drill.run(limit=20)
    drill.back_up()
    forgotten = drill.run()
    spent = drill.ledger["charged"]
    assert forgotten.credits > 20
    drill.put_back()
    calls = drill.paid_calls()

    held = drill.run()
    again = drill.run()
    planned = drill.run(kind=RunKind.PLAN, limit=10)

    assert [run.status for run in (held, again, planned)] == [RunStatus.FAILED] * 3
    assert "restored from a backup" in held.reason or "it is a copy" in held.reason
    assert held.counts.selected == 0
    assert drill.command("run", "contacts").exit_code == 1
    assert drill.paid_calls() == calls, "nothing was asked"
    doctor = {check["name"]: check for check in drill.json("doctor", "--json", code=1)}
    assert not doctor["restore"]["ok"]
    assert doctor["restore"]["detail"] == held.reason

    status = drill.json("restore", "status", "--json", code=1)
    dry = drill.json("restore", "reconcile", "--dry-run", "--json")
    assert status["held"] == held.reason
    assert status["credits_forgotten"] == float(forgotten.credits)
    assert {each["sync"]: each["records"] for each in dry["syncs"]}["contacts"] >= forgotten.counts.updated
    assert drill.run().status is RunStatus.FAILED

    released = drill.json("restore", "reconcile", "--yes", "--json")
    after = drill.run()
    drill.office.restart()
    last = drill.run()

    assert released["released"] is True
    assert after.status is RunStatus.COMPLETED
    assert last.status is RunStatus.COMPLETED
    assert drill.ledger["more_than_once"] == {}
    assert drill.ledger["charged"] == spent, "everybody was bought before the restore"
    status = drill.json("restore", "status", "--json")
    assert status["held"] == ""
    assert status["released_by"]


def test_the_drill_with_our_own_backup(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs_in_path(monkeypatch)
    drill = start()
    drill.run(limit=20)
    made = drill.json("backup", "first.backup", "--json")
    drill.run()
    spent = drill.ledger["charged"]

    drill.office.app.close()
    put_back = drill.command("restore", "from", "first.backup", "--yes")
    drill.office.restart()
    held = drill.run()
    released = drill.json("restore", "reconcile", "--yes", "--json")
    after = drill.run()

    assert made["bytes"] == (tmp_path / "first.backup").stat().st_size
    assert put_back.exit_code == 0, put_back.output
    assert "It is back." in put_back.output
    assert "restored from a backup" in put_back.output
    assert held.status is RunStatus.FAILED
    assert "restored from a backup" in held.reason
    assert released["released"] is True
    assert after.status is RunStatus.COMPLETED
    assert drill.ledger["more_than_once"] == {}
    assert drill.ledger["charged"] == spent, "everybody was bought before the restore"


def test_our_own_backup_made_in_mid_run_is_told_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    programs_in_path(monkeypatch)
    drill = start(stamps=False)
    monkeypatch.setattr("crm_sync.pipeline.run._SAVE_EVERY", timedelta(0))
    made: list[Result] = []

    def watch(_due: Any) -> None:
        if not made:
            made.append(drill.command("backup", "mid.backup"))

    drill.run(met=watch)
    spent = drill.ledger["charged"]
    drill.office.app.close()
    put_back = drill.command("restore", "from", "mid.backup", "--yes")
    drill.office.restart()
    with drill.office.app.store.write() as connection:
        connection.exec_driver_sql("update runs set owner = 'elsewhere:1', alive_at = 0 where status = 'Running'")

    held = drill.run()

    assert made[0].exit_code == 0, made[0].output
    assert put_back.exit_code == 0, put_back.output
    assert held.status is RunStatus.FAILED
    assert "restored from a backup" in held.reason
    assert drill.ledger["charged"] == spent


def test_nothing_is_put_back_under_who_uses_the_database(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    programs_in_path(monkeypatch)
    drill = start()
    drill.run(limit=20)
    drill.command("backup", "first.backup")
    drill.run()
    epoch = drill.json("restore", "status", "--json")["epoch"]
    refused: list[Result] = []

    with Exclusive(drill.office.app.store, "phones") as lock:
        assert lock.take()
        refused.append(drill.command("restore", "from", "first.backup", "--yes"))
    drill.office.edit(3, {TITLE[drill.office.crm]: None if drill.office.crm == "salesforce" else ""})
    drill.run(met=lambda _due: refused.append(drill.command("restore", "from", "first.backup", "--yes")))
    unsure = drill.command("restore", "from", "first.backup", say="n\n")

    assert "stop them first" in refused[0].output
    assert "is under way: wait for it" in refused[1].output
    assert [each.exit_code for each in (*refused[:2], unsure)] == [1, 1, 1]
    assert drill.json("restore", "status", "--json")["epoch"] > epoch


def test_whom_the_restored_database_forgot_is_skipped_with_the_reason(start: Start, crm: str) -> None:
    drill = start()
    drill.run(limit=20)
    drill.back_up()
    drill.run()
    drill.put_back()
    drill.run()
    drill.json("restore", "reconcile", "--yes", "--json")
    # Somebody blanks a field: the record is due, and its answer is not here.
    drill.office.edit(50, {TITLE[crm]: None if crm == "salesforce" else ""})

    run = drill.run()

    assert run.counts.selected == run.counts.skipped == 1
    reasons = [reason for _, _, reason, _ in drill.office.app.runs.reasons(run.id)]
    assert len(reasons) == 1
    assert "as its stamp in the CRM says, and the answer is not in this database any more" in reasons[0]
    assert drill.ledger["more_than_once"] == {}


def test_stored_answers_still_serve_while_it_is_held(start: Start, crm: str) -> None:
    drill = start()
    drill.run(limit=20)
    drill.back_up()
    drill.run()
    drill.put_back()
    drill.run()
    drill.office.edit(3, {TITLE[crm]: None if crm == "salesforce" else ""})
    calls = drill.paid_calls()

    free = drill.run(spending=Spending(free=True))

    assert free.counts.updated == 1
    assert drill.office.value(3, TITLE[crm]) == drill.office.sandbox.world.person(3).title
    assert drill.paid_calls() == calls


def test_a_backup_made_in_mid_run_is_told_too(start: Start, crm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch rises while a run spends, or the restored run would look like one that was just killed."""
    drill = start(stamps=False)
    if drill.admin_url:
        pytest.skip("PostgreSQL makes no template of a database that is in use; a dump in mid-run has another home")
    monkeypatch.setattr("crm_sync.pipeline.run._SAVE_EVERY", timedelta(0))
    seen: list[int] = []

    def watch(_due: Any) -> None:
        if not seen:
            seen.append(1)
            shutil.copy(_path(drill.database_url), _path(drill.backup_url))
            for ending in ("-wal", "-shm"):
                shutil.copy(f"{_path(drill.database_url)}{ending}", f"{_path(drill.backup_url)}{ending}")

    drill.run(met=watch)
    spent = drill.ledger["charged"]
    drill.office.app.close()
    for ending in ("", "-wal", "-shm"):
        shutil.copy(f"{_path(drill.backup_url)}{ending}", f"{_path(drill.database_url)}{ending}")
    drill.office.restart()
    with drill.office.app.store.write() as connection:
        connection.exec_driver_sql("update runs set owner = 'elsewhere:1', alive_at = 0 where status = 'Running'")

    held = drill.run()

    assert held.status is RunStatus.FAILED
    assert "restored from a backup" in held.reason
    assert drill.ledger["charged"] == spent


def test_without_stamps_only_a_person_lets_it_spend_again(start: Start, crm: str) -> None:
    drill = start(stamps=False)
    drill.run(limit=20)
    drill.back_up()
    forgotten = drill.run()
    drill.put_back()

    refused = drill.command("restore", "reconcile", "--yes")
    wrong = drill.command("restore", "accept", say="yes\n")
    assert drill.run().status is RunStatus.FAILED
    accepted = drill.command("restore", "accept", say="buy again\n")

    assert refused.exit_code == 1
    assert "no `stamps.enriched_at` is configured" in refused.output
    assert f"at most {forgotten.credits:f} could be spent again" in refused.output
    assert wrong.exit_code == 1
    assert "Nothing was changed." in wrong.output
    assert accepted.exit_code == 0, accepted.output
    assert drill.run().status is RunStatus.COMPLETED


def test_a_crm_that_cannot_be_read_keeps_it_held(start: Start, crm: str) -> None:
    drill = start()
    drill.run(limit=20)
    drill.back_up()
    drill.run()
    drill.put_back()
    drill.run()
    call = {"salesforce": "GET *", "hubspot": "POST *search"}[crm]
    drill.office.sandbox.faults[crm].add([{"call": call, "what": "500", "times": 999}])

    refused = drill.command("restore", "reconcile", "--yes")
    drill.office.sandbox.faults[crm].clear()
    held = drill.run()
    released = drill.command("restore", "reconcile", "--yes")

    assert refused.exit_code == 1
    assert "spending stays held" in refused.output
    assert held.status is RunStatus.FAILED
    assert released.exit_code == 0, released.output
    assert drill.run().status is RunStatus.COMPLETED
    assert drill.ledger["more_than_once"] == {}


def test_a_second_installation_on_the_same_crm_is_noticed_by_the_stamps(
    start: Start, crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = start()
    drill.run(limit=30)
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", f"sqlite:///{tmp_path}/second.db")
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "second.instance"))
    drill.office.restart()
    drill.office.apply(f"{drill.office.text}\n{STAMPS[crm]}\n")

    held = drill.run()
    released = drill.json("restore", "reconcile", "--yes", "--json")
    after = drill.run()

    assert held.status is RunStatus.FAILED
    assert "this database knows of no call at all" in held.reason
    assert released["released"] is True
    assert after.status is RunStatus.COMPLETED
    assert after.credits > 0
    assert drill.ledger["more_than_once"] == {}


def test_a_new_database_in_the_place_of_a_lost_one_is_held(start: Start, crm: str) -> None:
    drill = start()
    drill.run(limit=30)
    drill.office.app.close()
    if drill.admin_url:
        drill._say(f"drop database {_name(drill.database_url)} with (force)")
        drill._say(f"create database {_name(drill.database_url)}")
    else:
        for leftover in ("", "-wal", "-shm", ".key"):
            Path(f"{_path(drill.database_url)}{leftover}").unlink(missing_ok=True)
    drill.office.restart()
    drill.office.apply(f"{drill.office.text}\n{STAMPS[crm]}\n")

    held = drill.run()
    released = drill.json("restore", "reconcile", "--yes", "--json")
    after = drill.run()

    assert "this one is new" in held.reason
    assert released["released"] is True
    assert after.credits > 0
    assert drill.ledger["more_than_once"] == {}


def test_a_copy_that_is_started_elsewhere_is_held(
    start: Start, crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = start()
    drill.run(limit=20)
    drill.back_up()
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", drill.backup_url)
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "elsewhere.instance"))
    if not drill.admin_url:
        shutil.copy(f"{_path(drill.database_url)}.key", f"{_path(drill.backup_url)}.key")
    drill.office.restart()

    held = drill.run()

    assert held.status is RunStatus.FAILED
    assert ("is missing" if not drill.admin_url else "it is a copy, or was moved") in held.reason
    drill.office.app.close()


def test_a_machine_that_joins_a_postgresql_goes_on_and_one_with_a_foreign_file_does_not(
    start: Start, crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = start()
    if not drill.admin_url:
        pytest.skip("one SQLite file belongs to one machine")
    drill.run(limit=10)
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "second.instance"))
    drill.office.restart()
    joined = drill.run(limit=10)
    (tmp_path / "second.instance").write_text(
        '{"instance": "someone-elses", "epoch": 3, "noted_at": "2026-11-27T12:00:00+00:00"}'
    )
    drill.office.restart()
    foreign = drill.run(limit=10)
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "crm_sync.instance"))
    drill.office.restart()
    first = drill.run(limit=10)

    assert joined.status is RunStatus.COMPLETED
    assert foreign.status is RunStatus.FAILED
    assert "belongs to another database" in foreign.reason
    assert first.status is RunStatus.COMPLETED, "the others go on"


def test_nothing_is_held_and_says_so(start: Start, crm: str) -> None:
    drill = start()

    before = drill.command("restore", "status")
    drill.run(limit=10)
    after = drill.command("restore", "status")
    reconciled = drill.command("restore", "reconcile", "--yes")
    accepted = drill.command("restore", "accept", "--yes")

    assert "has not spent yet" in before.output
    assert "Nothing is held. Database " in after.output
    assert "this database may spend" in reconciled.output
    assert "this database may spend" in accepted.output
    assert {before.exit_code, after.exit_code, reconciled.exit_code, accepted.exit_code} == {0}


def test_erasures_noted_beside_the_database_are_mentioned(start: Start, crm: str) -> None:
    drill = start()
    if drill.admin_url:
        pytest.skip("they are noted beside a SQLite database")
    Path(f"{_path(drill.database_url)}.erasures").write_text("…")

    assert "Repeat those erasures" in drill.command("restore", "status").output
