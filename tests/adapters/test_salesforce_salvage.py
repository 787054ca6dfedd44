"""A thousand changed contacts with seven bad values among them: every good field is written, within few calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crm_sync.domain.changes import WriteMode, Written
from crm_sync.domain.records import Value
from crm_sync.ports import WriteRequest
from crm_sync.sandbox.salesforce import ValidationRule
from tests.adapters.salesforce_org import retitle, running_org
from tests.adapters.test_salesforce_bulk import Book
from tests.sandbox.salesforce_org import contact_id

COUNT = 1_000
RULES = (
    ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please."),
    ValidationRule(
        object_type="Contact", field="MailingCity", forbidden="nowhere", message="Not allowed.", names_field=False
    ),
)
#: Record -> the field that is bad, and its value. Two stand in one portion, the others spread over all.
BAD: dict[int, tuple[str, Value]] = {
    3: ("Email", "no address"),
    150: ("Title", "Grand Wizard"),  # a validation rule that names the field
    333: ("MailingCity", "Nowhere"),  # one that names none
    512: ("Seniority__c", "Chief"),  # a restricted picklist
    700: ("LinkedIn__c", "https://linkedin.example/" + "x" * 300),
    850: ("Phone", "+1 " + "5" * 60),
    999: ("LastName", None),  # to be erased, and it must not be blank
}


def good(number: int) -> dict[str, Value]:
    return {
        "Title": f"Title {number}",
        "Phone": f"+1 555 {number:04}",
        "Email": f"someone.{number}@acme.example",
        "Department": f"Department {number % 7}",
        "Seniority__c": ("VP", "Director", "Manager")[number % 3],
        "LinkedIn__c": f"https://linkedin.example/in/{number}",
        "MailingCity": f"Town {number % 11}",
    }


@pytest.mark.parametrize(
    ("mode", "most"),
    [(WriteMode.FAST, 40), (WriteMode.STRICT, 80), (WriteMode.BULK, 40)],
)
def test_every_good_field_of_all_records_is_written_and_the_bad_ones_reported(mode: WriteMode, most: int) -> None:
    with running_org(contacts=COUNT, validation_rules=RULES) as org:
        crm = org.crm()
        seen = crm.read("Contact", [contact_id(n) for n in range(COUNT)], ["Title"])
        requests: list[WriteRequest] = []
        for n in range(COUNT):
            name, value = BAD.get(n, ("Title", f"Title {n}"))
            request = retitle(n, **{**good(n), name: value})
            requests.append(replace(request, seen=seen[n], erase=frozenset({"LastName"})))
        before = crm.calls()

        outcomes = crm.write("Contact", requests, mode=mode, jobs=Book())
        calls = {name: count - before.get(name, 0) for name, count in crm.calls().items()}
        crm.close()

        wrong = [
            (n, name)
            for n in range(COUNT)
            for name, value in good(n).items()
            if BAD.get(n, ("",))[0] != name and org.field(contact_id(n), name) != value
        ]
        print(mode, {name: count for name, count in calls.items() if count})

    assert wrong == []
    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert {n: [name for name, _ in outcome.dropped] for n, outcome in enumerate(outcomes) if outcome.dropped} == {
        n: [name] for n, (name, _) in BAD.items()
    }
    assert all(reason.isprintable() and reason for outcome in outcomes for _, reason in outcome.dropped)
    assert calls["write"] + calls.get("bulk", 0) <= most
