"""Which delivered number goes where: kinds, do-not-call words, validity, spelling, and who wins a field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_sync.config.model import Phones
from crm_sync.domain.changes import WantedValue, WriteRule
from crm_sync.domain.reveals import PhoneNumber
from crm_sync.mapping.phones import COUNTRY_FIELDS, KINDS, Judged, NumberVerdict, judge, phone_fields, region_of, wanted

PHONES = Phones(
    reveal_when=None,
    route={"mobile": "MobilePhone", "work_direct": "Phone", "home": "HomePhone", "other": "OtherPhone"},
    mark="DoNotCall",
)
USED, SECOND = NumberVerdict.USED, NumberVerdict.SECOND
SKIPPED, NO_NUMBER = NumberVerdict.SKIPPED_KIND, NumberVerdict.NOT_A_NUMBER
LISTED, HELD, SUPPRESSED = NumberVerdict.LISTED, NumberVerdict.HELD, NumberVerdict.SUPPRESSED
VOCABULARIES = json.loads((Path(__file__).parents[2] / "payloads" / "apollo" / "vocabularies.json").read_bytes())
LONDON, BERLIN, PARIS = "+442071234567", "+491701234567", "+33612345678"


def a_number(sanitized: str = "+15125550177", **changes: Any) -> PhoneNumber:
    values: dict[str, Any] = {
        "raw": "", "type": "mobile", "status": "valid_number", "confidence": "high", "dnc": "not_found", "position": 0,
    }  # fmt: skip
    return PhoneNumber(sanitized=sanitized, **{**values, **changes})


def judge_one(number: PhoneNumber, phones: Phones = PHONES, *, region: str = "US") -> Judged:
    return judge([number], phones, region=region)[0]


def fields(phones: Phones, *numbers: PhoneNumber) -> dict[str, Any]:
    return {want.field: want.value for want in wanted(judge(numbers, phones, region="US"), phones)}


# --- every word of the contract


@pytest.mark.parametrize(
    ("dnc", "verdict", "words"),
    [
        ("not_found", USED, "not on a do-not-call list"),
        ("not_on_dnc", USED, "not on a do-not-call list"),
        ("not on dnc", USED, "not on a do-not-call list"),
        ("", USED, "no do-not-call check"),
        ("found", LISTED, "is on a do-not-call list"),
        ("listed", LISTED, "is on a do-not-call list"),
        ("on_dnc", LISTED, "is on a do-not-call list"),
        ("on dnc list", LISTED, "is on a do-not-call list"),
        ("do-not-call", LISTED, "is on a do-not-call list"),
        ("pending", HELD, "(pending)"),
        ("not_checked", HELD, "(not_checked)"),
        ("unknown", HELD, "no word that crm-sync knows"),
        ("(unreadable)", HELD, "no word that crm-sync knows"),
        ("not_found_", HELD, "no word that crm-sync knows"),
        ("notfound", HELD, "no word that crm-sync knows"),
    ],
)
def test_each_do_not_call_word(dnc: str, verdict: NumberVerdict, words: str) -> None:
    judged = judge_one(a_number(dnc=dnc))

    assert judged.verdict is verdict
    assert words in judged.reason
    assert judged.is_written == (verdict is USED)


def test_no_word_of_the_contract_is_unknown() -> None:
    dnc, types = VOCABULARIES["phone_dnc_status_cd"], VOCABULARIES["phone_type_cd"]

    for word in (*dnc["documented"], *dnc["seen"]):
        assert judge_one(a_number(dnc=word or "")).verdict is USED
    for word in dnc["unconfirmed"]:
        assert judge_one(a_number(dnc=word)).verdict is LISTED
    for word in (*types["seen"], *types["unconfirmed"], "work_hq"):
        assert judge_one(a_number(type=word)).kind != "other"


@pytest.mark.parametrize("dnc", ["call 5125550177", "<b>found</b>", "jane@x.example", "found\N{REPLACEMENT CHARACTER}"])
def test_what_is_no_word_is_not_shown(dnc: str) -> None:
    judged = judge_one(a_number(dnc=dnc))

    assert judged.verdict is HELD
    assert dnc not in judged.reason


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("mobile", "mobile"),
        ("cell", "mobile"),
        ("work_direct", "work_direct"),
        ("work_direct_phone", "work_direct"),
        ("work", "work_direct"),
        ("direct", "work_direct"),
        ("direct_dial", "work_direct"),
        ("direct line", "work_direct"),
        ("home", "home"),
        ("work_hq", "work_hq"),
        ("hq", "work_hq"),
        ("switchboard", "work_hq"),
        ("other", "other"),
        ("", "other"),
        ("fax", "other"),
        ("(unreadable)", "other"),
    ],
)
def test_each_type(code: str, kind: str) -> None:
    judged = judge_one(a_number(type=code))

    assert judged.kind == kind
    assert judged.kind in KINDS
    assert judged.field == PHONES.route.get(kind, "")


def test_without_a_type_the_numbering_plan_tells_a_mobile_where_it_can() -> None:
    assert judge_one(a_number(BERLIN, type="")).kind == "mobile"
    assert judge_one(a_number(LONDON, type="")).kind == "other"
    assert judge_one(a_number("+15125550177", type="")).kind == "other"  # in North America it cannot
    assert judge_one(a_number(BERLIN, type="other")).kind == "other"  # Apollo's word counts


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("valid_number", USED), ("no_status", USED), ("", USED), ("invalid", NO_NUMBER), ("invalid_number", NO_NUMBER),
     ("(unreadable)", USED)],
)  # fmt: skip
def test_each_status(status: str, verdict: NumberVerdict) -> None:
    assert judge_one(a_number(status=status)).verdict is verdict


# --- what is a number


@pytest.mark.parametrize(
    ("sanitized", "raw", "region", "e164"),
    [
        ("+15125550177", "", "", "+15125550177"),
        ("+1 512-555-0177", "garbage", "DE", "+15125550177"),
        ("", "(512) 555-0177", "US", "+15125550177"),
        ("", "(0)20 7123 4567", "GB", LONDON),
        ("", "020 7123 4567", "GB", LONDON),
        ("", "0044 20 7123 4567", "GB", LONDON),
        ("", "011 44 20 7123 4567", "US", LONDON),
        ("", "+44 (0)20 7123 4567", "US", LONDON),
        ("", "0170/1234567", "DE", BERLIN),
        ("15125550177", "", "US", "+15125550177"),
        ("+15125550177", "+1 512 555 0177 x12", "", "+15125550177"),
        ("", "+1 512 555 0177 x12", "", "+15125550177"),
        ("", "+1 512 555 0177 ext. 12", "", "+15125550177"),
        ("", "tel:+1-512-555-0177;ext=12", "", "+15125550177"),
        ("", "512–555–0177", "US", "+15125550177"),
    ],
)
def test_a_number_is_read_with_the_records_country_and_without_its_extension(
    sanitized: str, raw: str, region: str, e164: str
) -> None:
    judged = judge_one(a_number(sanitized, raw=raw), region=region)

    assert (judged.e164, judged.value, judged.verdict) == (e164, e164, USED)


@pytest.mark.parametrize(
    ("sanitized", "raw", "region", "words"),
    [
        ("", "", "US", "no valid number"),
        ("+999999999999", "", "US", "no valid number"),
        ("+1512", "", "US", "no valid number"),
        ("+447700900142", "", "GB", "no valid number"),  # of the range for films
        ("+44777", "(512) 555-0177", "US", "no valid number"),
        ("", "(512) 555-0177", "", "tells no country"),
        ("", "(512) 555-0177", "GB", "no valid number"),
        ("", "1-800-FLOWERS", "US", "no valid number"),
        ("", "<b>5125550177</b>", "US", "no valid number"),
        ("", "=5125550177", "US", "no valid number"),
        ("+15125550177|' /C calc'!A0", "", "US", "no valid number"),
        ("+19005550199", "", "US", "premium-rate"),
        ("+", "x", "US", "no valid number"),
        ("", "5125550177 Bcc: 12", "US", "no valid number"),
    ],
)
def test_what_is_no_number_goes_nowhere(sanitized: str, raw: str, region: str, words: str) -> None:
    judged = judge_one(a_number(sanitized, raw=raw), region=region)

    assert (judged.verdict, judged.e164, judged.value, judged.is_written) == (NO_NUMBER, "", "", False)
    assert words in judged.reason


def test_where_the_record_tells_no_country_that_of_the_do_not_call_check_does() -> None:
    number = a_number("", raw="020 7123 4567", country="United Kingdom")

    assert judge_one(number, region="").e164 == LONDON
    assert judge_one(number, region="US").verdict is NO_NUMBER


@pytest.mark.parametrize(
    ("how", "number", "region", "value"),
    [
        ("e164", LONDON, "GB", LONDON),
        ("international", LONDON, "GB", "+44 20 7123 4567"),
        ("national", LONDON, "GB", "020 7123 4567"),
        ("national", "+15125550177", "US", "(512) 555-0177"),
        ("national", "+15125550177", "CA", "(512) 555-0177"),  # dialled alike
        ("national", LONDON, "US", "+44 20 7123 4567"),  # without its country code it would be another number
        ("national", LONDON, "", "020 7123 4567"),
    ],
)
def test_a_value_is_spelled_as_configured(how: str, number: str, region: str, value: str) -> None:
    assert judge_one(a_number(number), replace(PHONES, format=how), region=region).value == value


# --- one field, several numbers


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"status": "valid_number", "confidence": "", "position": 9}, {"status": "no_status"}),
        ({"confidence": "high", "position": 9}, {"confidence": "medium"}),
        ({"position": 0}, {"position": 1}),
        ({"position": 5}, {"position": None}),
    ],
)
def test_the_best_number_gets_the_field(better: dict[str, Any], worse: dict[str, Any]) -> None:
    for places in ((0, 1), (1, 0)):
        numbers = [a_number(LONDON, **better), a_number(BERLIN, **worse)]

        judged = judge([numbers[place] for place in places], PHONES, region="US")

        assert {one.e164: (one.verdict, one.is_written) for one in judged} == {
            LONDON: (USED, True),
            BERLIN: (SECOND, False),
        }
        assert fields(PHONES, *numbers)["MobilePhone"] == LONDON


def test_of_equals_the_first_gets_the_field() -> None:
    judged = judge([a_number(LONDON), a_number(BERLIN)], PHONES, region="US")

    assert [one.verdict for one in judged] == [USED, SECOND]
    assert "MobilePhone" in judged[1].reason


def test_kinds_that_share_a_field_compete_for_it() -> None:
    phones = replace(PHONES, route={"mobile": "Phone", "work_direct": "Phone"}, mark="")

    values = wanted(judge([a_number(LONDON, type="work", position=1), a_number(BERLIN)], phones, region=""), phones)

    assert phone_fields(phones) == ("Phone",)
    assert values == (WantedValue("Phone", "phone.mobile", WriteRule.FILL, BERLIN),)


def test_a_number_that_cannot_be_used_keeps_no_other_from_the_field() -> None:
    numbers = [a_number("+1512"), a_number(LONDON, dnc="found"), a_number(PARIS, dnc="?"), a_number(BERLIN, position=9)]

    assert fields(PHONES, *numbers)["MobilePhone"] == BERLIN


# --- on a list


def test_a_listed_number_is_skipped_and_marked_and_others_are_written() -> None:
    numbers = [a_number(LONDON, dnc="found"), a_number(BERLIN, type="work")]

    assert fields(PHONES, *numbers) == {
        "MobilePhone": None, "Phone": BERLIN, "HomePhone": None, "OtherPhone": None, "DoNotCall": True,
    }  # fmt: skip
    marked = wanted(judge(numbers, PHONES, region="US"), PHONES)[-1]
    assert marked == WantedValue("DoNotCall", "phone.do_not_call", WriteRule.REPLACE, True)
    assert "DoNotCall" not in fields(replace(PHONES, mark=""), *numbers)
    assert "DoNotCall" not in fields(PHONES, a_number(BERLIN))


def test_a_listed_number_is_written_where_the_configuration_says_so_and_the_note_tells() -> None:
    phones = replace(PHONES, if_listed="write")

    judged = judge([a_number(LONDON, dnc="found"), a_number(PARIS, dnc="found", position=1)], phones, region="US")
    value, *_, mark = wanted(judged, phones)

    assert [(one.verdict, one.is_written) for one in judged] == [(LISTED, True), (LISTED, False)]
    assert value.value == LONDON
    assert "written although it is on a do-not-call list" in value.note
    assert mark.value is True


def test_a_number_that_is_not_listed_is_preferred_even_where_listed_ones_may_be_written() -> None:
    phones = replace(PHONES, if_listed="write")

    assert fields(phones, a_number(LONDON, dnc="found"), a_number(BERLIN, status="no_status"))["MobilePhone"] == BERLIN


def test_mark_only_writes_none_of_this_persons_numbers() -> None:
    phones = replace(PHONES, if_listed="mark_only")
    numbers = [a_number(LONDON, dnc="found"), a_number(BERLIN, type="work")]

    judged = judge(numbers, phones, region="US")

    assert [one.verdict for one in judged] == [LISTED, HELD]
    assert {value.field: value.value for value in wanted(judged, phones) if value.value is not None} == {
        "DoNotCall": True
    }
    assert "mark_only" in judged[1].reason
    assert fields(phones, a_number(BERLIN))["MobilePhone"] == BERLIN


def test_a_held_number_is_never_written() -> None:
    for if_listed in ("skip", "write", "mark_only"):
        phones = replace(PHONES, if_listed=if_listed)
        assert fields(phones, a_number(LONDON, dnc="maybe")) == dict.fromkeys(phone_fields(phones))


@pytest.mark.parametrize(("other", "verdict"), [("found", LISTED), ("maybe", HELD), ("", USED)])
def test_a_number_that_comes_twice_is_as_listed_as_the_worst_says(other: str, verdict: NumberVerdict) -> None:
    judged = judge([a_number(LONDON), a_number(LONDON, type="work_hq", dnc=other)], PHONES, region="US")

    assert judged[0].verdict is verdict


def test_the_employers_listed_switchboard_says_nothing_about_the_person() -> None:
    phones = replace(PHONES, if_listed="mark_only")
    numbers = [a_number(LONDON, type="work_hq", dnc="found"), a_number(BERLIN)]

    judged = judge(numbers, phones, region="US")

    assert [one.verdict for one in judged] == [SKIPPED, USED]
    assert "switchboard" in judged[0].reason
    routed = replace(phones, route={**phones.route, "work_hq": "Phone"})
    assert judge(numbers, routed, region="US")[0].verdict is LISTED


def test_a_listed_number_without_a_field_is_marked_all_the_same() -> None:
    phones = replace(PHONES, route={"work_direct": "Phone"})

    assert fields(phones, a_number(dnc="found")) == {"Phone": None, "DoNotCall": True}
    assert judge_one(a_number(), phones).verdict is SKIPPED


def test_a_suppressed_number_is_left_alone_whatever_else_is_said() -> None:
    for dnc in ("not_found", "found", "maybe"):
        for if_listed in ("skip", "write"):
            phones = replace(PHONES, if_listed=if_listed)
            judged = judge([a_number(LONDON, dnc=dnc)], phones, region="", suppressed={LONDON})
            assert [one.verdict for one in judged] == [SUPPRESSED]
            assert all(value.value is None for value in wanted(judged, phones))


# --- what is told


def test_a_field_without_a_number_says_why_once() -> None:
    phones = replace(PHONES, route={"mobile": "Phone", "work_direct": "Phone", "home": "HomePhone"}, mark="")
    numbers = [a_number(LONDON, dnc="found", position=1), a_number("+1512", type="work")]

    values = wanted(judge(numbers, phones, region="US"), phones)

    assert [(value.field, value.source, value.value) for value in values] == [
        ("Phone", "phone.work_direct", None),
        ("HomePhone", "phone.home", None),
    ]
    assert values[0].note == "not used: it is no valid number"
    assert values[1].note == "Apollo delivered no home number"
    assert wanted((), phones)[0].note == "Apollo delivered no mobile or direct work number"


def test_the_rule_is_the_configured_one() -> None:
    phones = replace(PHONES, rule=WriteRule.REVIEW, mark="")

    assert {value.rule for value in wanted(judge([a_number()], phones, region=""), phones)} == {WriteRule.REVIEW}


# --- countries


@pytest.mark.parametrize(
    ("values", "region"),
    [
        ({"MailingCountryCode": "DE"}, "DE"),
        ({"MailingCountry": "Germany"}, "DE"),
        ({"MailingCountry": " germany "}, "DE"),
        ({"MailingCountryCode": None, "MailingCountry": "", "OtherCountry": "France"}, "FR"),
        ({"MailingCountryCode": "XX", "MailingCountry": "Canada"}, "CA"),
        ({"MailingCountryCode": "US", "OtherCountryCode": "DE"}, "US"),
        ({"CountryCode": "gb"}, "GB"),
        ({"Country": "UK"}, "GB"),
        ({"Country": "USA"}, "US"),
        ({"Country": "U.S.A."}, "US"),
        ({"Country": "United States of America"}, "US"),
        ({"hs_country_region_code": "NL", "country": "Belgium"}, "NL"),
        ({"country": "The Netherlands"}, "NL"),
        ({"country": "South Korea"}, "KR"),
        ({"country": "Russia"}, "RU"),
        ({"country": "Czech Republic"}, "CZ"),
        ({"country": "Deutschland"}, "DE"),
        ({"country": "n/a"}, ""),
        ({"country": 49}, ""),
        ({"country": ("DE",)}, ""),
        ({"country": "x" * 100_000}, ""),
        ({"Title": "Germany"}, ""),
        ({}, ""),
    ],
)
def test_a_records_country(values: dict[str, Any], region: str) -> None:
    assert region_of(values) == region


def test_every_object_with_people_tells_its_country() -> None:
    assert set(COUNTRY_FIELDS) == {"Contact", "Lead", "contacts"}
    for names in COUNTRY_FIELDS.values():
        for name in names:
            assert region_of({name: "FR"}) == "FR"


# --- whatever comes


NUMBERS = st.builds(
    PhoneNumber,
    raw=st.sampled_from(["", "(512) 555-0177", "020 7123 4567", "x"]) | st.text(max_size=30),
    sanitized=st.sampled_from(["", LONDON, BERLIN, PARIS, "+15125550177", "+1512"]) | st.text("+0123456789", max_size=16),
    type=st.sampled_from(["", "mobile", "work_direct", "home", "work_hq", "other", "fax"]),
    status=st.sampled_from(["", "valid_number", "no_status", "invalid"]),
    confidence=st.sampled_from(["", "high", "medium"]),
    dnc=st.sampled_from(["", "not_found", "not_on_dnc", "found", "maybe"]),
    country=st.sampled_from(["", "United Kingdom", "x"]),
    position=st.none() | st.integers(0, 3),
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(NUMBERS, max_size=5),
    st.sampled_from(["skip", "write", "mark_only"]),
    st.sampled_from(["", "US", "GB"]),
    st.sampled_from(["e164", "national", "international"]),
)
def test_whatever_comes_each_field_gets_one_number_at_most_and_never_a_held_one(
    numbers: list[PhoneNumber], if_listed: str, region: str, how: str
) -> None:
    phones = replace(PHONES, if_listed=if_listed, format=how)

    judged = judge(numbers, phones, region=region, suppressed={PARIS})
    values = wanted(judged, phones)

    assert [one.number for one in judged] == numbers
    is_marked = any(one.verdict is LISTED for one in judged)
    assert [value.field for value in values] == [*phone_fields(phones), *(["DoNotCall"] if is_marked else [])]
    written = [one for one in judged if one.is_written]
    assert len(written) == len({one.field for one in written})
    allowed = {USED, LISTED} if if_listed == "write" else {USED}
    for one in written:
        assert one.verdict in allowed
        assert one.value
        assert one.e164 != PARIS
        assert one.number.dnc != "maybe"
    assert all((one.verdict is USED) <= one.is_written for one in judged)
    for value in values:
        assert (value.value is None) <= bool(value.note)
    assert judge(numbers, phones, region=region, suppressed={PARIS}) == judged
