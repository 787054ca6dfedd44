"""Apollo's requests and answers, translated: whose answer it is, and what in it is no fact."""

from __future__ import annotations

import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from adapters.apollo import limits, wire
from crm_sync.domain.enrichment import Enrichment, MatchKeys, Purpose, Verdict
from crm_sync.errors import ContractError
from crm_sync.ports import UNLIMITED, Window

PAYLOADS = Path(__file__).parents[1] / "payloads" / "apollo"
MATCHED, NO_MATCH, UNPROVED = Verdict.MATCHED, Verdict.NO_MATCH, Verdict.UNPROVED


def payload(name: str) -> Any:
    return orjson.loads((PAYLOADS / f"{name}.json").read_bytes())


def a_person(**keys: str) -> MatchKeys:
    return MatchKeys(purpose=Purpose.PERSON, **keys)


def a_company(**keys: str) -> MatchKeys:
    return MatchKeys(purpose=Purpose.COMPANY, **keys)


MARTA = a_person(
    first_name="Marta", last_name="Oyelaran", email="marta.oyelaran@orchardgrid.example", domain="orchardgrid.example"
)
NOBODY = a_person(name="Quill Nobody", domain="no-such-company.example")
DEVIN = a_person(first_name="Devin", last_name="Castellanos", domain="kestrelfreight.example")
INES = a_person(linkedin_url="http://www.linkedin.com/in/ines-halvorsen-64a7f3", organization_name="Orchard Grid")


def read_people(keys: list[MatchKeys], *entries: object, **envelope: object) -> list[Enrichment]:
    tree = {"status": "success", "matches": copy.deepcopy(list(entries)), **envelope}
    read = wire.read_answer(Purpose.PERSON, keys, tree).enrichments
    return [e for e in read if e is not None]


def read_one(key: MatchKeys, person: object) -> Enrichment:
    return read_people([key], person)[0]


def marta(**changes: object) -> dict[str, Any]:
    person = copy.deepcopy(payload("bulk_match_response_mixed")["matches"][0])
    return {**person, **changes}


def elsewhere(name: str = "Quince Labs", domain: str = "quince.example") -> dict[str, Any]:
    return {"id": "org1", "name": name, "primary_domain": domain, "website_url": f"http://www.{domain}"}


# --- people: the documented answers


def test_the_documented_mixed_answer_is_read_row_by_row() -> None:
    tree = payload("bulk_match_response_mixed")

    read = wire.read_answer(Purpose.PERSON, [MARTA, NOBODY, DEVIN, INES], tree).enrichments

    assert [e.verdict for e in read if e] == [MATCHED, NO_MATCH, MATCHED, MATCHED]
    first, _, third, fourth = read
    assert first is not None
    assert third is not None
    assert fourth is not None
    assert first.person["title"] == "VP Revenue Operations"
    assert first.organization["estimated_num_employees"] == 640
    assert first.apollo_id == "00000000000000000064a7f1"
    assert "email" not in third.person
    assert "email_status" not in third.person
    assert "account" not in third.person
    assert "account_id" not in third.person
    assert fourth.organization["name"] == "Stealth"


def test_the_seeds_answer_loses_the_switchboard_and_keys_that_are_missing_do_no_harm() -> None:
    tree = payload("bulk_match_response_seed_style")
    ines = a_person(email="ines@orchardgrid.example")

    read = wire.read_answer(Purpose.PERSON, [MARTA, ines], tree).enrichments

    assert [e.verdict for e in read if e] == [MATCHED, MATCHED]
    assert all("phone_numbers" not in e.person for e in read if e)


def test_a_match_that_cost_nothing_is_still_a_match() -> None:
    tree = payload("bulk_match_response_matched_but_uncharged")

    read = wire.read_answer(Purpose.PERSON, [INES], tree).enrichments

    assert read[0] is not None
    assert read[0].verdict is MATCHED
    assert wire.credits_charged(tree) == 0


def test_nobody_matched_is_a_success_full_of_nulls() -> None:
    read = wire.read_answer(Purpose.PERSON, [MARTA, NOBODY], payload("bulk_match_response_none_matched")).enrichments

    assert [e.verdict for e in read if e] == [NO_MATCH, NO_MATCH]


def test_a_single_answer_is_read_the_same_way() -> None:
    read = wire.read_answer(Purpose.PERSON, [MARTA], payload("people_match_response")).enrichments

    assert read[0] is not None
    assert read[0].verdict is MATCHED
    assert read[0].organization["annual_revenue"] == 84000000.0


@pytest.mark.parametrize("tree", [{}, {"person": None}, {"person": {}}, {"person": None, "request_id": 5}])
def test_a_single_miss_in_each_of_its_shapes(tree: dict[str, Any]) -> None:
    read = wire.read_answer(Purpose.PERSON, [MARTA], tree).enrichments

    assert read[0] is not None
    assert read[0].verdict is NO_MATCH
    assert read[0].reason


# --- people: proof


@pytest.mark.parametrize(
    "key",
    [
        a_person(apollo_id="00000000000000000064a7f1"),
        a_person(email="marta.oyelaran@orchardgrid.example"),
        a_person(linkedin_url="http://www.linkedin.com/in/MARTA-oyelaran-64a7f1"),
        a_person(first_name="Marta", last_name="Oyelaran", domain="orchardgrid.example"),
        a_person(name="Marta Oyelaran", organization_name="Orchard Grid, Inc."),
        a_person(first_name="M.", last_name="OYELARAN", organization_name="orchard grid"),
    ],
)
def test_each_identifier_alone_proves_the_person(key: MatchKeys) -> None:
    answer = read_one(key, marta())

    assert (answer.verdict, answer.reason) == (MATCHED, "")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("García", "Garcia López"), ("O'Brien", "O’Brien"), ("Müller", "Mueller"), ("Sørensen", "Sorensen"),
     ("van der Berg", "Van Der Berg"), ("SMITH-JONES", "Smith Jones")],
)  # fmt: skip
def test_a_last_name_agrees_through_accents_case_and_double_names(ours: str, theirs: str) -> None:
    key = a_person(first_name="Marta", last_name=ours, domain="orchardgrid.example")

    assert read_one(key, marta(last_name=theirs)).verdict is MATCHED


def test_a_personal_address_that_was_asked_with_proves_the_person() -> None:
    key = a_person(email="marta@mail.example")

    assert read_one(key, marta(personal_emails=["Marta@Mail.example"])).verdict is MATCHED


def test_a_namesake_at_another_employer_is_unproved_and_the_reason_names_the_employer() -> None:
    person = marta(organization=elsewhere(), employment_history=[{"organization_name": "Quince Labs", "current": True}],
                   email="m@quince.example")  # fmt: skip

    answer = read_one(a_person(first_name="Marta", last_name="Oyelaran", domain="orchardgrid.example"), person)

    assert answer.verdict is UNPROVED
    assert "another employer (Quince Labs)" in answer.reason
    assert answer.person["title"] == "VP Revenue Operations"


def test_a_former_employer_counts_and_the_reason_says_so() -> None:
    history = [
        {"organization_name": "Quince Labs", "current": True},
        {"organization_name": "Orchard Grid", "current": False},
    ]
    person = marta(organization=elsewhere(), employment_history=history, email="m@quince.example")

    by_domain = read_one(a_person(last_name="Oyelaran", domain="orchardgrid.example"), person)
    by_name = read_one(a_person(last_name="Oyelaran", organization_name="Orchard Grid"), person)

    assert by_domain.verdict is by_name.verdict is MATCHED
    assert "former" in by_domain.reason
    assert "Quince Labs" in by_name.reason


def test_one_of_several_current_jobs_is_enough() -> None:
    history = [
        {"organization_name": "Quince Labs", "current": True},
        {"organization_name": "Orchard Grid", "current": True},
    ]
    person = marta(organization=elsewhere(), employment_history=history, email=None)

    answer = read_one(a_person(last_name="Oyelaran", domain="orchardgrid.example"), person)

    assert (answer.verdict, answer.reason) == (MATCHED, "")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (a_person(first_name="Marta", last_name="Lindqvist", domain="orchardgrid.example"), "another last name"),
        (a_person(first_name="Zoe", last_name="Oyelaran", domain="orchardgrid.example"), "another first name"),
        (a_person(first_name="Marta", last_name="Oyelaran"), "no employer"),
        (a_person(apollo_id="somebody-else"), "by id"),
        (a_person(email="other@orchardgrid.example"), "Nothing that was asked with"),
        (a_person(linkedin_url="http://www.linkedin.com/in/other"), "Nothing that was asked with"),
    ],
)
def test_what_no_identifier_proves_waits_for_a_person(key: MatchKeys, words: str) -> None:
    answer = read_one(key, marta())

    assert answer.verdict is UNPROVED
    assert words in answer.reason


def test_reasons_hold_no_address() -> None:
    answer = read_one(a_person(email="other@orchardgrid.example", last_name="X", domain="y.example"), marta())

    assert "@" not in answer.reason


@pytest.mark.parametrize(
    "email", ["email_not_unlocked@domain.com", "Email_Not_Unlocked@apollo.example", "email_not_unlocked"]
)
def test_a_locked_address_is_removed_and_proves_nothing(email: str) -> None:
    asked_with_it = a_person(email=email.casefold())
    asked_by_its_domain = a_person(last_name="Oyelaran", domain="domain.com")

    answers = [
        read_one(key, marta(email=email, organization=elsewhere(), employment_history=[{"title": "x"}]))
        for key in (asked_with_it, asked_by_its_domain)
    ]

    assert [a.verdict for a in answers] == [UNPROVED, UNPROVED]
    assert all("email" not in a.person for a in answers)


def test_low_confidence_waits_for_a_person_and_none_is_no_match() -> None:
    low = read_one(MARTA, marta(match_confidence="low"))
    none = read_one(MARTA, marta(match_confidence="None", name=""))

    assert low.verdict is UNPROVED
    assert none.verdict is NO_MATCH
    assert none.organization == {}


def test_the_waterfalls_way_of_missing_is_a_miss() -> None:
    tree = payload("bulk_match_response_waterfall_partial")
    people = tree["matches"]
    keys = [a_person(apollo_id=p["id"]) if p and p.get("id") else NOBODY for p in people]

    read = wire.read_answer(Purpose.PERSON, keys, tree).enrichments

    for entry, answer in zip(payload("bulk_match_response_waterfall_partial")["matches"], read, strict=True):
        assert answer is not None
        if entry is None or entry.get("match_confidence") == "none":
            assert answer.verdict is NO_MATCH


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"email": "marta.oyelaran@orchardgrid.example", "email_status": None},
        {"email": "email_not_unlocked@domain.com", "email_status": "unavailable"},
        {"organization": elsewhere("Orchard Grid", "orchardgrid.example"), "organization_id": "5e"},
        {"employment_history": [], "departments": [], "show_intent": False, "revealed_for_current_team": True},
    ],
)
def test_an_echo_of_what_was_asked_is_no_match_and_its_employer_is_not_used(extra: dict[str, Any]) -> None:
    echo = {"id": "fresh", "first_name": "Marta", "last_name": "Oyelaran", "name": "Marta Oyelaran", "title": None,
            "headline": None, "city": None, "seniority": None, "linkedin_url": None, **extra}  # fmt: skip

    answer = read_one(MARTA, echo)

    assert answer.verdict is NO_MATCH
    assert answer.organization == {}
    assert answer.apollo_id == ""


@pytest.mark.parametrize(
    "fact",
    [
        {"title": "VP"},
        {"city": "Leeds"},
        {"linkedin_url": "http://www.linkedin.com/in/news"},
        {"email": "marta.oyelaran@orchardgrid.example", "email_status": "verified"},
    ],
)
def test_one_fact_more_than_was_asked_is_no_echo(fact: dict[str, Any]) -> None:
    known = {"id": "x", "first_name": "Marta", "last_name": "Oyelaran", "email": MARTA.email, **fact}

    assert read_one(MARTA, known).verdict is MATCHED


# --- people: positions


def test_rows_in_another_order_find_their_questions() -> None:
    ines = payload("bulk_match_response_mixed")["matches"][3]

    read = read_people([MARTA, INES], ines, marta())

    assert [e.verdict for e in read] == [MATCHED, MATCHED]
    assert [e.person["first_name"] for e in read] == ["Marta", "Ines"]


def test_a_shorter_answer_is_paired_by_identifier_and_the_rest_waits() -> None:
    stranger = marta(id="s", first_name="Ada", last_name="Ng", email="ada@x.example", linkedin_url=None)

    read = read_people([NOBODY, MARTA, DEVIN], marta(), stranger)

    assert [e.verdict for e in read] == [UNPROVED, MATCHED, UNPROVED]
    assert read[0].person == {}
    assert "3 questions with 2 entries" in read[0].reason


def test_a_shorter_answer_with_nobody_left_over_means_nobody_else_was_found() -> None:
    assert [e.verdict for e in read_people([NOBODY, MARTA], marta())] == [NO_MATCH, MATCHED]


def test_a_duplicate_that_was_collapsed_serves_both_questions() -> None:
    read = read_people([MARTA, a_person(apollo_id="00000000000000000064a7f1"), NOBODY], marta(), None)

    assert [e.verdict for e in read] == [MATCHED, MATCHED, NO_MATCH]


def test_a_longer_answer_is_never_zipped() -> None:
    read = read_people([NOBODY], marta(), marta())

    assert [e.verdict for e in read] == [UNPROVED]


def test_an_entry_that_is_no_object_is_nobody() -> None:
    assert [e.verdict for e in read_people([MARTA, MARTA], "?", 5)] == [NO_MATCH, NO_MATCH]


@pytest.mark.parametrize(
    ("purpose", "tree"),
    [
        (Purpose.PERSON, {"matches": {}}),
        (Purpose.PERSON, {"organizations": []}),
        (Purpose.PERSON, {"error": "nope"}),
        (Purpose.COMPANY, {"organizations": "none"}),
        (Purpose.COMPANY, {"matches": []}),
    ],
)
def test_an_answer_to_another_question_is_a_broken_contract(purpose: Purpose, tree: dict[str, Any]) -> None:
    keys = [MatchKeys(purpose=purpose, domain="a.example"), MatchKeys(purpose=purpose, domain="b.example")]

    with pytest.raises(ContractError, match="cannot be read"):
        wire.read_answer(purpose, keys, tree)


# --- companies

ORCHARD = a_company(domain="orchardgrid.example")
KESTREL = a_company(linkedin_url="http://www.linkedin.com/company/kestrel-freight")


def test_companies_come_in_any_order_and_are_paired_by_identifier() -> None:
    read = wire.read_answer(
        Purpose.COMPANY, [ORCHARD, KESTREL, a_company(domain="none.example")], payload("bulk_enrich_response_domains")
    ).enrichments

    assert [e.verdict if e else None for e in read] == [MATCHED, MATCHED, NO_MATCH]  # counted: one is missing
    assert read[0] is not None
    assert read[0].organization["name"] == "Orchard Grid"
    assert read[0].person == {}
    assert read[0].apollo_id == "0000000000000000005e10a1"


def test_revenue_of_zero_without_a_printed_value_is_unknown_and_the_other_name_is_filled() -> None:
    read = wire.read_answer(Purpose.COMPANY, [ORCHARD, KESTREL], payload("bulk_enrich_response_domains")).enrichments

    orchard, kestrel = read
    assert orchard is not None
    assert kestrel is not None
    assert orchard.organization["annual_revenue"] == 84000000.0
    assert orchard.organization["annual_revenue_printed"] == "84M"
    assert "organization_revenue" not in kestrel.organization
    assert "annual_revenue" not in kestrel.organization


def test_the_seeds_companies_are_read_too() -> None:
    keys = [a_company(domain="kestrelfreight.example"), ORCHARD]

    read = wire.read_answer(Purpose.COMPANY, keys, payload("bulk_enrich_response_seed_style")).enrichments

    assert [e.organization["name"] for e in read if e] == ["Kestrel Freight", "Orchard Grid"]


def test_a_lone_output_beside_a_lone_input_is_a_question_not_a_pair() -> None:
    tree = {"organizations": [elsewhere(), None], "missing_records": 1}

    read = wire.read_answer(Purpose.COMPANY, [ORCHARD, a_company(domain="quince.example")], tree).enrichments

    assert [e.verdict if e else None for e in read] == [NO_MATCH, MATCHED]
    told = {"organizations": [{**elsewhere(), "industry": "retail"}], "missing_records": 0}
    [rebrand] = wire.read_answer(Purpose.COMPANY, [ORCHARD], told).enrichments
    assert rebrand is not None
    assert rebrand.verdict is UNPROVED
    assert rebrand.organization["industry"] == "retail"
    assert "another domain (quince.example)" in rebrand.reason


def test_companies_that_one_paid_output_may_belong_to_are_not_asked_again() -> None:
    # Asked singly, the one it belongs to would be charged a second time (design/reliability.md 2.1, S).
    keys = [ORCHARD, a_company(domain="quince.example"), a_company(domain="other.example")]
    stray = {
        **elsewhere(),
        "primary_domain": "acme.example",
        "website_url": "http://acme.example",
        "industry": "retail",
    }
    tree = {"organizations": [stray, elsewhere()], "missing_records": 1}

    first, second, third = wire.read_answer(Purpose.COMPANY, keys, tree).enrichments

    assert second is not None
    assert second.verdict is MATCHED
    for one in (first, third):
        assert one is not None
        assert one.verdict is UNPROVED
        assert one.organization == {}
        assert "nothing proves which answer is this company's (" in one.reason


def test_an_output_that_tells_nothing_belongs_to_nobody() -> None:
    tree = {"organizations": [elsewhere()], "missing_records": None}

    assert wire.read_answer(Purpose.COMPANY, [ORCHARD], tree).enrichments == (None,)


def test_a_missing_company_stays_open_when_the_counters_do_not_account_for_it() -> None:
    for missing in (None, 0, 2):
        tree = {"organizations": [None], "missing_records": missing}
        assert wire.read_answer(Purpose.COMPANY, [ORCHARD], tree).enrichments == (None,)


def test_a_website_on_a_subdomain_pairs() -> None:
    organization = {**elsewhere(), "primary_domain": None, "website_url": "https://Shop.OrchardGrid.example:443/en"}

    read = wire.read_answer(Purpose.COMPANY, [ORCHARD], {"organizations": [organization]}).enrichments

    assert read[0] is not None
    assert read[0].verdict is MATCHED


def test_a_single_company_under_another_domain_waits_for_a_person() -> None:
    tree = {"organization": {**elsewhere(), "industry": "retail"}}

    read = wire.read_answer(Purpose.COMPANY, [ORCHARD], tree).enrichments

    assert read[0] is not None
    assert read[0].verdict is UNPROVED
    assert "quince.example" in read[0].reason


@pytest.mark.parametrize(
    "tree", [{}, {"organization": None}, {"organization": {"name": "Orchard Grid", "id": "1", "industry": None}}]
)
def test_a_single_company_miss(tree: dict[str, Any]) -> None:
    read = wire.read_answer(Purpose.COMPANY, [ORCHARD], tree).enrichments

    assert read[0] is not None
    assert read[0].verdict is NO_MATCH


def test_a_single_company_is_read_with_its_riches() -> None:
    read = wire.read_answer(Purpose.COMPANY, [ORCHARD], payload("organizations_enrich_response")).enrichments

    assert read[0] is not None
    assert read[0].organization["technology_names"] == ["Cloudflare DNS", "Hubspot"]


def test_a_number_from_our_own_records_is_not_given_back() -> None:
    own = {"number": "+1 312-555-0142", "source": "Account", "sanitized_number": "+13125550142"}
    organization = {**elsewhere(domain="orchardgrid.example"), "primary_phone": own, "phone": "+1 312-555-0142",
                    "sanitized_phone": "+13125550142", "account_id": "a", "account": {"phone": "1"}}  # fmt: skip

    read = wire.read_answer(Purpose.COMPANY, [ORCHARD], {"organizations": [organization]}).enrichments

    assert read[0] is not None
    assert not {"primary_phone", "phone", "sanitized_phone", "account", "account_id"} & set(read[0].organization)


# --- the envelope


@pytest.mark.parametrize(
    ("value", "charged"),
    [(1.01, Decimal("1.01")), (2, Decimal(2)), (0, Decimal(0)), ("0.01", Decimal("0.01")), (None, None),
     (True, None), ("many", None), ([], None), (-1, None), ("nan", None)],
)  # fmt: skip
def test_credits_are_decimals_and_may_be_absent(value: object, charged: Decimal | None) -> None:
    assert wire.credits_charged({"credits_consumed": value}) == charged


@pytest.mark.parametrize(
    "written",
    ["-6120457783914420518", "4718829930115583747", "9223372036854775807", "-9223372036854775808",
     "18446744073709551999", '"abc-1"'],
)  # fmt: skip
def test_a_request_id_keeps_every_digit(written: str) -> None:
    body = b'{"phone_enrichment": {"request_id": 1}, "request_id": ' + written.encode() + b"}"

    assert wire.request_id_text(orjson.loads(body), body) == written.strip('"')


def test_an_absent_request_id_is_empty_text() -> None:
    assert wire.request_id_text({}, b"{}") == wire.request_id_text({"request_id": None}, b"") == ""


def test_an_errors_words_lose_addresses_and_numbers() -> None:
    shown = wire.shown("bad record jane.doe@acme.example,\n call +1 (312) 555-0142 now")

    assert shown == "bad record … call … now"


def test_only_a_batch_full_of_locked_addresses_is_a_flood() -> None:
    locked = {"email": "email_not_unlocked@domain.com"}

    assert wire.only_placeholders({"matches": [locked, None, locked, locked]})
    assert not wire.only_placeholders({"matches": [locked, locked, locked, {"email": None}]})
    assert not wire.only_placeholders({"matches": [locked, None]})


# --- questions


def test_ten_people_are_asked_with_what_is_known_and_flags_in_the_query() -> None:
    question = wire.bulk_question(Purpose.PERSON, [MARTA, INES, a_person(apollo_id="7", email="x@y.example")])

    assert question.method == "POST"
    assert question.target == "/people/bulk_match?reveal_personal_emails=false"
    assert orjson.loads(question.body or b"") == {
        "details": [
            {
                "email": "marta.oyelaran@orchardgrid.example",
                "first_name": "Marta",
                "last_name": "Oyelaran",
                "domain": "orchardgrid.example",
            },
            {"organization_name": "Orchard Grid", "linkedin_url": "http://www.linkedin.com/in/ines-halvorsen-64a7f3"},
            {"id": "7"},
        ]
    }


def test_the_older_contract_carries_key_and_flags_in_the_body() -> None:
    people = wire.bulk_question(Purpose.PERSON, [NOBODY], key_in_body="k")
    companies = wire.bulk_question(Purpose.COMPANY, [ORCHARD, a_company(domain="b.example")], key_in_body="k")
    company = wire.single_question(Purpose.COMPANY, ORCHARD, key_in_body="k")

    assert orjson.loads(people.body or b"") == {
        "api_key": "k",
        "reveal_personal_emails": False,
        "details": [{"name": "Quill Nobody", "domain": "no-such-company.example"}],
    }
    assert orjson.loads(companies.body or b"") == {"api_key": "k", "domains": ["orchardgrid.example", "b.example"]}
    assert company.target == "/organizations/enrich?api_key=k&domain=orchardgrid.example"
    assert company.body is None


def test_companies_are_asked_as_documented() -> None:
    question = wire.bulk_question(Purpose.COMPANY, [ORCHARD, KESTREL, a_company(organization_name="No Such Company")])

    assert orjson.loads(question.body or b"") == payload("request_bulk_enrich_details")["body"]


# --- limits


def test_headers_tell_windows_and_empty_means_unlimited() -> None:
    paid, free, none = (case["headers"] for case in payload("rate_limit_headers"))

    assert limits.windows_of_headers(paid) == (
        Window(seconds=60, limit=1000, left=997),
        Window(seconds=3600, limit=UNLIMITED),
        Window(seconds=86400, limit=UNLIMITED),
    )
    assert limits.windows_of_headers(free) == (
        Window(seconds=60, limit=20, left=0),
        Window(seconds=3600, limit=100, left=39),
        Window(seconds=86400, limit=600, left=539),
    )
    assert limits.windows_of_headers(none) == ()


@pytest.mark.parametrize("value", ["soon", "-5", "0", "1e999"])
def test_a_nonsense_limit_is_no_limit_told(value: str) -> None:
    assert limits.windows_of_headers({"x-rate-limit-minute": value}) == ()


def test_what_is_left_follows_from_the_usage_where_it_is_not_told() -> None:
    told = limits.windows_of_headers({"x-rate-limit-minute": "50", "x-minute-usage": "8"})

    assert told == (Window(seconds=60, limit=50, left=42),)


def test_the_usage_endpoint_tells_windows_by_endpoint() -> None:
    stats = payload("usage_stats_response")

    assert Window(seconds=60, limit=20, left=20) in limits.windows_of_usage(stats, "organizations/bulk_enrich")
    assert limits.windows_of_usage(stats, "people/match") == ()
    assert limits.windows_of_usage({"not json": {}, "[1]": {}, "[1,2]": 3}, "people/match") == ()


def test_the_balance_is_the_shared_pool_and_nothing_is_added_up() -> None:
    balance = wire.read_balance(payload("credit_usage_stats_response"))

    assert balance is not None
    assert (balance.left, balance.used) == (Decimal(7500), Decimal(2500))
    assert balance.renews_at.startswith("2026-11-01")
    assert wire.read_balance({"credit_usage_stats": {}}) is None
