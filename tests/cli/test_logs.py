"""What runs log: ids, and nothing of people or keys."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from crm_sync import logs
from tests.cli.conftest import PEOPLE, Desk
from tests.factories import SECRET_KEY
from tests.logged import lines, logging_as_before


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    with logging_as_before():
        yield io.StringIO()


def test_runs_that_go_well_and_badly_log_nothing_of_people_and_keys(
    desk: Desk, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs against the sandbox at debug level, with a key that is refused and a CRM that is gone in between."""
    logs.set_up(kind="json", level="debug", stream=out)
    desk.configure()
    sync = next(name for name in desk.run("config", "show").text.split() if PEOPLE[desk.crm].lower() in name.lower())
    sync = sync.rstrip(":")
    canaries = set(desk.sandbox.settings().values()) - {"header", "client_credentials"}
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", SECRET_KEY)
    assert desk.run("run", sync, "--limit", "20").code in (0, 3)
    with monkeypatch.context() as broken:
        broken.setenv("CRM_SYNC_APOLLO_API_KEY", "apollo-canary-1234567890")
        assert desk.run("run", sync, "--limit", "20").code == 1
    with monkeypatch.context() as broken:
        secret = "CONSUMER_SECRET" if desk.crm == "salesforce" else "TOKEN"
        broken.setenv(f"CRM_SYNC_{desk.crm.upper()}_{secret}", "crm-canary-1234567890")
        assert desk.run("run", sync).code == 1

    said = out.getvalue()
    told = lines(out)
    assert [each["event"].split(":")[0] for each in told if each["logger"] == "crm_sync.pipeline.run"][:2] == [
        "run began",
        "run ended as Completed",
    ]
    assert all(each.get("run") and each.get("sync") == sync for each in told if "pipeline.run" in each["logger"])
    keys = {canary for canary in canaries if len(canary) > 8 and not canary.startswith("http")}
    people = people_of(desk)
    assert len(people) > 100
    for canary in {*keys, *people, "apollo-canary-1234567890", "crm-canary-1234567890", SECRET_KEY}:
        assert canary not in said, canary


def people_of(desk: Desk) -> set[str]:
    """E-mail addresses, full names and numbers of everybody in the sandbox's world."""
    world = desk.sandbox.world
    found: set[str] = set()
    for person in (world.person(index) for index in range(world.people)):
        found |= {person.email, f"{person.first_name} {person.last_name}"}
    return {each for each in found if each and each.strip()}
