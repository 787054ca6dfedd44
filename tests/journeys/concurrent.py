"""A person edits while we read, decide and write: one play for every CRM, at random moments from a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crm_sync.domain.changes import WriteMode, WriteOutcome, Written
from crm_sync.domain.records import Record, Value
from crm_sync.ports import Crm, WriteRequest
from crm_sync.sandbox.run import Sandbox

#: How often a change is decided anew for a record that moved: a person edits once.
_MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """`ours`: what we fill each of these fields with where it is blank. `theirs`: what a person may type into one of
    them meanwhile, never what we do; as `edit` of the CRM's simulator takes it, and as it shows it afterwards."""

    object_type: str
    ids: Sequence[str]
    ours: Mapping[str, Value]
    theirs: Mapping[str, Sequence[Value]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One person's edit: `nth` call, `when`, into which field. `stands`: the record holds it at the end. `is_filled`:
    all other fields, and the records written together with it, hold ours. `outcomes`: of the last round."""

    nth: int
    when: str
    field: str
    is_lost: bool
    has_come: bool
    stands: bool
    is_filled: bool
    outcomes: tuple[WriteOutcome, ...]


def edits_at_random_moments(
    crm: Crm,
    sandbox: Sandbox,
    play: Play,
    *,
    seed: int,
    moments: int = 200,
    together: int = 3,
    mode: WriteMode = WriteMode.STRICT,
    lost_answers: float = 0.0,
    settle_s: float = 0.0,
) -> list[Moment]:
    """Fill `together` records of `play` at a time, while a person edits one of them just before or just after one of
    the calls that this takes; `play.ids` must reach for (moments + 1) * together.

    `crm` is the client of the sandbox's service of the same name. `lost_answers`: the share of the moments in which the
    answer to one of the calls gets lost. `settle_s`: how long the records are left alone before, for a CRM that tells
    edits apart by the second.
    """
    service, chance = crm.name, random.Random(seed)
    simulator = sandbox.apps[service].extensions["simulator"]
    groups = [play.ids[start : start + together] for start in range(0, (moments + 1) * together, together)]
    assert all(len(group) == together for group in groups)
    for each in (each for group in groups for each in group):
        simulator.edit(play.object_type, each, dict.fromkeys(play.ours, None))
    fill(crm, play, groups[0], mode=mode)  # log-in and schema are behind us then
    simulator.edit(play.object_type, groups[0][0], dict.fromkeys(play.ours, None))
    before = sum(sandbox.traffic[service].calls().values())
    fill(crm, play, groups[0], mode=mode)
    calls = sum(sandbox.traffic[service].calls().values()) - before
    time.sleep(settle_s)
    return [_moment(crm, sandbox, play, group, chance, calls, mode, lost_answers) for group in groups[1:]]


def _moment(
    crm: Crm,
    sandbox: Sandbox,
    play: Play,
    ids: Sequence[str],
    chance: random.Random,
    calls: int,
    mode: WriteMode,
    lost_answers: float,
) -> Moment:
    service = crm.name
    edits, faults = sandbox.edits[service], sandbox.faults[service]
    record_id, field = chance.choice(ids), chance.choice(list(play.theirs))
    typed = chance.choice(play.theirs[field])
    nth, when, is_lost = chance.randint(1, calls), chance.choice(("before", "after")), chance.random() < lost_answers
    edit = {"call": "*", "nth": nth, "when": when, "object": play.object_type, "id": record_id}
    edits.add([{**edit, "fields": {field: typed}}])
    if is_lost:
        faults.add([{"call": "*", "nth": chance.randint(1, calls), "when": "after", "what": "reset"}])
    outcomes = fill(crm, play, ids, mode=mode)
    [script] = edits.listed()
    edits.clear()
    faults.clear()
    held = {each: _held(sandbox, service, play.object_type, each) for each in ids}
    expected = {(each, name): _shown(ours) for each in ids for name, ours in play.ours.items()}
    del expected[record_id, field]
    return Moment(
        nth=nth,
        when=when,
        field=field,
        is_lost=is_lost,
        has_come=script["fired"] == 1 and not script["refused"],
        stands=_shown(held[record_id][field]) == _shown(typed),
        is_filled=all(_shown(held[each][name]) == ours for (each, name), ours in expected.items()),
        outcomes=tuple(outcomes),
    )


def fill(crm: Crm, play: Play, ids: Sequence[str], *, mode: WriteMode) -> list[WriteOutcome]:
    """Read, and write what is blank; what moved meanwhile is read and decided again. What is unaccounted too: its
    answer was lost for good."""
    outcomes: dict[str, WriteOutcome] = {}
    left = list(ids)
    for _ in range(_MOST_ROUNDS):
        records = crm.read(play.object_type, left, tuple(play.ours))
        asked = {
            each: WriteRequest(ref=record.ref, values=values, seen=record)
            for each, record in zip(left, records, strict=True)
            if record is not None and (values := _blanks(play, record))
        }
        if not asked:
            break
        told = crm.write(play.object_type, list(asked.values()), mode=mode)
        outcomes.update(zip(asked, told, strict=True))
        left = [each for each in asked if outcomes[each].written in (Written.MOVED, Written.UNACCOUNTED)]
        if not left:
            break
    return list(outcomes.values())


def _blanks(play: Play, record: Record) -> dict[str, Value]:
    return {name: ours for name, ours in play.ours.items() if record.values[name] in (None, "")}


def _held(sandbox: Sandbox, service: str, object_type: str, record_id: str) -> Mapping[str, Value]:
    """What the record holds, seen behind the service's back."""
    shown = sandbox.apps[service].extensions["simulator"].edit(object_type, record_id, {})
    held: Mapping[str, Value] = shown.get("properties", shown)
    return held


def _shown(value: Value) -> str:
    return "" if value is None else str(value)
