"""Large writes to Salesforce go through bulk jobs, and a job outlives the process that began it."""

from __future__ import annotations

import pytest

from crm_sync.domain.runs import RunStatus
from crm_sync.pipeline.recover import recover
from tests.journeys.conftest import Office
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured


@pytest.fixture(params=["salesforce"])
def crm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_run_in_bulk_writes_everybody_in_few_calls(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title", CITY[crm]: "person.city"}, contacts=5000, write="bulk")
    office.edit(11, {title: "Typed by a person"})

    run = office.walk()
    again = office.walk()

    assert run.status is RunStatus.COMPLETED
    assert run.counts.updated == run.counts.selected == 5000
    world = office.sandbox.world
    assert all(office.value(at, title) == world.person(at).title for at in range(5000) if at != 11)
    assert office.value(11, title) == "Typed by a person"
    assert run.calls["salesforce bulk"] <= 12, run.calls
    assert "salesforce write" not in run.calls
    assert office.app.write_jobs.open() == []
    assert again.counts.updated == again.credits == 0


def killed_at(office: Office, point: str) -> None:
    """Let a run die at a crash point as a killed process does: nothing after it happens, nothing is tidied up."""
    from crm_sync import crash

    class Killed(BaseException):
        pass

    real = crash.point

    def point_(name: str, detail: str = "") -> None:
        if name == point:
            raise Killed
        real(name, detail)

    import adapters.salesforce.bulk as bulk

    bulk.crash.point = point_  # type: ignore[assignment]
    try:
        with pytest.raises(Killed):
            office.walk()
    finally:
        bulk.crash.point = real  # type: ignore[assignment]


@pytest.mark.parametrize("point", ["bulk.created", "bulk.opened", "bulk.uploaded", "bulk.closed", "bulk.done"])
def test_a_run_that_dies_leaves_a_job_that_the_next_one_takes_up(configured: Configured, crm: str, point: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"}, contacts=300, write="bulk")
    killed_at(office, point)
    office.restart()

    closed = recover(office.app.services(), crm)
    run = office.walk()
    again = office.walk()

    assert len(closed) == 1
    world = office.sandbox.world
    assert all(office.value(at, title) == world.person(at).title for at in range(300))
    assert max(office.charged.values()) == 1
    assert run.counts.balanced
    assert again.counts.updated == again.credits == 0
    assert office.app.write_jobs.open() == []
    last = office.app.provenance.last_writes(crm, office.people, [office.id_of(at) for at in range(300)])
    assert len(last) == 300


def test_a_job_whose_end_a_run_could_not_see_is_seen_by_the_next_one(configured: Configured, crm: str) -> None:
    title = TITLE[crm]
    office = configured({title: "person.title"}, contacts=300, write="bulk")
    office.sandbox.faults[crm].add([{"call": "GET */jobs/ingest/<job_id>/<kind>", "what": "503", "times": 50}])
    first = office.walk()
    noted = office.app.write_jobs.open()
    office.sandbox.faults[crm].clear()
    office.restart()

    second = office.walk()

    assert len(noted) == 1
    # Read again, its records hold the values; what the job itself says is asked for by the next run.
    assert first.status is RunStatus.COMPLETED
    assert first.counts.updated == 300
    assert office.app.write_jobs.open() == []
    assert all(office.value(at, title) == office.sandbox.world.person(at).title for at in range(300))
    record = office.app.runs.record(first.id, "Contact", office.id_of(7))
    assert record is not None
    assert record.outcome == "Updated"
    assert second.credits == 0


def test_a_job_that_works_on_after_its_run_is_told_as_the_runs_write(
    configured: Configured, crm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adapters.salesforce.bulk as bulk

    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"}, contacts=300, write="bulk")
    with monkeypatch.context() as impatient:
        impatient.setattr(bulk, "_PATIENCE_S", -1.0)
        first = office.walk()
    before = office.value(7, title)

    second = office.walk()

    assert not before
    assert first.counts.updated == 0
    assert second.counts.updated == 0
    assert office.value(7, title) == office.sandbox.world.person(7).title
    assert office.app.write_jobs.open() == []
    record = office.app.runs.record(first.id, "Contact", office.id_of(7))
    assert record is not None
    assert (record.outcome, [d.outcome.value for d in record.decisions]) == ("Updated", ["Written"])
    last = office.app.provenance.last_writes(crm, office.people, [office.id_of(7)])
    assert title in last[office.id_of(7)]
    told = office.app.runs.get(first.id)
    assert told is not None
    assert told.counts.balanced
    assert told.counts.updated == told.counts.selected == 300
    assert "was seen later" in told.reason
