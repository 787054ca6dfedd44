"""Long selections by query jobs: the same records in the same order as by pages, whatever happens to the job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.salesforce import bulk_query, client
from adapters.salesforce.bulk_query import row_reader
from adapters.salesforce.client import SalesforceCrm
from crm_sync.domain.records import FieldKind, Record
from crm_sync.ports import Selection
from crm_sync.sandbox.salesforce import Habits
from tests.adapters.salesforce_org import RunningOrg, running_org
from tests.sandbox.salesforce_org import contact_id

COUNT = 1_000
FIELDS = (
    "FirstName", "Title", "Email", "HasOptedOutOfEmail", "LastModifiedDate", "Description", "AccountId",
    "Account.Name", "Account.NumberOfEmployees", "Account.AnnualRevenue",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MANY", 200)
    for module in (client, bulk_query):
        monkeypatch.setattr(module, "WINDOW", 300)
    monkeypatch.setattr(bulk_query, "_PAGE", 120)


@pytest.fixture
def org() -> Iterator[RunningOrg]:
    with running_org(contacts=COUNT) as running:
        yield running


def records(crm: SalesforceCrm, *, page_size: int = 100, **more: Any) -> list[Record]:
    selection = Selection(**{"object_type": "Contact", "fields": FIELDS, **more})
    pages = list(crm.select(selection, page_size=page_size))
    assert all(page.records[-1].ref.id == page.cursor for page in pages)
    assert max(len(page.records) for page in pages) <= page_size
    return [record for page in pages for record in page.records]


def by_pages(org: RunningOrg, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[Record]:
    with monkeypatch.context() as patch:
        patch.setattr(client, "MANY", 10**9)
        crm = org.crm()
        found = records(crm, **more)
        crm.close()
    org.forget()
    return found


def test_cells_become_what_json_has() -> None:
    kinds = {
        "Id": FieldKind.ID,
        "Flag": FieldKind.BOOLEAN,
        "Account.Size": FieldKind.INTEGER,
        "Account.Money": FieldKind.DECIMAL,
        "At": FieldKind.DATETIME,
        "Text": FieldKind.TEXT,
    }
    read = row_reader(list(kinds), kinds)

    assert read(["1", "true", "12", "0.5", "2026-11-01T12:00:00.000Z", "a\nb"]) == {
        "Id": "1", "Flag": True, "Account": {"Size": 12, "Money": 0.5}, "At": "2026-11-01T12:00:00.000+0000",
        "Text": "a\nb",
    }  # fmt: skip
    assert read(["1", "false", "", "", "", ""]) == {
        "Id": "1", "Flag": False, "Account": {"Size": None, "Money": None}, "At": None, "Text": None,
    }  # fmt: skip


@pytest.mark.parametrize("polls", [0, 3])
@pytest.mark.parametrize("page_size", [100, 77])
def test_a_long_selection_goes_on_by_windows_and_reads_the_same(
    org: RunningOrg, monkeypatch: pytest.MonkeyPatch, polls: int, page_size: int
) -> None:
    org.simulator.bulk.polls = polls
    org.simulator.edit("Contact", contact_id(700), {"Description": 'Lang,\r\n"mehr" Äußeres', "Title": None})
    wanted = by_pages(org, monkeypatch, page_size=page_size)
    crm = org.crm()

    found = records(crm, page_size=page_size)
    crm.close()

    assert found == wanted
    assert len(found) == COUNT
    assert org.calls("query job") == 3
    assert org.calls("query") == -(-200 // page_size)
    assert org.simulator.state()["query_jobs"] == {}


def test_what_a_query_has_no_room_for_comes_with_the_window(org: RunningOrg, monkeypatch: pytest.MonkeyPatch) -> None:
    # A short bound on the address leaves only parents in the query itself.
    monkeypatch.setattr("adapters.salesforce.selection._MOST_QUERY", 170)
    wanted = by_pages(org, monkeypatch)
    crm = org.crm()

    found = records(crm)
    crm.close()

    assert found == wanted
    assert org.calls("read") == 2


def test_records_that_lack_nothing_are_left_out_of_windows_too(
    org: RunningOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(0, COUNT, 3):
        org.simulator.edit("Contact", contact_id(number), {"Description": "known"})
    crm = org.crm()

    selection = Selection(object_type="Contact", fields=("Title",), missing_any=("Description",))
    found = [record for page in crm.select(selection, page_size=100) for record in page.records]
    crm.close()

    assert [record.ref.id for record in found] == [contact_id(n) for n in range(COUNT) if n % 3]
    assert org.calls("query job") == 3


def test_the_end_on_the_very_edge_of_a_window_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_org(contacts=500) as org:
        crm = org.crm()
        found = records(crm)
        crm.close()

    assert len(found) == 500
    assert org.calls("query job") == 2


def test_an_org_whose_sorted_jobs_time_out_is_read_by_pages() -> None:
    with running_org(contacts=COUNT, bulk=Habits(sorts=False)) as org:
        crm = org.crm()
        found = records(crm)
        crm.close()

        assert [record.ref.id for record in found] == [contact_id(n) for n in range(COUNT)]
        assert (org.calls("query job"), org.calls("query")) == (1, 11)


def test_a_job_that_never_ends_is_given_up_and_the_rest_read_by_pages(org: RunningOrg) -> None:
    org.simulator.bulk.polls = 10**6
    crm = org.crm()

    found = records(crm)
    crm.close()

    assert len(found) == COUNT
    assert list(org.simulator.state()["query_jobs"].values()) == ["Aborted"]
    assert sum(org.clock.slept) < 700


@pytest.mark.parametrize(("times", "when"), [(1, "after"), (99, "before")])
@pytest.mark.parametrize("call", ["query job", "query poll", "query results"])
@pytest.mark.parametrize("what", ["503", "cut", "garbage", "empty", "403_permission", "huge"])
def test_no_fault_of_a_job_costs_or_doubles_a_record(
    org: RunningOrg, call: str, what: str, times: int, when: str
) -> None:
    crm = org.crm()
    org.spoil(call, what, times=times, when=when)

    found = records(crm)
    crm.close()

    assert [record.ref.id for record in found] == [contact_id(n) for n in range(COUNT)]


def test_what_grows_old_in_a_window_is_read_anew(org: RunningOrg) -> None:
    crm = org.crm()
    pages = crm.select(Selection(object_type="Contact", fields=("Title",)), page_size=100)
    found = [record for _ in range(3) for record in next(pages).records]

    org.clock.forward(3_600)
    org.simulator.edit("Contact", contact_id(450), {"Title": "Typed meanwhile"})
    found += [record for page in pages for record in page.records]
    crm.close()

    assert [record.ref.id for record in found] == [contact_id(n) for n in range(COUNT)]
    assert found[450].values["Title"] == "Typed meanwhile"
    assert org.simulator.state()["query_jobs"] == {}


def test_a_selection_that_is_left_half_way_leaves_no_job(org: RunningOrg) -> None:
    crm = org.crm()
    pages = crm.select(Selection(object_type="Contact", fields=("Title",)), page_size=100)
    for _ in range(4):
        next(pages)

    pages.close()  # type: ignore[attr-defined]
    crm.close()

    assert org.calls("query job") == 1
    assert org.simulator.state()["query_jobs"] == {}


def test_a_short_selection_and_one_by_ids_make_no_job(org: RunningOrg) -> None:
    crm = org.crm()
    records(crm, where=f"Id < '{contact_id(150)}'")
    records(crm, ids=tuple(contact_id(n) for n in range(600)))
    crm.close()

    assert org.calls("query job") == 0
