"""`init`: what it writes is taken by what comes next."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Desk


def test_what_it_writes_is_checked_and_applied_and_the_next_step_names_a_sync(desk: Desk) -> None:
    said = desk.run("init", "--crm", desk.crm)

    assert said.code == 0
    assert said.out.rstrip().endswith("crm-sync config check, crm-sync config apply, crm-sync plan contacts")
    for words in ("config", "check"), ("config", "apply"), ("plan", "contacts", "--limit", "2"):
        assert desk.run(*words).code == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("salesforce-eu", "Write salesforce_eu."),
        ("Salesforce", "Write salesforce."),
        ("apollo", "taken by the settings CRM_SYNC_APOLLO_…"),
        ("1st", "lower-case letters, digits and underscores only."),
    ],
)
def test_a_name_that_the_configuration_would_refuse_is_refused_at_once(desk: Desk, name: str, why: str) -> None:
    said = desk.run("init", "--crm", name, "--type", desk.crm)

    assert said.code == 2
    assert why in said.flat
    assert not (desk.folder / "crm_sync.yaml").exists()


@pytest.mark.parametrize("crm", ["salesforce"])
def test_departments_arrive_in_words(desk: Desk) -> None:
    desk.configure()
    desk.run("run", "contacts")

    records = desk.run("show", "--outcome", "Updated", "--limit", "99", "--json").json["records"]
    written = [
        f["new"] for r in records for f in r["fields"] if f["field"] == "Department" and f["outcome"] == "Written"
    ]
    assert written
    assert not any("_" in value for value in written)
    assert all(re.match(r"[A-Z]", value) for value in written)
