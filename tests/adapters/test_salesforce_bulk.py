"""Large writes by bulk jobs, with the real session against the sandbox: what is written, told, and taken up again."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.salesforce import bulk_csv
from adapters.salesforce.client import SalesforceCrm
from adapters.salesforce.wire import Fault
from adapters.salesforce.writing import Row
from crm_sync import crash
from crm_sync.domain.changes import WriteMode, WriteOutcome, Written
from crm_sync.domain.records import RecordRef, Value
from crm_sync.errors import CredentialsError, QuotaError, TransientError
from crm_sync.ports import WriteRequest
from crm_sync.sandbox.salesforce import Habits, ValidationRule
from tests.adapters.salesforce_org import RunningOrg, running_org
from tests.adapters.salesforce_schema import contact
from tests.sandbox.salesforce_org import contact_id, lead_id

ROOT = Path(__file__).parents[2]
RULE = ValidationRule(object_type="Contact", field="Title", forbidden="wizard", message="No wizards, please.")


class Book:
    """ports.JobBook in memory."""

    def __init__(self) -> None:
        self.requests: dict[str, list[WriteRequest]] = {}
        self.states: dict[str, str] = {}

    def opened(self, job_id: str, object_type: str, requests: Sequence[WriteRequest]) -> None:
        assert object_type
        self.requests[job_id] = list(requests)
        self.states[job_id] = "opened"

    def uploaded(self, job_id: str) -> None:
        self.states[job_id] = "uploaded"

    def ended(self, job_id: str) -> None:
        self.states[job_id] = "ended"


@pytest.fixture
def org() -> Iterator[RunningOrg]:
    with running_org(contacts=400, validation_rules=[RULE]) as running:
        yield running


@pytest.fixture
def crm(org: RunningOrg) -> Iterator[SalesforceCrm]:
    crm = org.crm()
    yield crm
    crm.close()


def change(number: int, *, erase: Sequence[str] = (), **values: Value) -> WriteRequest:
    ref = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(number))
    return WriteRequest(ref=ref, values=values or {"Title": f"T{number}"}, erase=frozenset(erase))


def write(crm: SalesforceCrm, *requests: WriteRequest, book: Book | None = None) -> list[WriteOutcome]:
    return crm.write("Contact", requests, mode=WriteMode.BULK, jobs=book or Book())


def titles(org: RunningOrg, count: int) -> list[Any]:
    return [org.field(contact_id(number), "Title") for number in range(count)]


def kinds(outcomes: Sequence[WriteOutcome]) -> Counter[Written]:
    return Counter(outcome.written for outcome in outcomes)


# --- the file -----------------------------------------------------------------------------------------------------


def a_row(number: int = 1, **values: Any) -> Row:
    return Row(ref=RecordRef(crm="salesforce", object_type="Contact", id=contact(number)), values=values)


def test_a_cell_says_what_the_value_is_and_an_absent_one_nothing() -> None:
    rows = [
        a_row(1, Title='Said "no", \nthen yes', Score__c=0.1, Reports__c=12, DoNotCall=True),
        a_row(2, Phone=None, Title=" CTO", Score__c=1e-7, DoNotCall=False),
    ]

    ((taken, content),) = bulk_csv.uploads(rows)

    assert taken == rows
    assert content.decode() == (
        "Id,DoNotCall,Phone,Reports__c,Score__c,Title\r\n"
        f'{contact(1)},true,,12,0.1,"Said ""no"", \nthen yes"\r\n'
        f'{contact(2)},false,"#N/A",,0.0000001," CTO"\r\n'
    )


def test_rows_are_cut_by_number_and_by_size() -> None:
    rows = [a_row(number, Title="x" * 50) for number in range(10)]

    by_number = [len(taken) for taken, _ in bulk_csv.uploads(rows, most_rows=4)]
    by_size = [len(taken) for taken, _ in bulk_csv.uploads(rows, most_bytes=1_200)]

    assert by_number == [4, 4, 2]
    assert by_size == [3, 3, 3, 1]
    assert list(bulk_csv.uploads([])) == []


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({"Title": "CTO", "Phone": None}, True),
        ({"Title": "#N/A"}, False),
        ({"Title": " #N/A "}, False),
        ({"Title": "see #N/A"}, True),
        ({"Bio__c": "x" * 32_001}, False),
        ({"Bio__c": "x" * 32_000}, True),
    ],
)
def test_a_job_takes_no_text_that_would_erase_and_none_that_is_too_long(values: dict[str, Any], fits: bool) -> None:
    assert bulk_csv.fits(a_row(1, **values)) is fits


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("STRING_TOO_LONG:Title: data value too large: x (max length=128):Title --",
         Fault("STRING_TOO_LONG", "Title: data value too large: x (max length=128)", ("Title",))),
        ("REQUIRED_FIELD_MISSING:Required fields are missing: [A, B]:A,B --",
         Fault("REQUIRED_FIELD_MISSING", "Required fields are missing: [A, B]", ("A", "B"))),
        ("ENTITY_IS_DELETED:entity is deleted:--", Fault("ENTITY_IS_DELETED", "entity is deleted", ())),
        ("UNABLE_TO_LOCK_ROW:no lock on: 003A,\n003B:--", Fault("UNABLE_TO_LOCK_ROW", "no lock on: 003A,\n003B", ())),
        ("CANNOT_EXECUTE_FLOW_TRIGGER:it failed: see, the log --",
         Fault("CANNOT_EXECUTE_FLOW_TRIGGER", "it failed: see, the log", ())),
        ("APEX_ERROR:no end", Fault("APEX_ERROR", "no end", ())),
        ("something else", Fault("UNKNOWN", "something else", ())),
        ("", Fault("UNKNOWN", "no reason given", ())),
    ],
)  # fmt: skip
def test_a_rows_error_is_taken_apart(text: str, fault: Fault) -> None:
    assert bulk_csv.fault(text) == fault


@pytest.mark.parametrize("content", [b"\xff\xfe", b"<html>", b'{"status": "succ', b'"sf__Id","Id"\n"1"\n', b'["x"]'])
def test_what_is_no_page_of_results_is_none(content: bytes) -> None:
    assert bulk_csv.page(content, None) is None


def test_a_page_keeps_line_ends_within_cells_and_columns_of_the_page_before() -> None:
    first = bulk_csv.page('"sf__Id","Id","Title"\n"1","1","a\r\nb\u2028c"\n'.encode(), None)
    second = bulk_csv.page(b'"2","2","d"\n', ["sf__Id", "Id", "Title"])

    assert first == (["sf__Id", "Id", "Title"], [["1", "1", "a\r\nb\u2028c"]])
    assert second == (["sf__Id", "Id", "Title"], [["2", "2", "d"]])


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@given(st.lists(st.dictionaries(st.sampled_from(["Title", "Phone", "Bio__c"]), texts | st.none()), max_size=6))
def test_any_text_comes_out_of_the_file_as_it_went_in(wanted: list[dict[str, str | None]]) -> None:
    rows = [a_row(number, **{k: v for k, v in values.items() if v != ""}) for number, values in enumerate(wanted)]

    read = [
        dict(zip(lines[0], line, strict=True))
        for _, content in bulk_csv.uploads(rows, most_rows=2)
        if (lines := list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True)))
        for line in lines[1:]
    ]

    assert [each.pop("Id") for each in read] == [row.ref.id for row in rows]
    assert [{name: cell for name, cell in each.items() if cell} for each in read] == [
        {name: "#N/A" if value is None else value for name, value in row.values.items()} for row in rows
    ]


@given(st.binary(max_size=200), st.text(max_size=80))
def test_any_bytes_are_read_or_are_no_page(content: bytes, text: str) -> None:
    for columns in (None, ["sf__Id", "Id"]):
        found = bulk_csv.page(content, columns)
        assert found is None or all(len(row) == len(found[0]) for row in found[1])
    assert bulk_csv.fault(text).code


# --- written by jobs ----------------------------------------------------------------------------------------------


def test_records_are_written_by_one_job_and_told_one_by_one(org: RunningOrg, crm: SalesforceCrm) -> None:
    book = Book()

    outcomes = write(crm, *(change(number) for number in range(300)), book=book)

    assert kinds(outcomes) == {Written.WRITTEN: 300}
    assert [outcome.ref.id for outcome in outcomes] == [contact_id(number) for number in range(300)]
    assert titles(org, 300) == [f"T{number}" for number in range(300)]
    ((job_id, noted),) = book.requests.items()
    assert len(noted) == 300
    assert book.states == {job_id: "ended"}
    assert crm.calls() == {"login": 1, "describe": 1, "bulk": 4, "poll": 3}
    assert org.clock.slept == [1, 1.5, 2.25]


def test_the_wait_for_a_job_grows_to_ten_seconds(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.bulk.polls = 12

    write(crm, change(0))

    assert org.clock.slept[-4:] == [10, 10, 10, 10]
    assert max(org.clock.slept) == 10


def test_values_arrive_as_they_were_meant(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(1), {"Phone": "+1 1", "Title": "VP", "LastName": "Curie"})
    odd = 'Äußere "Dinge",\r\nzweite Zeile\u2028 '

    outcomes = write(
        crm,
        change(0, Description=odd, HasOptedOutOfEmail=True),
        change(1, erase=["Phone"], Phone=None, Title="", LastName="Curie"),
        change(2, Title="#N/A"),
    )

    assert kinds(outcomes) == {Written.WRITTEN: 3}
    assert org.field(contact_id(0), "Description") == odd.rstrip()
    assert org.field(contact_id(0), "HasOptedOutOfEmail") is True
    assert (org.field(contact_id(1), "Phone"), org.field(contact_id(1), "Title")) == (None, "VP")
    assert org.field(contact_id(2), "Title") == "#N/A"
    assert org.calls("write") == 1  # a text that would erase goes another way


@pytest.mark.parametrize(
    "habits", [Habits(), Habits(page=2), Habits(page=2, header_each=False), Habits(page=3, empty="204", polls=0)]
)
def test_one_bad_record_stops_none_of_its_neighbours_whatever_the_orgs_habits(habits: Habits) -> None:
    with running_org(contacts=60, validation_rules=[RULE], bulk=habits) as org:
        crm = org.crm()
        org.simulator.edit("Contact", contact_id(1), {"IsDeleted": True})
        org.simulator.edit("Contact", contact_id(2), {"$lock": 2})
        org.simulator.edit("Contact", contact_id(7), {"$lock": 9})
        outcomes = write(
            crm,
            change(0),
            change(1),
            change(2),
            change(3, Title="Grand Wizard"),
            change(4, Title="VP", Seniority__c="Chief", LinkedIn__c="x" * 300),
            change(999_999),
            change(5, Title="Grand Wizard", Department="IT"),
            change(0, Title="again"),
            change(6),
            change(7),
        )
        crm.close()

        assert [(o.written, o.code) for o in outcomes] == [
            (Written.WRITTEN, ""),
            (Written.GONE, "ENTITY_IS_DELETED"),
            (Written.WRITTEN, ""),
            (Written.REJECTED, "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
            (Written.WRITTEN, ""),
            (Written.GONE, "INVALID_CROSS_REFERENCE_KEY"),
            (Written.WRITTEN, ""),
            (Written.REJECTED, "DUPLICATE_VALUE"),
            (Written.WRITTEN, ""),
            (Written.REJECTED, "UNABLE_TO_LOCK_ROW"),
        ]
        assert {name for name, _ in outcomes[4].dropped} == {"Seniority__c", "LinkedIn__c"}
        assert org.field(contact_id(4), "Title") == "VP"
        assert (org.field(contact_id(5), "Department"), outcomes[6].dropped[0][0]) == ("IT", "Title")
        assert org.field(contact_id(0), "Title") == "T0"
        assert org.calls("job") == 1


def test_only_refused_records_make_no_result_of_saved_ones() -> None:
    with running_org(contacts=60, bulk=Habits(empty="204")) as org:
        crm = org.crm()
        outcomes = write(crm, change(999_998), change(999_999))
        crm.close()

    assert kinds(outcomes) == {Written.GONE: 2}


def test_a_lead_keeps_its_owner(org: RunningOrg, crm: SalesforceCrm) -> None:
    ref = RecordRef(crm="salesforce", object_type="Lead", id=lead_id(0))
    was = org.field(lead_id(0), "OwnerId", "Lead")

    (outcome,) = crm.write("Lead", [WriteRequest(ref=ref, values={"Title": "CTO"})], mode=WriteMode.BULK, jobs=Book())

    assert outcome.written is Written.WRITTEN
    assert org.field(lead_id(0), "OwnerId", "Lead") == was


def test_a_column_that_is_gone_is_left_out_and_a_second_job_takes_the_rest() -> None:
    with running_org(contacts=60) as before, running_org(contacts=3_000, hidden={"Contact": ["Title"]}) as after:
        described, crm = before.crm(), after.crm()
        crm._schemas["Contact"] = described.describe("Contact")
        book = Book()

        outcomes = write(crm, *(change(n, Title="CTO", Phone=f"+1 {n}") for n in range(2_500)), book=book)
        described.close()
        crm.close()

        assert kinds(outcomes) == {Written.WRITTEN: 2_500}
        assert {name for outcome in outcomes for name, _ in outcome.dropped} == {"Title"}
        assert "Field name not found" in outcomes[0].dropped[0][1]
        assert (after.calls("job"), after.calls("write")) == (2, 0)
        assert set(book.states.values()) == {"ended"}
        assert after.field(contact_id(2_499), "Phone") == "+1 2499"


def test_what_a_failed_job_did_not_come_to_is_written_in_collections(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.bulk.fail_after = 120

    outcomes = write(crm, *(change(number) for number in range(300)))

    assert kinds(outcomes) == {Written.WRITTEN: 300}
    assert titles(org, 300) == [f"T{number}" for number in range(300)]
    assert org.calls("write") == 1


def test_what_a_failed_job_left_in_large_numbers_is_told_as_not_written() -> None:
    with running_org(contacts=2_600, bulk=Habits(fail_after=100)) as org:
        crm = org.crm()
        outcomes = write(crm, *(change(number) for number in range(2_500)))
        crm.close()

    assert kinds(outcomes) == {Written.WRITTEN: 100, Written.NOT_WRITTEN: 2_400}
    assert "ended as Failed before it came to this record (InternalServerError" in outcomes[100].reason


def test_a_job_that_an_admin_stops_is_not_gone_around(org: RunningOrg, crm: SalesforceCrm) -> None:
    class Stopping(Book):
        def uploaded(self, job_id: str) -> None:
            super().uploaded(job_id)
            org.simulator.abort_job(job_id)

    outcomes = write(crm, change(0), change(1), book=Stopping())

    assert kinds(outcomes) == {Written.NOT_WRITTEN: 2}
    assert "ended as Aborted" in outcomes[0].reason
    assert org.calls("write") == 0


# --- faults -------------------------------------------------------------------------------------------------------

PASSING = ["429", "503", "502_html", "cut", "garbage", "empty", "401"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["job", "upload", "close", "poll", "results"])
@pytest.mark.parametrize("what", PASSING)
def test_a_fault_that_passes_is_not_noticed(call: str, what: str, when: str) -> None:
    with running_org(contacts=60) as org:
        crm = org.crm()
        book = Book()
        org.spoil(call, what, when=when, times=1 if what == "401" else 2)

        outcomes = write(crm, *(change(number) for number in range(50)), change(999_999), book=book)
        crm.close()

        assert kinds(outcomes) == {Written.WRITTEN: 50, Written.GONE: 1}
        assert titles(org, 50) == [f"T{number}" for number in range(50)]
        assert set(book.states.values()) == {"ended"}


@pytest.mark.parametrize("what", ["503", "cut", "garbage"])
def test_a_job_that_nobody_can_ask_about_is_unaccounted_goes_on_and_can_be_taken_up(what: str) -> None:
    with running_org(contacts=60) as org:
        crm = org.crm()
        book = Book()
        org.spoil("poll", what, times=999)

        outcomes = write(crm, *(change(number) for number in range(50)), book=book)
        ((job_id, state),) = book.states.items()
        org.forget()
        later = crm.resume("Contact", job_id, [each.ref for each in book.requests[job_id]], uploaded=True)
        crm.close()

        assert kinds(outcomes) == {Written.UNACCOUNTED: 50}
        assert job_id in outcomes[0].reason
        assert state == "uploaded"
        assert kinds(later) == {Written.WRITTEN: 50}
        assert "Aborted" not in org.simulator.state()["jobs"].values()


def test_results_that_cannot_be_fetched_are_unaccounted_and_fetched_later(org: RunningOrg, crm: SalesforceCrm) -> None:
    book = Book()
    org.spoil("results", "500", times=999)

    outcomes = write(crm, change(0), change(1), book=book)
    ((job_id, state),) = book.states.items()
    org.forget()
    later = crm.resume("Contact", job_id, [change(0).ref, change(1).ref], uploaded=True)

    assert kinds(outcomes) == {Written.UNACCOUNTED: 2}
    assert state == "uploaded"
    assert kinds(later) == {Written.WRITTEN: 2}


def test_results_too_large_to_be_read_leave_their_records_unaccounted(org: RunningOrg, crm: SalesforceCrm) -> None:
    book = Book()
    org.spoil("results", "huge")

    outcomes = write(crm, change(0), change(999_999), book=book)

    assert [outcome.written for outcome in outcomes] == [Written.UNACCOUNTED, Written.GONE]
    assert set(book.states.values()) == {"ended"}


@pytest.mark.parametrize(
    ("call", "what", "error"),
    [("job", "403_daily", QuotaError), ("job", "403_permission", CredentialsError), ("job", "503", TransientError)],
)
def test_where_no_job_can_be_made_nothing_is_written_and_the_error_is_raised(
    org: RunningOrg, crm: SalesforceCrm, call: str, what: str, error: type[Exception]
) -> None:
    book = Book()
    org.spoil(call, what, times=999)

    with pytest.raises(error):
        write(crm, change(0), book=book)

    assert set(book.states.values()) <= {"ended"}
    assert org.simulator.state()["written"]["Contact"] == 0


def test_an_upload_that_is_never_taken_goes_in_collections(org: RunningOrg, crm: SalesforceCrm) -> None:
    book = Book()
    org.spoil("upload", "cut", when="after", times=999)

    outcomes = write(crm, change(0), change(1), book=book)

    assert kinds(outcomes) == {Written.WRITTEN: 2}
    assert set(book.states.values()) == {"ended"}
    assert set(org.simulator.state()["jobs"].values()) == {"Aborted"}


def test_a_token_that_ends_on_the_way_is_renewed() -> None:
    with running_org(contacts=60, token_calls=2) as org:
        crm = org.crm()
        outcomes = write(crm, *(change(number) for number in range(50)))
        crm.close()

    assert kinds(outcomes) == {Written.WRITTEN: 50}
    assert org.calls("login") > 3


# --- taken up again -----------------------------------------------------------------------------------------------


def killed(org: RunningOrg, point: str, book: Path, count: int) -> list[str]:
    """What a process printed that was to write `count` records and died at `point`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.adapters.salesforce_bulk_worker", org.url, str(book), str(count)],
        cwd=ROOT,
        env=os.environ | {crash.SETTING: f"{point}:1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return done.stdout.splitlines()


def noted(book: Path) -> dict[str, tuple[str, list[str]]]:
    """Job id -> (how far it is, its records)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in book.read_text().splitlines() if book.exists() else []:
        entry = json.loads(line)
        ids = entry.get("ids") or found[entry["job"]][1]
        found[entry["job"]] = (entry["state"], ids)
    return found


POINTS = [point for point in crash.POINTS if point.startswith("bulk.")]
#: Where the job did its work; at the others nothing was or will be written by it.
BEGUN = ("bulk.closed", "bulk.polled", "bulk.done", "bulk.fetched", "bulk.ended", "bulk.again")
COUNT, BAD = 80, 7


def test_there_are_ten_points_to_die_at() -> None:
    assert len(POINTS) == 10


@pytest.mark.parametrize("point", POINTS)
def test_a_job_whose_process_was_killed_is_finished_or_given_up_and_nothing_is_done_twice_or_lost(
    tmp_path: Path, point: str
) -> None:
    with running_org(contacts=100) as org:
        crm = org.crm()
        killed(org, point, tmp_path / "book", COUNT)
        outcomes: dict[str, WriteOutcome] = {}
        for job_id, (state, ids) in noted(tmp_path / "book").items():
            if state == "ended":
                continue
            refs = [RecordRef(crm="salesforce", object_type="Contact", id=each) for each in ids]
            resumed = crm.resume("Contact", job_id, refs, uploaded=state == "uploaded")
            again = crm.resume("Contact", job_id, refs, uploaded=state == "uploaded")
            assert kinds(resumed) == kinds(again)
            outcomes |= {outcome.ref.id: outcome for outcome in resumed}
        jobs = org.simulator.state()["jobs"]
        written = [n for n in range(COUNT) if org.field(contact_id(n), "Title") == f"T{n}"]
        crm.close()

        good = [n for n in range(COUNT) if n != BAD]
        assert written == (good if point in BEGUN else [])
        assert list(jobs.values()).count("JobComplete") == (1 if point in BEGUN else 0)
        assert not {"UploadComplete", "InProgress"} & set(jobs.values())
        if point in ("bulk.created", "bulk.ended", "bulk.again"):
            assert outcomes == {}  # nobody knew of the job, or its records are read again
        elif point in BEGUN:
            assert {outcomes[contact_id(n)].written for n in good} == {Written.WRITTEN}
            assert outcomes[contact_id(BAD)].code == "STRING_TOO_LONG"
        else:
            assert {outcomes[contact_id(n)].written for n in range(COUNT)} == {Written.NOT_WRITTEN}


def a_job(org: RunningOrg, crm: SalesforceCrm, stop: Callable[[Book], None], *requests: WriteRequest) -> str:
    """A job that was left where `stop` raised."""
    book = Book()
    stop(book)
    with pytest.raises(KeyboardInterrupt):
        write(crm, *requests, book=book)
    (job_id,) = book.requests
    return job_id


def at_upload(book: Book) -> None:
    def raising(_job_id: str) -> None:
        raise KeyboardInterrupt

    book.uploaded = raising  # type: ignore[method-assign]


def at_end(book: Book) -> None:
    def raising(_job_id: str) -> None:
        raise KeyboardInterrupt

    book.ended = raising  # type: ignore[method-assign]


def test_a_job_taken_up_tells_the_end_of_each_record_by_position(org: RunningOrg, crm: SalesforceCrm) -> None:
    org.simulator.edit("Contact", contact_id(1), {"$lock": 1})
    requests = [change(0), change(1), change(2, Title="x" * 200), change(3)]
    job_id = a_job(org, crm, at_end, *requests)
    refs = [each.ref for each in requests] + [change(50).ref]
    short = RecordRef(crm="salesforce", object_type="Contact", id=contact_id(0)[:15])

    outcomes = crm.resume("Contact", job_id, [*refs, short], uploaded=True)

    assert [outcome.written for outcome in outcomes] == [
        Written.WRITTEN,
        Written.NOT_WRITTEN,
        Written.REJECTED,
        Written.WRITTEN,
        Written.UNACCOUNTED,
        Written.WRITTEN,
    ]
    assert outcomes[1].code == "UNABLE_TO_LOCK_ROW"


def test_a_job_that_was_filled_and_not_begun_is_given_up(org: RunningOrg, crm: SalesforceCrm) -> None:
    job_id = a_job(org, crm, at_upload, change(0))

    for uploaded in (False, True):
        (outcome,) = crm.resume("Contact", job_id, [change(0).ref], uploaded=uploaded)
        assert outcome.written is Written.NOT_WRITTEN

    assert org.simulator.state()["jobs"] == {job_id: "Aborted"}
    assert org.field(contact_id(0), "Title") != "T0"


@pytest.mark.parametrize("what", ["cut", "503", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_giving_a_job_up_survives_a_lost_answer(org: RunningOrg, crm: SalesforceCrm, what: str, when: str) -> None:
    job_id = a_job(org, crm, at_upload, change(0))
    org.spoil("close", what, when=when)

    (outcome,) = crm.resume("Contact", job_id, [change(0).ref], uploaded=False)

    assert outcome.written is Written.NOT_WRITTEN
    assert org.simulator.state()["jobs"] == {job_id: "Aborted"}


@pytest.mark.parametrize(("uploaded", "written"), [(True, Written.UNACCOUNTED), (False, Written.NOT_WRITTEN)])
def test_a_job_that_is_gone_is_told_for_what_it_may_have_done(
    org: RunningOrg, crm: SalesforceCrm, uploaded: bool, written: Written
) -> None:
    (outcome,) = crm.resume("Contact", "750000000000000AAA", [change(0).ref], uploaded=uploaded)

    assert outcome.written is written
    assert "is gone" in outcome.reason


def test_a_job_that_cannot_be_asked_now_is_asked_later(org: RunningOrg, crm: SalesforceCrm) -> None:
    job_id = a_job(org, crm, at_end, change(0))
    org.spoil("poll", "503", times=999)

    with pytest.raises(TransientError):
        crm.resume("Contact", job_id, [change(0).ref], uploaded=True)


# --- how much it takes --------------------------------------------------------------------------------------------


def test_a_hundred_thousand_records_take_eight_calls_beside_polling() -> None:
    count = 100_000
    with running_org(contacts=count) as org:
        crm = org.crm(read_s=120)
        bad = {1_000: "Email", 60_000: "Title"}
        requests = [
            change(n, **{bad.get(n, "Department"): "x" * 200 if n in bad else f"D{n}", "Phone": f"+1 {n}"})
            for n in range(count)
        ]
        outcomes = crm.write("Contact", requests, mode=WriteMode.BULK, jobs=Book())
        calls = crm.calls()
        crm.close()

        assert kinds(outcomes) == {Written.WRITTEN: count}
        assert [outcome.dropped[0][0] for outcome in outcomes if outcome.dropped] == ["Email", "Title"]
        assert org.simulator.state()["written"]["Contact"] == count
        assert org.calls("job") == 2
        assert sum(number for name, number in calls.items() if name != "poll") <= 30
        assert calls["bulk"] + calls["write"] <= 12
