"""The file that `init` writes reads without a word of complaint, here and against the CRM it was made from."""

from __future__ import annotations

import pytest

from crm_sync.config.check import check
from crm_sync.config.loader import load
from crm_sync.config.model import Config
from crm_sync.config.starter import starter
from crm_sync.domain.changes import WriteRule
from crm_sync.domain.records import FieldKind, ObjectSchema
from crm_sync.mapping.picklists import fold

from .fields import ACCOUNT, COMPANIES, CONTACT, CONTACTS, LEAD, MemoryCrm, a_field, an_object, choices

SALESFORCE = {"Contact": CONTACT, "Lead": LEAD, "Account": ACCOUNT}
HUBSPOT = {"contacts": CONTACTS, "companies": COMPANIES}


def read(text: str) -> Config:
    result = load(text.encode())
    assert [str(p) for p in result.problems] == []
    return result.require()


def mapped(config: Config, sync: str) -> dict[str, str]:
    return {mapping.field: mapping.source for mapping in config.syncs[sync].fields}


def complaints(config: Config, name: str, schemas: dict[str, ObjectSchema], **more: int) -> list[str]:
    return [str(p) for p in check(config, {name: MemoryCrm(*schemas.values(), **more)}) if "builtin" not in p.message]


def test_a_salesforce_org_gets_three_syncs_of_fields_it_has() -> None:
    config = read(starter("salesforce", "salesforce", SALESFORCE))

    assert list(config.syncs) == ["contacts", "leads", "accounts"]
    assert mapped(config, "contacts") == {
        "Title": "person.title",
        "Level__c": "person.seniority",
        "LinkedIn_Profile__c": "person.linkedin_url",
        "Department": "person.functions",
        "MailingCity": "person.city",
        "MailingState": "person.state",
        "MailingCountry": "person.country",
    }
    # Apollo says product_management.
    department = next(each for each in config.syncs["contacts"].fields if each.field == "Department")
    assert department.transform == ("words", "title_case")
    # State and Country picklists are on for leads: free text would be refused.
    assert set(mapped(config, "leads")) == {"Title", "City", "Industry", "NumberOfEmployees"}
    assert set(mapped(config, "accounts")) == {
        "Industry", "NumberOfEmployees", "AnnualRevenue", "Description", "BillingCity", "BillingState", "BillingCountry"
    }  # fmt: skip
    assert {m.rule for sync in config.syncs.values() for m in sync.fields} == {WriteRule.FILL}
    assert config.crms["salesforce"].environment == "sandbox"


def test_what_is_written_for_salesforce_passes_the_check() -> None:
    assert complaints(read(starter("salesforce", "salesforce", SALESFORCE)), "salesforce", SALESFORCE) == []


def test_a_field_that_cannot_be_filtered_by_is_left_out_of_missing_any() -> None:
    config = read(starter("salesforce", "salesforce", SALESFORCE))

    missing = config.syncs["accounts"].choose.missing_any
    assert "Description" not in missing
    assert {"Industry", "AnnualRevenue"} <= set(missing)


def test_a_hubspot_portal_gets_two_syncs_whose_filter_fits_one_search() -> None:
    config = read(starter("hubspot", "hubspot", HUBSPOT))

    assert list(config.syncs) == ["contacts", "companies"]
    assert config.syncs["contacts"].choose.missing_any == ("jobtitle", "hs_seniority", "city")
    assert config.syncs["companies"].choose.missing_any == (
        "industry", "numberofemployees", "city", "annualrevenue"
    )  # fmt: skip
    assert complaints(config, "hubspot", HUBSPOT, most_groups=5) == []


def test_a_seniority_picklist_is_mapped_to_the_values_it_has() -> None:
    config = read(starter("hubspot", "hubspot", HUBSPOT))

    table = next(m.picklist for m in config.syncs["contacts"].fields if m.field == "hs_seniority")
    assert table == {
        fold(apollo): value
        for apollo, value in {
            "owner": "owner", "founder": "owner", "c_suite": "executive", "partner": "partner", "vp": "vp",
            "head": "director", "director": "director", "manager": "manager", "senior": "senior", "entry": "entry",
            "intern": "entry",
        }.items()
    }  # fmt: skip


def test_words_without_an_equal_in_the_picklist_are_named_in_a_comment() -> None:
    text = starter("salesforce", "salesforce", SALESFORCE)

    table = next(m.picklist for m in read(text).syncs["contacts"].fields if m.field == "Level__c")
    assert table is not None
    assert set(table.values()) == {"Executive", "VP", "Director", "Staff"}
    assert fold("manager") not in table
    assert "# without an equal here, so left blank: manager" in text


def test_retired_values_and_values_that_need_quotes_are_treated_so() -> None:
    level = a_field(
        "Job_Level__c",
        FieldKind.PICKLIST,
        label="Seniority",
        choices=choices("Director: all", "VP # 1", "no", inactive=("Manager",)),
    )
    schema = an_object("Contact", a_field("Email", FieldKind.EMAIL), level)

    config = read(starter("acme", "salesforce", {"Contact": schema}))

    [mapping] = config.syncs["contacts"].fields
    assert mapping.picklist == {
        fold("director"): "Director: all",
        fold("head"): "VP # 1",
        fold("vp"): "VP # 1",
    }


def test_read_only_fields_and_foreign_types_are_left_out() -> None:
    schema = an_object(
        "Account",
        a_field("Website", FieldKind.URL),
        a_field("NumberOfEmployees", FieldKind.INTEGER, writable=False, why_not="it is a formula."),
        a_field("AnnualRevenue", FieldKind.BOOLEAN),
        a_field("BillingCity"),
    )

    config = read(starter("salesforce", "salesforce", {"Account": schema}))

    assert mapped(config, "accounts") == {"BillingCity": "organization.city"}


def test_an_industry_list_of_the_orgs_own_is_not_mapped_to_the_shipped_table() -> None:
    schema = an_object(
        "Account",
        a_field("Website", FieldKind.URL),
        a_field("Industry", FieldKind.PICKLIST, choices=choices("Foo", "Bar", "Banking")),
        a_field("BillingCity"),
    )

    assert "Industry" not in mapped(read(starter("salesforce", "salesforce", {"Account": schema})), "accounts")


def test_it_stays_short_enough_to_read() -> None:
    for name, schemas in (("salesforce", SALESFORCE), ("hubspot", HUBSPOT)):
        assert len(starter(name, name, schemas).splitlines()) <= 120


def test_an_org_with_nothing_to_fill_is_said_so() -> None:
    with pytest.raises(ValueError, match="no object with a field that Apollo can fill"):
        starter("salesforce", "salesforce", {"Contact": an_object("Contact", a_field("Email", FieldKind.EMAIL))})
