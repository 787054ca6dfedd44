"""Each way of naming somebody is always spelled the same, and what is no such name is refused without a word of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.mapping.identities import (
    KINDS,
    NotAnIdentityError,
    emails_in,
    guess,
    identify,
    implied,
    long_id,
    of_record,
    phones_in,
)

CRMS = {"salesforce": "salesforce", "hubspot": "hubspot"}


@pytest.mark.parametrize(
    ("kind", "spellings", "expected"),
    [
        (
            "email",
            ["ada@x.example", " ADA@X.Example ", "mailto:ada@x.example", "Ada L <ada@x.example>"],
            "ada@x.example",
        ),
        (
            "domain",
            ["acme.co.uk", "www.acme.co.uk", "https://mail.acme.co.uk:8443/en?x=1", "ACME.CO.UK."],
            "acme.co.uk",
        ),
        ("domain", ["bücher.example", "https://www.xn--bcher-kva.example"], "xn--bcher-kva.example"),
        (
            "linkedin",
            ["https://www.linkedin.com/in/ada-l/", "uk.linkedin.com/in/Ada-L?trk=x", "linkedin.com/in/ada%2Dl"],
            "in/ada-l",
        ),
        ("linkedin", ["linkedin.com/company/acme", "https://linkedin.com/school/acme/about"], "company/acme"),
        (
            "phone",
            [
                "+44 20 7123 4567",
                "0044 (20) 7123-4567",
                "+44 (0)20 7123 4567",
                "011 44 2071234567",
                "+442071234567 x12",
            ],
            "+442071234567",
        ),
        (
            "record",
            ["003000000000001", "003000000000001AAA", "salesforce:Contact:003000000000001", "Contact:003000000000001"],
            "salesforce:Contact:003000000000001AAA",
        ),
        ("record", ["hubspot:contacts:12", "contacts:12", " hubspot : contacts : 12 "], "hubspot:contacts:12"),
    ],
)
def test_spellings_of_one_name_are_one_identity(kind: str, spellings: list[str], expected: str) -> None:
    for spelling in spellings:
        assert identify(kind, spelling, CRMS) == (f"{kind}:{expected}",), spelling
        assert guess(spelling, CRMS) == (f"{kind}:{expected}",), spelling


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "ada"), ("email", "ada@"), ("email", "email_not_unlocked@domain.com"), ("email", ""),
        ("domain", "akme"), ("domain", "ada@acme.example"), ("domain", "acme incorporated.example"), ("domain", "1.2.3.4"),
        ("linkedin", "linkedin.com/feed"), ("linkedin", "example.com/in/ada"),
        ("phone", "020 7123 4567"), ("phone", "+1"), ("phone", "+123456789012345678"), ("phone", "+44 call me"),
        ("record", "67890"), ("record", "nope:contacts:1"), ("record", "hubspot:deals:1"), ("record", "contacts:x"),
        ("record", "003"), ("record", "salesforce:Account:003000000000001"), ("record", "a:b:c:d"), ("record", "005000000000001"),
    ],
)  # fmt: skip
def test_what_is_no_such_name_is_refused_without_being_told(kind: str, text: str) -> None:
    with pytest.raises(NotAnIdentityError) as refused:
        identify(kind, text, CRMS)

    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("text", ["Ada Lovelace", "12345", "acme", "", "true", "12.10.2026", "3.14", "London, UK", "?"])
def test_nothing_is_guessed_from_what_could_be_anything(text: str) -> None:
    assert guess(text, CRMS) == ()


def test_a_bare_salesforce_id_stands_for_the_record_in_every_salesforce_org() -> None:
    two = {"eu": "salesforce", "us": "salesforce", "hubspot": "hubspot"}

    assert identify("record", "003000000000001", two) == (
        "record:eu:Contact:003000000000001AAA",
        "record:us:Contact:003000000000001AAA",
    )


def test_without_a_crm_no_record_can_be_meant() -> None:
    with pytest.raises(NotAnIdentityError, match="apply a configuration first"):
        identify("record", "003000000000001", {})


_IDS = st.from_regex(r"\A00[13Q][A-Za-z0-9]{12}\Z")


@given(_IDS)
def test_fifteen_and_eighteen_characters_are_one_record_whatever_a_spreadsheet_did_to_the_case(record_id: str) -> None:
    full = long_id(record_id)

    assert full is not None
    assert full[:15] == record_id
    assert long_id(full) == long_id(full.lower()) == long_id(full.upper()) == full
    assert of_record("sf", "Contact", record_id) == of_record("sf", "Contact", full)


@given(st.text(max_size=80), st.sampled_from(KINDS))
def test_any_text_is_an_identity_or_refused(text: str, kind: str) -> None:
    try:
        found = identify(kind, text, CRMS)
    except NotAnIdentityError:
        return

    assert all(each.startswith(f"{kind}:") for each in found)


@given(st.text(max_size=80))
def test_an_identity_is_guessed_from_itself_or_not_at_all(text: str) -> None:
    for identity in guess(text, CRMS):
        kind, _, rest = identity.partition(":")
        assert identify(kind, f"linkedin.com/{rest}" if kind == "linkedin" else rest, CRMS) == (identity,)


def test_an_address_belongs_to_its_domain() -> None:
    assert implied("email:ada@mail.acme.co.uk") == ("email:ada@mail.acme.co.uk", "domain:acme.co.uk")
    assert implied("phone:+4420") == ("phone:+4420",)


def test_every_address_of_a_record_counts() -> None:
    assert list(emails_in(("a@x.example", "B@X.example"))) == ["email:a@x.example", "email:b@x.example"]
    assert list(emails_in("a@x.example;c@x.example")) == ["email:a@x.example", "email:c@x.example"]
    assert list(emails_in(None)) == list(emails_in("none")) == []


def test_a_number_without_a_country_code_is_looked_up_as_it_may_be_meant() -> None:
    assert list(phones_in("+1 (555) 200-0001")) == ["phone:+15552000001"]
    assert "phone:+15552000001" in list(phones_in("(555) 200-0001"))
    assert "phone:+4930123456" in list(phones_in("49 30 123456"))
    assert list(phones_in("n/a")) == list(phones_in(None)) == []


def test_apollos_id_is_taken_where_it_is_named_and_spelled_as_what_is_asked_by_it() -> None:
    from crm_sync.domain.enrichment import MatchKeys, Purpose

    apollo_id = "66f1f9a2c3d4e5f6a7b8c9d0"

    assert identify("apollo", f" {apollo_id} ", {}) == (MatchKeys(purpose=Purpose.PHONE, apollo_id=apollo_id).key,)
    assert guess(apollo_id, {}) == ()
    for text in ("", "two words", "x" * 65, "tab\there"):
        with pytest.raises(NotAnIdentityError):
            identify("apollo", text, {})
