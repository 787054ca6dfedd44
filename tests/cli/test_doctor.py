"""`doctor`: what is well, what can wait, what has to be mended, and that no check hides another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crm_sync import bootstrap
from crm_sync.bootstrap import App
from tests.cli.conftest import Desk
from tests.conftest import database_of
from tests.lines import a_line, a_pooler, through

OTHER = {"salesforce": "HUBSPOT", "hubspot": "SALESFORCE"}


def marks(text: str) -> dict[str, str]:
    """Name of a check -> its mark; of several with one name the worst."""
    found: dict[str, str] = {}
    for mark, name in re.findall(r"^(ok|note|FAIL) +([^:]+): ", text, re.MULTILINE):
        found[name] = max(found.get(name, ""), mark, key=("", "ok", "note", "FAIL").index)
    return found


def test_a_sound_installation_has_nothing_to_mend(desk: Desk) -> None:
    desk.configure()

    said = desk.run("doctor")

    assert said.code == 0
    assert "FAIL" not in said.text
    assert marks(said.text)["configuration"] == marks(said.text)["database"] == "ok"


def test_the_settings_of_a_crm_that_is_not_used_are_nothing_to_speak_of(desk: Desk) -> None:
    desk.configure()

    said = desk.run("doctor")

    assert OTHER[desk.crm] not in said.text
    assert marks(said.text)["settings"] == "ok"


def test_a_setting_that_no_part_has_is_noted_with_the_nearest_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SYNC_APOLO_API_KEY", "x")

    said = desk.run("doctor")

    assert "note settings: CRM_SYNC_APOLO_API_KEY is set and no setting has that name; did you mean" in said.text


@pytest.mark.parametrize("crm", ["hubspot"])
def test_every_line_about_a_crm_names_it(desk: Desk) -> None:
    desk.configure()

    names = [check["name"] for check in desk.run("doctor", "--json").json]

    ours = {"settings", "database", "database speed", "restore", "secret key", "configuration", "clock"}
    assert all(name in ours or name.startswith(("hubspot ", "Apollo ")) for name in names), names


def test_a_database_that_cannot_be_used_hides_no_other_check(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", f"sqlite:///{desk.folder}/nowhere/crm_sync.db")

    said = desk.run("doctor")

    found = marks(said.text)
    assert said.code == 1
    assert found["database"] == found["configuration"] == "FAIL"
    assert found["settings"] == found["clock"] == found["Apollo key"] == found["Apollo credits"] == "ok"
    assert any(name.startswith(desk.crm) for name in found)


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_file_that_is_no_database_fails(desk: Desk) -> None:
    (desk.folder / "crm_sync.db").write_bytes(b"this is no database " * 400)

    found = marks(desk.run("doctor").text)

    assert (found["database"], found["configuration"], found["Apollo key"]) == ("FAIL", "FAIL", "ok")


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_setting_that_cannot_be_hides_no_check_that_does_without_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SYNC_APOLLO_AUTH", "cookie")

    said = desk.run("doctor")

    assert said.code == 1
    assert "FAIL settings: CRM_SYNC_APOLLO_AUTH has a value that cannot be; write one of: header, body" in said.text
    assert [name for name, mark in marks(said.text).items() if name.startswith("hubspot") and mark == "ok"]


@pytest.mark.parametrize("crm", ["hubspot"])
def test_before_the_first_configuration_the_next_step_is_told(desk: Desk) -> None:
    first = desk.run("doctor")
    (desk.folder / "crm_sync.yaml").write_text("version: 1\n")
    second = desk.run("doctor")

    for said in (first, second):
        assert said.code == 0
        assert "note configuration: none has been applied yet" in said.text
    assert "crm-sync init" in first.text
    assert "→ crm_sync.yaml is there; run crm-sync config check, then crm-sync config apply" in second.flat


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_configuration_that_is_not_understood_any_more_fails_with_the_ways_out(desk: Desk) -> None:
    app = App()
    app.versions.add(b"version: 1\nsyncs: \xff\n", {}, author="test", note="", now=app.clock.now())
    app.close()

    said = desk.run("doctor")

    assert said.code == 1
    assert marks(said.text)["configuration"] == "FAIL"
    assert "this is not UTF-8 text" in said.text
    assert "crm-sync config rollback" in said.text


@pytest.mark.parametrize("crm", ["hubspot"])
def test_without_any_settings_it_says_where_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    for name in desk.sandbox.settings():
        monkeypatch.delenv(name)

    said = desk.run("doctor")

    assert said.code == 1
    assert "FAIL settings: CRM_SYNC_APOLLO_API_KEY is not set" in said.text
    assert "FAIL settings: no CRM has settings yet; crm-sync init --crm" in said.text


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_crm_with_half_its_settings_is_missed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_SYNC_SALESFORCE_CONSUMER_KEY")

    said = desk.run("doctor")

    assert said.code == 1
    assert "FAIL settings: CRM_SYNC_SALESFORCE_CONSUMER_KEY is not set" in said.text


@pytest.mark.parametrize("crm", ["hubspot"])
def test_who_is_at_work_is_told_and_who_differs_has_to_be_mended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure()
    app = App()
    app.presence("worker").once()
    app.close()
    same = desk.run("doctor")

    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "another-key")
    monkeypatch.setattr(bootstrap, "__version__", "0.2.0")
    other = desk.run("doctor")

    assert same.code == 0
    assert re.search(
        r"ok processes: at work with this version and these settings: worker on \S+ \(process \d+\)", same.flat
    )
    assert other.code == 1
    assert marks(other.text)["processes"] == "FAIL"
    assert "it is crm-sync 0.1.0 and this is 0.2.0; it has another CRM_SYNC_APOLLO_API_KEY →" in other.flat
    assert "another-key" not in other.text


@pytest.mark.parametrize("crm", ["hubspot"])
@pytest.mark.postgres
def test_a_database_that_answers_slowly_can_wait(
    desk: Desk, postgres_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", "a key that is long enough for it")
    with database_of("postgresql", request, desk.folder) as url, a_line(url) as line:
        monkeypatch.setenv("CRM_SYNC_DATABASE_URL", through(url, line.port))
        desk.configure()
        line.delay_s = 0.02
        said = desk.run("doctor")

    assert said.code == 0
    assert marks(said.text)["database speed"] == "note"
    assert re.search(
        r"database speed: \d+ ms for a round trip, \d+ ms for a small write; that is slow \(limits:", said.flat
    )


@pytest.mark.parametrize("crm", ["hubspot"])
@pytest.mark.postgres
def test_a_pooler_that_lends_out_sessions_has_to_be_mended(
    desk: Desk, postgres_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", "a key that is long enough for it")
    with database_of("postgresql", request, desk.folder) as url, a_pooler(url) as pooler:
        monkeypatch.setenv("CRM_SYNC_DATABASE_URL", url)
        desk.configure()
        monkeypatch.setenv("CRM_SYNC_DATABASE_URL", through(url, pooler.port))
        said = desk.run("doctor")

    assert said.code == 1
    assert marks(said.text)["database"] == "FAIL"
    assert "the locks by which one process at a time is the scheduler" in said.flat
    assert "→ let PgBouncer pool by the session (pool_mode = session)" in said.flat


@pytest.mark.parametrize("crm", ["hubspot"])
@pytest.mark.parametrize(
    ("version", "told"),
    [("0006", "run crm-sync migrate"), ("9999", "it was made by a newer version; upgrade crm-sync")],
)
def test_another_schema_has_to_be_mended_and_hides_no_other_check(desk: Desk, version: str, told: str) -> None:
    desk.configure()
    app = App()
    with app.store.write() as connection:
        connection.exec_driver_sql(f"update alembic_version set version_num = '{version}'")
    app.close()

    said = desk.run("doctor")

    assert said.code == 1
    assert marks(said.text)["database"] == "FAIL"
    assert told in said.flat
    assert marks(said.text)["Apollo key"] == "ok"


@pytest.mark.parametrize("crm", ["hubspot"])
def test_another_secret_key_has_to_be_mended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.configure()
    desk.run("plan", "contacts", "--limit", "1")
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", "a key that is long enough but another")

    said = desk.run("doctor")

    assert said.code == 1
    assert marks(said.text)["secret key"] == "FAIL"
    assert "put that key back into the list" in said.flat
