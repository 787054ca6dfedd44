"""`python -m bench.unjournaled run contacts`: crm-sync without its journal and answer store, to see what they cost.

Nothing of a paid call is kept: no plan, no guard, no sealed answer, no budget. Never do this to a paid account.
"""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

from crm_sync.store.answers import Answers
from crm_sync.store.journal import Journal, Plan, PlannedCall

_ids = itertools.count(1)


def _plan(_self: Journal, intent: Any, _room_of: Any, *, now: Any) -> Plan:  # noqa: ARG001
    return Plan(calls=tuple(PlannedCall(id=next(_ids), keys=keys, single=intent.single) for keys in intent.calls))


def main() -> None:
    from crm_sync.__main__ import main as crm_sync

    changed: dict[str, Any] = {
        "plan": _plan,
        "sent": lambda _self, _id, **_: True,
        "received": lambda _self, _id, _raw, **_: None,
        "expand": lambda _self, _expansions, **_: None,
        "unfinished": lambda _self, _run: [],
        "spent": lambda _self, _run: Decimal(0),
    }
    for name, function in changed.items():
        setattr(Journal, name, function)
    Answers.look_up = lambda _self, _purpose, keys: (list(keys), {})[1]  # type: ignore[method-assign]
    crm_sync()


if __name__ == "__main__":
    main()
