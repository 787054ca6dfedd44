"""A configuration that reads well and would fail on this org is refused before any money is spent."""

from __future__ import annotations

import pytest

from crm_sync.config.check import check
from crm_sync.config.loader import load
from crm_sync.config.problems import Severity
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema

from .fields import ACCOUNT, CONTACT, CONTACTS, LEAD, MemoryCrm, a_field, an_object

BASE = """\
version: 1
crms:
  salesforce: {type: salesforce, environment: sandbox}
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
SALESFORCE = MemoryCrm(CONTACT, ACCOUNT, LEAD)


def checked(text: str, crm: MemoryCrm = SALESFORCE, **more: object) -> list[str]:
    config = load(text.encode()).require()
    problems = check(config, {"salesforce": crm}, **more)  # type: ignore[arg-type]
    return [str(p).removeprefix("crm_sync.yaml:").replace("syncs.contacts.", "") for p in problems]


def field(name: str, mapping: str, **more: object) -> list[str]:
    """The problems when the only field is `name`, in line 12 from column 7."""
    return checked(BASE.replace("Title: person.title", f"{name}: {mapping}"), **more)  # type: ignore[arg-type]


def test_a_mapping_that_fits_has_no_problem() -> None:
    assert checked(BASE) == []


@pytest.mark.parametrize(
    ("name", "mapping", "expected"),
    [
        (
            "Titel",
            "person.title",
            "12:7: fields.Titel: Contact has no field Titel, or this user may not see it. Did you mean Title?",
        ),
        (
            '"Job_Title"',
            "person.title",
            "12:7: fields.Job_Title: Contact has no field Job_Title, or this user may not see it. Did you mean Title?",
        ),
        (
            "Zzz__c",
            "person.title",
            (
                "12:7: fields.Zzz__c: Contact has no field Zzz__c, or this user may not see it. "
                "`crm-sync fields salesforce Contact` lists them."
            ),
        ),
        (
            "Name",
            "person.name",
            (
                "12:7: fields.Name: Name cannot be written: it is put together from first and last name. "
                "Map another field, or set write: never to see the value in plans only."
            ),
        ),
        (
            "Engaged__c",
            "person.is_likely_to_engage",
            (
                "12:19: fields.Engaged__c: Engaged__c is a checkbox, which is never blank, so `fill` never writes it. "
                "Use replace."
            ),
        ),
        (
            "Engaged__c",
            "{from: person.is_likely_to_engage, write: fill}",
            (
                "12:61: fields.Engaged__c.write: Engaged__c is a checkbox, which is never blank, so `fill` never writes it. "
                "Use replace."
            ),
        ),
        (
            "Engaged__c",
            "{from: person.is_likely_to_engage, write: track}",
            (
                "12:61: warning: fields.Engaged__c.write: Engaged__c is a checkbox, which is never blank, so `track` never "
                "writes a first value; it only goes on with a checkbox that `replace` or an accepted review wrote and nobody "
                "changed since. Use replace, or review."
            ),
        ),
        (
            "Title",
            "{from: organization.estimated_num_employees, write: track, ignore_change_below: 5%}",
            (
                "12:73: fields.Title.ignore_change_below: `ignore_change_below` compares numbers, and Title is text. "
                "Map a number field, or remove it."
            ),
        ),
        (
            "Headcount__c",
            "person.title",
            "12:21: fields.Headcount__c: person.title is text, and Headcount__c is a whole number.",
        ),
        (
            "Headcount__c",
            '{template: "{{ person.city }}"}',
            "12:32: fields.Headcount__c.template: a template is text, and Headcount__c is a whole number.",
        ),
        (
            "Size__c",
            "{from: organization.estimated_num_employees}",
            (
                "12:23: fields.Size__c.from: organization.estimated_num_employees is a whole number, and Size__c is a "
                'picklist. Add `bands`: a range such as "1..50" for each value of the picklist.'
            ),
        ),
        (
            "Department",
            "person.departments",
            '12:19: fields.Department: person.departments is a list, and Department is text. Add join: "; ".',
        ),
        (
            "Level__c",
            "person.departments",
            (
                "12:17: fields.Level__c: person.departments is a list, and Level__c is a picklist. It holds one value; map "
                "the list to a multi-select picklist, or with `join` to a text field."
            ),
        ),
        (
            "AccountId",
            "organization.id",
            "12:18: fields.AccountId: organization.id is text, and AccountId is a reference.",
        ),
        ("Phone", "person.city", "12:14: fields.Phone: person.city is text, and Phone is a phone."),
        (
            "Title",
            "{from: person.title, max: 200}",
            "12:40: fields.Title.max: Title holds 128 characters, fewer than 200. Write 128 or less.",
        ),
        (
            "Title",
            "{from: person.seniority, picklist: {Boss: owner}}",
            "12:39: fields.Title.picklist: Title is text, not a picklist. Remove the table.",
        ),
        (
            "Level__c",
            "{from: person.seniority, picklist: {Executiv: [owner], VP: vp}}",
            '12:53: fields.Level__c.picklist.Executiv: "Executiv" is not a value of Level__c. Did you mean Executive?',
        ),
        (
            "Level__c",
            "{from: person.seniority, picklist: {Boss: [owner]}}",
            (
                '12:53: fields.Level__c.picklist.Boss: "Boss" is not active in Level__c. '
                "Active: Executive, VP, Director, Staff."
            ),
        ),
        (
            "Level__c",
            "{from: person.seniority, picklist: {VP: [vp]}, unmapped: {use: Others}}",
            (
                '12:74: fields.Level__c.unmapped: "Others" is not a value of Level__c. '
                "Active: Executive, VP, Director, Staff."
            ),
        ),
        (
            "Size__c",
            '{from: organization.estimated_num_employees, bands: {"1-50": "1..50", "51-": "51.."}}',
            '12:86: fields.Size__c.bands.51-: "51-" is not a value of Size__c. Did you mean 51+?',
        ),
        (
            "Phone",
            '{from: organization.estimated_num_employees, bands: {"1-50": "1..50"}}',
            "12:59: fields.Phone.bands: Phone is a phone; `bands` give picklist values or text.",
        ),
        (
            "Level__c",
            "organization.industry",
            (
                "12:7: warning: fields.Level__c: none of Apollo's 147 words for organization.industry is a value of "
                "Level__c, so nothing will be written. Add `picklist` with the CRM's values and Apollo's words for each."
            ),
        ),
        (
            "Email",
            "{from: person.email, write: replace}",
            (
                "12:42: warning: fields.Email.write: Email is sent to Apollo as email; replacing it changes who is found "
                "next time. Use fill."
            ),
        ),
        (
            "Notes__c",
            "organization.short_description",
            "12:7: fields.Notes__c: Notes__c cannot be filtered by.",
        ),
    ],
)
def test_a_mapping_that_cannot_work_is_answered_with_its_place_and_its_cure(
    name: str, mapping: str, expected: str
) -> None:
    assert field(name, mapping) == [expected]


@pytest.mark.parametrize(
    ("name", "mapping"),
    [
        ("Level__c", "person.seniority"),
        ("Level__c", "{from: person.seniority, picklist: {executive: [owner]}, unmapped: leave}"),
        ("Size__c", '{from: organization.estimated_num_employees, bands: {"1-50": "1..50", "51+": "51.."}}'),
        ("Departments__c", "person.functions"),
        ("Department", '{from: person.departments, join: "; ", max: 80}'),
        ("Title", "organization.estimated_num_employees"),
        ("Headcount__c", "organization.estimated_num_employees"),
        ("Headcount__c", "{from: organization.latest_funding_round_date, transform: year}"),
        ("Engaged__c", "{from: person.is_likely_to_engage, write: replace}"),
        ("Engaged__c", "{from: person.is_likely_to_engage, write: review}"),
        ("Title", "{from: person.title, write: track}"),
        ("Title", "{from: person.title, write: review}"),
        ("Headcount__c", "{from: organization.estimated_num_employees, write: track, ignore_change_below: 5%}"),
        ("LinkedIn_Profile__c", "person.linkedin_url"),
        ("LinkedIn_Profile__c", '{template: "https://{{ organization.primary_domain }}"}'),
        ("Phone", "organization.primary_phone.sanitized_number"),
        ("Name", "{from: person.name, write: never}"),
    ],
)
def test_a_mapping_that_works_is_not_complained_about(name: str, mapping: str) -> None:
    assert field(name, mapping) == []


def test_values_of_a_picklist_file_are_checked_too() -> None:
    text = BASE.replace("Title: person.title", "Level__c: {from: person.seniority, picklist_file: m.csv}")
    config = load(text.encode(), read_file=lambda _: b"apollo,crm\nvp,VP\nowner,Chief\n").require()

    [problem] = check(config, {"salesforce": SALESFORCE})

    assert (problem.line, problem.column) == (12, 57)
    assert problem.message == 'm.csv: "Chief" is not a value of Level__c.'


def test_values_of_a_shipped_table_that_an_org_has_retired_are_a_warning() -> None:
    [line] = field("Level__c", '{from: person.seniority, picklist_file: "builtin:salesforce_seniority"}')

    assert line.startswith("12:57: warning: fields.Level__c.picklist_file: 2 of the 5 values in this table")
    assert "(Manager, Individual Contributor)" in line


def test_entries_beside_a_shipped_table_are_checked_as_ones_own() -> None:
    table = '{from: person.seniority, picklist: {Chief: [owner], Staff: [manager]}, picklist_file: "builtin:salesforce_seniority"}'

    lines = field("Level__c", table)

    assert len(lines) == 2
    assert lines[0].startswith('12:53: fields.Level__c.picklist.Chief: "Chief" is not a value of Level__c.')
    # Manager's only word is mapped otherwise.
    assert "1 of the 5 values in this table are not active in Level__c (Individual Contributor)" in lines[1]


def test_the_keys_that_are_sent_must_exist_parents_included() -> None:
    text = BASE.replace(
        "        email: Email\n",
        "        email: Emial\n        domain: [Account.Websit | domain, Acount.Website | domain]\n",
    )

    assert checked(text) == [
        "10:16: match.send.email: Contact has no field Emial, or this user may not see it. Did you mean Email?",
        "11:17: match.send.domain: Account has no field Websit, or this user may not see it. Did you mean Website?",
        (
            "11:17: match.send.domain: Contact has no parent Acount, or this user may not see it. "
            "Did you mean Account.Website?"
        ),
    ]


def test_the_fields_of_missing_any_must_exist_and_be_filterable() -> None:
    text = BASE.replace("    match:", "    choose: {missing_any: [Title, Titel, Notes__c]}\n    match:")

    assert checked(text) == [
        "8:35: choose.missing_any[1]: Contact has no field Titel, or this user may not see it. Did you mean Title?",
        "8:42: choose.missing_any[2]: Notes__c cannot be filtered by.",
    ]


def test_what_the_crm_says_about_the_filter_stands_at_the_filter() -> None:
    text = BASE.replace("    match:", '    choose: {where: "Nonsense"}\n    match:')

    assert checked(text) == ["8:21: choose.where: the filter cannot be read."]


def test_what_the_crm_says_about_all_fields_together_is_said_once() -> None:
    text = (
        BASE.replace("type: salesforce,", "type: hubspot,")
        .replace("Contact", "contacts")
        .replace("Email", "email")
        .replace("Title: person.title", "{city: person.city, state: person.state, jobtitle: person.title}")
        .replace("version: 1\n", 'version: 1\nplaceholders: ["-"]\n')
    )

    assert checked(text, MemoryCrm(CONTACTS, most_groups=5)) == ["12:5: fields: this filter needs 6 groups."]


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("ReportsToId", "13:20: account.via: ReportsToId does not point at a record of Account. Write AccountId."),
        (
            "AcountId",
            "13:20: account.via: Contact has no field AcountId, or this user may not see it. Did you mean AccountId?",
        ),
    ],
)
def test_the_account_is_reached_through_a_field_that_points_at_it(via: str, expected: str) -> None:
    text = BASE + f"    account: {{via: {via}, fields: {{NumberOfEmployees: organization.estimated_num_employees}}}}\n"

    assert checked(text) == [expected]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("[AccountId, Email]", []),
        (
            "[AccountId, Emial]",
            [
                "13:88: job_change.keep[1]: Contact has no field Emial, or this user may not see it. Did you mean Email?",
            ],
        ),
        (
            "Emial",
            ["13:76: job_change.keep[0]: Contact has no field Emial, or this user may not see it. Did you mean Email?"],
        ),
    ],
)
def test_the_fields_that_a_new_employer_leaves_alone_must_exist(keep: str, expected: list[str]) -> None:
    text = BASE + f"    job_change: {{notice_when: employer_domain_differs, then: update, keep: {keep}}}\n"

    assert checked(text) == expected


def test_fields_of_the_account_are_checked_against_the_account() -> None:
    text = BASE + "    account: {via: AccountId, fields: {Employees: organization.estimated_num_employees}}\n"

    [line] = checked(text)

    assert line.startswith("13:40: account.fields.Employees: Account has no field Employees")
    assert line.endswith("Did you mean NumberOfEmployees?")


def test_an_object_this_user_may_not_see_is_said_at_the_object() -> None:
    assert checked(BASE, MemoryCrm(ACCOUNT)) == ["7:13: object: this user may not see Contact."]


def test_the_number_of_unmapped_values_is_a_note() -> None:
    text = BASE.replace("Title: person.title", "Level__c: person.seniority")
    config = load(text.encode()).require()

    [problem] = check(config, {"salesforce": SALESFORCE}, unmapped={("contacts", "Level__c"): 3})

    assert problem.severity is Severity.NOTE
    assert problem.message == "3 Apollo values seen so far have no CRM value."


@pytest.mark.parametrize(
    ("environment", "url", "hint"),
    [
        ("sandbox", "https://acme.my.salesforce.com", "Write production"),
        ("production", "https://acme--dev.sandbox.my.salesforce.com", "Write sandbox"),
        ("production", "https://test.salesforce.com", "Write sandbox"),
        ("production", "https://acme.my.salesforce.com", None),
        ("sandbox", "https://acme--dev.sandbox.my.salesforce.com", None),
        ("sandbox", "http://127.0.0.1:8001", None),
    ],
)
def test_the_environment_is_compared_with_the_address(environment: str, url: str, hint: str | None) -> None:
    text = BASE.replace("environment: sandbox", f"environment: {environment}")

    lines = checked(text, urls={"salesforce": url})

    if hint is None:
        assert lines == []
    else:
        assert lines[0].startswith("3:47: warning: crms.salesforce.environment: ")
        assert hint in lines[0]


def test_a_crm_that_was_not_given_is_not_checked() -> None:
    assert check(load(BASE.replace("Title:", "Nope:").encode()).require(), {}) == ()


# --- who is left alone --------------------------------------------------------------------------------------------


def test_a_condition_on_a_field_that_an_object_lacks_is_a_warning_with_a_near_name() -> None:
    text = BASE + 'suppress: {when: ["Titel = x", "Title = y and Qqqq__c is blank"]}\n'

    lines = checked(text)

    said = "or this user may not see it: this condition does not apply there."
    assert lines == [
        f"13:19: warning: suppress.when[0]: Contact in salesforce has no field Titel, {said} Did you mean Title?",
        f"13:32: warning: suppress.when[1]: Contact in salesforce has no field Qqqq__c, {said}",
    ]


def test_an_opt_out_that_is_hidden_is_told_as_a_note_and_once_for_each_object() -> None:
    hidden = ("HasOptedOutOfEmail", "IndividualId")
    bare = an_object("Contact", *(field for name, field in CONTACT.fields.items() if name not in hidden))
    again = BASE + BASE.partition("syncs:\n")[2].replace("  contacts:", "  others:")

    [line] = checked(again, MemoryCrm(bare, ACCOUNT))

    assert line.startswith("7:13: note: object: this user sees no HasOptedOutOfEmail (Email Opt Out) and Individual.")
    assert "whoever opted out there is not known" in line


def test_who_enriches_in_spite_of_an_opt_out_of_mail_needs_not_see_it() -> None:
    bare = an_object("Contact", *(f for name, f in CONTACT.fields.items() if name != "HasOptedOutOfEmail"))

    assert checked(BASE + "suppress: {email_opt_out: enrich}\n", MemoryCrm(bare, ACCOUNT)) == []


# --- stamps ---

STAMPED = BASE.replace("syncs:\n", "stamps: {enriched_at: Apollo_At__c, status: Apollo_Status__c}\nsyncs:\n")
WITH_ACCOUNT = """\
    account:
      via: AccountId
      fields: {NumberOfEmployees: organization.estimated_num_employees}
"""


def stampable(schema: ObjectSchema, **changes: FieldSchema) -> ObjectSchema:
    fields = {
        "Apollo_At__c": a_field("Apollo_At__c", FieldKind.DATETIME),
        "Apollo_Status__c": a_field("Apollo_Status__c", length=40),
    }
    return an_object(schema.object_type, *schema.fields.values(), *(fields | changes).values())


def test_stamps_that_fit_every_object_have_no_problem() -> None:
    crm = MemoryCrm(stampable(CONTACT), stampable(ACCOUNT))

    assert checked(STAMPED + WITH_ACCOUNT, crm) == []


def test_a_stamp_must_be_on_every_object_a_sync_writes() -> None:
    crm = MemoryCrm(stampable(CONTACT), ACCOUNT)

    assert checked(STAMPED, crm) == []
    assert [problem.split(": ", 2)[1:] for problem in checked(STAMPED + WITH_ACCOUNT, crm)] == [
        [
            "stamps.enriched_at",
            (
                "Account has no field Apollo_At__c, or this user may not see it. `crm-sync fields salesforce Account` lists "
                "them."
            ),
        ],
        [
            "stamps.status",
            (
                "Account has no field Apollo_Status__c, or this user may not see it. `crm-sync fields salesforce Account` "
                "lists them."
            ),
        ],
    ]


def test_a_stamp_of_the_wrong_type_is_refused_at_its_place() -> None:
    crm = MemoryCrm(stampable(CONTACT, Apollo_At__c=a_field("Apollo_At__c", FieldKind.PHONE)))

    assert checked(STAMPED, crm) == [
        (
            "4:23: stamps.enriched_at: on Contact, Apollo_At__c is of the type phone; `enriched_at` needs a date and time, "
            "or a date."
        )
    ]


def test_a_field_is_a_stamp_or_is_filled_and_never_both() -> None:
    text = STAMPED.replace("Title: person.title", "Apollo_Status__c: person.title")

    problems = load(text.encode()).problems

    assert [str(p) for p in problems] == [
        (
            "crm_sync.yaml:13:7: syncs.contacts.fields.Apollo_Status__c: Apollo_Status__c is stamps.status; it cannot be "
            "filled from Apollo too. Map another field, or name another stamp."
        )
    ]


def test_the_two_stamps_are_two_fields() -> None:
    problems = load(STAMPED.replace("status: Apollo_Status__c", "status: Apollo_At__c").encode()).problems

    assert ["is `enriched_at` already" in p.message for p in problems] == [True]
