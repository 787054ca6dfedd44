"""Every mistake an admin can make in crm_sync.yaml, and the sentence that answers it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from crm_sync.config.expressions import Condition, Operator
from crm_sync.config.loader import Loaded, folder, kept, load, load_path
from crm_sync.config.model import Alert, Band, Budget, JobChange, Keep, Schedule, SendKey
from crm_sync.config.problems import InvalidConfigError, Severity
from crm_sync.domain.changes import WriteRule
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import builtin_table, fold

BASE = """\
version: 1
crms:
  salesforce:
    type: salesforce
    environment: sandbox
  hs:
    type: hubspot
    environment: production
syncs:
  contacts:
    crm: salesforce
    object: Contact
    match:
      send:
        email: Email
    fields:
      Title: person.title
"""


def loaded(old: str = "", new: str = "", **files: bytes) -> Loaded:
    assert old in BASE
    text = BASE.replace(old, new) if old else BASE
    return load(text.encode(), read_file=kept({f"{name}.csv": content for name, content in files.items()}))


def found(old: str = "", new: str = "", **files: bytes) -> list[str]:
    return [str(problem).removeprefix("crm_sync.yaml:") for problem in loaded(old, new, **files).problems]


def field(mapping: str, **files: bytes) -> list[str]:
    """The problems when Title is mapped as `mapping`, whose column 1 is column 14 of line 17."""
    return found("Title: person.title", f"Title: {mapping}", **files)


def test_a_small_configuration_is_read_with_its_defaults() -> None:
    config = loaded().require()

    assert config.text == BASE.encode()
    assert (config.timezone, config.workers, config.placeholders) == ("UTC", 4, ())
    assert (config.crms["hs"].type, config.crms["hs"].environment, config.crms["hs"].write) == (
        "hubspot",
        "production",
        "auto",
    )
    sync = config.syncs["contacts"]
    assert (sync.crm, sync.object_type, sync.parent, sync.is_company) == ("salesforce", "Contact", None, False)
    assert sync.choose.missing_any == ("Title",)
    assert (sync.choose.at_most, sync.choose.after_no_match_wait) == (None, timedelta(days=180))
    assert sync.match.send == (SendKey(key="email", fields=("Email",)),)
    assert sync.match.need_one_of == (("email",),)
    [mapping] = sync.fields
    assert (mapping.field, mapping.source, mapping.rule) == ("Title", "person.title", WriteRule.FILL)
    assert (mapping.picklist, mapping.bands, mapping.unmapped, mapping.join) == (None, (), "ask", None)


def test_everything_a_field_can_say_is_read() -> None:
    text = (
        BASE.replace(
            "      Title: person.title\n",
            """\
      Title: {from: person.title, write: never, transform: trim, max: 80, when: "person.email_status = verified"}
      Level__c:
        from: person.seniority
        write: replace
        picklist: {Executive: [c_suite, owner], "1": vp}
        unmapped: {use: Other}
      Note__c: {template: "{{ person.city }}, {{ person.country }}", write: replace}
      Departments__c: {from: person.departments, join: "; ", transform: [trim, title_case]}
      Size__c: {from: organization.estimated_num_employees, bands: {"51+": "51..", "1-50": "1..50"}}
      Revenue__c: {from: organization.annual_revenue, round: 1000}
      Industry__c: {from: organization.industry, picklist_file: map.csv, unmapped: "use: Other"}
    account: {via: AccountId, fields: {Name: organization.name}}
""",
        )
        .replace(
            "    match:\n",
            '    choose: {where: "AccountId != null", or_older_than: 2w, at_most: 20, after_no_match_wait: 4h}\n    match:\n',
        )
        .replace("Email\n", "Email\n        domain: [Account.Website | domain, Email|domain]\n")
    )

    config = load(text.encode(), read_file=kept({"map.csv": b"apollo,crm\nbanking,Finance\n"})).require()

    sync = config.syncs["contacts"]
    by_name = {mapping.field: mapping for mapping in sync.fields}
    assert sync.choose.where == "AccountId != null"
    assert (sync.choose.or_older_than, sync.choose.after_no_match_wait) == (timedelta(weeks=2), timedelta(hours=4))
    assert sync.choose.at_most == 20
    # `never` and `replace` never make a record due.
    assert sync.choose.missing_any == ("Departments__c", "Size__c", "Revenue__c", "Industry__c")
    assert sync.match.send[1] == SendKey(key="domain", fields=("Account.Website", "Email"), as_domain=True)
    assert (by_name["Title"].transform, by_name["Title"].max) == (("trim",), 80)
    assert by_name["Title"].when == "person.email_status = verified"
    assert by_name["Level__c"].picklist == {fold("c_suite"): "Executive", fold("owner"): "Executive", fold("vp"): "1"}
    assert (by_name["Level__c"].unmapped, by_name["Level__c"].unmapped_use) == ("use", "Other")
    assert (by_name["Industry__c"].unmapped, by_name["Industry__c"].unmapped_use) == ("use", "Other")
    assert by_name["Industry__c"].picklist == {fold("banking"): "Finance"}
    assert by_name["Note__c"].template == "{{ person.city }}, {{ person.country }}"
    assert by_name["Departments__c"].join == "; "
    assert by_name["Size__c"].bands == (Band(value="1-50", low=1, high=50), Band(value="51+", low=51, high=None))
    assert by_name["Revenue__c"].round == 1000
    assert sync.parent is not None
    assert (sync.parent.via, sync.parent.object_type) == ("AccountId", "Account")
    assert config.files == {"map.csv": b"apollo,crm\nbanking,Finance\n"}


# --- one mistake each ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 2", ['1:10: version: "2": this program reads configurations of version 1. Write version: 1.']),
        ("version: 1\n", "", ["1:1: `version` is missing. Write 1."]),
        ("crms:", "crm:", ['2:1: crm: unknown key "crm". Did you mean crms?']),
        (
            "version: 1",
            "version: 1\ntimezone: Europe/Berln",
            ['2:11: timezone: "Europe/Berln": there is no such time zone. Did you mean Europe/Berlin?'],
        ),
        (
            "version: 1",
            "version: 1\ntimezone: ../../etc/passwd",
            [
                ('2:11: timezone: "../../etc/passwd": there is no such time zone. '
                "Write a name such as Europe/Berlin or America/New_York.")
            ],
        ),
        (
            "version: 1",
            "version: 1\napollo: {workers: many}",
            ['2:19: apollo.workers: expected a whole number from 1 to 32, got "many".'],
        ),
        (
            "version: 1",
            "version: 1\napollo: {workers: 0}",
            ['2:19: apollo.workers: expected a whole number from 1 to 32, got "0".'],
        ),
        (
            "version: 1",
            "version: 1\nplaceholders:",
            ["2:1: placeholders: there is no value here. Write a list of texts, or remove the key."],
        ),
        (
            "    environment: sandbox\n",
            "",
            ["3:3: crms.salesforce: `environment` is missing. Write sandbox or production."],
        ),
        (
            "environment: sandbox",
            "environment: prod",
            ['5:18: crms.salesforce.environment: unknown environment "prod". Did you mean production?'],
        ),
        ("type: salesforce", "type: sforce", ['4:11: crms.salesforce.type: unknown CRM type "sforce". Did you mean salesforce?']),
        (
            "  hs:",
            "  apollo:",
            [
                '6:3: crms.apollo: "apollo": this name is taken by the settings CRM_SYNC_APOLLO_…. Choose another name.',
            ],
        ),
        (
            "  hs:",
            "  My CRM:",
            [
                ("6:3: crms.My CRM: \"My CRM\": a CRM's name has lower-case letters, digits and underscores only. "
                "Write my_crm. It also names the CRM's settings: `salesforce` has CRM_SYNC_SALESFORCE_URL."),
            ],
        ),
        (
            "crm: salesforce",
            "crm: salesforces",
            ['11:10: syncs.contacts.crm: there is no CRM "salesforces" under `crms`. Did you mean salesforce?'],
        ),
        (
            "object: Contact",
            "object: contacts",
            [
                ('12:13: syncs.contacts.object: "contacts" is not an object a sync can fill in a salesforce CRM. '
                "Did you mean Contact?")
            ],
        ),
        (
            "object: Contact",
            "object: [Contact]",
            [
                ("12:13: syncs.contacts.object: expected Contact, Lead or Account (Salesforce), contacts or companies "
                "(HubSpot), got a list.")
            ],
        ),
        ("    object: Contact\n", "", [
            ("10:3: syncs.contacts: `object` is missing. Write Contact, Lead or Account (Salesforce), contacts or "
            "companies (HubSpot).")
        ]),
        ("    object: Contact\n", "    object: Contact\n    schedul: {every: 4h}\n", [
            '13:5: syncs.contacts.schedul: unknown key "schedul". Did you mean schedule?'
        ]),
        ("        email: Email", "        e_mail: Email", [
            '15:9: syncs.contacts.match.send.e_mail: unknown key "e_mail". Did you mean email?'
        ]),
        ("email: Email", "first_name: FirstName", [
            ("14:7: syncs.contacts.match.send: these keys are too weak to find anybody by. "
            "Send email, linkedin_url, or both names and the domain.")
        ]),
        ("email: Email", "email: Email | lower", [
            ('15:16: syncs.contacts.match.send.email: "Email | lower": only "| domain" can follow the field. '
            'Write it as in "Account.Website | domain".')
        ]),
        ("email: Email", "email: Email | domain", [
            '15:16: syncs.contacts.match.send.email: "| domain" is only for the key `domain`.'
        ]),
        ("email: Email", "email: the mail", [
            ('15:16: syncs.contacts.match.send.email: "the mail": this is not the API name of a field. '
            "API names have letters, digits and underscores; `crm-sync fields` lists them.")
        ]),
        ("    fields:", "      need_one_of: [email, [first_name, domain]]\n    fields:", [
            "16:28: syncs.contacts.match.need_one_of[1]: first_name is not a key of `send`. Known here: email."
        ]),
        ("    fields:", "      need_one_of: [emial]\n    fields:", [
            '16:21: syncs.contacts.match.need_one_of[0]: unknown key of `send` "emial". Did you mean email?'
        ]),
        ("Email\n", "Email\n        domain: Website\n      need_one_of: [domain]\n", [
            ("17:21: syncs.contacts.match.need_one_of[0]: domain alone does not identify a person. "
            "Ask for email, linkedin_url, or both names and the domain.")
        ]),
        ("    fields:\n      Title: person.title\n", "    fields:\n", [
            "16:5: syncs.contacts.fields: there is no field here. Write at least one field."
        ]),
        ("    match:", "    choose: {at_most: 1.5}\n    match:", [
            '13:23: syncs.contacts.choose.at_most: expected a whole number from 1 to 100,000,000, got "1.5".'
        ]),
        ("    match:", "    choose: {or_older_than: 6 months}\n    match:", [
            ('13:29: syncs.contacts.choose.or_older_than: "6 months": this is not a duration. '
            "Write a number and m, h, d or w: 30m, 4h, 120d, 2w.")
        ]),
        ("    match:", "    choose: {where: [{property: x, operator: EQ, value: 1}]}\n    match:", [
            ('13:21: syncs.contacts.choose.where: a filter for Salesforce is text. '
            'Write a SOQL condition: "AccountId != null".')
        ]),
        ("    fields:", "    account: {via: AccountId, fields: {Title: person.title}}\n    fields:", [
            ("16:47: syncs.contacts.account.fields.Title: the company's record is filled from organization.*; there is "
            "no person to take this from.")
        ]),
        ("Contact\n", "Lead\n    account: {via: AccountId, fields: {Name: organization.name}}\n", [
            "13:5: syncs.contacts.account: `account` goes with contacts; Lead has no company record of its own."
        ]),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_its_place_and_its_cure(old: str, new: str, expected: list[str]) -> None:
    assert found(old, new) == expected


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("person.titel", ['17:14: T: "person.titel": Apollo has no such attribute. Did you mean person.title?']),
        ("title", ['17:14: T: "title": Apollo has no such attribute. Did you mean person.title?']),
        (
            "person.organization.name",
            ['17:14: T: "person.organization.name": Apollo has no such attribute. Did you mean organization.name?'],
        ),
        (
            "xyzzy",
            ['17:14: T: "xyzzy": Apollo has no such attribute. `crm-sync fields apollo` lists them.'],
        ),
        (
            "person.phone_numbers",
            [
                ('17:14: T: "person.phone_numbers": this cannot be mapped: it is the employer\'s switchboard, never the '
                "person's own number; use organization.primary_phone.sanitized_number for the switchboard, and `phones` "
                "for people.")
            ],
        ),
        ("[person.title]", [
            ("17:14: T: expected an Apollo attribute such as person.title or a mapping (from, template, write, when, "
            "transform, join, max, round, picklist, picklist_file, unmapped, bands, ignore_change_below), got a list.")
        ]),
        ("{}", ["17:14: T: `from` is missing. Write an Apollo attribute, for example from: person.title."]),
        ("{from: person.title, writ: fill}", ['17:35: T.writ: unknown key "writ". Did you mean write?']),
        ("{from: person.title, write: fil}", ['17:42: T.write: unknown write rule "fil". Did you mean fill?']),
        ("{from: person.title, write: always}", [
            '17:42: T.write: unknown write rule "always". Known here: never, fill, track, review, replace.'
        ]),
        ("{from: person.title, transform: [trim, titlecase]}", [
            '17:53: T.transform[1]: "titlecase": there is no such transform. Did you mean title_case?'
        ]),
        ("{from: person.title, template: \"{{ person.city }}\"}", [
            "17:35: T.template: a field has either `from` or `template`. Remove one of them."
        ]),
        ("{template: \"{{ person.town }}\"}", [
            '17:25: T.template: "{{ person.town }}": Apollo has no such attribute. Did you mean person.name?'
        ]),
        ("{template: \"{{ person.city }\"}", [
            ('17:25: T.template: "{{ person.city }": a placeholder in this template cannot be read. '
            "Write it as {{ person.city }}.")
        ]),
        ("{template: \"constant\"}", [
            '17:25: T.template: "constant": this template names no Apollo attribute. Write one as {{ person.city }}.'
        ]),
        ("{from: person.title, when: \"person.email_status == verified\"}", [
            '17:41: T.when: "person.email_status == verified": "==" is not an operator here. Write a single =.'
        ]),
        ("{from: person.title, when: \"person.email_state = verified\"}", [
            '17:41: T.when: "person.email_state = verified": Apollo has no such attribute. Did you mean person.email_status?'
        ]),
        ("{from: person.title, join: \", \"}", [
            "17:35: T.join: `join` is for lists; person.title is text."
        ]),
        ("{from: person.title, round: 10}", ["17:35: T.round: `round` is for numbers; person.title is text."]),
        ("{from: person.title, bands: {a: \"1..2\"}}", ["17:35: T.bands: `bands` are for numbers; person.title is text."]),
        ("{from: organization.founded_year, max: 10}", [
            "17:48: T.max: `max` shortens text; organization.founded_year is a whole number."
        ]),
        ("{from: organization.founded_year, bands: {a: \"5-9\"}}", [
            ('17:59: T.bands.a: "5-9": this is not a range of numbers. Write it with two dots: "1..50", or "51.." '
            "without an end.")
        ]),
        ("{from: organization.founded_year, bands: {a: \"9..5\"}}", [
            '17:59: T.bands.a: "9..5": the range ends before it begins. Write "5..9".'
        ]),
        ("{from: organization.founded_year, bands: {a: \"1..50\", b: \"50..\"}}", [
            '17:68: T.bands.b: the bands "a" and "b" overlap.'
        ]),
        ("{from: organization.founded_year, bands: {a: \"1..50\", b: \"52..\"}}", [
            "17:71: warning: T.bands.b: numbers between 50 and 52 are in no band and stay without a value."
        ]),
        ("{from: person.seniority, picklist: {A: [vp], B: [director, vp]}}", [
            '17:73: T.picklist.B[1]: the Apollo value "vp" has two CRM values, "A" and "B". Keep one of them.'
        ]),
        ("{from: person.seniority, picklist: {A: []}, picklist_file: m.csv}", [
            "17:58: T.picklist_file: a field has either `picklist` or a CSV file. Write all its values in one place."
        ]),
        ("{from: person.seniority, picklist_file: nothing.csv}", [
            ('17:54: T.picklist_file: the file "nothing.csv" cannot be read beside the configuration. '
            "It is a CSV file with the columns apollo and crm.")
        ]),
        ("{from: person.seniority, picklist_file: ../secret.csv}", [
            ('17:54: T.picklist_file: "../secret.csv": the file must lie beside the configuration or below it. '
            'Write a name such as "map.csv".')
        ]),
        ("{from: organization.industry, picklist_file: \"builtin:salesforce_industri\"}", [
            ('17:59: T.picklist_file: there is no built-in table "salesforce_industri". '
            "Did you mean salesforce_industry?")
        ]),
        ("{from: person.seniority, picklist: {A: vp}, unmapped: skip}", [
            '17:68: T.unmapped: unknown answer to an unmapped value "skip". Known here: ask, leave.'
        ]),
        ("{from: person.seniority, picklist: {A: vp}, unmapped: {us: A}}", [
            '17:69: T.unmapped.us: unknown key "us". Did you mean use?'
        ]),
        ("{from: person.title, write: trak}", [
            '17:42: T.write: unknown write rule "trak". Did you mean track?'
        ]),
        ("{from: organization.founded_year, write: track, ignore_change_below: 5}", [
            ('17:83: T.ignore_change_below: "5": this is not a percentage. Write a number from 0 to 100 and a percent '
            "sign: 5%."),
        ]),
        ("{from: person.title, write: track, ignore_change_below: 5%}", [
            "17:49: T.ignore_change_below: `ignore_change_below` is for numbers; person.title is text."
        ]),
        ("{from: person.departments, join: x, write: track, ignore_change_below: 5%}", [
            "17:64: T.ignore_change_below: `ignore_change_below` is for numbers; person.departments is a list."
        ]),
        ('{template: "{{ organization.founded_year }}", write: replace, ignore_change_below: 5%}', [
            "17:76: T.ignore_change_below: `ignore_change_below` is for numbers; a template is text."
        ]),
        ('{from: organization.founded_year, bands: {a: "1.."}, write: review, ignore_change_below: 5%}', [
            ("17:82: T.ignore_change_below: `ignore_change_below` is for numbers; `bands` makes a value of a picklist. "
            "Remove `ignore_change_below`.")
        ]),
        ("{from: organization.founded_year, ignore_change_below: 5%}", [
            ("17:69: warning: T.ignore_change_below: under `fill` nothing that is there is changed, however little.")
        ]),
        ("{from: organization.founded_year, write: never, ignore_change_below: 5%}", [
            ("17:83: warning: T.ignore_change_below: under `never` nothing that is there is changed, however little.")
        ]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_field_is_answered_with_its_place_and_its_cure(mapping: str, expected: list[str]) -> None:
    said = [line.replace("syncs.contacts.fields.Title", "T") for line in field(mapping, m=b"apollo,crm\n")]

    assert sorted(said) == sorted(expected)


def test_all_mistakes_are_reported_at_once_from_top_to_bottom() -> None:
    text = (
        BASE.replace("version: 1", "version: 7").replace("person.title", "person.titel").replace("Contact", "Kontact")
    )

    result = load(text.encode())

    assert result.config is None
    assert [p.line for p in result.problems] == [1, 12, 17]
    with pytest.raises(InvalidConfigError) as caught:
        result.require()
    assert len(str(caught.value).splitlines()) == 3
    assert caught.value.problems == result.problems


def test_mistakes_beside_a_duplicate_key_are_reported_too() -> None:
    lines = found("      Title: person.title", "      Title: person.titel\n      Title: person.title")

    assert [line.split(": ", 1)[0] for line in lines] == ["17:14", "18:7"]


def test_a_company_sync_knows_no_person() -> None:
    lines = found("object: Contact", "object: Account")

    assert lines == [
        (
            "15:9: syncs.contacts.match.send.email: a company is not looked up by email. "
            "Known here: domain, linkedin_url, organization_name."
        ),
        (
            "17:14: syncs.contacts.fields.Title: a company look-up is filled from organization.*; there is no person to "
            "take this from."
        ),
    ]


# --- HubSpot's filters ------------------------------------------------------------------------------------------------


def hubspot(where: str) -> Loaded:
    text = BASE.replace("crm: salesforce", "crm: hs").replace(
        "object: Contact\n", f"object: contacts\n    choose: {{where: {where}}}\n"
    )
    return load(text.encode())


def test_a_flat_list_of_hubspot_filters_is_one_group() -> None:
    config = hubspot("[{property: a, operator: EQ, value: 007}, {property: b, operator: HAS_PROPERTY}]").require()

    assert config.syncs["contacts"].choose.where == [
        [{"property": "a", "operator": "EQ", "value": "007"}, {"property": "b", "operator": "HAS_PROPERTY"}]
    ]


def test_a_list_of_lists_of_hubspot_filters_is_kept() -> None:
    config = hubspot(
        "[[{property: a, operator: IN, values: [x, 1]}], [{property: b, operator: EQ, value: x}]]"
    ).require()

    where = config.syncs["contacts"].choose.where
    assert [len(group) for group in where] == [1, 1]
    assert where[0][0]["values"] == ["x", "1"]


@pytest.mark.parametrize(
    ("where", "place", "words"),
    [
        ("city = Paris", "13:21", "a filter for HubSpot is a list"),
        ("[]", "13:21", "a filter for HubSpot is a list"),
        ("[{operator: EQ, value: 1}]", "13:22", "`property` is missing"),
        ("[{property: a, operator: EQUALS, value: 1}]", "13:46", 'unknown operator "EQUALS". Did you mean EQ?'),
        ("[{property: a, operator: EQ}]", "13:22", 'the operator "EQ" needs `value`'),
        ("[{property: a, operator: IN, value: x}]", "13:22", 'the operator "IN" needs `values`'),
        ("[{property: a, operator: IN, values: x}]", "13:58", "`values` is a list"),
        ("[{property: a, operator: BETWEEN, value: 1}]", "13:22", 'the operator "BETWEEN" needs `highValue`'),
        ("[{propety: a, property: a, operator: EQ, value: 1}]", "13:23", "Did you mean property?"),
        ("[[{property: a, operator: EQ, value: 1}], {property: a}]", "13:63", "cannot be mixed"),
    ],
)
def test_a_mistake_in_a_hubspot_filter_is_placed(where: str, place: str, words: str) -> None:
    [problem] = [str(p) for p in hubspot(where).problems]

    assert problem.startswith(f"crm_sync.yaml:{place}: ")
    assert words in problem


# --- picklist files ---------------------------------------------------------------------------------------------------


def test_entries_of_ones_own_go_before_those_of_a_ready_table() -> None:
    mapping = '{from: person.seniority, picklist: {Boss: [Owner, vp]}, picklist_file: "builtin:salesforce_seniority"}'

    result = loaded("Title: person.title", f"Level__c: {mapping}")

    [level] = result.require().syncs["contacts"].fields
    assert result.problems == ()
    assert level.picklist == {**builtin_table("salesforce_seniority"), "owner": "Boss", "vp": "Boss"}


WITH_FILE = "{from: person.seniority, picklist_file: m.csv}"


def test_a_picklist_file_with_semicolons_quotes_and_a_byte_order_mark_is_read() -> None:
    result = loaded(
        "Title: person.title",
        f"Title: {WITH_FILE}",
        m='\ufeffCRM;Apollo\r\n"Exec; top";c_suite\r\n;intern\r\n\r\n'.encode(),
    )

    assert result.require().syncs["contacts"].fields[0].picklist == {fold("c_suite"): "Exec; top"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n", "m.csv:1:1: the first line does not name the columns. Write apollo,crm."),
        (b"", "m.csv:1:1: the first line does not name the columns. Write apollo,crm."),
        (b"apollo,crm\nvp\n", "m.csv:2:1: this line has too few columns. Write an Apollo value, then a CRM value."),
        (b"apollo,crm\n,VP\n", "m.csv:2:1: this line has no Apollo value."),
        (
            b"apollo,crm\nvp,VP\nVP,Boss\n",
            'm.csv:3:1: the Apollo value "VP" has two CRM values, "VP" and "Boss". Keep one of them.',
        ),
        (b"apollo,crm\nvp,\xff\n", "m.csv:2:1: this is not UTF-8 text. Save the file as CSV UTF-8."),
        (b"x" * (1024 * 1024 + 1), "m.csv:1:1: a picklist file may have at most 1,048,576 bytes."),
    ],
)
def test_a_mistake_in_a_picklist_file_names_that_file_and_line(content: bytes, expected: str) -> None:
    assert field(WITH_FILE, m=content) == [expected]


def test_files_are_read_beside_the_configuration_only(tmp_path: Path) -> None:
    inside = tmp_path / "config"
    inside.mkdir()
    (inside / "m.csv").write_bytes(b"apollo,crm\nvp,VP\n")
    (tmp_path / "outside.csv").write_bytes(b"apollo,crm\nvp,VP\n")
    (inside / "link.csv").symlink_to(tmp_path / "outside.csv")
    (inside / "crm_sync.yaml").write_text(BASE.replace("Title: person.title", f"Title: {WITH_FILE}"))

    config = load_path(inside / "crm_sync.yaml").require()

    assert config.syncs["contacts"].fields[0].picklist == {fold("vp"): "VP"}
    with pytest.raises(OSError, match=r"link\.csv"):
        folder(inside)("link.csv")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"crm_sync\.yaml does not exist\. `crm-sync init` writes"):
        load_path(tmp_path / "crm_sync.yaml")


def test_a_built_in_table_needs_no_file() -> None:
    config = loaded(
        "Title: person.title", 'Industry: {from: organization.industry, picklist_file: "builtin:salesforce_industry"}'
    ).require()

    table = config.syncs["contacts"].fields[0].picklist
    assert table is not None
    assert table[fold("banking")] == "Banking"
    assert config.files == {}


# --- money, silence and keeping -----------------------------------------------------------------------------------


def with_section(text: str) -> Loaded:
    return loaded("version: 1", f"version: 1\n{text}")


def test_without_a_budget_there_is_no_limit_and_doubt_is_held() -> None:
    assert loaded().require().budget == Budget(
        per_run=None, per_day=None, per_month=None, at_limit="pause", in_doubt="hold", retry_up_to=Decimal(0)
    )


def test_a_budget_is_read_to_the_last_decimal() -> None:
    budget = (
        with_section(
            "budget: {per_run: 12.5, per_day: 1.01, per_month: 20000, phones_per_month: 0, at_limit: fail, in_doubt: abandon}"
        )
        .require()
        .budget
    )

    assert budget == Budget(
        per_run=Decimal("12.5"),
        per_day=Decimal("1.01"),
        per_month=Decimal(20000),
        phones_per_month=Decimal(0),
        at_limit="fail",
        in_doubt="abandon",
    )


@pytest.mark.parametrize(
    "written", ["{retry_up_to: 5}", "{retry_up_to: 5.0}", '"retry_up_to: 5"', "\n    retry_up_to: 5"]
)
def test_retrying_what_is_in_doubt_carries_its_own_limit(written: str) -> None:
    budget = with_section(f"budget:\n  in_doubt: {written}").require().budget

    assert (budget.in_doubt, budget.retry_up_to) == ("retry", Decimal(5))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", "2:20: budget.in_doubt: `retry_up_to` is missing. Write a number of credits."),
        ("[hold]", "2:20: budget.in_doubt: expected hold or abandon, or {retry_up_to: …}, got a list."),
        (
            "{retry_up_to: -1}",
            '2:34: budget.in_doubt.retry_up_to: "-1": this is not a number of credits. Write a number such as 500 or 12.5.',
        ),
        ("retry", '2:20: budget.in_doubt: unknown value "retry". Known here: hold, abandon.'),
        ("holt", '2:20: budget.in_doubt: unknown value "holt". Did you mean hold?'),
        (
            "",
            "2:10: budget.in_doubt: there is no value here. Write hold or abandon, or {retry_up_to: …}, or remove the key.",
        ),
    ],
)
def test_a_mistake_in_what_to_do_in_doubt_is_answered(written: str, expected: str) -> None:
    assert found("version: 1", f"version: 1\nbudget: {{in_doubt: {written}}}") == [expected]


def test_a_record_is_left_alone_by_conditions_on_its_own_fields() -> None:
    suppress = (
        with_section(
            "suppress:\n"
            "  lists: do_not_enrich.csv\n"
            "  email_domains: [Gmail.com, web.de]\n"
            "  when: [HasOptedOutOfEmail = true, \"Status__c in [Lost, 'Do not call'] and Owner__c is blank\"]"
        )
        .require()
        .suppress
    )

    assert suppress.lists == ("do_not_enrich.csv",)
    assert suppress.email_domains == ("gmail.com", "web.de")
    assert suppress.when == (
        (Condition(path="HasOptedOutOfEmail", operator=Operator.EQUALS, values=("true",)),),
        (
            Condition(path="Status__c", operator=Operator.IN, values=("Lost", "Do not call")),
            Condition(path="Owner__c", operator=Operator.IS_BLANK),
        ),
    )


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{when: HasOptedOutOfEmail}", "2:18: suppress.when: \"HasOptedOutOfEmail\": this condition cannot be read. "),
        ("{when: [A = b, Account.Name = x]}", '2:26: suppress.when[1]: "Account.Name = x": this is not the API name of a field. '),
        ("{when: [A == b]}", '2:19: suppress.when[0]: "A == b": "==" is not an operator here. Write a single =.'),
        ("{lists: /etc/passwd}", '2:19: suppress.lists: "/etc/passwd": the file must lie beside the configuration or below it. '),
        ("{email_domains: ['@gmail.com']}", '2:28: suppress.email_domains[0]: "@gmail.com": this is not a domain. '),
    ],
)  # fmt: skip
def test_a_mistake_in_whom_to_leave_alone_is_answered(section: str, expected: str) -> None:
    [line] = found("version: 1", f"version: 1\nsuppress: {section}")

    assert line.startswith(expected)


def test_stamps_and_keeping_are_read_with_their_defaults() -> None:
    config = with_section("stamps: {enriched_at: Enriched__c}\nkeep: {answers: 400d, undo: 12h}").require()

    assert (config.stamps.enriched_at, config.stamps.status) == ("Enriched__c", "")
    assert config.keep == Keep(
        answers=timedelta(days=400),
        run_details=timedelta(days=90),
        undo=timedelta(hours=12),
        deliveries=timedelta(days=30),
    )


def kept_for(answers: str, *windows: str) -> list[str]:
    """The problems of a configuration with a sync for each refresh window, which stands at column 29."""
    syncs = "".join(
        f"  s{place}:\n    choose: {{or_older_than: {window}}}\n    crm: salesforce\n    object: Contact\n"
        f"    match: {{send: {{email: Email}}}}\n    fields: {{Title: person.title}}\n"
        for place, window in enumerate(windows)
    )
    keep = f"\nkeep: {{run_details: 1d, answers: {answers}}}" if answers else ""
    return found(
        BASE, f"version: 1{keep}\ncrms: {{salesforce: {{type: salesforce, environment: sandbox}}}}\nsyncs:\n{syncs}"
    )


@pytest.mark.parametrize("window", ["90d", "180d", "2160h"])
def test_answers_may_be_kept_just_as_long_as_they_are_used(window: str) -> None:
    assert kept_for(window, window) == kept_for("", window) == []


@pytest.mark.parametrize(
    ("answers", "windows", "expected"),
    [
        (
            "89d",
            ("30d", "90d", "60d"),
            (
                '2:34: keep.answers: answers would be thrown away before the refresh window of "s1" (90d) ends, and bought '
                "again. Write at least 90d."
            ),
        ),
        (
            "35h",
            ("36h",),
            (
                '2:34: keep.answers: answers would be thrown away before the refresh window of "s0" (36h) ends, and bought '
                "again. Write at least 36h."
            ),
        ),
        (
            "",
            ("26w",),
            (
                '5:29: syncs.s0.choose.or_older_than: answers would be thrown away before the refresh window of "s0" (182d) '
                "ends, and bought again: they are kept for 180d. Write keep: {answers: 182d}, or a shorter window."
            ),
        ),
    ],
)
def test_answers_kept_for_less_than_a_refresh_window_are_refused(
    answers: str, windows: tuple[str, ...], expected: str
) -> None:
    assert kept_for(answers, *windows) == [expected]


# --- the product page's example -------------------------------------------------------------------------------------

PRODUCT_EXAMPLE = (Path(__file__).parent / "product_example.yaml").read_bytes()


def test_the_example_of_the_product_page_is_a_configuration() -> None:
    result = load(PRODUCT_EXAMPLE, read_file=kept({"industry_map.csv": b"apollo,crm\nbanking,Banking\n"}))

    assert result.problems == ()
    config = result.require()
    assert [alert.when for alert in config.alerts] == ["run_failed", "rejected_share", "did_not_start"]
    contacts, accounts = config.syncs.values()
    assert contacts.choose.missing_any == ("Title", "Seniority__c")
    assert accounts.choose.missing_any == ("Industry", "NumberOfEmployees", "Size_Band__c", "AnnualRevenue")
    assert contacts.match.need_one_of == (("email",), ("linkedin_url",), ("first_name", "last_name", "domain"))
    assert contacts.match.trust_all == ("last_name_agrees",)
    assert contacts.match.trust_any == ("domain_agrees", "email_agrees", "linkedin_agrees")
    assert contacts.match.otherwise == "review"
    assert contacts.job_change == JobChange(
        notice_when="employer_domain_differs", then="review", keep=("AccountId", "Email")
    )
    rules = {mapping.field: mapping.rule for mapping in contacts.fields}
    assert (rules["LinkedIn__c"], rules["Email"]) == (WriteRule.TRACK, WriteRule.REVIEW)
    assert [mapping.ignore_change_below for mapping in accounts.fields] == [0, Decimal("0.05"), 0, 0]
    assert (accounts.job_change, accounts.match.trust_all, accounts.match.otherwise) == (None, (), "review")
    assert config.timezone == "America/New_York"
    assert config.placeholders == ("[[unknown]]", "n/a", "-", "unknown")


@pytest.mark.parametrize(
    "harmless",
    ["alerts: []", "budget: {}", "budget:", "keep:"],
)
def test_an_empty_section_asks_for_nothing(harmless: str) -> None:
    assert [
        line for line in found("version: 1", f"version: 1\n{harmless}") if harmless.split(":", maxsplit=1)[0] in line
    ] == []


def test_each_mistake_in_an_alert_is_answered() -> None:
    lines = found("version: 1", "version: 1\nalerts: [{when: run_faild, above: lots, abov: 5%, tell: ops@example.com}]")

    assert lines == [
        '2:17: alerts[0].when: unknown event "run_faild". Did you mean run_failed?',
        (
            '2:35: alerts[0].above: "lots": this is not a percentage. Write a number from 0 to 100 and a percent '
            "sign: 5%."
        ),
        '2:41: alerts[0].abov: unknown key "abov". Did you mean above?',
        (
            "2:57: alerts[0].tell: this is not an address for notices. "
            "Write slack:#channel, mailto:name@example.com, or env:CRM_SYNC_NOTIFY_OPS for one that holds a secret."
        ),
    ]


def alerts(*entries: str) -> Loaded:
    return loaded("version: 1", "version: 1\nalerts:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries))


@pytest.mark.parametrize(
    ("entry", "figure"),
    [
        ("when: run_failed", {}),
        ("when: rejected_share", {"above": Decimal("0.05")}),
        ("when: rejected_share, above: 12.5%", {"above": Decimal("0.125")}),
        ("when: did_not_start", {"after": timedelta(minutes=30)}),
        ("when: did_not_start, after: 2h", {"after": timedelta(hours=2)}),
        ("when: budget_used", {"above": Decimal("0.8")}),
        ("when: match_rate, below: 40%", {"below": Decimal("0.4")}),
        ("when: credentials_refused", {}),
        ("when: public_url_unreachable", {"after": timedelta(minutes=10)}),
        ("when: in_doubt", {"after": timedelta(hours=1)}),
        ("when: phones_waiting", {"after": timedelta(hours=12)}),
        ("when: phones_waiting, syncs: contacts", {"after": timedelta(hours=12), "syncs": ("contacts",)}),
    ],
)
def test_an_alert_has_the_figure_of_its_event(entry: str, figure: dict[str, object]) -> None:
    [alert] = alerts(f'{entry}, tell: ["slack:#revops", "slack:#revops"]').require().alerts

    when = entry.removeprefix("when: ").partition(",")[0]
    assert alert == Alert(**{"when": when, "tell": ("slack:#revops",), **figure})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("when: run_failed, above: 5%", "alerts[0].above: `above` does not go with run_failed. Remove it."),
        ("when: rejected_share, after: 5m", "alerts[0].after: `after` does not go with rejected_share. Write `above`."),
        ("when: match_rate", "alerts[0]: match_rate needs `below`. Write for example below: 40%."),
        ("when: match_rate, below: 0%", "alerts[0].below: no rate is below 0%. Write a larger percentage."),
        ("when: rejected_share, above: 100%", "alerts[0].above: no share is above 100%. Write a smaller percentage."),
        ("when: in_doubt, syncs: [contacts]", "alerts[0].syncs: in_doubt is not about single syncs. Remove it."),
        (
            "when: run_failed, syncs: [contact]",
            'alerts[0].syncs[0]: there is no sync "contact" under `syncs`. Did you mean contacts?',
        ),
    ],
)
def test_an_alert_that_could_never_be_told_is_refused(entry: str, said: str) -> None:
    [problem] = alerts(f'{entry}, tell: "mailto:ops@example.com"').problems

    assert str(problem).split(" ", 1)[1] == said


def test_an_alert_about_a_schedule_that_nobody_has_is_noted() -> None:
    [problem] = alerts('when: did_not_start, tell: "slack:#revops"').problems

    assert problem.severity is Severity.WARNING
    assert "none of these syncs has a schedule" in str(problem)


@pytest.mark.parametrize(
    "address",
    [
        "slack:#revops",
        "slack:revops",
        "mailto:ops@example.com",
        "mailto://ops@example.com",
        "env:CRM_SYNC_NOTIFY_OPS",
        "json://127.0.0.1:8000/hook",
    ],
)
def test_an_address_without_a_secret_is_taken_silently(address: str) -> None:
    assert alerts(f'when: run_failed, tell: "{address}"').problems == ()


@pytest.mark.parametrize(
    "address",
    ["slack://TOKENA/TOKENB/TOKENC", "mailtos://me:PASSWORD@example.com", "jsons://me:PASSWORD@example.com/x"],
)
def test_an_address_with_a_secret_is_better_a_setting(address: str) -> None:
    result = alerts(f'when: run_failed, tell: "{address}"')

    [problem] = result.problems
    assert problem.severity is Severity.WARNING
    assert "env:CRM_SYNC_NOTIFY_OPS" in str(problem)
    assert "TOKEN" not in str(problem) + repr(result.require().alerts)
    assert "PASSWORD" not in str(problem) + repr(result.require().alerts)


@pytest.mark.parametrize("address", ["PASSWORD", "env:APOLLO_PASSWORD", "slack:#a PASSWORD", "https:/PASSWORD@x"])
def test_no_problem_repeats_an_address(address: str) -> None:
    [problem] = alerts(f'when: run_failed, tell: "{address}"').problems

    assert problem.severity is Severity.ERROR
    assert "PASSWORD" not in str(problem)


def test_each_mistake_in_a_budget_is_answered() -> None:
    lines = found(
        "version: 1", "version: 1\nbudget: {per_run: lots, per_weak: 5, at_limit: stop, in_doubt: {retry_up_to: x}}"
    )

    assert lines == [
        '2:19: budget.per_run: "lots": this is not a number of credits. Write a number such as 500 or 12.5.',
        '2:25: budget.per_weak: unknown key "per_weak". Did you mean per_day?',
        '2:48: budget.at_limit: unknown value "stop". Known here: pause, fail.',
        '2:78: budget.in_doubt.retry_up_to: "x": this is not a number of credits. Write a number such as 500 or 12.5.',
    ]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{every: 4h, cron: '0 4 * * 0'}", "one of days, cron and every"),
        ("{days: weekdays}", "`at` is missing"),
        ("{every: 4h, at: '02:30'}", "`at` goes with `days` only"),
        ("{cron: '0 4 * *'}", "not a cron expression of five fields"),
        ("{cron: '0 4 * * 8'}", "not a cron expression: bad day-of-week"),
        ("{cron: '0 4 31 2 *'}", "not a cron expression: bad day-of-month"),
        ("{every: 0m}", "once a minute at most"),
        ("{jitter: 5m}", "does not say when"),
        ("{days: [mon, tues], at: '02:30'}", "Did you mean tue?"),
        ("{days: daily, at: 25:00}", "not a time of day"),
    ],
)
def test_a_mistake_in_a_schedule_is_named(schedule: str, words: str) -> None:
    (line,) = found("    match:", f"    schedule: {schedule}\n    match:")

    assert words in line
    assert ".schedule" in line


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("{days: weekdays, at: '02:30'}", Schedule(text="weekdays at 02:30", cron="30 2 * * 1-5")),
        ("{days: [sun, mon], at: '23:05'}", Schedule(text="sun and mon at 23:05", cron="5 23 * * 0,1")),
        ("{days: [daily, sat], at: '00:00'}", Schedule(text="daily and sat at 00:00", cron="0 0 * * *")),
        (
            "{cron: '0  4 * * 0', jitter: 10m}",
            Schedule(text="cron 0 4 * * 0", cron="0 4 * * 0", jitter=timedelta(minutes=10)),
        ),
        ("{every: 90m}", Schedule(text="every 90m", every=timedelta(minutes=90))),
    ],
)
def test_a_schedule_is_read(schedule: str, expected: Schedule) -> None:
    result = loaded("    match:", f"    schedule: {schedule}\n    match:")

    assert next(iter(result.require().syncs.values())).schedule == expected


# --- how it is written, who is believed --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "strict", "fast", "bulk"])
def test_a_crm_is_written_as_it_says(mode: str) -> None:
    result = loaded("environment: sandbox", f"environment: sandbox\n    write: {mode}")

    assert result.require().crms["salesforce"].write == mode


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("strict", []),
        (
            "bulk",
            [
                (
                    "9:12: crms.hs.write: HubSpot has no bulk interface for updates; its batch calls take 100 records each. "
                    "Write auto, strict or fast."
                )
            ],
        ),
        ("quick", ['9:12: crms.hs.write: unknown value "quick". Known here: auto, strict, fast, bulk.']),
    ],
)
def test_hubspot_is_not_written_in_bulk(mode: str, expected: list[str]) -> None:
    assert found("environment: production", f"environment: production\n    write: {mode}") == expected


def matching(more: str, **replaced: str) -> list[str]:
    """The problems of a sync of people that has `more` beside `send`, from line 13 and column 7 on."""
    text = BASE.replace("        email: Email\n", f"        {replaced.get('send', 'email: Email')}\n{more}")
    return [str(p).removeprefix("crm_sync.yaml:").replace("syncs.contacts.", "") for p in load(text.encode()).problems]


@pytest.mark.parametrize(
    ("more", "trust"),
    [
        ("", ((), (), "review")),
        ("      trust_when:\n", ((), (), "review")),
        ("      trust_when: {}\n", ((), (), "review")),
        ("      trust_when: {all: email_agrees}\n", (("email_agrees",), (), "review")),
        (
            "      trust_when: {any: [email_agrees, domain_agrees, email_agrees]}\n      otherwise: review\n",
            ((), ("email_agrees", "domain_agrees"), "review"),
        ),
    ],
)
def test_which_answers_are_believed_is_read(more: str, trust: tuple[object, ...]) -> None:
    match = loaded("        email: Email\n", f"        email: Email\n{more}").require().syncs["contacts"].match

    assert (match.trust_all, match.trust_any, match.otherwise) == trust


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "      trust_when: {all: [last_name_agree]}\n",
            ['16:26: match.trust_when.all[0]: unknown proof "last_name_agree". Did you mean last_name_agrees?'],
        ),
        (
            "      trust_when: {all: []}\n",
            [
                (
                    "16:25: match.trust_when.all: the list is empty. Write a list of last_name_agrees, first_name_agrees, "
                    "domain_agrees, email_agrees or linkedin_agrees."
                )
            ],
        ),
        (
            "      trust_when: {all: [email_agrees, linkedin_agrees]}\n",
            [
                (
                    "16:40: match.trust_when.all[1]: linkedin_agrees can never agree: `send` has no linkedin_url. "
                    "Send it, or remove the proof."
                )
            ],
        ),
        (
            "      trust_when: {any: [first_name_agrees, email_agrees]}\n",
            [
                (
                    "16:26: warning: match.trust_when.any[0]: first_name_agrees can never agree: `send` has no first_name or "
                    "name. Send it, or remove the proof."
                )
            ],
        ),
        (
            "      trust_when: {any: last_name_agrees}\n",
            [
                (
                    "16:25: match.trust_when.any[0]: last_name_agrees can never agree: `send` has no last_name or name. "
                    "Send it, or remove the proof."
                )
            ],
        ),
        (
            "      otherwise: review\n",
            ["16:7: match.otherwise: `otherwise` goes with `trust_when`. Add proofs, or remove it."],
        ),
        (
            "      trust_when: {all: email_agrees}\n      otherwise: ask\n",
            ['17:18: match.otherwise: unknown value "ask". Known here: review, skip.'],
        ),
    ],
)
def test_a_mistake_in_which_answers_are_believed_is_answered(more: str, expected: list[str]) -> None:
    assert matching(more) == expected


def test_a_proof_is_not_called_dead_where_what_is_sent_was_refused() -> None:
    lines = matching("      trust_when: {all: last_name_agrees}\n", send="{email: Email, last_name: [Last Name]}")

    assert len(lines) == 1
    assert lines[0].startswith("15:")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{notice_when: employer_domain_differs, then: flag}",
            JobChange(notice_when="employer_domain_differs", then="flag"),
        ),
        (
            "{notice_when: employer_domain_differs, then: update, keep: Email}",
            JobChange(notice_when="employer_domain_differs", then="update", keep=("Email",)),
        ),
        (
            "{notice_when: employer_domain_differs, then: review, keep: [Email, Email, AccountId]}",
            JobChange(notice_when="employer_domain_differs", then="review", keep=("Email", "AccountId")),
        ),
    ],
)
def test_what_a_new_employer_means_is_read(written: str, expected: JobChange) -> None:
    config = loaded("    match:", f"    job_change: {written}\n    match:").require()

    assert config.syncs["contacts"].job_change == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{then: review}",
            ["13:17: job_change: `notice_when` is missing. Write employer_domain_differs."],
        ),
        (
            "{notice_when: employer_domain_differs}",
            ["13:17: job_change: `then` is missing. Write flag, review or update."],
        ),
        (
            "{notice_when: employer_differs, then: reviews}",
            [
                '13:31: job_change.notice_when: unknown value "employer_differs". Did you mean employer_domain_differs?',
                '13:55: job_change.then: unknown value "reviews". Did you mean review?',
            ],
        ),
        (
            "{notice_when: employer_domain_differs, then: review, keep: [Account.Name]}",
            ['13:77: job_change.keep[0]: "Account.Name": this is not the API name of a field. '],
        ),
    ],
)
def test_a_mistake_in_what_a_new_employer_means_is_answered(written: str, expected: list[str]) -> None:
    lines = [
        line.replace("syncs.contacts.", "") for line in found("    match:", f"    job_change: {written}\n    match:")
    ]

    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


def test_a_new_employer_cannot_be_noticed_without_a_domain() -> None:
    text = BASE.replace("email: Email", "linkedin_url: LinkedIn__c").replace(
        "    match:", "    job_change: {notice_when: employer_domain_differs, then: flag}\n    match:"
    )

    assert [str(p) for p in load(text.encode()).problems] == [
        (
            "crm_sync.yaml:13:31: syncs.contacts.job_change.notice_when: nothing is sent that tells the employer's domain, so a "
            "new one is never noticed. Send domain or email."
        )
    ]


def test_companies_have_no_employer_and_no_names_to_compare() -> None:
    text = (
        BASE.replace("Contact", "Account")
        .replace(
            "        email: Email\n",
            "        domain: Website\n      trust_when: {any: domain_agrees}\n      otherwise: skip\n",
        )
        .replace("Title: person.title", "Name: organization.name")
        .replace("    match:", "    job_change: {notice_when: employer_domain_differs, then: flag}\n    match:")
    )

    assert [
        str(p).removeprefix("crm_sync.yaml:").replace("syncs.contacts.", "") for p in load(text.encode()).problems
    ] == [
        "13:5: job_change: `job_change` is about people; a company has no employer.",
        "17:7: match.trust_when: `trust_when` is about people; a company is found by what it is asked by.",
        "18:7: match.otherwise: `otherwise` is about people; a company is found by what it is asked by.",
    ]


def test_warnings_stay_with_the_configuration() -> None:
    result = loaded("Title: person.title", 'Size: {from: organization.founded_year, bands: {a: "1..5", b: "9.."}}')

    assert [p.severity for p in result.problems] == [Severity.WARNING]
    assert result.require().warnings == (str(result.problems[0]),)
