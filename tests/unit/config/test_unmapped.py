"""Where a value that nobody mapped belongs, what stands in its way, and what the file says afterwards."""

from __future__ import annotations

import pytest

from crm_sync.config.loader import Loaded, kept, load
from crm_sync.config.unmapped import Edited, Place, Wish, edited, named, pair, places, waiting
from crm_sync.domain.records import Choice, FieldKind
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import builtin_table, fold

from .fields import ACCOUNT, CONTACT, MemoryCrm, a_field, an_object

LEVELS = a_field(
    "Grade__c",
    FieldKind.PICKLIST,
    choices=(
        Choice(value="g1", label="Vice President"),
        Choice(value="g2", label="Chief"),
        Choice(value="g3", label="x=y"),
        Choice(value="g4", label="Retired", active=False),
    ),
)
CRM = MemoryCrm(an_object("Contact", *CONTACT.fields.values(), LEVELS), ACCOUNT)
BASE = """\
version: 1
crms:
  salesforce: {type: salesforce, environment: sandbox}
syncs:
  contacts:
    crm: salesforce
    object: Contact
    match: {send: {email: Email}}
    fields:                        # ours
      Title: person.title
      Level__c:
        from: person.seniority
        picklist:
          Executive: [owner, founder]   # the top
          Boss: partner
      Grade__c: person.seniority
      Size__c: {from: organization.estimated_num_employees, bands: {"1-50": "1..50"}}
      Gone__c: person.seniority
    account:
      via: AccountId
      fields:
        Industry: {from: organization.industry, picklist_file: "builtin:salesforce_industry"}
  others:
    crm: salesforce
    object: Contact
    match: {send: {email: Email}}
    fields:
      Level__c: {from: person.seniority, picklist_file: levels.csv}
      Grade__c: {from: person.seniority, picklist_file: levels.csv}
"""
CSV = b"apollo,crm\nowner,Executive\nhead,\n"


def configured(old: str = "", new: str = "", csv: bytes = CSV) -> tuple[Loaded, tuple[Place, ...]]:
    assert old in BASE
    loaded = load(BASE.replace(old, new, 1).encode() if old else BASE.encode(), read_file=kept({"levels.csv": csv}))
    config = loaded.require()
    return loaded, places(config.syncs.values(), config, lambda _, object_type: CRM.describe(object_type))


def mapped(name: str, *pairs: str, sync: str = "contacts", csv: bytes = CSV) -> Edited:
    loaded, found = configured(csv=csv)
    place = named([each for each in found if each.sync == sync], name, loaded.require().syncs[sync])
    return edited(loaded, [pair(text, place) for text in pairs])


def refused(name: str, *pairs: str, sync: str = "contacts", csv: bytes = CSV) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        mapped(name, *pairs, sync=sync, csv=csv)
    return str(caught.value).splitlines()


def test_the_places_are_the_picklists_that_the_crm_has() -> None:
    _, found = configured()

    assert [(place.sync, place.name, place.object_type) for place in found] == [
        ("contacts", "Level__c", "Contact"),
        ("contacts", "Grade__c", "Contact"),
        ("contacts", "account.Industry", "Account"),
        ("others", "Level__c", "Contact"),
        ("others", "Grade__c", "Contact"),
    ]


def test_a_value_waits_until_this_configuration_has_a_value_for_it() -> None:
    _, found = configured()
    tally = [
        ("contacts", "Level__c", "head", 9),
        ("contacts", "Level__c", "owner", 8),  # mapped meanwhile
        ("contacts", "Level__c", "partner", 7),  # to a value that is not active
        ("contacts", "Level__c", "director", 6),  # the picklist has that value itself
        ("contacts", "Industry", "higher education", 5),
        ("contacts", "Industry", "space mining", 4),
        ("contacts", "Elsewhere__c", "head", 3),
        ("gone", "Level__c", "head", 2),
    ]

    rows = waiting(found, tally)

    assert [(row.place.name, row.value, row.seen) for row in rows] == [
        ("Level__c", "head", 9),
        ("Level__c", "partner", 7),
        ("account.Industry", "space mining", 4),
    ]


def test_a_value_waits_in_the_record_and_its_company_where_both_have_the_field() -> None:
    _, found = configured("      Title: person.title\n", "      Industry: organization.industry\n")
    record = an_object("Contact", *CONTACT.fields.values(), LEVELS, ACCOUNT.fields["Industry"])
    loaded, _ = configured("      Title: person.title\n", "      Industry: organization.industry\n")
    config = loaded.require()
    found = places(config.syncs.values(), config, lambda _, name: record if name == "Contact" else ACCOUNT)

    rows = waiting(found, [("contacts", "Industry", "space mining", 4)])

    assert [row.place.name for row in rows] == ["Industry", "account.Industry"]
    mine = [place for place in found if place.sync == "contacts"]
    assert named(mine, "Industry", config.syncs["contacts"]).object_type == "Contact"
    assert named(mine, "account.Industry", config.syncs["contacts"]).object_type == "Account"


def test_a_value_goes_into_the_table_in_the_file_and_nothing_else_changes() -> None:
    result = mapped("Level__c", "c_suite=Executive", "vp=VP", "founder=executive")

    assert list(result.files) == [""]
    assert result.files[""].decode() == BASE.replace("[owner, founder]", "[owner, founder, c_suite]").replace(
        "          Boss: partner\n", "          Boss: partner\n          VP: [vp]\n"
    )
    assert [wish.apollo for wish in result.mapped] == ["c_suite", "vp"]
    assert [wish.apollo for wish in result.already] == ["founder"]


def test_a_field_without_a_table_gets_one_and_labels_are_taken_for_values() -> None:
    result = mapped("Grade__c", "vp=Vice President", "head=g1")

    assert result.files[""].decode() == BASE.replace(
        "      Grade__c: person.seniority\n",
        "      Grade__c:\n        from: person.seniority\n        picklist:\n          Vice President: [vp, head]\n",
        1,
    )


def test_a_value_that_stands_in_the_table_by_its_label_is_added_there() -> None:
    loaded, found = configured(
        "      Grade__c: person.seniority\n",
        "      Grade__c: {from: person.seniority, picklist: {Vice President: vp}}\n",
    )
    place = next(each for each in found if each.name == "Grade__c")

    result = edited(loaded, [Wish(place=place, apollo="head", crm_value="g1")])

    assert b"picklist: {Vice President: [vp, head]}" in result.files[""]


def test_beside_a_ready_table_own_entries_are_written_and_go_before_it() -> None:
    result = mapped("Industry", "space mining=Energy", "computer games=Technology")

    assert b'picklist_file: "builtin:salesforce_industry"' in result.files[""]
    config = result.loaded.require()
    assert config.syncs["contacts"].parent is not None
    [industry] = config.syncs["contacts"].parent.fields
    assert industry.picklist == {
        **builtin_table("salesforce_industry"),
        fold("space mining"): "Energy",
        fold("computer games"): "Technology",
    }


def test_a_table_file_is_added_to_for_all_that_use_it() -> None:
    result = mapped("Level__c", "head=VP", "vp=vp", sync="others")

    assert result.files == {"levels.csv": b"apollo,crm\nowner,Executive\nhead,VP\nvp,VP\n"}
    tables = [mapping.picklist for mapping in result.loaded.require().syncs["others"].fields]
    assert tables == [{"owner": "Executive", "head": "VP", "vp": "VP"}] * 2


def test_nothing_is_written_for_what_stands_there_already() -> None:
    assert mapped("Level__c", "owner=Executive").files == {}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["head=Executiv"], ['"Executiv" is not a value of Level__c. Did you mean Executive?']),
        (["head=Boss"], ['"Boss" is not active in Level__c. Active: Executive, VP, Director, Staff.']),
        (["owner=VP"], ['"owner" stands under "Executive", in line 14 of crm_sync.yaml; change it there.']),
        (
            ["partner=Executive"],
            ['"partner" stands under "Boss", which is not active in Level__c, in line 15 of crm_sync.yaml; change it there.'],
        ),
        (["head=VP", "HEAD=Staff"], ['"HEAD" is to be VP and Staff; choose one.']),
        (["--=VP"], ['"--" has no letter or digit to be recognised by.']),
        (["head=Nope", "owner=VP"], [
            '"Nope" is not a value of Level__c. Active: Executive, VP, Director, Staff.',
            '"owner" stands under "Executive", in line 14 of crm_sync.yaml; change it there.',
        ]),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_granted_is_answered(pairs: list[str], expected: list[str]) -> None:
    assert refused("Level__c", *pairs) == expected


def test_a_wish_that_another_row_of_the_file_contradicts_is_answered() -> None:
    assert refused("Level__c", "owner=VP", sync="others") == [
        '"owner" stands under "Executive", in levels.csv; change it there.'
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Title", "contacts fills Title, which is no picklist, or the CRM shows no values of it; picklists it fills: "),
        ("Size__c", "contacts fills Size__c, which takes its values from `bands`; picklists it fills: "),
        (
            "Gone__c",
            "contacts fills Gone__c, which is no picklist, or the CRM shows no values of it; picklists it fills: ",
        ),
        ("Nope", "contacts fills no field Nope; picklists it fills: Level__c, Grade__c, account.Industry"),
    ],
)
def test_a_field_that_has_no_picklist_is_answered(name: str, expected: str) -> None:
    assert refused(name, "a=b")[0].startswith(expected)


@pytest.mark.parametrize("text", ["head", "=VP", "head=", " = "])
def test_a_pair_that_is_none_is_answered(text: str) -> None:
    assert refused("Level__c", text)[0].endswith('is no pair; write "Apollo value=CRM value"')


def test_a_pair_with_several_signs_is_parted_where_the_picklist_has_the_value() -> None:
    _, found = configured()
    grade = next(place for place in found if place.name == "Grade__c")

    assert (pair("a=b=x=y", grade).apollo, pair("a=b=x=y", grade).crm_value) == ("a=b", "x=y")
    assert (pair("a=b=c", grade).apollo, pair("a=b=c", grade).crm_value) == ("a", "b=c")


def test_a_key_on_a_line_of_its_own_is_no_hindrance() -> None:
    loaded, found = configured("      Level__c:\n", "      ? Level__c\n      :\n")

    assert b"[owner, founder, vp]" in edited(loaded, [pair("vp=Executive", found[0])]).files[""]


def test_a_text_that_cannot_be_added_to_is_left_alone() -> None:
    loaded, found = configured("Grade__c: person.seniority\n", "Grade__c: >-\n        person.seniority\n")

    with pytest.raises(ConfigError, match=r"cannot add to; nothing was changed\. Add it by hand: vp = g1"):
        edited(loaded, [pair("vp=g1", found[1])])


def test_suggestions_come_from_the_table_for_this_kind_of_word_first() -> None:
    _, found = configured()
    by_name = {place.name: place for place in found}

    assert by_name["Level__c"].suggest("founder")[0].why == "ready-made table"
    assert by_name["Grade__c"].suggest("vice presidents")[0].value == "g1"
    assert by_name["account.Industry"].suggest("oil & energy")[0].value == "Energy"
