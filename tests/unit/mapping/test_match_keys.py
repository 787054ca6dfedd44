from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.model import Match, SendKey
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.mapping.match_keys import (
    company_domain,
    compile_keys,
    email,
    linkedin_url,
    registrable_domain,
    weakness,
)

PERSON = Match(
    send=(
        SendKey(key="email", fields=("Email",)),
        SendKey(key="first_name", fields=("FirstName",)),
        SendKey(key="last_name", fields=("LastName",)),
        SendKey(key="organization_name", fields=("Company",)),
        SendKey(key="domain", fields=("Account.Website", "Email"), as_domain=True),
        SendKey(key="linkedin_url", fields=("LinkedIn__c",)),
    ),
    need_one_of=(("email",), ("linkedin_url",), ("first_name", "last_name", "domain")),
)
COMPANY = Match(
    send=(
        SendKey(key="domain", fields=("Website", "Email__c"), as_domain=True),
        SendKey(key="linkedin_url", fields=("LinkedIn__c",)),
    ),
    need_one_of=(("domain",), ("linkedin_url",)),
)


def keys_of(values: dict[str, Any], match: Match = PERSON, placeholders: tuple[str, ...] = ()) -> MatchKeys:
    purpose = Purpose.PERSON if match is PERSON else Purpose.COMPANY
    return compile_keys(match, purpose, placeholders=placeholders)(values)


# --- e-mail -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("  Marta.Oyelaran@OrchardGrid.example ", "marta.oyelaran@orchardgrid.example"),
        ("marta+crm@sales.acme.co.uk", "marta+crm@sales.acme.co.uk"),
        ("\u200bmarta@acme.example\ufeff", "marta@acme.example"),
        ("o'brien@acme.example", "o'brien@acme.example"),
        ("marta@müller.example", "marta@müller.example"),
        ("unknown", ""),
        ("marta@acme", ""),
        ("marta@@acme.example", ""),
        ("marta..o@acme.example", ""),
        ("marta@.acme.example", ""),
        ("marta@acme.example, otto@acme.example", ""),
        ("Marta <marta@acme.example>", ""),
        ("marta@10.0.0.1", ""),
        ("email_not_unlocked@domain.com", ""),
        ("a" * 65 + "@acme.example", ""),
    ],
)
def test_an_address_is_normalised_or_dropped(typed: str, sent: str) -> None:
    assert email(typed) == sent


# --- domain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "domain"),
    [
        ("acme.com", "acme.com"),
        ("HTTPS://www.Sales.Acme.co.uk:8443/en?x=1#top", "acme.co.uk"),
        ("http://user:secret@acme.com/", "acme.com"),
        ("//acme.com", "acme.com"),
        ("http:/acme.com", "acme.com"),
        ("https://https://acme.com", "acme.com"),
        ("marta@mail.acme.com", "acme.com"),
        ("mailto:marta@acme.com", "acme.com"),
        ("www.acme.com, www.acme.de", "acme.com"),
        ("acme.com / acme.de", "acme.com"),
        ("acme.com.", "acme.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("shop.acme.uk.com", "acme.uk.com"),
        ("acme.github.io", "acme.github.io"),
        ("github.io", "github.io"),
        ("orchardgrid.example", "orchardgrid.example"),
        ("www.orchardgrid.test", "orchardgrid.test"),
        ("my_shop.acme.com", "acme.com"),
        ("localhost", ""),
        ("co.uk", ""),
        ("192.168.0.1", ""),
        ("[::1]", ""),
        ("n/a", ""),
        ("-", ""),
        ("", ""),
        ("acme", ""),
        ("acme..com", ""),
        ("/" * 400, ""),
        ("http:" * 90, ""),
    ],
)
def test_a_site_or_address_is_reduced_to_its_registrable_domain(typed: str, domain: str) -> None:
    assert registrable_domain(typed) == domain


@pytest.mark.parametrize("value", [None, 5, [], {"domain": "acme.com"}])
def test_what_is_no_text_has_no_domain(value: object) -> None:
    assert registrable_domain(value) == ""


@given(st.text(max_size=80))
def test_any_text_gives_a_domain_that_gives_itself(text: str) -> None:
    domain = registrable_domain(text)

    assert domain == "" or (registrable_domain(domain) == domain and domain.isascii() and domain == domain.lower())


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize(
    ("typed", "domain"),
    [
        ("https://www.facebook.com/acmebakery", ""),
        ("https://sites.google.com/view/acme", ""),
        ("acme.wordpress.com", ""),
        ("linkedin.com/company/acme", ""),
        ("https://www.facebook.com/", "facebook.com"),
        ("marta@facebook.com", "facebook.com"),
        ("marta@corp.google.com", "google.com"),
        ("marta@gmail.com", ""),
        ("email_not_unlocked@domain.com", ""),
    ],
)
def test_a_page_on_somebody_elses_host_is_no_employer(typed: str, domain: str, purpose: Purpose) -> None:
    assert company_domain(typed, purpose=purpose) == domain


def test_a_free_mail_provider_is_a_company_by_its_website_and_nobodys_employer() -> None:
    assert company_domain("www.yahoo.com", purpose=Purpose.COMPANY) == "yahoo.com"
    assert company_domain("www.yahoo.com", purpose=Purpose.PERSON) == ""


# --- LinkedIn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "slug"),
    [
        ("http://www.linkedin.com/in/marta-oyelaran-64a7f1", "marta-oyelaran-64a7f1"),
        ("https://uk.linkedin.com/in/Marta-Oyelaran/", "marta-oyelaran"),
        ("linkedin.com/in/marta?trk=public_profile#about", "marta"),
        ("https://m.linkedin.com/mwlite/in/marta", "marta"),
        ("www.linkedin.com/in/marta/de", "marta"),
        ("https://www.linkedin.com/in/jos%C3%A9-p%C3%A9rez", "josé-pérez"),
        ("LinkedIn: https://www.linkedin.com/in/marta).", "marta"),
        ("https://www.linkedin.com/company/acme", ""),
        ("https://www.linkedin.com/pub/marta-oyelaran/1a/2b3/4c5", ""),
        ("https://www.linkedin.com/sales/lead/ACwAAA", ""),
        ("https://notlinkedin.com/in/marta", ""),
        ("https://www.linkedin.com/in/%2e%2e%2fadmin", ""),
        ("https://www.linkedin.com/in/marta%2541", ""),
        ("https://www.linkedin.com/in/", ""),
        ("marta-oyelaran", ""),
        ("a." * 250, ""),
    ],
)
def test_a_persons_profile_is_reduced_to_its_slug(typed: str, slug: str) -> None:
    assert linkedin_url(typed, purpose=Purpose.PERSON) == (slug and f"http://www.linkedin.com/in/{slug}")


@pytest.mark.parametrize(
    ("typed", "slug"),
    [
        ("https://de.linkedin.com/company/Acme-GmbH/about/", "acme-gmbh"),
        ("https://www.linkedin.com/school/leeds", "leeds"),
        ("https://www.linkedin.com/company/16164641", "16164641"),
        ("https://www.linkedin.com/in/marta", ""),
    ],
)
def test_a_companys_page_is_reduced_to_its_slug(typed: str, slug: str) -> None:
    assert linkedin_url(typed, purpose=Purpose.COMPANY) == (slug and f"http://www.linkedin.com/company/{slug}")


@given(st.one_of(st.text(max_size=60), st.text(alphabet="abÉ%25c3.)-", max_size=20)))
def test_a_normalised_profile_gives_itself(text: str) -> None:
    once = linkedin_url(f"https://www.linkedin.com/in/{text}", purpose=Purpose.PERSON)

    assert once == "" or linkedin_url(once, purpose=Purpose.PERSON) == once


# --- whole records ------------------------------------------------------------------------------------------------


def test_an_untidy_contact_becomes_clean_keys() -> None:
    keys = keys_of(
        {
            "Email": " Marta@OrchardGrid.example",
            "FirstName": "Dr.  Marta\u200b ",
            "LastName": "Oyelaran\n",
            "Account.Website": "https://www.orchardgrid.example/",
            "LinkedIn__c": "https://uk.linkedin.com/in/Marta-O/",
        }
    )

    assert keys == MatchKeys(
        purpose=Purpose.PERSON,
        email="marta@orchardgrid.example",
        first_name="Dr. Marta",
        last_name="Oyelaran",
        domain="orchardgrid.example",
        linkedin_url="http://www.linkedin.com/in/marta-o",
    )


def test_the_first_field_that_holds_something_sound_counts() -> None:
    record = {"Account.Website": "coming soon", "Email": "marta@acme.example"}

    assert keys_of(record).domain == "acme.example"


def test_placeholders_count_as_blank_in_any_case() -> None:
    record = {"LastName": " [[Unknown]] ", "FirstName": "N/A", "Email": "None@None.example", "Company": "-"}

    assert keys_of(record, placeholders=("[[unknown]]", "n/a", "none@none.example", "-")) == MatchKeys(
        purpose=Purpose.PERSON
    )


def test_a_name_is_not_a_placeholder_because_it_looks_like_one_without_punctuation() -> None:
    assert keys_of({"LastName": "Na"}, placeholders=("n/a", "-")).last_name == "Na"


def test_blank_and_missing_fields_leave_the_keys_empty() -> None:
    assert keys_of({"Email": None, "FirstName": "", "LastName": " \t"}) == MatchKeys(purpose=Purpose.PERSON)


def test_joiners_inside_a_word_are_spelling() -> None:
    assert keys_of({"FirstName": "مهر\u200cداد"}).first_name == "مهر\u200cداد"


@pytest.mark.parametrize(
    ("record", "strong"),
    [
        ({"Email": "marta@acme.example"}, True),
        ({"LinkedIn__c": "linkedin.com/in/marta"}, True),
        ({"FirstName": "Marta", "LastName": "Oyelaran", "Account.Website": "acme.example"}, True),
        ({"FirstName": "Marta", "LastName": "Oyelaran", "Company": "Acme"}, False),
        ({"FirstName": "Marta", "Account.Website": "acme.example"}, False),
        ({}, False),
    ],
)
def test_weakness_follows_the_configured_alternatives(record: dict[str, str], *, strong: bool) -> None:
    assert (weakness(keys_of(record), PERSON) == "") is strong


def test_weakness_names_what_is_needed_and_nothing_of_the_record() -> None:
    sentence = weakness(keys_of({"FirstName": "Marta"}), PERSON)

    assert sentence == "too weak to match: needs email, or linkedin_url, or first_name with last_name with domain"


def test_a_company_is_found_by_its_website_before_its_mail() -> None:
    keys = keys_of({"Website": "http://acme.example", "Email__c": "info@other.example"}, COMPANY)

    assert (keys.purpose, keys.domain, weakness(keys, COMPANY)) == (Purpose.COMPANY, "acme.example", "")


@given(
    st.dictionaries(st.sampled_from(["Email", "FirstName", "LastName", "Account.Website", "LinkedIn__c"]), st.text())
)
def test_keys_of_normalised_values_are_the_same_keys(record: dict[str, str]) -> None:
    keys = keys_of(record)
    again = keys_of(
        {
            "Email": keys.email,
            "FirstName": keys.first_name,
            "LastName": keys.last_name,
            "Account.Website": keys.domain,
            "LinkedIn__c": keys.linkedin_url,
        }
    )

    assert again == keys
