"""Who is left alone, decided without a CRM: by the record, by the keys, and by whom Apollo answered with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from crm_sync.config.loader import load
from crm_sync.config.model import Suppress, Sync
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, Verdict
from crm_sync.domain.records import FieldKind, Value
from crm_sync.pipeline import suppress
from crm_sync.pipeline.suppress import Guard, Screen, Subject, guard
from crm_sync.store.suppressions import Standing
from tests.unit.config.fields import MemoryCrm, a_field, an_object

CONTACT = an_object(
    "Contact",
    a_field("Email", FieldKind.EMAIL),
    a_field("Private__c", FieldKind.EMAIL),
    a_field("Phone", FieldKind.PHONE),
    a_field("MobilePhone", FieldKind.PHONE),
    a_field("Page__c", FieldKind.URL),
    a_field("HasOptedOutOfEmail", FieldKind.BOOLEAN),
    a_field("IndividualId", FieldKind.REFERENCE, refers_to=("Individual",), relationship="Individual"),
    a_field("Title"),
)
TEXT = """
version: 1
crms: {salesforce: {type: salesforce, environment: sandbox}}
syncs:
  contacts:
    crm: salesforce
    object: Contact
    match: {send: {email: Email}}
    fields: {Title: person.title, Page__c: person.linkedin_url}
"""
EVERY = frozenset({"email", "domain", "linkedin", "record", "phone"})
ADA = MatchKeys(purpose=Purpose.PERSON, email="ada@mail.acme.example", domain="acme.example")


def a_sync() -> Sync:
    return load(TEXT.encode()).require().syncs["contacts"]


def a_guard(settings: Suppress | None = None) -> Guard:
    return guard(a_sync(), "Contact", CONTACT, MemoryCrm(CONTACT), settings or Suppress())  # type: ignore[arg-type]


def a_subject(values: Mapping[str, Value] | None = None, record_id: str = "003A", **more: Any) -> Subject:
    return Subject(record_id=record_id, values=values or {}, **{"keys": ADA, **more})


class Listed:
    """The suppressions, in memory; counts its questions."""

    def __init__(self, *identities: str) -> None:
        self.identities = set(identities)
        self.version = 1
        self.asked: list[set[str]] = []

    def standing(self) -> Standing:
        return Standing(self.version, frozenset(each.partition(":")[0] for each in self.identities))

    def among(self, identities: Iterable[str]) -> frozenset[str]:
        self.asked.append(set(identities))
        return frozenset(self.asked[-1] & self.identities)


def refused(listed: Listed, *subjects: Subject, its: Guard | None = None) -> dict[str, str]:
    screen = Screen(listed)  # type: ignore[arg-type]
    return screen.refusals(its or a_guard(), subjects, screen.kinds)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ("email:ada@mail.acme.example", "suppressed e-mail"),
        ("domain:acme.example", "suppressed domain"),
        ("record:salesforce:Contact:003A", "suppressed record"),
        ("phone:+442071234567", "suppressed phone"),
        ("linkedin:in/ada", "suppressed LinkedIn page"),
        ("email:ada@home.example", "suppressed e-mail"),
        ("domain:home.example", "suppressed domain"),
    ],
)
def test_every_way_of_naming_a_person_is_recognised_on_their_record(identity: str, words: str) -> None:
    values = {
        "Private__c": "Ada@Home.example",
        "MobilePhone": "0044 20 7123 4567",
        "Page__c": "https://www.linkedin.com/in/Ada",
    }

    assert refused(Listed(identity), a_subject(values)) == {"003A": f"do not enrich: {words}"}


def test_one_question_is_asked_for_a_page_and_none_when_nobody_is_suppressed() -> None:
    people = [a_subject(record_id=str(number)) for number in range(200)]
    nobody, somebody = Listed(), Listed("email:x@y.example")

    refused(nobody, *people)
    refused(somebody, *people)

    assert nobody.asked == []
    assert somebody.asked == [{"email:ada@mail.acme.example"}]


def test_fields_are_only_read_for_kinds_that_somebody_is_suppressed_by() -> None:
    its = a_guard()

    assert its.fields(frozenset()) == ("HasOptedOutOfEmail", "IndividualId")
    assert its.fields(frozenset({"phone"})) == ("HasOptedOutOfEmail", "IndividualId", "Phone", "MobilePhone")
    assert set(its.fields(EVERY)) == {
        "HasOptedOutOfEmail", "IndividualId", "Phone", "MobilePhone", "Email", "Private__c", "Page__c",
    }  # fmt: skip
    assert its.distant_fields == ("Individual.HasOptedOutProcessing", "Individual.ShouldForget")


def test_what_the_record_says_itself_needs_no_question() -> None:
    listed = Listed("email:x@y.example")

    assert refused(listed, a_subject({"HasOptedOutOfEmail": True})) == {
        "003A": "do not enrich: Email Opt Out (HasOptedOutOfEmail)"
    }
    assert listed.asked == []


def test_free_mail_is_judged_by_the_address_apollo_would_be_asked_by() -> None:
    its = a_guard(Suppress(email_domains=("gmail.com", "yahoo.co.uk")))

    def said(address: str, private: str = "") -> dict[str, str]:
        keys = MatchKeys(purpose=Purpose.PERSON, email=address)
        return refused(Listed(), a_subject({"Private__c": private}, keys=keys), its=its)

    assert said("ada@gmail.com") == {"003A": "do not enrich: e-mail at gmail.com"}
    assert said("ada@mail.yahoo.co.uk") == {"003A": "do not enrich: e-mail at yahoo.co.uk"}
    assert said("ada@notgmail.com") == {}
    assert said("ada@acme.example", private="ada@gmail.com") == {}
    assert said("", private="ada@gmail.com") == {"003A": "do not enrich: e-mail at gmail.com"}


def test_whom_apollo_answered_with_counts_as_well() -> None:
    answer = Enrichment(
        verdict=Verdict.MATCHED,
        person={
            "email": "Ada@New.example",
            "personal_emails": ["ada@home.example", 5],
            "linkedin_url": "linkedin.com/in/ada",
        },
        organization={"linkedin_url": "linkedin.com/company/acme"},
    )
    for identity in ("email:ada@new.example", "email:ada@home.example", "linkedin:in/ada"):
        assert refused(Listed(identity), a_subject(enrichment=answer)), identity
    assert refused(Listed("linkedin:company/acme"), a_subject(enrichment=answer)) == {}


def test_a_parent_is_known_by_its_record_and_its_domain_only() -> None:
    its = guard(a_sync(), "Account", an_object("Account"), MemoryCrm(), Suppress(), is_parent=True)  # type: ignore[arg-type]
    company = MatchKeys(purpose=Purpose.COMPANY, domain="acme.example")

    assert refused(Listed("domain:acme.example"), a_subject(keys=company), its=its)
    assert refused(Listed("record:salesforce:Account:003A"), a_subject(keys=company), its=its)
    assert refused(Listed("record:salesforce:Contact:003A"), a_subject(keys=company), its=its) == {}
    assert its.fields(EVERY) == ()


def test_who_is_suppressed_during_a_walk_is_seen_before_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppress, "_LOOK_EVERY_S", 0.0)
    listed = Listed("email:old@y.example")
    screen = Screen(listed)  # type: ignore[arg-type]
    bob = MatchKeys(purpose=Purpose.PERSON, email="bob@y.example")

    before = screen.suppressed_since([ADA, bob])
    listed.identities.add("domain:acme.example")
    listed.version += 1
    after = screen.suppressed_since([ADA, bob])

    assert before == {}
    assert after == {ADA.key: "do not enrich: suppressed domain"}
    assert len(listed.asked) == 1
    listed.identities.clear()
    assert screen.suppressed_since([ADA]) == {}


def test_while_nobody_changes_anything_it_is_looked_at_once_a_second() -> None:
    listed = Listed()
    looks: list[int] = []
    standing = listed.standing
    listed.standing = lambda: (looks.append(1), standing())[1]  # type: ignore[method-assign]
    screen = Screen(listed)  # type: ignore[arg-type]

    for _ in range(500):
        screen.suppressed_since([ADA])

    assert len(looks) <= 2


def test_apollos_id_is_seen_in_keys_that_have_it_and_in_whom_apollo_answered_with() -> None:
    listed = Listed("apollo:66f1f9a2c3d4e5f6a7b8c9d0")
    by_id = MatchKeys(purpose=Purpose.PHONE, email="b@y.example", apollo_id="66f1f9a2c3d4e5f6a7b8c9d0")
    answer = Enrichment(verdict=Verdict.MATCHED, person={}, organization={}, apollo_id=by_id.apollo_id)

    assert Screen(listed).suppressed([ADA, by_id]) == {by_id.key: "do not enrich: suppressed Apollo id"}  # type: ignore[arg-type]
    assert refused(listed, a_subject(enrichment=answer)) == {"003A": "do not enrich: suppressed Apollo id"}
    assert refused(listed, a_subject()) == {}
