"""A plan that is kept, and written exactly as it is."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from crm_sync.domain.runs import RunKind, RunStatus
from crm_sync.errors import ConfigError
from crm_sync.pipeline import plan_file
from crm_sync.pipeline.amend import amend
from tests.journeys.conftest import Office
from tests.journeys.writing_back.conftest import CITY, TITLE, Configured, decisions, text


def kept(office: Office, *, limit: int = 10) -> bytes:
    run = office.plan(limit=limit)
    return plan_file.written(run, list(office.app.runs.records(run.id)), office.app.services())


def applied(office: Office, content: bytes) -> object:
    services = office.app.services()
    return amend(plan_file.applying(plan_file.read(content, services, name="plan.json"), services), services)


def test_exactly_the_plan_is_written_but_for_what_moved_since(configured: Configured, crm: str) -> None:
    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    content = kept(office)
    office.edit(3, {title: "Typed since"})
    office.apply(text(crm, {title: "{from: person.title, transform: upper}", city: "person.country"}))

    run = applied(office, content)

    assert run.kind is RunKind.APPLY  # type: ignore[attr-defined]
    assert run.credits == 0  # type: ignore[attr-defined]
    assert office.value(1, title) == office.sandbox.world.person(1).title
    assert office.value(1, city) == office.sandbox.world.person(1).city
    assert office.value(3, title) == "Typed since"
    assert office.value(3, city) == office.sandbox.world.person(3).city
    assert decisions(office, run.id, 3)[title][0] == "Conflict"  # type: ignore[attr-defined]
    assert run.counts.updated == 10  # type: ignore[attr-defined]
    assert run.status is RunStatus.COMPLETED_WITH_ERRORS  # type: ignore[attr-defined]
    assert not office.value(15, title)
    again = applied(office, content)
    assert again.counts.updated == 0  # type: ignore[attr-defined]


def test_what_was_applied_is_ours_and_can_be_undone(configured: Configured, crm: str) -> None:
    from crm_sync.pipeline.undo import undoing

    title = TITLE[crm]
    office = configured({title: "{from: person.title, write: track}"})
    run = applied(office, kept(office))
    services = office.app.services()
    assert title in services.provenance.last_writes(crm, office.people, [office.id_of(1)])[office.id_of(1)]

    amend(undoing(run, services), services)  # type: ignore[arg-type]

    assert not office.value(1, title)


def test_an_edited_plan_is_refused(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    content = kept(office)
    plan = json.loads(content)
    plan["records"][0]["fields"][0]["new"] = "Emperor"
    for bad, why in (
        (json.dumps(plan).encode(), "was changed after it was written"),
        (b"{}", "is not a plan"),
        (b"\xff", "is not a plan"),
        (content.replace(b'"signature": "', b'"signature": "0'), "was changed after it was written"),
        (json.dumps({**json.loads(content), "signature": None}).encode(), "was changed after it was written"),
    ):
        with pytest.raises(ConfigError, match=why):
            applied(office, bad)
    assert not office.value(1, TITLE[crm])
    # Blanks and the order of keys are no change: an editor that formats it does no harm.
    assert applied(office, json.dumps(json.loads(content), sort_keys=True).encode()).counts.updated == 10  # type: ignore[attr-defined]


def test_a_plan_expires_and_is_for_one_crm(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    content = kept(office)
    clock = office.app.clock
    later = clock.now() + plan_file.EXPIRES_AFTER + timedelta(hours=1)
    office.app.__dict__["clock"] = type("Later", (), {"now": lambda _self: later, "sleep": clock.sleep})()
    with pytest.raises(ConfigError, match="expired on"):
        applied(office, content)
    office.app.__dict__["clock"] = clock
    renamed = (
        text(crm, {TITLE[crm]: "person.title"})
        .replace(f"crm: {crm}", "crm: other")
        .replace(f"{{{crm}: {{type", "{other: {type")
    )
    office.apply(renamed)
    with pytest.raises(ConfigError, match="does not have"):
        applied(office, content)
    office.apply(text(crm, {TITLE[crm]: "person.title"}).replace("  contacts:\n", "  people:\n"))
    with pytest.raises(ConfigError, match="has no sync contacts"):
        applied(office, content)


def test_whoever_was_suppressed_since_is_not_written(configured: Configured, crm: str) -> None:
    office = configured({TITLE[crm]: "person.title"})
    content = kept(office)
    office.app.suppressions.add(
        [f"record:{crm}:{office.people}:{office.id_of(2)}"], "by hand", now=office.app.clock.now()
    )

    run = applied(office, content)

    assert not office.value(2, TITLE[crm])
    assert run.counts.updated == 9  # type: ignore[attr-defined]
    assert run.counts.skipped == 1  # type: ignore[attr-defined]


def test_a_field_that_is_gone_by_now_costs_only_itself(configured: Configured, crm: str) -> None:
    from dataclasses import replace

    title, city = TITLE[crm], CITY[crm]
    office = configured({title: "person.title", city: "person.city"})
    content = kept(office)
    client = office.app.crm(crm, crm)
    describe = client.describe

    def without_the_field(object_type: str) -> object:
        schema = describe(object_type)
        return replace(schema, fields={name: field for name, field in schema.fields.items() if name != city})

    services = office.app.services()
    plan = plan_file.read(content, services, name="plan.json")
    amending = plan_file.applying(plan, services)
    client.describe = without_the_field  # type: ignore[method-assign, assignment]

    run = amend(amending, services)

    assert office.value(1, title) == office.sandbox.world.person(1).title
    assert "has no such field any more" in decisions(office, run.id, 1)[city][1]
    assert run.counts.updated == 10


def test_a_file_that_cannot_be_made_is_refused_before_anybody_is_asked_for(
    configured: Configured, crm: str, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from crm_sync.cli.run import plan

    office = configured({TITLE[crm]: "person.title"}, contacts=5)
    nowhere, here = tmp_path / "no such folder" / "plan.json", tmp_path / "plan.json"

    refused = CliRunner().invoke(plan, ["contacts", "--out", str(nowhere)], obj=office.app)
    asked = dict(office.charged)
    office.walk()
    nothing = CliRunner().invoke(plan, ["contacts", "--out", str(here), "--json"], obj=office.app)

    assert isinstance(refused.exception, ConfigError)
    assert "no folder that this user may write to" in str(refused.exception)
    assert asked == {}
    assert nothing.exit_code == 0
    assert "changes nothing" in nothing.stderr
    assert not here.exists()


def test_a_plan_that_was_written_is_not_written_over_a_person_who_set_it_back(configured: Configured, crm: str) -> None:
    from crm_sync.pipeline.undo import undoing

    title = TITLE[crm]
    office = configured({title: "person.title"})
    content = kept(office)
    first = applied(office, content)
    office.edit(1, {title: "" if crm == "hubspot" else None})

    services = office.app.services()
    left = plan_file.applying(plan_file.read(content, services, name="plan.json"), services)
    assert left.candidates == {}
    assert not office.value(1, title)

    amend(undoing(first, services), services)  # type: ignore[arg-type]
    again = applied(office, content)

    assert again.counts.updated == 9  # type: ignore[attr-defined]
    assert office.value(2, title) == office.sandbox.world.person(2).title
