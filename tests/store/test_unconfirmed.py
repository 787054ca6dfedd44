"""What is known as ours of writes and undos of which nobody knows whether they arrived."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crm_sync.domain.changes import FieldOutcome
from crm_sync.domain.records import FieldKind, Value
from crm_sync.domain.runs import RunKind
from crm_sync.store.engine import Store
from crm_sync.store.provenance import Provenance
from crm_sync.store.runs import WRITING, RunRecord, Runs
from tests.factories import NOON, a_decision, a_run, a_vault

#: (run, kind, "" or the run that is undone, old, new, whether it was confirmed)
Write = tuple[str, RunKind, str, Value, Value, bool]


def known(store: Store, *writes: Write) -> dict[Value, str]:
    """After these writes into one field, oldest first: which value would be ours, and which bare of us."""
    runs, provenance = Runs(store), Provenance(store, a_vault(store))
    for number, (run_id, kind, source, old, new, is_confirmed) in enumerate(writes):
        at = NOON + timedelta(minutes=number)
        runs.open(a_run(id=run_id, kind=kind, started_at=at), owner="here:1")
        decision = a_decision(field="Title", source=source, outcome=FieldOutcome.WRITTEN, old=old, new=new)
        row = RunRecord(object_type="Contact", record_id="1", outcome=WRITING, reason="", decisions=(decision,))
        runs.intend(run_id, [row], now=at)
        if is_confirmed:
            done = RunRecord(object_type="Contact", record_id="1", outcome="Updated", reason="", decisions=(decision,))
            runs.settle(run_id, sync="", confirmed=[done], amended=(), others=(), states=(), now=at)
        else:
            runs.close_intended(run_id, "not confirmed", now=at)
    last = provenance.last_writes("salesforce", "Contact", ["1"]).get("1", {}).get("Title")
    told: dict[Value, str] = {}
    for value in (None, "Old", "New", "Newer", "Typed"):
        if last is not None and last.holds(value, FieldKind.TEXT):
            told[value] = "ours"
        elif last is not None and last.is_bare(value, FieldKind.TEXT):
            told[value] = "bare"
    return told


RUN, UNDO = RunKind.RUN, RunKind.UNDO


@pytest.mark.parametrize(
    ("writes", "wanted"),
    [
        ([("a", RUN, "", None, "New", True)], {"New": "ours"}),
        # It never came, or it did: an empty field was not emptied by anybody.
        ([("a", RUN, "", None, "New", False)], {"New": "ours", None: "bare"}),
        ([("a", RUN, "", "Old", "New", True), ("b", RUN, "", "New", "Newer", False)], {"New": "ours", "Newer": "ours"}),
        (
            [("a", RUN, "", None, "New", False), ("b", RUN, "", None, "Newer", False)],
            {"New": "ours", "Newer": "ours", None: "bare"},
        ),
        ([("a", RUN, "", "Old", "New", True), ("u", UNDO, "a", "New", "Old", True)], {}),
        ([("a", RUN, "", "Old", "New", True), ("u", UNDO, "a", "New", "Old", False)], {"New": "ours", "Old": "bare"}),
        (
            [
                ("a", RUN, "", "Old", "New", True),
                ("u", UNDO, "a", "New", "Old", True),
                ("v", UNDO, "u", "Old", "New", True),
            ],
            {"New": "ours"},
        ),
        (
            [
                ("a", RUN, "", "Old", "New", True),
                ("u", UNDO, "a", "New", "Old", True),
                ("v", UNDO, "u", "Old", "New", False),
            ],
            {"New": "ours", "Old": "bare"},
        ),
    ],
)
def test_what_nobody_knows_of_locks_nothing(store: Store, writes: list[Write], wanted: dict[Value, str]) -> None:
    assert known(store, *writes) == wanted
