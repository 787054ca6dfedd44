"""`doctor`: what is well, what can wait, what has to be mended, and that no check hides another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crm_sync.bootstrap import App
from tests.cli.conftest import Desk

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

    ours = {"settings", "database", "restore", "secret key", "configuration", "clock"}
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
