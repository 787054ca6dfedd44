"""Named examples: a_run(), a_decision(), person_keys(), a_vault(), an_intent()."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from crm_sync.domain.changes import FieldDecision, FieldOutcome, WriteRule
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.runs import RunKind, RunStatus, SyncRun
from crm_sync.store.engine import Store
from crm_sync.store.journal import Intent, Room, Spent
from crm_sync.store.vault import Master, Vault, open_vault

NOON = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)
#: What CRM_SYNC_SECRET_KEY holds where a test needs one.
SECRET_KEY = "a-secret-of-the-tests-that-guards-nothing"


def a_run(**changes: Any) -> SyncRun:
    values: dict[str, Any] = {
        "id": "20261008-120000-0001",
        "sync": "contacts",
        "crm": "salesforce",
        "object_type": "Contact",
        "kind": RunKind.RUN,
        "status": RunStatus.COMPLETED,
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


def a_vault(store: Store) -> Vault:
    return open_vault(store, [Master.of(SECRET_KEY)], now=NOON)


def an_intent(*calls: tuple[MatchKeys, ...], **changes: Any) -> Intent:
    """These calls, each the keys it asks for, at one credit a key; answers are fresh for 180 days."""
    values: dict[str, Any] = {
        "run_id": a_run().id,
        "sync": "contacts",
        "purpose": Purpose.PERSON,
        "single": False,
        "endpoint": "people/bulk_match",
        "most": Decimal(1),
        "day": "2026-10-08",
        "fresh_since": NOON - timedelta(days=180),
        "no_match_since": NOON - timedelta(days=180),
    }
    return Intent(calls=calls, **{**values, **changes})


def no_limit(_: Spent) -> Room:
    return Room()


def unjournaled() -> None:
    """The `leaving` of a paid call that nobody writes down."""
