"""A journal on a real database, the steps of a paid call in one word each, and its books computed a second time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select, update

from crm_sync.config.model import Budget
from crm_sync.domain.enrichment import MatchKeys, Purpose, RawAnswer, Verdict
from crm_sync.pipeline.budget import room
from crm_sync.store.answers import Answers
from crm_sync.store.engine import Store
from crm_sync.store.journal import GUARDING, Call, Expansion, Journal, NewAnswer, Plan, Room, Spent
from crm_sync.store.runs import Runs
from crm_sync.store.tables import answers, batches, runs, spending
from crm_sync.store.vault import Vault
from tests.factories import NOON, a_run, a_vault, an_intent, no_limit, person_keys

#: (day, run, purse) -> calls, reserved, settled, doubted
Sums = dict[tuple[str, str, str], tuple[int, Decimal, Decimal, Decimal]]
#: What a call in this state counts as in `spending`; in any other it counts nothing.
_COUNTS_AS = {
    "planned": "reserved",
    "sent": "reserved",
    "received": "reserved",
    "in doubt": "reserved",
    "done": "settled",
    "accepted": "doubted",
}


class Books:
    """`plan`, `sent`, `received`, `done` move calls on; the rest looks at what is in the tables."""

    def __init__(self, store: Store, *, vault: Vault | None = None) -> None:
        self.store = store
        self.vault = vault or a_vault(store)
        self.journal = Journal(store, self.vault)
        self.answers = Answers(store, self.vault)
        self.runs = Runs(store)

    @classmethod
    def opened(cls, store: Store) -> Books:
        """With the run that a_run() names."""
        books = cls(store)
        books.runs.open(a_run(), owner="here:1")
        return books

    # --- steps ----------------------------------------------------------------------------------------------------

    def plan(
        self,
        *calls: tuple[MatchKeys, ...],
        room_of: Callable[[Spent], Room] = no_limit,
        now: datetime = NOON,
        **changes: Any,
    ) -> Plan:
        return self.journal.plan(an_intent(*calls, **changes), room_of, now=now)

    def sent(self, *people: int, now: datetime = NOON, **changes: Any) -> int:
        """A call for these people that has left; its number."""
        [call] = self.plan(people_keys(*people), now=now, **changes).calls
        assert self.journal.sent(call.id, now=now)
        return call.id

    def received(self, *people: int, credits_: Decimal | None = None, now: datetime = NOON, **changes: Any) -> int:
        """A call whose bytes are there and unread."""
        batch = self.sent(*people, now=now, **changes)
        self.journal.received(batch, RawAnswer(body=b"{}", credits=credits_, request_id="7"), now=now)
        return batch

    def done(
        self,
        *people: int,
        verdict: Verdict = Verdict.MATCHED,
        credits_: Decimal | None = None,
        now: datetime = NOON,
        **changes: Any,
    ) -> int:
        """A call that is indexed and settled; every person has the same `verdict`."""
        batch = self.received(*people, credits_=credits_ if credits_ is not None else Decimal(0), now=now, **changes)
        self.expand(batch, *(a_row(person, verdict, position=at) for at, person in enumerate(people)), now=now)
        return batch

    def doubted(self, *people: int, now: datetime = NOON, **changes: Any) -> int:
        batch = self.sent(*people, now=now, **changes)
        self.journal.in_doubt(batch, b"", "no answer", now=now)
        return batch

    def expand(self, batch: int, *rows: NewAnswer, now: datetime = NOON, **changes: Any) -> None:
        self.journal.expand([Expansion(batch_id=batch, rows=rows, **changes)], now=now)

    def ask_to_cancel(self, run_id: str = "") -> None:
        with self.store.write() as connection:
            connection.execute(update(runs).where(runs.c.id == (run_id or a_run().id)).values(cancel_asked_at=NOON))

    # --- what is there --------------------------------------------------------------------------------------------

    def call(self, batch: int) -> Call:
        found = self.journal.call(batch)
        assert found is not None
        return found

    def verdict(self, person: int) -> str:
        """What the index says of somebody; "" when nothing."""
        key = person_keys(person).key
        found = self.answers.look_up(Purpose.PERSON, [key])
        return found[key].verdict if found else ""

    def spent(self, **changes: Any) -> Spent:
        """What a plan is shown as spent."""
        shown: list[Spent] = []

        def look(spent: Spent) -> Room:
            shown.append(spent)
            return Room(credits=Decimal(0))

        self.plan(people_keys(999), room_of=look, **changes)
        return shown[-1]

    def sums(self) -> Sums:
        with self.store.read() as connection:
            return {
                (row.day, row.run_id, row.purse): (row.calls, row.reserved, row.settled, row.doubted)
                for row in connection.execute(select(spending))
            }

    def recomputed(self) -> Sums:
        """The same from the journal itself, call by call."""
        sums: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(
            lambda: {"calls": 0, "reserved": Decimal(0), "settled": Decimal(0), "doubted": Decimal(0)}
        )
        with self.store.read() as connection:
            for row in connection.execute(select(batches)):
                entry = sums[row.day, row.run_id, row.purse]
                entry["calls"] += 1
                column = _COUNTS_AS.get(row.state)
                if column is not None:
                    entry[column] += row.credits if column == "settled" else row.most
        return {key: (e["calls"], e["reserved"], e["settled"], e["doubted"]) for key, e in sums.items()}

    def guards(self) -> dict[int, set[bytes]]:
        """The keys that each call keeps from being bought a second time."""
        found: dict[int, set[bytes]] = defaultdict(set)
        with self.store.read() as connection:
            rows = connection.execute(
                select(answers.c.batch_id, answers.c.key).where(answers.c.verdict.in_(GUARDING))
            ).all()
        for batch, key in rows:
            found[batch].add(bytes(key))
        return dict(found)


def people_keys(*people: int) -> tuple[MatchKeys, ...]:
    return tuple(person_keys(person) for person in people)


def a_row(person: int, verdict: Verdict = Verdict.MATCHED, **changes: Any) -> NewAnswer:
    values: dict[str, Any] = {
        "purpose": Purpose.PERSON,
        "key": person_keys(person).key,
        "source": "bulk",
        "position": 0,
    }
    return NewAnswer(verdict=verdict, **{**values, **changes})


def within(**limits: int | str) -> Callable[[Spent], Room]:
    """A room_of that keeps these limits of a budget."""
    budget = Budget(**{name: Decimal(limit) for name, limit in limits.items()})  # type: ignore[arg-type]
    return lambda spent: room(budget, spent)
