"""Who came back is believed when the proofs that the admin asked for agree."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.model import Match
from crm_sync.config.schema import PROOFS
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, Verdict
from crm_sync.mapping.trust import (
    Agreement,
    compile_trust,
    domain_agrees,
    email_agrees,
    first_name_agrees,
    last_name_agrees,
    linkedin_agrees,
)

from .examples import an_answer


def keys(**sent: str) -> MatchKeys:
    return MatchKeys(purpose=Purpose.PERSON, **sent)


def named(first: str, last: str) -> Enrichment:
    return an_answer({"first_name": first, "last_name": last, "name": f"{first} {last}"})


def agree(name: str, ours: str, theirs: str) -> bool:
    """Whether first or last names agree, the other one being equal."""
    proof = first_name_agrees if name == "first" else last_name_agrees
    if name == "first":
        found = proof(keys(first_name=ours, last_name="Stone"), named(theirs, "Stone"))
    else:
        found = proof(keys(first_name="Kim", last_name=ours), named("Kim", theirs))
    assert found in (Agreement.AGREES, Agreement.DIFFERS)
    return found is Agreement.AGREES


SAME_LAST = [
    ("Oyelaran", "OYELARAN"),
    ("García", "Garcia"),
    ("Müller", "Mueller"),
    ("Müller", "Muller"),
    ("Straße", "Strasse"),
    ("Sørensen", "Soerensen"),
    ("Sørensen", "Sorensen"),
    ("Łukasiewicz", "Lukasiewicz"),
    ("Yılmaz", "Yilmaz"),
    ("İnan", "Inan"),
    ("O'Brien", "O’Brien"),
    ("O'Brien", "OBrien"),
    ("O'Brien", "O Brien"),
    ("O'Brien-Smith", "O Brien Smith"),
    ("O'Brien-Smith", "O'Brien"),
    ("D'Angelo", "Dangelo"),
    ("Mc Donald", "McDonald"),
    ("García-López", "García López"),
    ("García López", "García"),
    ("García y López", "Lopez"),
    ("Smith", "Smith-Jones"),
    ("Schmidt-Rottluff", "Schmidt Rottluff"),
    ("van der Berg", "Van der Berg"),
    ("van der Berg", "Berg"),
    ("Vanderberg", "van der Berg"),
    ("de la Cruz", "Delacruz"),
    ("da Silva", "Silva"),
    ("Al-Fayed", "Fayed"),
    ("Smith Jr.", "Smith"),
    ("Smith, PhD", "Smith"),
    ("Le", "LE"),
    ("王", "王"),
    ("Иванова", "иванова"),
]
OTHER_LAST = [
    ("Smith", "Jones"),
    ("Smith", "Smithson"),
    ("Berg", "Bergmann"),
    ("Muller", "Mueller"),
    ("Le", "Le Blanc"),
    ("van Dijk", "van Gogh"),
    ("de Souza", "de"),
    ("O'Brien", "O'Neill"),
    ("S.", "Smith"),
    ("Иванов", "Петров"),
    ("王", "李"),
    ("García", "Márquez"),
]


@pytest.mark.parametrize(("ours", "theirs"), SAME_LAST)
def test_the_same_last_name_in_another_spelling_agrees(ours: str, theirs: str) -> None:
    assert agree("last", ours, theirs)
    assert agree("last", theirs, ours)


@pytest.mark.parametrize(("ours", "theirs"), OTHER_LAST)
def test_another_last_name_differs(ours: str, theirs: str) -> None:
    assert not agree("last", ours, theirs)
    assert not agree("last", theirs, ours)


def test_a_name_changed_by_marriage_differs() -> None:
    assert last_name_agrees(keys(first_name="Anna", last_name="Weber"), named("Anna", "Lindqvist")) is Agreement.DIFFERS


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Ana", "ana"),
        ("José", "Jose"),
        ("Jörg", "Joerg"),
        ("Ana María", "Ana"),
        ("Jean-Pierre", "Jean Pierre"),
        ("Jean-Pierre", "Jean"),
        ("Jean-Pierre", "J.-P."),
        ("J.", "Jane"),
        ("J", "Jane"),
        ("J. R.", "Jane"),
        ("Jane R.", "Jane"),
        ("J. Robert", "Robert"),
        ('Robert "Bob"', "Bob"),
        ("Dr. Jane", "Jane"),
    ],
)
def test_the_same_first_name_in_another_spelling_agrees(ours: str, theirs: str) -> None:
    assert agree("first", ours, theirs)
    assert agree("first", theirs, ours)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Bob", "Robert"),
        ("Rob", "Robert"),
        ("Ana", "Anna"),
        ("J.", "Robert"),
        ("J. Robert", "John"),
        ("J.-P.", "Jean-Luc"),
    ],
)
def test_a_short_form_is_another_first_name(ours: str, theirs: str) -> None:
    assert not agree("first", ours, theirs)
    assert not agree("first", theirs, ours)


def test_first_and_last_name_may_be_swapped() -> None:
    swapped = keys(first_name="Zhang", last_name="Wei")

    assert last_name_agrees(swapped, named("Wei", "Zhang")) is Agreement.AGREES
    assert first_name_agrees(swapped, named("Wei", "Zhang")) is Agreement.AGREES
    assert last_name_agrees(swapped, named("Wei", "Zhao")) is Agreement.DIFFERS
    assert last_name_agrees(keys(first_name="James", last_name="Martin"), named("Peter", "James")) is Agreement.DIFFERS


@pytest.mark.parametrize(
    ("full", "first", "last", "agrees"),
    [
        ("Ana María García López", "Ana", "García", True),
        ("Ana García", "Ana", "García López", True),
        ("García López, Ana", "Ana", "García", True),
        ("Dr. Jane Q. Public", "Jane", "Public", True),
        ("Zhang Wei", "Wei", "Zhang", True),
        ("Ludwig van Beethoven", "Ludwig", "Beethoven", True),
        ("Jane Public", "John", "Public", True),
        ("James Martin", "Peter", "James", False),
        ("Martin, James", "Peter", "James", False),
        ("James Peter Martin", "John", "Peter", False),
        ("Jane Weber", "Jane", "Lindqvist", False),
        ("Prince", "Prince", "Nelson", False),
    ],
)
def test_a_full_name_parts_where_the_answer_fits(full: str, first: str, last: str, agrees: bool) -> None:
    found = last_name_agrees(keys(name=full), named(first, last))

    assert (found is Agreement.AGREES) is agrees


def test_the_first_name_in_a_full_name_agrees_when_the_last_name_has_changed() -> None:
    assert first_name_agrees(keys(name="Jane Weber"), named("Jane", "Lindqvist")) is Agreement.AGREES
    assert first_name_agrees(keys(name="Jane Weber"), named("Joan", "Weber")) is Agreement.DIFFERS


def test_a_full_name_of_apollo_serves_where_it_has_no_last_name() -> None:
    answer = an_answer({"name": "Jane Public"})

    assert last_name_agrees(keys(first_name="Jane", last_name="Public"), answer) is Agreement.AGREES
    assert last_name_agrees(keys(first_name="Jane", last_name="Weber"), answer) is Agreement.DIFFERS


ACME = {"name": "Acme", "primary_domain": "acme.com", "website_url": "http://www.acme.com"}


@pytest.mark.parametrize(
    ("sent", "person", "organization", "expected"),
    [
        ({"domain": "acme.com"}, {}, ACME, Agreement.AGREES),
        ({"email": "jane@mail.acme.com"}, {}, ACME, Agreement.AGREES),
        ({"domain": "acme.com"}, {}, {"website_url": "https://www.acme.com/en"}, Agreement.AGREES),
        ({"domain": "acme.com"}, {}, {"domain": "acme.com"}, Agreement.AGREES),
        ({"domain": "acme.com"}, {"email": "jane@acme.com"}, {}, Agreement.AGREES),
        ({"domain": "acme.com"}, {"email": "jane@eu.acme.com"}, {"primary_domain": "globex.com"}, Agreement.AGREES),
        ({"domain": "acme.com"}, {}, {"primary_domain": "globex.com"}, Agreement.DIFFERS),
        ({"domain": "acme.com"}, {"email": "jane@gmail.com"}, {}, Agreement.NOT_ANSWERED),
        ({"email": "jane@gmail.com"}, {"email": "jane@gmail.com"}, ACME, Agreement.NOT_SENT),
        # It only repeats what was sent.
        ({"email": "jane@acme.com"}, {"email": "jane@acme.com"}, {}, Agreement.NOT_ANSWERED),
        ({"email": "jane@acme.com"}, {"email": "Jane@Acme.com"}, {"primary_domain": "globex.com"}, Agreement.DIFFERS),
        ({"domain": "acme.com"}, {}, {"primary_domain": None, "website_url": 7}, Agreement.NOT_ANSWERED),
        ({"domain": "acme.com"}, {}, {"website_url": "https://facebook.com/acme"}, Agreement.NOT_ANSWERED),
        ({}, {}, ACME, Agreement.NOT_SENT),
    ],
)
def test_the_employers_domain_agrees_with_what_was_sent(
    sent: dict[str, str], person: dict[str, Any], organization: dict[str, Any], expected: Agreement
) -> None:
    assert domain_agrees(keys(**sent), an_answer(person, organization)) is expected


@pytest.mark.parametrize(
    ("sent", "person", "expected"),
    [
        ("jane@acme.com", {"email": "Jane@ACME.com"}, Agreement.AGREES),
        ("jane@acme.com", {"email": "j@acme.com", "personal_emails": ["jane@acme.com"]}, Agreement.AGREES),
        ("jane@acme.com", {"email": "j@acme.com", "personal_emails": None}, Agreement.DIFFERS),
        ("jane@acme.com", {"email": None}, Agreement.NOT_ANSWERED),
        ("jane@acme.com", {"email": 3, "personal_emails": [None, {}]}, Agreement.NOT_ANSWERED),
        ("", {"email": "jane@acme.com"}, Agreement.NOT_SENT),
    ],
)
def test_the_address_agrees_when_it_is_theirs(sent: str, person: dict[str, Any], expected: Agreement) -> None:
    assert email_agrees(keys(email=sent), an_answer(person)) is expected


@pytest.mark.parametrize(
    ("sent", "answered", "expected"),
    [
        ("http://www.linkedin.com/in/jane-p", "https://uk.linkedin.com/in/Jane-P/?trk=x", Agreement.AGREES),
        ("http://www.linkedin.com/in/jane-p", "http://www.linkedin.com/in/jane-q", Agreement.DIFFERS),
        ("http://www.linkedin.com/in/jane-p", "http://www.linkedin.com/company/acme", Agreement.NOT_ANSWERED),
        ("http://www.linkedin.com/in/jane-p", None, Agreement.NOT_ANSWERED),
        ("", "http://www.linkedin.com/in/jane-p", Agreement.NOT_SENT),
    ],
)
def test_the_linkedin_page_agrees_by_its_own_part(sent: str, answered: object, expected: Agreement) -> None:
    assert linkedin_agrees(keys(linkedin_url=sent), an_answer({"linkedin_url": answered})) is expected


# --- rules ------------------------------------------------------------------------------------------------------------

JANE = keys(first_name="Jane", last_name="Public", email="jane@acme.com", domain="acme.com")


def told(answer: Enrichment, sent: MatchKeys = JANE, **rules: tuple[str, ...]) -> str:
    return compile_trust(Match(send=(), need_one_of=(), **rules))(sent, answer)  # type: ignore[arg-type]


def jane(**changes: Any) -> Enrichment:
    person = {"first_name": "Jane", "last_name": "Public", "email": "jane@acme.com", **changes}
    return an_answer(person, changes.pop("organization", ACME))


def test_without_rules_every_matched_answer_is_trusted() -> None:
    assert told(jane(last_name="Weber")) == ""


def test_an_answer_that_proves_to_be_nobodys_is_not_trusted_by_any_rule() -> None:
    stranger = Enrichment(
        verdict=Verdict.UNPROVED,
        person=jane().person,
        organization=ACME,
        reason="Apollo itself calls this match unsure",
    )

    assert told(stranger) == "Apollo itself calls this match unsure"
    assert told(stranger, trust_any=("last_name_agrees",)) == "Apollo itself calls this match unsure"


def test_all_of_all_and_one_of_any_must_agree() -> None:
    rules = {"trust_all": ("last_name_agrees",), "trust_any": ("domain_agrees", "email_agrees", "linkedin_agrees")}

    assert told(jane(), **rules) == ""
    assert told(jane(email="other@else.example"), **rules) == ""
    assert told(jane(organization={}), **rules) == ""
    assert told(jane(last_name="Weber"), **rules) == "not trusted: the last name differs"
    assert told(jane(email="other@else.example", organization={"primary_domain": "globex.com"}), **rules) == (
        "not trusted: the employer's domain differs, the e-mail address differs and the LinkedIn page was not sent"
    )
    assert told(jane(last_name=None, name=None, email=None, organization={}), **rules) == (
        "not trusted: the last name is not in Apollo's answer, the employer's domain is not in Apollo's answer, the e-mail "
        "address is not in Apollo's answer and the LinkedIn page was not sent"
    )


def test_a_proof_that_fails_twice_is_told_once() -> None:
    rules = {"trust_all": ("last_name_agrees",), "trust_any": ("last_name_agrees",)}

    assert told(jane(last_name="Weber"), **rules) == "not trusted: the last name differs"


def test_a_side_that_is_not_there_does_not_agree() -> None:
    assert told(jane(), keys(email="jane@acme.com"), trust_all=("first_name_agrees", "last_name_agrees")) == (
        "not trusted: the first name was not sent and the last name was not sent"
    )
    assert told(jane(), keys(first_name="Jane"), trust_all=("first_name_agrees",)) == ""
    assert told(jane(), keys(first_name="Jane"), trust_all=("last_name_agrees",)) != ""


@pytest.mark.parametrize("proof", PROOFS)
def test_every_proof_of_the_configuration_is_known(proof: str) -> None:
    assert told(an_answer({"id": "5"}), keys(), trust_all=(proof,)).endswith("was not sent")


ANYTHING = st.none() | st.text(max_size=12) | st.integers() | st.lists(st.text(max_size=4), max_size=2)


@given(
    first=st.text(max_size=12),
    last=st.text(max_size=12),
    full=st.text(max_size=12),
    person=st.dictionaries(
        st.sampled_from(("first_name", "last_name", "name", "email", "linkedin_url", "personal_emails")), ANYTHING
    ),
    organization=st.dictionaries(st.sampled_from(("primary_domain", "domain", "website_url", "name")), ANYTHING),
)
def test_no_answer_breaks_a_proof_and_no_reason_tells_a_name(
    first: str, last: str, full: str, person: dict[str, Any], organization: dict[str, Any]
) -> None:
    sent = keys(first_name=first, last_name=last, name=full, email="jane@acme.com", domain="acme.com")

    reason = told(an_answer(person, organization), sent, trust_all=tuple(PROOFS))

    proof = r"the (last name|first name|employer's domain|e-mail address|LinkedIn page)"
    phrase = f"{proof} ({'|'.join(map(re.escape, Agreement))})"
    assert re.fullmatch(f"not trusted: {phrase}((, | and ){phrase})*", reason)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_agreeing_does_not_depend_on_who_is_asked(one: str, other: str) -> None:
    forth = last_name_agrees(keys(first_name="Kim", last_name=one), named("Kim", other))
    back = last_name_agrees(keys(first_name="Kim", last_name=other), named("Kim", one))

    assert (forth is Agreement.AGREES) is (back is Agreement.AGREES)
