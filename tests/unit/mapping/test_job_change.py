"""A new employer is noticed where Apollo tells of one, and another company's e-mail address is not written."""

from __future__ import annotations

from typing import Any

import pytest

from crm_sync.config.model import JobChange
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.mapping.employers import FOREIGN_EMAIL, PLACEHOLDER_EMAIL, foreign_email
from crm_sync.mapping.job_change import changed_employer, kept_fields

from .examples import a_mapping, an_answer

GLOBEX = {"name": "Globex Inc.", "primary_domain": "globex.com", "website_url": "http://www.globex.com"}


def keys(**sent: str) -> MatchKeys:
    return MatchKeys(purpose=Purpose.PERSON, **sent)


@pytest.mark.parametrize(
    "sent", [{"domain": "acme.com"}, {"email": "jane@acme.com"}, {"domain": "acme.com", "email": "jane@gmail.com"}]
)
def test_another_employer_is_noticed_by_its_domain(sent: dict[str, str]) -> None:
    answer = an_answer({"email": "jane@globex.com"}, GLOBEX)

    assert changed_employer(keys(**sent), answer) == "Apollo knows this person at another employer (globex.com)"


@pytest.mark.parametrize(
    ("sent", "person", "organization"),
    [
        # The same one, in all ways that a record or Apollo may know it by.
        ({"domain": "globex.com"}, {}, GLOBEX),
        ({"email": "jane@globex.com"}, {}, GLOBEX),
        ({"domain": "acme.com", "email": "jane@mail.globex.com"}, {}, GLOBEX),
        ({"domain": "globex.de"}, {}, GLOBEX),
        ({"domain": "globex-mail.com", "organization_name": "GLOBEX, LLC"}, {}, GLOBEX),
        (
            {"domain": "halyard.example"},
            {},
            GLOBEX | {"owned_by_organization": {"website_url": "http://www.halyard.example"}},
        ),
        (
            {"domain": "halyard.example"},
            {},
            GLOBEX | {"ultimate_parent_organization": {"primary_domain": "halyard.example"}},
        ),
        ({"domain": "globex-labs.io"}, {}, GLOBEX | {"suborganizations": [{"website_url": "https://globex-labs.io"}]}),
        (
            {"domain": "acme.com"},
            {"employment_history": [{"organization_name": "Acme", "current": True}, {"organization_name": "Globex"}]},
            GLOBEX,
        ),
        # It cannot be told.
        ({"domain": "acme.com"}, {}, {}),
        ({"domain": "acme.com"}, {}, {"name": "Globex"}),
        ({"domain": "acme.com"}, {}, {"primary_domain": "gmail.com"}),
        ({"domain": "acme.com"}, {}, {"website_url": "https://www.facebook.com/globex"}),
        ({"email": "jane@gmail.com"}, {}, GLOBEX),
        ({"linkedin_url": "http://www.linkedin.com/in/jane"}, {}, GLOBEX),
        # Odd answers.
        ({"domain": "acme.com"}, {}, {"primary_domain": 7, "suborganizations": "x", "owned_by_organization": []}),
    ],
)
def test_the_same_employer_and_an_unknown_one_are_no_change(
    sent: dict[str, str], person: dict[str, Any], organization: dict[str, Any]
) -> None:
    assert changed_employer(keys(**sent), an_answer(person, organization)) == ""


@pytest.mark.parametrize(
    "person",
    [
        {"employment_history": [{"organization_name": "Acme", "current": False}, {"organization_name": "Acme"}]},
        {"employment_history": [None, {"organization_name": None, "current": True}]},
        # Apollo keeps an address after its owner has left.
        {"email": "jane@acme.com", "email_status": "verified"},
    ],
)
def test_a_former_job_does_not_make_the_employer_the_same(person: dict[str, Any]) -> None:
    assert changed_employer(keys(domain="acme.com"), an_answer(person, GLOBEX)) != ""


def test_the_fields_that_are_kept_are_those_that_would_be_written() -> None:
    mappings = [a_mapping(field="Title"), a_mapping(field="Email")]
    job_change = JobChange(notice_when="employer_domain_differs", then="update", keep=("AccountId", "Email"))

    assert kept_fields(job_change, mappings) == {"Email"}
    assert kept_fields(None, mappings) == frozenset()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane@acme.com", ""),
        ("jane@mail.acme.com", ""),
        ("jane@globex.com", ""),
        ("jane@globex.de", ""),
        ("jane.public@gmail.com", ""),
        ("jane@initech.com", FOREIGN_EMAIL),
        ("Jane@Initech.com ", FOREIGN_EMAIL),
        ("email_not_unlocked@domain.com", PLACEHOLDER_EMAIL),
        ("EMAIL_NOT_UNLOCKED", PLACEHOLDER_EMAIL),
        ("not an address", ""),
        ("", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_an_address_of_a_third_company_is_not_written(value: object, expected: str) -> None:
    assert foreign_email(value, keys(domain="acme.com"), an_answer({}, GLOBEX)) == expected


def test_the_address_that_the_record_has_is_never_foreign() -> None:
    assert (
        foreign_email("jane@initech.com", keys(email="jane@initech.com", domain="acme.com"), an_answer({}, GLOBEX))
        == ""
    )


def test_where_no_employer_is_known_there_is_nothing_to_compare() -> None:
    sent = keys(linkedin_url="http://www.linkedin.com/in/jane")

    assert foreign_email("jane@initech.com", sent, an_answer({}, {"name": "Globex"})) == ""
    assert foreign_email("jane@initech.com", sent, an_answer({}, GLOBEX)) == FOREIGN_EMAIL
    assert foreign_email("jane@initech.com", keys(domain="acme.com"), an_answer({}, {})) == FOREIGN_EMAIL
