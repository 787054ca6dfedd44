"""A plan kept in a file, to be applied exactly as it is: signed, dated, and for one CRM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from crm_sync.domain.changes import Amendment, FieldOutcome, WriteRule
from crm_sync.domain.records import RecordRef, Value
from crm_sync.domain.runs import RecordOutcome, RunKind, SyncRun
from crm_sync.errors import ConfigError
from crm_sync.pipeline.amend import Amending
from crm_sync.pipeline.settled import Candidate
from crm_sync.pipeline.undo import UNDO_OF
from crm_sync.pipeline.walk import compiled
from crm_sync.services import Services
from crm_sync.store.runs import RunRecord

#: How long a plan may lie: what Apollo and the CRM know moves on.
EXPIRES_AFTER = timedelta(days=7)
_FORMAT = 1
_MAX_BYTES = 256 << 20
_SIGNED_AS = b"plan-file"
#: How the trigger of a run begins that applies one.
APPLY_OF = "apply of plan "


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What was planned: object -> record id -> its amendments. `place` is where the CRM opened such records."""

    plan_id: str
    sync: str
    crm: str
    object_type: str
    place: str
    config_version: int | None
    made_at: datetime
    expires_at: datetime
    records: Mapping[str, Mapping[str, tuple[Amendment, ...]]]

    @property
    def fields(self) -> int:
        return sum(len(each) for records in self.records.values() for each in records.values())


def written(run: SyncRun, records: Sequence[RunRecord], services: Services) -> bytes:
    """The file of a plan, ready to be written: its values are personal data."""
    planned = [
        {
            "object": record.object_type,
            "id": record.record_id,
            "fields": [
                {
                    "field": d.field,
                    "source": d.source,
                    "rule": d.rule.value,
                    "old": d.old,
                    "new": d.new,
                    "reason": d.reason,
                }
                for d in record.decisions
                if d.outcome is FieldOutcome.PLANNED
            ],
        }
        for record in records
        if any(d.outcome is FieldOutcome.PLANNED for d in record.decisions)
    ]
    content = {
        "crm-sync plan": _FORMAT,
        "plan": run.id,
        "sync": run.sync,
        "crm": run.crm,
        "object": run.object_type,
        "place": _place(run.crm, run.object_type, services),
        "config_version": run.config_version,
        "made_at": run.started_at.isoformat(),
        "expires_at": (run.started_at + EXPIRES_AFTER).isoformat(),
        "records": planned,
    }
    signature = services.sign(_canonical(content), _SIGNED_AS)
    return orjson.dumps({**content, "signature": signature}, option=orjson.OPT_INDENT_2) + b"\n"


def read(content: bytes, services: Services, *, name: str) -> PlanFile:
    """
    Raises:
        ConfigError: it is no plan of this installation, was changed, has expired, or is for another CRM.
    """
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{name} is larger than any plan may be ({_MAX_BYTES >> 20} MiB)")
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or "crm-sync plan" not in found:
        raise ConfigError(f"{name} is not a plan; crm-sync plan SYNC --out FILE writes one")
    if found["crm-sync plan"] != _FORMAT:
        raise ConfigError(f"{name} was written by another version of crm-sync; make the plan anew")
    signature = found.pop("signature", None)
    if not isinstance(signature, str) or not services.is_signed(_canonical(found), _SIGNED_AS, signature):
        raise ConfigError(
            f"{name} was changed after it was written, or comes from another installation: its signature does not fit. "
            "Make the plan anew; nothing was written"
        )
    plan = _read(found)
    if services.clock.now() > plan.expires_at:
        raise ConfigError(
            f"{name} expired on {plan.expires_at:%Y-%m-%d}: make the plan anew; stored answers cost nothing"
        )
    _check_crm(plan, services, name)
    return plan


def applying(plan: PlanFile, services: Services) -> Amending:
    """The run that writes exactly this plan, but for what an earlier one of it wrote: a person who set that back since
    has decided otherwise. Without candidates when all of it was written.

    Raises:
        ConfigError: the configuration has no such sync any more, or it does not fit the CRM.
    """
    sync = services.config.syncs.get(plan.sync)
    if sync is None or sync.crm != plan.crm or sync.object_type != plan.object_type:
        raise ConfigError(
            f"The configuration has no sync {plan.sync} for {plan.object_type} in {plan.crm} any more, so nobody says "
            "whom to leave alone; make the plan anew"
        )
    done = _written_before(plan, services)
    left = {
        object_type: [
            Candidate(record_id=record_id, amendments=rest)
            for record_id, amendments in records.items()
            if (rest := tuple(each for each in amendments if (object_type, record_id, each.field) not in done))
        ]
        for object_type, records in plan.records.items()
    }
    walk = compiled(sync, services)
    return Amending(
        sync=plan.sync,
        crm=plan.crm,
        object_type=plan.object_type,
        kind=RunKind.APPLY,
        trigger=_trigger(plan),
        candidates={object_type: candidates for object_type, candidates in left.items() if candidates},
        guards=walk.guards,
    )


def _written_before(plan: PlanFile, services: Services) -> set[tuple[str, str, str]]:
    """(object, record, field) of what earlier runs of this plan wrote and nobody took back."""
    done: set[tuple[str, str, str]] = set()
    for run in services.runs.triggered(_trigger(plan)):
        done |= _fields_written(run, services)
        for undo in services.runs.triggered(f"{UNDO_OF}{run.id}"):
            done -= _fields_written(undo, services)
    return done


def _fields_written(run: SyncRun, services: Services) -> set[tuple[str, str, str]]:
    """Only what was confirmed: a write of which nobody knows is looked at again."""
    return {
        (record.object_type, record.record_id, decision.field)
        for record in services.runs.records(run.id, outcome=RecordOutcome.UPDATED.value)
        for decision in record.decisions
        if decision.outcome is FieldOutcome.WRITTEN
    }


def _trigger(plan: PlanFile) -> str:
    return f"{APPLY_OF}{plan.plan_id}"


def _check_crm(plan: PlanFile, services: Services, name: str) -> None:
    if plan.crm not in services.config.crms:
        raise ConfigError(f"{name} is a plan for the CRM {plan.crm}, which the configuration does not have")
    place = _place(plan.crm, plan.object_type, services)
    if plan.place and place and place != plan.place:
        raise ConfigError(
            f"{name} is a plan for another {plan.crm} than the one the settings lead to; nothing was written"
        )


def _place(crm_name: str, object_type: str, services: Services) -> str:
    return services.crm(crm_name).record_url(RecordRef(crm=crm_name, object_type=object_type, id="0"))


def _canonical(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _read(found: Mapping[str, Any]) -> PlanFile:
    """A file with a good signature has the shape that `written` gave it."""
    records: dict[str, dict[str, tuple[Amendment, ...]]] = {}
    for record in found["records"]:
        records.setdefault(record["object"], {})[record["id"]] = tuple(
            Amendment(
                field=each["field"],
                source=each["source"],
                rule=WriteRule(each["rule"]),
                expected=_value(each["old"]),
                value=_value(each["new"]),
                reason=each["reason"],
            )
            for each in record["fields"]
        )
    # Companies first, as a run writes them.
    own = found["object"]
    return PlanFile(
        plan_id=found["plan"],
        sync=found["sync"],
        crm=found["crm"],
        object_type=own,
        place=found["place"],
        config_version=found["config_version"],
        made_at=datetime.fromisoformat(found["made_at"]),
        expires_at=datetime.fromisoformat(found["expires_at"]),
        records={name: records[name] for name in sorted(records, key=lambda name: name == own)},
    )


def _value(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value
