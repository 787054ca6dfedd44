"""From facts to what is wrong, what is over, and what nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from crm_sync.config.loader import load
from crm_sync.config.model import Alert, Budget, Config
from crm_sync.config.schema import EVENTS
from crm_sync.domain.alerts import Finding, Late
from crm_sync.domain.runs import Counts, RunStatus, SyncRun
from crm_sync.pipeline.scheduling import late_syncs
from crm_sync.pipeline.watching import APOLLO, PUBLIC_ADDRESS, Awaited, Doubt, Facts, body, judged, lasted, name_of
from crm_sync.store.schedules import Standing
from tests.factories import NOON, a_run

BASE = """\
version: 1
timezone: America/New_York
crms: {salesforce: {type: salesforce, environment: sandbox}}
syncs:
  contacts: {crm: salesforce, object: Contact, match: {send: {email: Email}}, fields: {Title: person.title}}
  leads: {crm: salesforce, object: Lead, match: {send: {email: Email}}, fields: {Title: person.title}}
"""
HOUR = timedelta(hours=1)
FIGURES: dict[str, dict[str, Any]] = {
    "rejected_share": {"above": Decimal("0.05")},
    "did_not_start": {"after": timedelta(minutes=30)},
    "budget_used": {"above": Decimal("0.8")},
    "match_rate": {"below": Decimal("0.4")},
    "public_url_unreachable": {"after": timedelta(minutes=10)},
    "in_doubt": {"after": HOUR},
    "phones_waiting": {"after": timedelta(hours=12)},
}


def an_alert(when: str, **changes: Any) -> Alert:
    return Alert(when=when, tell=("slack:#revops",), **{**FIGURES.get(when, {}), **changes})


def a_config(*alerts: Alert, **changes: Any) -> Config:
    return replace(load(BASE.encode()).require(), alerts=alerts, **changes)


def found(when: str, facts: Facts, *, of: str = "contacts", **changes: Any) -> Finding | None:
    budget = Budget(per_day=Decimal(2000), phones_per_month=Decimal(100))
    told = {each.subject: each for each in judged(a_config(an_alert(when, **changes), budget=budget), facts)}
    return told.get(of)


def ended(nth: int = 0, status: RunStatus = RunStatus.COMPLETED, *, reason: str = "", **counts: int) -> SyncRun:
    """The sync's run of `nth` hours ago, which took ten minutes."""
    at = NOON - nth * HOUR
    return a_run(
        id=f"run-{nth}",
        status=status,
        reason=reason,
        started_at=at - timedelta(minutes=10),
        finished_at=at,
        counts=Counts(**counts),
    )


def runs(*told: SyncRun) -> Facts:
    return Facts(now=NOON, runs={"contacts": told})


# --- run_failed -------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_told_with_its_reason_and_what_to_do() -> None:
    finding = found("run_failed", runs(ended(0, RunStatus.FAILED, reason="Apollo is down"), ended(1)))

    assert finding is not None
    assert finding.is_firing
    assert (finding.title, finding.since) == ("contacts has failed", NOON)
    assert finding.what == "It failed at 2026-10-08 08:00 EDT. Run run-0: Apollo is down."
    assert "crm-sync show run-0" in finding.advice


def test_several_failures_are_one_since_the_first() -> None:
    finding = found("run_failed", runs(*(ended(n, RunStatus.FAILED, reason="x") for n in range(3)), ended(3)))

    assert finding is not None
    assert finding.since == NOON - 2 * HOUR
    assert finding.what.startswith("Its last 3 runs have failed, the first at 2026-10-08 06:00 EDT.")


@pytest.mark.parametrize("status", [s for s in RunStatus if s not in (RunStatus.FAILED, RunStatus.CANCELLED)])
def test_any_end_but_failed_is_a_recovery(status: RunStatus) -> None:
    finding = found("run_failed", runs(ended(0, status), ended(1, RunStatus.FAILED)))

    assert finding is not None
    assert not finding.is_firing


def test_a_cancelled_run_tells_nothing() -> None:
    failing = found("run_failed", runs(ended(0, RunStatus.CANCELLED), ended(1, RunStatus.FAILED)))

    assert failing is not None
    assert failing.is_firing
    assert found("run_failed", runs(ended(0, RunStatus.CANCELLED))) is None


def test_a_run_that_another_one_goes_on_with_needs_nobody() -> None:
    dead = [ended(0, RunStatus.FAILED, reason="its process ended"), ended(1)]

    finding = found("run_failed", replace(runs(*dead), gone_on_with={"run-0"}))

    assert finding is not None
    assert not finding.is_firing
    assert found("run_failed", replace(runs(dead[0]), gone_on_with={"run-0"})) is None


def test_what_the_crm_said_of_a_person_is_not_told() -> None:
    reason = "duplicate of ada@lovelace.example (+44 20 7946 0958), see https://me:hunter2@crm.example?token=abc123"

    finding = found("run_failed", runs(ended(0, RunStatus.FAILED, reason=reason)))

    assert finding is not None
    for secret in ("ada", "7946", "hunter2", "abc123"):
        assert secret not in finding.what
    assert "duplicate of (an address) ((a number))" in finding.what


# --- shares -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rejected", "fires"), [(0, False), (5, False), (6, True), (100, True)])
def test_the_rejected_share_of_a_run_is_compared_with_the_limit(rejected: int, fires: bool) -> None:
    finding = found("rejected_share", runs(ended(selected=100, rejected=rejected, updated=100 - rejected)))

    assert finding is not None
    assert finding.is_firing is fires
    assert f"{rejected} of 100 records ({rejected}%) were rejected by the CRM in run run-0" in finding.what


def test_small_runs_are_looked_at_together() -> None:
    small = [ended(n, selected=7, rejected=1, updated=6) for n in range(5)]

    finding = found("rejected_share", runs(*small))

    assert finding is not None
    assert finding.is_firing
    assert "3 of 21 records (14.3%) were rejected by the CRM in the last 3 runs" in finding.what


def test_a_handful_of_records_proves_nothing() -> None:
    assert found("rejected_share", runs(ended(selected=3, rejected=3))) is None
    assert found("rejected_share", runs()) is None


@pytest.mark.parametrize(("no_match", "fires"), [(60, False), (61, True)])
def test_the_match_rate_counts_those_that_were_looked_up(no_match: int, fires: bool) -> None:
    counts = {"selected": 150, "skipped": 40, "in_doubt": 10, "no_match": no_match, "updated": 100 - no_match}

    finding = found("match_rate", runs(ended(**counts)))

    assert finding is not None
    assert finding.is_firing is fires
    assert f"{100 - no_match} of 100 records ({100 - no_match}%) were found by Apollo" in finding.what


# --- schedule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queued", "why"), [(True, "It is queued, and no worker has taken it."), (False, "Nobody has queued it.")]
)
def test_a_sync_that_did_not_start_is_told_with_why(queued: bool, why: str) -> None:
    late = Late(sync="contacts", slot=NOON - HOUR, is_queued=queued)

    finding = found("did_not_start", Facts(now=NOON, late=[late]))

    assert finding is not None
    assert finding.is_firing
    assert finding.since == NOON - HOUR
    assert finding.what == f"It was due at 2026-10-08 07:00 EDT and has not started within 30m. {why}"


def test_late_for_less_than_the_limit_is_nothing_yet_and_no_recovery() -> None:
    late = Late(sync="contacts", slot=NOON - timedelta(minutes=29), is_queued=False)

    assert found("did_not_start", Facts(now=NOON, late=[late])) is None


def test_nothing_late_is_a_recovery_and_no_schedule_tells_nothing() -> None:
    finding = found("did_not_start", Facts(now=NOON, late=[]))

    assert finding is not None
    assert not finding.is_firing
    assert found("did_not_start", Facts(now=NOON, late=None)) is None


# --- money ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "fires"),
    [("per_day", 1599, False), ("per_day", 1600, True), ("per_day", 2000, True), ("phones_per_month", 80, True)],
)
def test_a_budget_is_told_from_its_share_on(limit: str, used: int, fires: bool) -> None:
    finding = found("budget_used", Facts(now=NOON, spent={limit: Decimal(used)}), of=limit)

    assert finding is not None
    assert finding.is_firing is fires
    assert f"{used:,} of " in finding.what


def test_a_budget_that_is_not_set_is_no_subject() -> None:
    assert found("budget_used", Facts(now=NOON, spent={"per_month": Decimal(9)}), of="per_month") is None


def test_calls_in_doubt_are_told_once_they_have_lasted() -> None:
    doubt = Doubt(calls=2, most=Decimal(20), oldest=NOON - HOUR)

    finding = found("in_doubt", Facts(now=NOON, doubt=doubt), of=APOLLO)

    assert finding is not None
    assert finding.is_firing
    assert finding.title == "2 paid calls are in doubt"
    assert "at worst 20 credits" in finding.what
    fresh = found("in_doubt", Facts(now=NOON - timedelta(seconds=1), doubt=doubt), of=APOLLO)
    assert fresh is not None
    assert not fresh.is_firing


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_a_provider_that_refuses_us_is_named_and_one_nobody_asked_is_left_as_it_was() -> None:
    facts = Facts(now=NOON, access={"salesforce": "the session has expired", APOLLO: ""})

    refused, taken = (
        found("credentials_refused", facts, of="salesforce"),
        found("credentials_refused", facts, of=APOLLO),
    )

    assert refused is not None
    assert taken is not None
    assert (refused.is_firing, taken.is_firing) == (True, False)
    assert refused.title == "salesforce refuses our credentials"
    assert refused.what == "the session has expired."
    assert found("credentials_refused", Facts(now=NOON), of=APOLLO) is None


@pytest.mark.parametrize(("problem", "fires"), [("cannot be reached", True), ("", False), (None, None)])
def test_the_public_address_is_told_after_it_has_lasted(problem: str | None, fires: bool | None) -> None:
    finding = found("public_url_unreachable", Facts(now=NOON, public_url=problem), of=PUBLIC_ADDRESS)

    assert (finding.is_firing if finding is not None else None) is fires
    assert finding is None or not fires or finding.lasts == timedelta(minutes=10)


def test_phones_that_wait_for_too_long_are_told_by_sync() -> None:
    awaited = {"contacts": Awaited(count=3, oldest=NOON - 13 * HOUR), "leads": Awaited(count=1, oldest=NOON - HOUR)}
    facts = Facts(now=NOON, awaited=awaited)

    contacts, leads = found("phones_waiting", facts), found("phones_waiting", facts, of="leads")

    assert contacts is not None
    assert leads is not None
    assert (contacts.is_firing, leads.is_firing) == (True, False)
    assert contacts.what == "3 phones are awaited, the oldest for longer than 12h."


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", EVENTS)
def test_every_event_has_a_rule(when: str) -> None:
    judged(a_config(an_alert(when)), Facts(now=NOON))


def test_an_alert_about_some_syncs_leaves_the_others_alone() -> None:
    facts = Facts(now=NOON, runs={name: [ended(0, RunStatus.FAILED)] for name in ("contacts", "leads")})

    told = judged(a_config(an_alert("run_failed", syncs=("leads",))), facts)

    assert [(each.alert, each.subject) for each in told] == [("run_failed (leads)", "leads")]


@pytest.mark.parametrize(
    ("alert", "name"),
    [
        (an_alert("run_failed"), "run_failed"),
        (an_alert("rejected_share"), "rejected_share above 5%"),
        (an_alert("match_rate", below=Decimal("0.125")), "match_rate below 12.5%"),
        (an_alert("did_not_start", syncs=("contacts", "leads")), "did_not_start after 30m (contacts, leads)"),
    ],
)
def test_a_rule_is_called_by_its_own_words(alert: Alert, name: str) -> None:
    assert name_of(alert) == name


def test_a_notice_says_what_since_when_and_what_next() -> None:
    finding = found("run_failed", runs(ended(0, RunStatus.FAILED, reason="Apollo is down")))
    assert finding is not None

    text = body("began", finding, finding.since, "", timezone="America/New_York")

    assert text.splitlines() == [
        "It failed at 2026-10-08 08:00 EDT. Run run-0: Apollo is down.",
        "Since: 2026-10-08 08:00 EDT",
        f"Next: {finding.advice}.",
        "Alert: run_failed",
    ]


def test_a_recovery_says_how_long_it_lasted_and_what_it_was() -> None:
    finding = found("run_failed", runs(ended(0, RunStatus.COMPLETED)))
    assert finding is not None

    text = body("recovered", finding, NOON - timedelta(minutes=130), "It failed.", timezone="UTC")

    assert text.splitlines() == [
        "Recovered after 2 h 10 min. Run run-0 ended as Completed at 2026-10-08 08:00 EDT.",
        "It began at 2026-10-08 09:50 UTC: It failed.",
        "Alert: run_failed",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7800, "2 h 10 min"), (90_000, "1 d 1 h")],
)
def test_how_long_something_lasted(seconds: int, words: str) -> None:
    assert lasted(timedelta(seconds=seconds)) == words


def test_times_are_told_in_the_zone_of_the_configuration() -> None:
    winter = datetime(2026, 12, 1, 7, 30, tzinfo=UTC)

    finding = found(
        "did_not_start", Facts(now=winter + HOUR, late=[Late(sync="contacts", slot=winter, is_queued=True)])
    )

    assert finding is not None
    assert "2026-12-01 02:30 EST" in finding.what


def test_what_is_due_and_not_queued_and_what_is_queued_and_not_taken_is_late() -> None:
    scheduled = BASE.replace("  contacts: {", "  contacts: {schedule: {every: 1h}, ").replace(
        "  leads: {", "  leads: {schedule: {every: 1h}, "
    )
    config = load(scheduled.encode()).require()
    standings = {name: Standing(sync=name, since=NOON - timedelta(minutes=90)) for name in config.syncs}
    waiting = a_run(id="q", sync="leads", status=RunStatus.QUEUED, queued_at=NOON, slot=NOON - HOUR)
    of_another = a_run(id="r", sync="gone", status=RunStatus.QUEUED, queued_at=NOON)
    standings["leads"] = replace(standings["leads"], last_slot=NOON)

    late = late_syncs(config, standings, waiting=[waiting, of_another], running=(), now=NOON)

    assert {(each.sync, each.is_queued) for each in late} == {("contacts", False), ("leads", True)}
    assert next(each.slot for each in late if each.sync == "leads") == NOON - HOUR
    running = late_syncs(config, standings, waiting=[waiting], running={"contacts", "leads"}, now=NOON)
    assert running == []
