"""Deliveries that are to be carried out once more, because somebody says so."""

from __future__ import annotations

from collections.abc import Sequence

from crm_sync.pipeline.undo import taken_back
from crm_sync.services import Services


def replay(delivery_ids: Sequence[int], services: Services) -> int:
    """Let them be read once more, with those waiting again whose wait they have ended without a number written, and
    those whose number was taken back since: it is paid for, and else nobody would write it again. Returns how many."""
    reveals = services.reveals
    applied = reveals.applied_by(delivery_ids)
    undone = {run_id: taken_back(run_id, services) for run_id in {wait.settled_run for wait in applied}}
    also = [wait.id for wait in applied if (wait.object_type, wait.record_id) in undone[wait.settled_run]]
    return reveals.replay(delivery_ids, also=also)
