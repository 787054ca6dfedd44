"""Bulk jobs under way: what the next process finds of them."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from crm_sync.domain.records import RecordRef
from crm_sync.ports import WriteRequest
from crm_sync.store.engine import Store
from crm_sync.store.runs import Runs
from crm_sync.store.write_jobs import OpenJob, RunJobs, WriteJobs
from tests.clocks import FakeClock
from tests.factories import a_run


def requests(*ids: str) -> list[WriteRequest]:
    return [
        WriteRequest(ref=RecordRef(crm="salesforce", object_type="Contact", id=each), values={"Title": "CTO"})
        for each in ids
    ]


def a_job(job_id: str, *ids: str, uploaded: bool = False) -> OpenJob:
    return OpenJob(
        job_id=job_id, run_id="a", share=0, crm="salesforce", object_type="Contact", record_ids=ids, uploaded=uploaded
    )


class Desk:
    """Two runs and the clock their jobs are noted by."""

    def __init__(self, store: Store) -> None:
        self.jobs, self.clock = WriteJobs(store), FakeClock()
        for run_id in ("a", "b"):
            Runs(store).open(a_run(id=run_id), owner="here:1")

    def book(self, run_id: str = "a", crm: str = "salesforce") -> RunJobs:
        self.clock.forward(1)
        return self.jobs.book(run_id, crm, self.clock)


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_a_job_is_found_with_its_records_from_the_moment_it_was_opened(desk: Desk) -> None:
    desk.book().opened("750A", "Contact", requests("1", "2"))

    assert desk.jobs.open() == [a_job("750A", "1", "2")]


def test_whether_the_crm_may_have_begun_is_known(desk: Desk) -> None:
    desk.book().opened("750A", "Contact", requests("1"))
    desk.book().opened("750B", "Contact", requests("2"))
    desk.book().uploaded("750B")

    assert desk.jobs.open() == [a_job("750A", "1"), a_job("750B", "2", uploaded=True)]


def test_a_job_that_ended_is_forgotten_and_the_others_are_not(desk: Desk) -> None:
    for job, record in (("750A", "1"), ("750B", "2"), ("750C", "3")):
        desk.book().opened(job, "Contact", requests(record))

    desk.book().ended("750B")
    desk.jobs.end("salesforce", "750C")
    desk.jobs.end("salesforce", "750C")

    assert desk.jobs.open() == [a_job("750A", "1")]


def test_a_job_of_the_same_number_in_another_crm_is_another_one(desk: Desk) -> None:
    desk.book(crm="salesforce").opened("750A", "Contact", requests("1"))
    desk.book(crm="other").opened("750A", "Contact", requests("2"))

    desk.book(crm="other").uploaded("750A")
    desk.jobs.end("salesforce", "750A")

    [left] = desk.jobs.open()
    assert (left.crm, left.record_ids, left.uploaded) == ("other", ("2",), True)


def test_one_job_is_not_noted_twice(desk: Desk) -> None:
    desk.book().opened("750A", "Contact", requests("1"))

    with pytest.raises(IntegrityError):
        desk.book("b").opened("750A", "Contact", requests("1"))


def test_a_job_of_many_records_is_found_with_all_of_them(desk: Desk) -> None:
    ids = [f"003{number:015d}" for number in range(20_000)]
    desk.book().opened("750A", "Contact", requests(*ids))

    [found] = desk.jobs.open()
    assert list(found.record_ids) == ids
