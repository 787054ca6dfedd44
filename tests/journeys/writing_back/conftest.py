"""One person sync whose fields a test chooses; its records are looked at in every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.journeys.conftest import Office, Open

TITLE = {"salesforce": "Title", "hubspot": "jobtitle"}
CITY = {"salesforce": "MailingCity", "hubspot": "city"}
EMPTY: dict[str, Any] = {"salesforce": None, "hubspot": ""}

_TEXT = """
version: 1
timezone: UTC
crms: {{{crm}: {{type: {crm}, environment: sandbox{write}}}}}
placeholders: ["[[unknown]]", "n/a"]
syncs:
  contacts:
    crm: {crm}
    object: {object}
    choose: {{missing_any: []}}
    match:
      send: {{email: {email}, first_name: {first}, last_name: {last}}}
{match}    fields:
{fields}
{sync}
"""
_NAMES = {
    "salesforce": {"object": "Contact", "email": "Email", "first": "FirstName", "last": "LastName"},
    "hubspot": {"object": "contacts", "email": "email", "first": "firstname", "last": "lastname"},
}


def text(crm: str, fields: dict[str, str], *, write: str = "", match: str = "", sync: str = "") -> str:
    """A configuration with these fields; `match` and `sync` are further lines at their places."""
    return _TEXT.format(
        crm=crm,
        write=f", write: {write}" if write else "",
        fields="\n".join(f"      {name}: {spec}" for name, spec in fields.items()),
        match="".join(f"      {line}\n" for line in match.splitlines()),
        sync="".join(f"    {line}\n" for line in sync.splitlines()),
        **_NAMES[crm],
    )


Configured = Callable[..., Office]


@pytest.fixture
def configured(open_office: Open, crm: str) -> Configured:
    """configured(fields, **options of `text`, contacts=…) -> Office, tidy records."""

    def make(fields: dict[str, str], *, contacts: int = 30, **options: Any) -> Office:
        office = open_office(contacts=contacts, tidy=True)
        office.apply(text(crm, fields, **options))
        office.restart()
        return office

    return make


def decisions(office: Office, run_id: str, index: int) -> dict[str, tuple[str, str]]:
    """CRM field -> (outcome, reason) of one record in a run."""
    record = office.app.runs.record(run_id, office.people, office.id_of(index))
    return {d.field: (d.outcome.value, d.reason) for d in record.decisions} if record is not None else {}
