"""What is said when a neighbour is not there, does not take the key, or fails: the thing, the place, the next step."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk

SECRET = {"salesforce": "CRM_SYNC_SALESFORCE_CONSUMER_SECRET", "hubspot": "CRM_SYNC_HUBSPOT_TOKEN"}
URL = {"salesforce": "CRM_SYNC_SALESFORCE_URL", "hubspot": "CRM_SYNC_HUBSPOT_URL"}


def test_a_crm_that_is_not_there_names_the_setting_of_its_address(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL[desk.crm], "http://127.0.0.1:9")

    for words in (
        ("fields", desk.crm, "Contact" if desk.crm == "salesforce" else "contacts"),
        ("init", "--crm", desk.crm),
    ):
        said = desk.run(*words)

        assert said.code == 1
        assert f"(connection refused); check {URL[desk.crm]} and the network" in said.err


def test_a_wrong_secret_names_its_setting_and_not_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET[desk.crm], "wr0ng-and-secret")

    said = desk.run("init", "--crm", desk.crm)

    assert said.code == 1
    assert SECRET[desk.crm] in said.err
    assert "wr0ng" not in said.err


def test_a_name_of_ones_own_is_in_the_settings_that_are_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in desk.sandbox.settings().items():
        if name.startswith(f"CRM_SYNC_{desk.crm.upper()}_"):
            monkeypatch.setenv(name.replace(desk.crm.upper(), "MY_OWN"), value)
    monkeypatch.setenv("CRM_SYNC_MY_OWN_URL", "http://127.0.0.1:9")

    said = desk.run("init", "--crm", "my_own", "--type", desk.crm)

    assert "check CRM_SYNC_MY_OWN_URL and the network" in said.err


@pytest.mark.parametrize(
    ("crm", "call"),
    [("salesforce", "POST /services/oauth2/token"), ("salesforce", "*"), ("hubspot", "*")],
)
def test_a_crm_that_fails_for_the_moment_is_said_to_be_tried_later(desk: Desk, call: str) -> None:
    desk.sandbox.faults[desk.crm].add([{"call": call, "what": "502_html", "times": 99}])

    said = desk.run("init", "--crm", desk.crm)

    assert said.code == 1
    assert f"run again later (status.{desk.crm}.com tells of outages)" in said.err


@pytest.mark.parametrize("crm", ["hubspot"])
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:////nowhere/at/all.db", "sqlite:////tmp", "nonsense"])
def test_a_database_setting_that_cannot_be_is_a_matter_of_configuration(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", url)

    said = desk.run("runs")

    assert said.code == 2
    assert "CRM_SYNC_DATABASE_URL" in said.err
