"""Named examples: a_run(), a_decision(), person_keys()."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crm_sync.domain.changes import FieldDecision, FieldOutcome, WriteRule
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun

NOON = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)


def a_run(**changes: Any) -> SyncRun:
    values: dict[str, Any] = {
        "id": "20261008-120000-0001",
        "sync": "contacts",
        "crm": "salesforce",
        "object_type": "Contact",
        "kind": RunKind.RUN,
        "status": RunStatus.RUNNING,
        "trigger": "test",
        "config_version": None,
        "started_at": NOON,
    }
    return SyncRun(**{**values, **changes})


def a_decision(**changes: Any) -> FieldDecision:
    values: dict[str, Any] = {
        "field": "Title",
        "source": "person.title",
        "rule": WriteRule.FILL,
        "outcome": FieldOutcome.WRITTEN,
        "old": None,
        "new": "VP Sales",
        "reason": "filled: was blank",
    }
    return FieldDecision(**{**values, **changes})


def person_keys(place: int = 0, **changes: Any) -> MatchKeys:
    values: dict[str, Any] = {"email": f"ada.{place}@lovelace.example", "first_name": "Ada", "last_name": "Lovelace"}
    return MatchKeys(purpose=Purpose.PERSON, **{**values, **changes})


def company_keys(domain: str = "lovelace.example") -> MatchKeys:
    return MatchKeys(purpose=Purpose.COMPANY, domain=domain)
