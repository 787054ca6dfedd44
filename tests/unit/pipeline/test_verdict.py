"""What a run is called when it has ended: worst first, and no success out of nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from crm_sync.domain.runs import Counts, RunStatus, SyncRun
from crm_sync.errors import BudgetError, CredentialsError, HeldError, TransientError
from crm_sync.pipeline.audit import Audit
from crm_sync.pipeline.verdict import verdict
from crm_sync.pipeline.walk import Stop
from tests.factories import a_run

DONE = Counts(selected=3, updated=2, unchanged=1)
NOTHING = Counts(selected=3, no_match=2, skipped=1)


def an_audit(**books: Any) -> Audit:
    return Audit(context=None, **books)  # type: ignore[arg-type]  # a verdict looks at the books alone


def a_stop(reason: str = "", error: Exception | None = None) -> Stop:
    stop = Stop()
    if reason:
        stop.raise_(reason, error)
    return stop


def ended(counts: Counts = DONE, **changes: Any) -> SyncRun:
    return a_run(counts=counts, **changes)


def away(kind: type[Exception] = TransientError) -> Exception:
    if issubclass(kind, BudgetError | HeldError):
        return kind("x")
    return kind("x", provider="salesforce", operation="write", status=503)  # type: ignore[call-arg]


def test_a_run_without_trouble_is_completed_without_a_reason() -> None:
    assert verdict(ended(), an_audit(), a_stop()) == (RunStatus.COMPLETED, "")


def test_nothing_to_do_is_no_failure() -> None:
    assert verdict(ended(Counts()), an_audit(), a_stop())[0] is RunStatus.COMPLETED
    assert verdict(ended(NOTHING), an_audit(), a_stop())[0] is RunStatus.COMPLETED


@pytest.mark.parametrize(
    "run",
    [
        ended(Counts(selected=4, updated=2, unchanged=1)),
        ended(parents=Counts(selected=1)),
    ],
)
def test_books_that_do_not_balance_fail_a_run_before_anything_else(run: SyncRun) -> None:
    status, reason = verdict(run, an_audit(), a_stop("cancelled by a person"))

    assert status is RunStatus.FAILED
    assert reason.startswith("the books do not balance")


def test_what_a_person_stopped_is_cancelled() -> None:
    assert verdict(ended(), an_audit(conflicts=3), a_stop("Ctrl-C")) == (RunStatus.CANCELLED, "Ctrl-C")


@pytest.mark.parametrize(
    ("fails", "status"), [(False, RunStatus.STOPPED_AT_BUDGET), (True, RunStatus.FAILED)], ids=["stop", "fail"]
)
def test_a_limit_of_ours_ends_a_run_as_the_configuration_says(fails: bool, status: RunStatus) -> None:
    stop = a_stop("the day's budget is used up", BudgetError("x"))

    assert verdict(ended(), an_audit(), stop, fails_at_limit=fails) == (status, "the day's budget is used up")


@pytest.mark.parametrize(
    ("counts", "error", "status"),
    [
        (DONE, away(), RunStatus.COMPLETED_WITH_ERRORS),
        (NOTHING, away(), RunStatus.FAILED),
        (DONE, away(CredentialsError), RunStatus.FAILED),
        (DONE, away(HeldError), RunStatus.FAILED),
        (DONE, RuntimeError("a bug"), RunStatus.FAILED),
    ],
)
def test_an_error_fails_a_run_where_nothing_came_of_it_or_a_person_is_needed(
    counts: Counts, error: Exception, status: RunStatus
) -> None:
    assert verdict(ended(counts), an_audit(), a_stop("it went wrong", error)) == (status, "it went wrong")


def test_a_company_that_was_written_is_something_too() -> None:
    run = ended(NOTHING, parents=Counts(selected=1, updated=1))

    assert verdict(run, an_audit(), a_stop("x", away()))[0] is RunStatus.COMPLETED_WITH_ERRORS


def test_a_run_none_of_whose_writes_landed_has_failed_with_the_commonest_reason() -> None:
    unwritten = Counter({"not written: the day's calls are used up": 5, "not written: another": 1})

    assert verdict(ended(Counts(selected=6, skipped=6)), an_audit(unwritten=unwritten), a_stop()) == (
        RunStatus.FAILED,
        "not written: the day's calls are used up",
    )


def test_every_trouble_is_counted_in_words_and_the_remarks_come_last() -> None:
    counts = Counts(selected=10, updated=4, rejected=1, invalid=2, in_doubt=3)
    audit = an_audit(
        unwritten=Counter({"x": 2}), refused_fields=7, conflicts=50, put_back=1, unstamped=2,
    )  # fmt: skip
    run = ended(counts, parents=Counts(selected=2, rejected=2))

    status, reason = verdict(run, audit, a_stop(), parent="Account", remarks=["no field Tier__c any more"])

    assert status is RunStatus.COMPLETED_WITH_ERRORS
    assert reason == (
        "2 not written, 1 rejected by the CRM, 2 invalid, 3 in doubt, 2 rejected on Account, 7 field values refused, "
        "50 fields changed since and left as before, 1 edit made by people at the same time put back, "
        "2 not stamped, no field Tier__c any more"
    )


@pytest.mark.parametrize("name", ["refused_fields", "conflicts", "put_back", "unstamped"])
def test_each_trouble_alone_keeps_a_run_from_being_a_clean_success(name: str) -> None:
    assert verdict(ended(), an_audit(**{name: 1}), a_stop())[0] is RunStatus.COMPLETED_WITH_ERRORS


def test_what_waits_for_a_person_is_no_trouble() -> None:
    run = replace(ended(), counts=Counts(selected=3, updated=1, needs_review=2))

    assert verdict(run, an_audit(), a_stop()) == (RunStatus.COMPLETED, "")
