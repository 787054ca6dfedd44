"""Sentences end where they end, numbers are written for people, and help is not cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from crm_sync.sandbox.run import Sandbox
from tests.cli.conftest import Desk, a_desk

#: A field that the CRM keeps to itself, and a mapped one of `init` to put it in the place of.
READ_ONLY = {
    "salesforce": ("      Title:", "      LastActivityDate:"),
    "hubspot": ("      jobtitle:", "      createdate:"),
}


def test_the_reason_why_a_field_cannot_be_written_is_a_sentence_of_its_own(desk: Desk) -> None:
    desk.run("init", "--crm", desk.crm)
    file = desk.folder / "crm_sync.yaml"
    old, new = READ_ONLY[desk.crm]
    file.write_text(file.read_text().replace(old, new, 1))

    said = desk.run("config", "check")

    assert said.code == 2
    assert " cannot be written: " in said.text
    assert ". Map another field, or set write: never" in said.text


@pytest.mark.parametrize("crm", ["salesforce"])
def test_an_operator_that_soql_has_not_is_called_so(desk: Desk) -> None:
    desk.run("init", "--crm", "salesforce")
    file = desk.folder / "crm_sync.yaml"
    file.write_text(file.read_text().replace('# where: "AccountId != null"', 'where: "AccountId !== null"'))

    said = desk.run("config", "check")

    assert said.code == 2
    assert "!== is no operator; use = != " in said.flat


@pytest.mark.parametrize("crm", ["hubspot"])
def test_doctor_writes_credits_as_people_do(desk: Desk) -> None:
    (check,) = [check for check in desk.run("doctor", "--json").json if check["name"] == "Apollo credits"]

    assert check["detail"].startswith("1,000,000 left")


@pytest.mark.parametrize("crm", ["hubspot"])
@pytest.mark.parametrize(
    "words", [(), ("config",), ("doubt",), ("secrets",), ("suppress",), ("privacy",), ("restore",)]
)
def test_help_is_wrapped_and_not_cut(desk: Desk, words: tuple[str, ...]) -> None:
    shown = desk.on_terminal(80, *words, "--help")

    assert "..." not in shown.partition("Commands:")[2]
    assert len(shown.partition("Commands:")[2].splitlines()) > 1
    assert max(map(len, shown.splitlines())) <= 80


def test_a_company_to_review_is_told_by_its_own_domain_and_its_reason_is_counted_once(
    crm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(contacts=2000, unlimited=True, per_minute=None) as sandbox:
        desk = a_desk(sandbox, crm, tmp_path, monkeypatch)
        desk.configure()
        said = desk.run("run", "accounts" if crm == "salesforce" else "companies")
        shown = desk.run("show", "--outcome", "Needs review", "--limit", "99", "--json").json

    reasons = [record["reason"] for record in shown["records"] if "nothing proves" in record["reason"]]
    assert len(reasons) > 3
    assert len(set(reasons)) == len(reasons)
    assert all(len(reason) < 140 and reason.count(".") == 1 for reason in reasons), reasons
    assert said.flat.count("nothing proves which answer is this company's") == 1
    assert f" and {len(reasons) - 1} others)" in said.flat
