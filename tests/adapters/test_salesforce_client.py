"""SalesforceCrm with the real library against the sandbox's org: selecting, reading again, writing, and each fault."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adapters.salesforce.client import SalesforceCrm
from adapters.salesforce.session import SalesforceCredentials
from crm_sync.domain.changes import Written
from crm_sync.domain.records import FieldKind, Record, RecordRef
from crm_sync.errors import (
    ConfigError,
    ContractError,
    CredentialsError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.ports import Selection, WriteRequest
from crm_sync.sandbox.salesforce import ValidationRule
from tests.adapters.salesforce_org import APP, CALLS, RunningOrg, retitle, running_org
from tests.sandbox.salesforce_org import account_id, contact_id, lead_id

RULE = ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please.")


@pytest.fixture
def org() -> Iterator[RunningOrg]:
    with running_org(contacts=60, validation_rules=[RULE]) as running:
        yield running


@pytest.fixture
def crm(org: RunningOrg) -> Iterator[SalesforceCrm]:
    made = org.crm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def _lasting_org() -> Iterator[RunningOrg]:
    with running_org(contacts=60) as running:
        yield running


@pytest.fixture
def faulty(_lasting_org: RunningOrg) -> RunningOrg:
    """One org for all tests of faults, which leave no record missing; counts, clock and faults are new for each."""
    _lasting_org.forget()
    return _lasting_org


@pytest.fixture
def client(faulty: RunningOrg) -> Iterator[SalesforceCrm]:
    made = faulty.crm()
    yield made
    made.close()


def everything(crm: SalesforceCrm, *, page_size: int | None = None, **choice: Any) -> list[Record]:
    selection = Selection(**{"object_type": "Contact", "fields": (), **choice})
    return [record for page in crm.select(selection, page_size=page_size) for record in page.records]


def read_and_select(crm: SalesforceCrm) -> None:
    crm.read("Contact", [contact_id(1)], ["Title"])
    everything(crm)


def ids_of(records: list[Record]) -> list[str]:
    return [record.ref.id for record in records]


# --- schema -------------------------------------------------------------------------------------------------------


def test_an_object_is_described_once_however_many_ask(org: RunningOrg, crm: SalesforceCrm) -> None:
    start = threading.Barrier(8)

    def ask(_n: int) -> FieldKind:
        start.wait()
        return crm.describe("Contact").fields["Seniority__c"].kind

    with ThreadPoolExecutor(8) as threads:
        kinds = list(threads.map(ask, range(8)))

    assert kinds == [FieldKind.PICKLIST] * 8
    assert (org.calls("describe"), org.calls("login")) == (1, 1)


def test_a_refresh_describes_anew(org: RunningOrg, crm: SalesforceCrm) -> None:
    crm.describe("Contact")
    crm.refresh()
    crm.describe("Contact")

    assert org.calls("describe") == 2


@pytest.mark.parametrize("name", ["Task", "../limits", "contact"])
def test_an_object_that_is_not_ours_is_refused_without_a_call(org: RunningOrg, crm: SalesforceCrm, name: str) -> None:
    with pytest.raises(ConfigError, match="it fills Contact, Lead, Account"):
        crm.describe(name)

    assert org.calls("describe") == 0


def test_a_field_hidden_from_this_user_is_not_there() -> None:
    with running_org(hidden={"Contact": ["DoNotCall", "HasOptedOutOfEmail"]}) as org:
        crm = org.crm()
        checks = {check.name: check for check in crm.check_access()}
        crm.close()

    assert checks["salesforce Contact"].detail.endswith("this user does not see HasOptedOutOfEmail and DoNotCall")
    assert "does not see" not in checks["salesforce Lead"].detail


# --- selecting ----------------------------------------------------------------------------------------------------


def test_pages_come_in_rising_order_and_hold_each_record_once(org: RunningOrg, crm: SalesforceCrm) -> None:
    selection = Selection(object_type="Contact", fields=("LastName", "Account.Website"))

    pages = list(crm.select(selection, page_size=25))

    assert [len(page.records) for page in pages] == [25, 25, 10]
    assert [page.cursor for page in pages] == [contact_id(24), contact_id(49), contact_id(59)]
    assert [r.ref.id for page in pages for r in page.records] == [contact_id(n) for n in range(60)]
    assert all(set(r.values) == {"LastName", "Account.Website"} for page in pages for r in page.records)
    assert org.calls("query") == 3


def test_a_cursor_goes_on_behind_its_record(crm: SalesforceCrm) -> None:
    assert ids_of(everything(crm, after=contact_id(57))) == [contact_id(58), contact_id(59)]
    assert ids_of(everything(crm, after=contact_id(57)[:15])) == [contact_id(58), contact_id(59)]


def test_a_page_that_ends_the_selection_tells_how_many_there_are(crm: SalesforceCrm) -> None:
    one = list(crm.select(Selection(object_type="Contact", fields=())))
    two = list(crm.select(Selection(object_type="Contact", fields=()), page_size=40))

    assert [page.expected for page in one] == [60]
    assert [page.expected for page in two] == [None, None]


def test_answers_too_wide_for_one_page_are_followed_to_their_end() -> None:
    with running_org(contacts=60, max_page=25) as org:
        crm = org.crm()
        pages = list(crm.select(Selection(object_type="Contact", fields=("Title",))))
        crm.close()

    assert [len(page.records) for page in pages] == [60]
    assert org.calls("query") == 1


def test_a_lost_locator_is_asked_for_anew_and_nothing_comes_twice() -> None:
    with running_org(contacts=60, max_page=25) as org:
        crm = org.crm()
        more = "GET /services/data/v<version>/query/<locator>"
        org._faults.add([{"call": more, "what": "cut"}, {"call": more, "what": "503", "nth": 2}])
        found = ids_of(everything(crm))
        crm.close()

    assert found == [contact_id(n) for n in range(60)]


def test_only_what_lacks_something_is_selected(org: RunningOrg, crm: SalesforceCrm) -> None:
    for number, title in enumerate(["CTO", None, " N/A ", "n/a", "Na", "[[Unknown]]"]):
        org.simulator.edit("Contact", contact_id(number), {"Title": title})

    found = everything(
        crm,
        missing_any=("Title",),
        placeholders=("n/a", "[[unknown]]"),
        ids=tuple(contact_id(number) for number in range(6)),
    )

    # " N/A " keeps its leading blank in the org, and SOQL cannot trim: such a record waits until somebody tidies it.
    assert ids_of(found) == [contact_id(n) for n in (1, 3, 5)]


def test_a_long_text_that_lacks_is_found_although_no_query_can_ask_for_it(org: RunningOrg, crm: SalesforceCrm) -> None:
    crm_ids = tuple(contact_id(number) for number in range(3))
    org.simulator.edit("Contact", crm_ids[0], {"Description": "known", "Title": "CTO"})
    org.simulator.edit("Contact", crm_ids[1], {"Description": "known", "Title": None})
    org.simulator.edit("Contact", crm_ids[2], {"Description": None, "Title": "CTO"})

    found = everything(crm, missing_any=("Description", "Title"), ids=crm_ids)

    assert ids_of(found) == [crm_ids[1], crm_ids[2]]


def test_a_checkbox_is_never_missing(org: RunningOrg, crm: SalesforceCrm) -> None:
    assert everything(crm, missing_any=("DoNotCall",)) == []
    assert org.calls("query") == 0


def test_converted_leads_are_not_selected(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Lead", lead_id(1), {"Title": None})
    converted = lead_id(5)

    found = ids_of(everything(crm, object_type="Lead"))

    assert lead_id(1) in found
    assert converted not in found


def test_the_admins_condition_selects(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(3), {"Title": "100% of_it's \\ done"})

    for where in (
        "title = '100% OF_it\\'s \\\\ done'",
        "Title LIKE '100\\% of\\_it\\'s%' AND (Phone = null OR Phone != null)",
        "NOT (Title = null OR NOT Title LIKE '100\\%%')",
        "Title LIKE '100%' AND CreatedDate < TODAY AND IsDeleted = FALSE AND Account.Name != 'x'",
    ):
        assert ids_of(everything(crm, where=where)) == [contact_id(3)], where


def test_many_ids_are_asked_for_in_portions_in_rising_order() -> None:
    with running_org(contacts=700) as org:
        crm = org.crm()
        wanted = tuple(contact_id(n) for n in range(0, 700, 1))
        found = ids_of(everything(crm, ids=wanted[::-1], where="Title != 'no such title'"))
        crm.close()

    assert found == list(wanted)
    assert org.calls("query") == 3


def test_fields_beyond_what_an_address_holds_are_read_by_id_and_said(
    org: RunningOrg, crm: SalesforceCrm, caplog: pytest.LogCaptureFixture
) -> None:
    where = " OR ".join(f"Title = '{'%' * 60}{n}'" for n in range(60)) + " OR Phone != null OR Phone = null"
    names = tuple(
        f.name for f in crm.describe("Contact").fields.values() if f.kind is not FieldKind.OTHER and f.name != "Id"
    )

    with caplog.at_level(logging.WARNING):
        wide = everything(crm, fields=(*names, "Account.Website"), where=where)
    narrow = everything(crm, fields=(*names, "Account.Website"))

    assert wide == narrow
    assert (org.calls("query"), org.calls("read")) == (2, 1)
    assert "no room for" in caplog.text


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"fields": ("Titel",)}, "did you mean Title"),
        ({"fields": ("Owner.Name",)}, "Owner.Name cannot be read"),
        ({"fields": ("Account.Owner.Name",)}, "cannot be read"),
        ({"where": "Description = 'x'"}, "cannot filter by Description"),
        ({"where": "Account.Foo = 'x'"}, "Account has no field Foo"),
        ({"missing_any": ("Account.Website",)}, "belongs to a parent"),
    ],
)
def test_a_selection_that_cannot_work_is_told_before_it_is_tried(
    org: RunningOrg, crm: SalesforceCrm, choice: dict[str, Any], said: str
) -> None:
    (sentence,) = crm.check_selection(Selection(**{"object_type": "Contact", "fields": (), **choice}))

    assert said in sentence
    with pytest.raises(ConfigError, match="the selection of Contact"):
        everything(crm, **choice)
    assert org.calls("query") == 0


def test_a_cursor_that_is_no_id_is_refused(crm: SalesforceCrm) -> None:
    with pytest.raises(ConfigError, match="no record id"):
        everything(crm, after="' OR Id != '")


def test_what_the_org_refuses_all_the_same_is_told_without_the_query(org: RunningOrg, crm: SalesforceCrm) -> None:
    # Fiscal periods are sound SOQL, and the sandbox refuses them by name.
    with pytest.raises(RefusedError) as caught:
        everything(
            crm, object_type="Account", where="LastActivityDate > LAST_FISCAL_QUARTER AND Name = 'secret@x.example'"
        )

    assert "query" in str(caught.value)
    assert "secret" not in str(caught.value)


# --- reading again ------------------------------------------------------------------------------------------------


def test_records_are_read_again_by_position(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(2), {"IsDeleted": True})
    org.simulator.edit("Contact", contact_id(3), {"Title": "VP Sales"})
    asked = [contact_id(3), contact_id(2), "no id", contact_id(1)[:15], contact_id(3), contact_id(999_999)]

    found = crm.read("Contact", asked, ["title", "Phone"])

    assert [record.ref.id if record else None for record in found] == [
        contact_id(3), None, None, contact_id(1), contact_id(3), None,
    ]  # fmt: skip
    assert found[0] is not None
    assert found[0].values["title"] == "VP Sales"
    assert org.calls("read") == 1


def test_a_record_that_was_read_again_names_its_version(org: RunningOrg, crm: SalesforceCrm) -> None:
    (before,) = crm.read("Contact", [contact_id(6)], ["Title"])
    (asked,) = crm.read("Contact", [contact_id(6)], ["Title", "LastModifiedDate"])
    org.simulator.edit("Contact", contact_id(6), {"Phone": "+1 6"})
    (after,) = crm.read("Contact", [contact_id(6)], ["Title"])

    assert before is not None
    assert asked is not None
    assert after is not None
    assert set(before.values) == {"Title"}
    assert before.version == asked.version == asked.values["LastModifiedDate"]
    assert after.version > before.version
    assert after.version == org.field(contact_id(6), "LastModifiedDate")


def test_any_number_of_ids_is_read_in_portions() -> None:
    with running_org(contacts=2_300) as org:
        crm = org.crm()
        found = crm.read("Contact", [contact_id(n) for n in range(2_300)], ["LastName"])
        crm.close()

    assert [record.ref.id for record in found if record] == [contact_id(n) for n in range(2_300)]
    assert org.calls("read") == 2


@pytest.mark.parametrize("field", ["Account.Website", "Titel"])
def test_a_field_that_cannot_be_read_again_is_refused_by_name(crm: SalesforceCrm, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        crm.read("Contact", [contact_id(1)], [field])


def test_nothing_is_read_where_nothing_is_asked(org: RunningOrg, crm: SalesforceCrm) -> None:
    assert crm.read("Contact", [], ["Title"]) == []
    assert org.calls("read") == 0


# --- writing ------------------------------------------------------------------------------------------------------


def test_values_are_written_as_the_org_holds_them(org: RunningOrg, crm: SalesforceCrm) -> None:
    account = WriteRequest(
        ref=RecordRef(crm="salesforce", object_type="Account", id=account_id(0)),
        values={"NumberOfEmployees": "250", "AnnualRevenue": 1_500_000, "Website": "acme.example"},
    )

    (outcome,) = crm.write("Account", [account])

    assert (outcome.written, outcome.ref, outcome.dropped) == (Written.WRITTEN, account.ref, ())
    assert org.field(account_id(0), "NumberOfEmployees", "Account") == 250
    assert org.field(account_id(0), "AnnualRevenue", "Account") == 1_500_000


def test_a_lead_keeps_its_owner(org: RunningOrg, crm: SalesforceCrm) -> None:
    ref = RecordRef(crm="salesforce", object_type="Lead", id=lead_id(0))
    was = org.field(lead_id(0), "OwnerId", "Lead")

    (outcome,) = crm.write("Lead", [WriteRequest(ref=ref, values={"Title": "CTO"})])

    assert outcome.written is Written.WRITTEN
    assert org.field(lead_id(0), "OwnerId", "Lead") == was


def test_records_are_written_two_hundred_a_call() -> None:
    with running_org(contacts=500) as org:
        crm = org.crm()
        outcomes = crm.write("Contact", [retitle(n) for n in range(450)])
        calls, connections = crm.calls(), org.connections
        crm.close()

    assert {outcome.written for outcome in outcomes} == {Written.WRITTEN}
    assert calls == {"login": 1, "describe": 1, "write": 3}
    assert connections == 1


def test_one_bad_record_stops_none_of_its_neighbours(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(1), {"IsDeleted": True})
    org.simulator.edit("Contact", contact_id(2), {"MasterRecordId": contact_id(9)})
    requests = [
        retitle(0),
        retitle(1),
        retitle(2),
        retitle(3, Title="Grand Wizard"),
        retitle(4, Title="VP", Seniority__c="Chief", LinkedIn__c="x" * 300),
        retitle(999_999),
        retitle(5),
    ]

    outcomes = crm.write("Contact", requests)

    assert [(o.written, o.code) for o in outcomes] == [
        (Written.WRITTEN, ""),
        (Written.GONE, "ENTITY_IS_DELETED"),
        (Written.GONE, "ENTITY_IS_DELETED"),
        (Written.REJECTED, "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        (Written.WRITTEN, ""),
        (Written.GONE, "INVALID_CROSS_REFERENCE_KEY"),
        (Written.WRITTEN, ""),
    ]
    assert "deleted, or merged" in outcomes[1].reason
    assert outcomes[3].reason == "FIELD_CUSTOM_VALIDATION_EXCEPTION: No wizards, please."
    assert {name for name, _ in outcomes[4].dropped} == {"Seniority__c", "LinkedIn__c"}
    assert org.field(contact_id(4), "Title") == "VP"


def test_a_record_named_twice_in_one_call_is_written_once_and_said(org: RunningOrg, crm: SalesforceCrm) -> None:
    short = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(1)[:15])

    outcomes = crm.write("Contact", [retitle(1), WriteRequest(ref=short, values={"Title": "CFO"}), retitle(2)])

    assert [(o.written, o.code) for o in outcomes] == [
        (Written.WRITTEN, ""),
        (Written.REJECTED, "DUPLICATE_VALUE"),
        (Written.WRITTEN, ""),
    ]
    assert org.field(contact_id(1), "Title") == "CTO"


def test_a_converted_lead_is_refused_with_the_reason(crm: SalesforceCrm) -> None:
    ref = RecordRef(crm="salesforce", object_type="Lead", id=lead_id(5))

    (outcome,) = crm.write("Lead", [WriteRequest(ref=ref, values={"Title": "CTO"})])

    assert (outcome.written, outcome.code) == (Written.GONE, "CANNOT_UPDATE_CONVERTED_LEAD")
    assert "the lead was converted" in outcome.reason


def test_locked_records_are_written_once_the_lock_is_gone(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(1), {"$lock": 2})
    org.simulator.edit("Contact", contact_id(2), {"$lock": 9})

    outcomes = crm.write("Contact", [retitle(n) for n in range(3)])

    assert [o.written for o in outcomes] == [Written.WRITTEN, Written.WRITTEN, Written.REJECTED]
    assert outcomes[2].code == "UNABLE_TO_LOCK_ROW"
    assert org.clock.slept == [1, 2, 4, 8]


def test_a_field_that_vanished_since_it_was_described_is_left_out_from_then_on() -> None:
    with running_org() as before, running_org(hidden={"Contact": ["Title"]}) as after:
        described, crm = before.crm(), after.crm()
        crm._schemas["Contact"] = described.describe("Contact")

        outcomes = crm.write("Contact", [retitle(n, Title="CTO", Phone=f"+1 {n}") for n in range(50)])
        later = crm.write("Contact", [retitle(50, Title="CTO", Phone="+1 50")])
        described.close()
        crm.close()

        assert {o.written for o in [*outcomes, *later]} == {Written.WRITTEN}
        assert [name for name, _ in later[0].dropped] == ["Title"]
        assert after.calls("write") == 3
        assert after.field(contact_id(7), "Phone") == "+1 7"


def test_a_field_that_vanished_ends_a_re_read_and_never_looks_blank() -> None:
    with running_org() as before, running_org(hidden={"Contact": ["Title"]}) as after:
        described, crm = before.crm(), after.crm()
        crm._schemas["Contact"] = described.describe("Contact")

        with pytest.raises(RefusedError, match="No such column 'Title'"):
            crm.read("Contact", [contact_id(1)], ["Title"])
        with pytest.raises(RefusedError, match="INVALID_FIELD"):
            everything(crm, fields=("Title",))
        described.close()
        crm.close()


# --- faults -------------------------------------------------------------------------------------------------------

PASSING = [
    "429", "429_without_retry_after", "500", "502_html", "503", "504", "cut", "garbage", "wrong_type", "empty",
    "reset", "not_utf8", "403", "401", "408",
]  # fmt: skip


#: Refused log-ins do not pass, and a describe that is none is told at once.
_LASTING = {("login", "401"), ("describe", "wrong_type")}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "what"),
    [
        (call, what)
        for call in ("login", "describe", "query", "read", "write")
        for what in PASSING
        if (call, what) not in _LASTING
    ],
)
def test_a_fault_that_passes_is_not_noticed(
    faulty: RunningOrg, client: SalesforceCrm, call: str, what: str, when: str
) -> None:
    faulty.spoil(call, what, when=when, times=2 if what not in ("401", "wrong_type") else 1)

    records = everything(client, fields=("Title",), where="Title = null OR Title != null")
    (again,) = client.read("Contact", [contact_id(3)], ["Phone"])
    outcomes = client.write("Contact", [retitle(n, Title=f"T{n}") for n in range(60)])

    assert len(records) == 60
    assert again is not None
    assert {o.written for o in outcomes} == {Written.WRITTEN}
    assert [faulty.field(contact_id(n), "Title") for n in range(60)] == [f"T{n}" for n in range(60)]
    assert sum(faulty.clock.slept) < 60


#: Salesforce's ways of not taking a call because there are too many.
CROWDED = ("403", "406", "420", "429", "429_without_retry_after")


@pytest.mark.parametrize("what", CROWDED)
def test_a_write_that_is_never_taken_says_that_nothing_was_written(
    faulty: RunningOrg, client: SalesforceCrm, what: str
) -> None:
    client.describe("Contact")
    before = faulty.simulator.state()["written"]["Contact"]
    faulty.spoil("write", what, times=99)

    with pytest.raises(RateLimitError):
        client.write("Contact", [retitle(0), retitle(1)])

    assert faulty.calls("write") <= 5
    assert faulty.simulator.state()["written"]["Contact"] == before


@pytest.mark.parametrize("what", [what for what in PASSING if what not in ("401", *CROWDED)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_whose_answer_never_comes_is_unaccounted(
    faulty: RunningOrg, client: SalesforceCrm, what: str, when: str
) -> None:
    client.describe("Contact")
    faulty.spoil("write", what, when=when, times=99)

    outcomes = client.write("Contact", [retitle(0), retitle(1)])

    assert [o.written for o in outcomes] == [Written.UNACCOUNTED] * 2
    assert all(o.reason for o in outcomes)
    assert faulty.calls("write") <= 5


@pytest.mark.parametrize("what", ["413", "414", "431"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_page_that_refuses_a_write_does_not_prove_that_nothing_was_written(
    faulty: RunningOrg, client: SalesforceCrm, what: str, when: str
) -> None:
    client.describe("Contact")
    faulty.spoil("write", what, when=when, times=99)

    outcomes = client.write("Contact", [retitle(0), retitle(1)])

    assert [o.written for o in outcomes] == [Written.UNACCOUNTED] * 2
    assert "no Salesforce error" in outcomes[0].reason


@pytest.mark.parametrize(("what", "error"), [("404", ConfigError), ("410", RefusedError), ("414", RefusedError)])
def test_only_an_object_that_is_not_there_is_a_fault_of_the_configuration(
    faulty: RunningOrg, client: SalesforceCrm, what: str, error: type[Exception]
) -> None:
    faulty.spoil("describe", what, times=99)

    with pytest.raises(error):
        client.describe("Contact")


@pytest.mark.parametrize("call", ["query", "read", "describe"])
@pytest.mark.parametrize("what", ["500", "502_html", "cut", "garbage", "429", "reset"])
def test_a_read_that_never_works_ends_in_one_error_of_ours(
    faulty: RunningOrg, client: SalesforceCrm, call: str, what: str
) -> None:
    faulty.spoil(call, what, times=99)

    with pytest.raises(TransientError) as caught:
        read_and_select(client)

    assert "<" not in str(caught.value)
    assert faulty.calls(call) == 5


@pytest.mark.parametrize("call", ["login", "describe", "query", "read"])
@pytest.mark.parametrize("what", ["redirect", "huge"])
def test_an_answer_nobody_has_reason_to_send_is_refused(
    faulty: RunningOrg, client: SalesforceCrm, call: str, what: str
) -> None:
    faulty.spoil(call, what, times=99)

    with pytest.raises(ContractError):
        read_and_select(client)


def test_silence_ends_with_the_time_out_and_is_asked_again(faulty: RunningOrg) -> None:
    client = faulty.crm(read_s=0.3)
    faulty.spoil("query", "silence", seconds=1.0)

    assert len(everything(client)) == 60
    assert faulty.calls("query") == 2
    client.close()


def test_a_page_lost_in_the_middle_of_a_selection_can_be_gone_on_from(
    faulty: RunningOrg, client: SalesforceCrm
) -> None:
    selection = Selection(object_type="Contact", fields=())
    faulty.spoil("query", "500", nth=2, times=5)
    pages = client.select(selection, page_size=25)
    first = next(pages)

    with pytest.raises(TransientError):
        next(pages)
    rest = everything(client, after=first.cursor)

    assert ids_of([*first.records, *rest]) == [contact_id(n) for n in range(60)]


def test_the_end_of_the_days_calls_is_told_and_nothing_was_written() -> None:
    with running_org(daily_calls=1) as org:
        crm = org.crm()
        crm.describe("Contact")
        with pytest.raises(QuotaError, match="24 hours are used up"):
            crm.write("Contact", [retitle(0)])
        crm.close()

        assert org.simulator.state()["written"]["Contact"] == 0
        assert org.clock.slept == []


@pytest.mark.parametrize("what", ["reset", "cut"])
def test_a_write_that_was_done_before_the_days_end_is_never_told_as_not_written(what: str) -> None:
    with running_org(daily_calls=2) as org:
        crm = org.crm()
        crm.describe("Contact")
        org.spoil("write", what, when="after")

        outcomes = crm.write("Contact", [retitle(n) for n in range(30)])
        crm.close()

        assert org.simulator.state()["written"]["Contact"] == 30
        assert {o.written for o in outcomes} == {Written.UNACCOUNTED}
        assert "24 hours are used up" in outcomes[0].reason


def test_a_write_that_was_done_before_the_log_in_ends_is_never_told_as_not_written() -> None:
    with running_org() as org:
        crm = org.crm()
        crm.describe("Contact")
        org.spoil("write", "cut", when="after")
        org.spoil("write", "401", times=99)
        org.spoil("login", "401", times=99)

        outcomes = crm.write("Contact", [retitle(0), retitle(1)])
        crm.close()

        assert org.simulator.state()["written"]["Contact"] == 2
        assert {o.written for o in outcomes} == {Written.UNACCOUNTED}


def test_a_log_in_that_fails_for_a_moment_leaves_no_doubt_about_a_write() -> None:
    with running_org() as org:
        crm = org.crm()
        crm.describe("Contact")
        org.simulator.expire_tokens()
        org.spoil("login", "502_html")
        org.spoil("login", "401", nth=2, times=99)

        with pytest.raises(CredentialsError):
            crm.write("Contact", [retitle(0)])
        crm.close()

        assert org.simulator.state()["written"]["Contact"] == 0


def test_the_days_last_call_leaves_the_rest_unwritten_and_says_so() -> None:
    with running_org(contacts=500, daily_calls=2) as org:
        crm = org.crm()
        outcomes = crm.write("Contact", [retitle(n) for n in range(500)])
        crm.close()

        assert [o.written for o in outcomes[:200]] == [Written.WRITTEN] * 200
        assert {o.written for o in outcomes[200:]} == {Written.NOT_WRITTEN}
        assert all("24 hours are used up" in o.reason for o in outcomes[200:])
        assert org.simulator.state()["written"]["Contact"] == 200


def test_the_orgs_last_calls_are_left_to_its_other_integrations() -> None:
    with running_org(contacts=60, daily_calls=40) as org:
        crm = org.crm()
        for _ in range(36):
            crm.read("Contact", [contact_id(0)], ("Title",))
        pages = crm.select(Selection(object_type="Contact", fields=("Title",)), page_size=20)
        assert len(next(pages).records) == 20

        with pytest.raises(QuotaError, match=r"only [01] of the org's 40 API calls"):
            list(pages)
        assert crm.write("Contact", [retitle(0)])[0].written is Written.WRITTEN, "what is under way is written"

        org.clock.forward(16 * 60)
        with pytest.raises(QuotaError, match="24 hours are used up"):
            list(crm.select(Selection(object_type="Contact", fields=("Title",)), page_size=20))
        crm.close()


def test_a_token_that_ends_every_few_calls_is_renewed_each_time() -> None:
    with running_org(contacts=60, token_calls=3) as org:
        crm = org.crm()
        found = ids_of(everything(crm, page_size=5))
        crm.close()

    assert found == [contact_id(n) for n in range(60)]
    assert org.calls("login") == 5


def test_threads_share_one_client(org: RunningOrg, crm: SalesforceCrm) -> None:
    def work(number: int) -> Written:
        crm.read("Contact", [contact_id(number)], ["Title"])
        return crm.write("Contact", [retitle(number, Title=f"T{number}")])[0].written

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(work, range(40)))

    assert outcomes == [Written.WRITTEN] * 40
    assert (org.calls("login"), org.calls("describe")) == (1, 1)


# --- access -------------------------------------------------------------------------------------------------------


def test_access_is_checked_path_by_path(crm: SalesforceCrm) -> None:
    checks = crm.check_access()

    assert [check.name.removeprefix("salesforce ") for check in checks] == [
        "log-in", "Contact", "Lead", "Account", "API calls",
    ]  # fmt: skip
    assert all(check.ok for check in checks)
    assert "114,9" in checks[-1].detail


def test_a_refused_log_in_ends_the_check_with_its_cure(org: RunningOrg) -> None:
    crm = org.crm(SalesforceCredentials(consumer_key=APP.consumer_key, consumer_secret="wr0ng"))

    (check,) = crm.check_access()

    assert not check.ok
    assert "invalid_client" in check.detail
    assert "wr0ng" not in check.detail
    assert check.cure
    crm.close()


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("what", ["garbage", "502_html", "403", "redirect", "wrong_type"])
def test_a_check_never_raises(faulty: RunningOrg, client: SalesforceCrm, call: str, what: str) -> None:
    faulty.spoil(call, what, times=999)

    checks = client.check_access()

    assert checks
    assert all(check.ok or check.cure for check in checks)


def test_wrong_credentials_raise_from_every_door(org: RunningOrg) -> None:
    crm = org.crm(SalesforceCredentials(auth="session", session_id="n0ne"))

    for act in (
        lambda: crm.describe("Contact"),
        lambda: everything(crm),
        lambda: crm.read("Contact", [contact_id(1)], ["Title"]),
        lambda: crm.write("Contact", [retitle(1)]),
    ):
        with pytest.raises(CredentialsError):
            act()
    crm.close()


def test_a_record_has_a_page_for_people(crm: SalesforceCrm, org: RunningOrg) -> None:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(1))

    assert crm.record_url(ref) == f"{org.url}/lightning/r/Contact/{contact_id(1)}/view"
