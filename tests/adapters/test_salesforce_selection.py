"""A Selection as SOQL: what is asked, what is left to look at, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.salesforce import wire
from adapters.salesforce.selection import Names, Plan, folded, lacks, plan, problems
from adapters.salesforce.where import WhereError
from crm_sync.domain.records import Record, RecordRef, Value
from crm_sync.mapping.blanks import lacking
from crm_sync.ports import Selection, Within
from crm_sync.sandbox.salesforce import soql
from tests.adapters.salesforce_schema import CONTACT, a_field, contact, schema


def planned(object_type: str = "Contact", **choice: Any) -> Plan | None:
    described = schema(object_type)
    selection = Selection(object_type=object_type, **{"fields": (), **choice})
    return plan(selection, Names(described, schema), described)


def query(object_type: str = "Contact", *, after: str = "", **choice: Any) -> str:
    found = planned(object_type, **choice)
    assert found is not None
    return found.query(ids=found.portions[0], after=after, limit=2_000)


def said(**choice: Any) -> list[str]:
    described = schema()
    return problems(Selection(object_type="Contact", **{"fields": (), **choice}), Names(described, schema), described)


def test_a_page_is_asked_for_by_keyset() -> None:
    assert query(fields=("Title", "account.website"), where="AccountId != null", after=contact(7)) == (
        "SELECT Id, Title, Account.Website FROM Contact "
        f"WHERE AccountId != null AND Id > '{contact(7)}' ORDER BY Id LIMIT 2000"
    )


def test_a_field_named_twice_is_asked_for_once() -> None:
    assert query(fields=("Title", "title", "Id"), missing_any=("TITLE",)) == (
        "SELECT Id, Title FROM Contact WHERE (Title = null) ORDER BY Id LIMIT 2000"
    )


def test_an_or_of_the_admin_cannot_swallow_our_own_conditions() -> None:
    asked = query(where="Title = 'a' OR Title = 'b'", missing_any=("Phone",))

    tree = soql.parse(asked).where
    assert isinstance(tree, soql.And)
    assert [type(term).__name__ for term in tree.terms] == ["Or", "Comparison"]


def test_blank_is_asked_by_kind() -> None:
    asked = query(
        missing_any=("Title", "Level__c", "Topics__c", "Reports__c", "LinkedIn__c", "Birthdate", "DoNotCall"),
        placeholders=("n/a", " - ", "", "it's"),
    )

    words = r"('n/a', '-', 'it\'s')"
    assert (
        f"WHERE (Title = null OR Title IN {words} OR Level__c = null OR Level__c IN {words} OR Topics__c = null"
        f" OR Reports__c = null OR LinkedIn__c = null OR LinkedIn__c IN {words} OR Birthdate = null) ORDER"
    ) in asked


def test_a_checkbox_alone_is_never_missing() -> None:
    assert planned(missing_any=("DoNotCall",)) is None


def test_what_cannot_be_filtered_by_is_looked_at_instead() -> None:
    found = planned(missing_any=("Title", "Bio__c"))

    assert found is not None
    assert not found.exact
    assert found.conditions == ()
    assert found.columns == ("Id", "Title", "Bio__c")


def test_converted_leads_are_left_out() -> None:
    assert "WHERE IsConverted = false ORDER BY" in query("Lead", fields=("Title",))
    assert "IsConverted" not in query("Contact", fields=("Title",))


def test_ids_are_asked_for_in_rising_order_once_each_and_in_full() -> None:
    found = planned(ids=(contact(3), contact(1)[:15], contact(1), "no id"))

    assert found is not None
    assert found.portions == ((contact(1), contact(3)),)


def test_ids_that_are_none_select_nothing() -> None:
    assert planned(ids=("no id",)) is None


@given(st.integers(1, 900), st.integers(0, 3_500))
def test_no_query_is_longer_than_the_address_may_be(ids: int, words: int) -> None:
    found = planned(
        ids=tuple(contact(n) for n in range(ids)), fields=("Title", "Account.Website"), where=f"Title = '{'%' * words}'"
    )

    assert found is not None
    assert [each for portion in found.portions for each in portion] == [contact(n) for n in range(ids)]
    for portion in found.portions:
        assert len(quote_plus(found.query(ids=portion, after=contact(1), limit=2_000))) <= 13_000


def test_fields_that_the_address_has_no_room_for_are_read_by_id() -> None:
    many = tuple(f"A_custom_field_with_a_long_name_{n:03}__c" for n in range(400))
    described = wire.object_schema(
        "salesforce", {"name": "Contact", "fields": [*CONTACT, *(a_field(name) for name in many)]}
    )
    selection = Selection(object_type="Contact", fields=("Account.Website", *many), where="Phone != null")

    found = plan(selection, Names(described, schema), described)

    assert found is not None
    assert found.columns == ("Id", "Account.Website")
    assert found.rest == many
    assert set(found.paths) == {"Account.Website", *many}


def test_a_condition_that_never_fits_is_refused_with_a_cure() -> None:
    long = " OR ".join(f"Title = '{'%' * 40}{n}'" for n in range(120))

    assert [sentence.partition(";")[2] for sentence in said(where=long)] == [
        " shorten where, missing_any or placeholders"
    ]


@pytest.mark.parametrize(
    ("choice", "sentences"),
    [
        ({"fields": ("Title", "Account.Website", "AccountId")}, []),
        ({"fields": ("Titel",)}, ["Contact has no field Titel, or this user may not see it; did you mean Title?"]),
        (
            {"fields": ("Owner.Name",)},
            ["Contact's Owner may be a Group or a User; fields of such a parent cannot be used"],
        ),
        (
            {"fields": ("MailingAddress",)},
            ["MailingAddress cannot be read as one value: it is a compound field; write its parts: MailingCity"],
        ),
        (
            {"missing_any": ("Account.Website",)},
            ["Account.Website belongs to a parent; only Contact's own fields can stand here"],
        ),
        ({"where": [["Title"]]}, ['where must be a SOQL condition, such as "AccountId != null"']),
        ({"where": "  "}, ['where must be a SOQL condition, such as "AccountId != null"']),
        ({"fields": ("A.B.C.D.E.F.G",)}, ["A.B.C.D.E.F.G goes through more than 5 parents"]),
    ],
)
def test_each_thing_that_is_wrong_has_its_sentence(choice: dict[str, Any], sentences: list[str]) -> None:
    assert said(**choice) == sentences


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = said(fields=("Titel", "Fone"), missing_any=("Emall",), where="Bio__c = 'x'", placeholders=("\x00",))

    assert len(found) == 4


def test_a_placeholder_no_query_may_hold_is_told() -> None:
    assert "control character" in said(missing_any=("Title",), placeholders=("a\x00b",))[0]


def test_a_plan_refuses_what_the_check_refuses() -> None:
    with pytest.raises(WhereError, match="no field Titel"):
        planned(fields=("Titel",))


@given(st.sampled_from([None, (), ("Sales",), 0, False, "", " ", " N/A ", "CTO"]))
def test_what_lacks_here_lacks_for_the_walk_too(value: Value) -> None:
    record = Record(ref=RecordRef(crm="sf", object_type="Contact", id=contact(1)), values={"Title": value})
    selection = Selection(object_type="Contact", fields=(), missing_any=("Title",), placeholders=(" n/A",))
    words = folded(selection.placeholders)

    assert lacks(record, selection, words) == bool(lacking(record.values, ("Title",), words))


def test_records_of_a_time_are_asked_for_without_quotes_and_without_an_offset() -> None:
    berlin = timezone(timedelta(hours=1))
    within = Within(
        field="lastmodifieddate",
        first=datetime(2026, 11, 27, 1, tzinfo=berlin),
        last=datetime(2026, 11, 28, tzinfo=UTC),
    )

    assert query(fields=("Email",), where="Title = 'a' OR Title = 'b'", within=within) == (
        "SELECT Id, Email FROM Contact WHERE (Title = 'a' OR Title = 'b') AND LastModifiedDate >= "
        "2026-11-27T00:00:00Z AND LastModifiedDate <= 2026-11-28T00:00:00Z ORDER BY Id LIMIT 2000"
    )


def test_a_date_is_compared_by_its_day() -> None:
    moment = datetime(2026, 11, 27, 23, 30, tzinfo=UTC)

    asked = query(within=Within(field="Birthdate", first=moment, last=moment))

    assert "Birthdate >= 2026-11-27 AND Birthdate <= 2026-11-27" in asked


def test_what_is_no_time_cannot_be_searched_by_time() -> None:
    moment = datetime(2026, 11, 27, tzinfo=UTC)

    assert said(within=Within(field="Title", first=moment, last=moment)) == [
        "Title is text and cannot be searched by time; name a date, or a date and time"
    ]
    assert "has no field Nowhere__c" in said(within=Within(field="Nowhere__c", first=moment, last=moment))[0]
