"""Where a record went that is no longer read: the trail's end, in few calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from adapters.salesforce import whereabouts
from adapters.salesforce.client import SalesforceCrm
from crm_sync.domain.records import RecordRef
from crm_sync.ports import WriteRequest
from tests.adapters.salesforce_org import RunningOrg, retitle, running_org
from tests.adapters.salesforce_schema import contact, schema
from tests.sandbox.salesforce_org import account_id, contact_id, lead_id


@pytest.fixture
def org() -> Iterator[RunningOrg]:
    with running_org(contacts=700) as running:
        yield running


@pytest.fixture
def crm(org: RunningOrg) -> Iterator[SalesforceCrm]:
    crm = org.crm()
    yield crm
    crm.close()


def ref(object_type: str, record_id: str) -> RecordRef:
    return RecordRef(crm="salesforce", object_type=object_type, id=record_id)


def merge(org: RunningOrg, loser: int, winner: int) -> None:
    org.simulator.edit("Contact", contact_id(loser), {"MasterRecordId": contact_id(winner)})


# --- the trail ----------------------------------------------------------------------------------------------------


def test_a_query_asks_only_for_what_the_object_has() -> None:
    asked = whereabouts.query(schema("Lead"), [contact(1), contact(2)])

    assert asked == f"SELECT Id,IsConverted FROM Lead WHERE Id IN ('{contact(1)}','{contact(2)}')"


def test_a_ring_of_merges_has_no_end() -> None:
    def rows_of(_object_type: str, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        other = {contact(1): contact(2), contact(2): contact(1)}
        return {each: {"Id": each, "IsDeleted": True, "MasterRecordId": other[each]} for each in ids}

    (found,) = whereabouts.follow([ref("Contact", contact(1))], rows_of)

    assert (found.ref, found.how) == (None, "unknown")
    assert "no end" in found.reason


def test_a_contact_that_this_user_may_not_see_ends_the_trail_of_a_lead() -> None:
    (found,) = whereabouts.follow(
        [ref("Lead", lead_id(5))], lambda _type, ids: {each: {"Id": each, "IsConverted": True} for each in ids}
    )

    assert (found.ref, found.how) == (None, "converted")
    assert "does not see to which contact" in found.reason


# --- in the org ---------------------------------------------------------------------------------------------------


def test_a_chain_of_merges_leads_to_who_is_left(org: RunningOrg, crm: SalesforceCrm) -> None:
    merge(org, 1, 2)
    merge(org, 2, 3)
    merge(org, 3, 4)

    found = crm.whereabouts("Contact", [contact_id(1), contact_id(3)[:15]])

    assert [(each.ref, each.how) for each in found] == [(ref("Contact", contact_id(4)), "merged")] * 2
    assert found[0].reason == (
        f"it was merged into Contact {contact_id(2)}, it was merged into Contact {contact_id(3)}, "
        f"it was merged into Contact {contact_id(4)}"
    )
    assert org.calls("queryAll") == 4


def test_each_end_is_told_apart(org: RunningOrg, crm: SalesforceCrm) -> None:
    merge(org, 1, 2)
    org.simulator.edit("Contact", contact_id(2), {"IsDeleted": True})
    org.simulator.edit("Contact", contact_id(3), {"IsDeleted": True})

    found = crm.whereabouts("Contact", [contact_id(n) for n in (1, 3, 4, 999_999)] + ["51"])

    assert [(each.ref, each.how) for each in found] == [
        (None, "deleted"),
        (None, "deleted"),
        (ref("Contact", contact_id(4)), "unknown"),
        (None, "unknown"),
        (None, "unknown"),
    ]
    assert found[0].reason == f"it was merged into Contact {contact_id(2)}, which was deleted"
    assert "no Salesforce record id" in found[4].reason


def test_a_converted_lead_leads_to_its_contact_and_on(org: RunningOrg, crm: SalesforceCrm) -> None:
    became = [org.field(lead_id(n), "ConvertedContactId", "Lead") for n in (5, 28)]
    target = next(n for n in range(700) if contact_id(n) not in became)
    org.simulator.edit("Contact", became[1], {"MasterRecordId": contact_id(target)})

    found = crm.whereabouts("Lead", [lead_id(5), lead_id(28), lead_id(6)])

    assert [(each.ref, each.how) for each in found] == [
        (ref("Contact", became[0]), "converted"),
        (ref("Contact", contact_id(target)), "converted"),
        (ref("Lead", lead_id(6)), "unknown"),
    ]
    assert found[0].reason == f"it was converted to Contact {became[0]}"


def test_a_converted_lead_is_still_read_and_says_that_it_is_one(crm: SalesforceCrm) -> None:
    found = crm.read("Lead", [lead_id(5)], ["IsConverted"])

    assert [record is not None and record.values["IsConverted"] for record in found] == [True]


def test_a_merged_account_is_followed_too(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Account", account_id(0), {"MasterRecordId": account_id(1)})

    (found,) = crm.whereabouts("Account", [account_id(0)])

    assert (found.ref, found.how) == (ref("Account", account_id(1)), "merged")


def test_many_records_take_a_query_for_each_two_hundred(org: RunningOrg, crm: SalesforceCrm) -> None:
    for n in range(500):
        org.simulator.edit("Contact", contact_id(n), {"IsDeleted": True})

    found = crm.whereabouts("Contact", [contact_id(n) for n in range(500)])

    assert {each.how for each in found} == {"deleted"}
    assert org.calls("queryAll") == 3


def test_nothing_is_asked_where_nobody_is_missing(org: RunningOrg, crm: SalesforceCrm) -> None:
    assert crm.whereabouts("Contact", []) == []
    assert org.calls("queryAll") == 0


def test_what_a_refused_write_is_called_is_kept_for_following(org: RunningOrg, crm: SalesforceCrm) -> None:
    merge(org, 1, 2)
    converted = WriteRequest(ref=ref("Lead", lead_id(5)), values={"Title": "CTO"})

    gone, unknown = crm.write("Contact", [retitle(1), retitle(999_999)])
    (moved,) = crm.write("Lead", [converted])

    assert (gone.code, unknown.code, moved.code) == (
        "ENTITY_IS_DELETED",
        "INVALID_CROSS_REFERENCE_KEY",
        "CANNOT_UPDATE_CONVERTED_LEAD",
    )
