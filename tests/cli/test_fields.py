"""`fields`: what can be mapped."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk

OBJECTS = {"salesforce": ("Contact", "Lead", "Account"), "hubspot": ("contacts", "companies")}


def test_every_object_is_shown_with_the_values_of_a_record(desk: Desk) -> None:
    for name in OBJECTS[desk.crm]:
        told = desk.run("fields", desk.crm, name, "--json")

        assert told.code == 0, told.text
        assert [field["name"] for field in told.json if field["sample"] is not None]
        assert desk.run("fields", desk.crm, name).out.count("\n") > len(told.json)


@pytest.mark.parametrize("crm", ["salesforce"])
def test_a_compound_field_is_listed_without_a_sample_and_names_its_parts(desk: Desk) -> None:
    fields = {field["name"]: field for field in desk.run("fields", "salesforce", "Contact", "--json").json}

    address = fields["MailingAddress"]
    assert address["sample"] is None
    assert not address["writable"]
    assert "MailingCity" in address["why_not"]
    assert fields["LastName"]["sample"]


def test_the_fields_are_shown_although_no_record_can_be_read(desk: Desk) -> None:
    call = {"salesforce": "GET */query", "hubspot": "POST */search"}[desk.crm]
    desk.sandbox.faults[desk.crm].add([{"call": call, "what": "400", "times": 9}])

    said = desk.run("fields", desk.crm, OBJECTS[desk.crm][0])

    assert said.code == 0
    assert "No sample values: " in said.err
    assert "fields of" in said.out


@pytest.mark.parametrize("crm", ["hubspot"])
def test_a_crm_nobody_knows_is_answered_with_those_there_are(desk: Desk) -> None:
    said = desk.run("fields", "nope")

    assert said.code == 2
    assert said.err == ("crm-sync: There is no CRM nope; say salesforce, hubspot, or apollo for Apollo's attributes\n")
