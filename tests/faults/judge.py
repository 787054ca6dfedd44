"""What must hold after a kill and its restarts: our books against the sandbox's own ledger, sentence by sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import select

from adapters.apollo import wire
from crm_sync.domain.enrichment import MatchKeys, Purpose
from crm_sync.domain.runs import Counts, RecordOutcome, RunStatus, SyncRun
from crm_sync.store.engine import Store
from crm_sync.store.journal import ASKED, IN_DOUBT, body_name, keys_of, request_name
from crm_sync.store.runs import WRITING, Runs
from crm_sync.store.tables import answers, batches, run_records, spending
from crm_sync.store.vault import open_vault, ring_of
from tests.faults.scenes import Allowed
from tests.faults.witness import Answer, Report

_UNFINISHED = ("planned", "sent", "received")
_ZERO = Decimal(0)


@dataclass(frozen=True, kw_only=True)
class PaidCall:
    """One row of `batches`, opened. `question` is what it sends: (endpoint, query, body)."""

    id: int
    run_id: str
    day: str
    purse: str
    purpose: Purpose
    keys: tuple[MatchKeys, ...]
    question: tuple[str, str, bytes]
    state: str
    most: Decimal
    credits: Decimal | None
    body: bytes | None


@dataclass(frozen=True, kw_only=True)
class Books:
    """The whole of our database that is about money and records, opened with its key."""

    calls: tuple[PaidCall, ...]
    spending: Mapping[tuple[str, str, str], tuple[int, Decimal, Decimal, Decimal]]
    index: Mapping[tuple[str, bytes], tuple[str, int]]
    digests: Mapping[str, bytes]
    runs: tuple[SyncRun, ...]
    audit: Mapping[str, Counter[tuple[str, str]]]

    @classmethod
    def read(cls, url: str, secret: str) -> Books:
        store = Store(url)
        try:
            vault = open_vault(store, ring_of(secret, store), now=datetime.now(UTC))
            with store.read() as connection:
                rows = connection.execute(select(batches).order_by(batches.c.id)).all()
                calls = []
                for row in rows:
                    keys = keys_of(vault.unseal(row.request, request_name(row.fingerprint)))
                    purpose = Purpose(row.purpose)
                    asked = wire.single_question(purpose, keys[0]) if row.single else wire.bulk_question(purpose, keys)
                    calls.append(
                        PaidCall(
                            id=row.id,
                            run_id=row.run_id,
                            day=row.day,
                            purse=row.purse,
                            purpose=purpose,
                            keys=keys,
                            question=(asked.endpoint, asked.target.partition("?")[2], asked.body or b""),
                            state=row.state,
                            most=row.most,
                            credits=row.credits,
                            body=None if row.body is None else vault.unseal(row.body, body_name(row.id)),
                        )
                    )
                spent = {
                    (row.day, row.run_id, row.purse): (row.calls, row.reserved, row.settled, row.doubted)
                    for row in connection.execute(select(spending))
                }
                index = {
                    (row.purpose, bytes(row.key)): (row.verdict, row.batch_id)
                    for row in connection.execute(select(answers))
                }
                audit: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
                for row in connection.execute(
                    select(run_records.c.run_id, run_records.c.object_type, run_records.c.outcome)
                ):
                    audit[row.run_id][row.object_type, row.outcome] += 1
            digests = {key.key: vault.digest(key.key) for call in calls for key in call.keys}
            runs = Runs(store).latest(limit=100)
        finally:
            store.close()
        return cls(
            calls=tuple(calls), spending=spent, index=index, digests=digests, runs=tuple(runs), audit=audit
        )  # fmt: skip

    @property
    def doubts(self) -> list[PaidCall]:
        return [call for call in self.calls if call.state == IN_DOUBT]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """How the world stands after the same commands without a kill, and by what each record was asked for. `mixed`:
    companies are written by two syncs."""

    begun: Report
    ended: Report
    keys: Mapping[str, str]
    mixed: bool = False


@dataclass(kw_only=True)
class Judgement:
    """`in_doubt`: calls in doubt at the end."""

    violations: list[str] = field(default_factory=list)
    in_doubt: int = 0
    charged_twice: int = 0
    answers_lost: int = 0


def lost_answers(books: Books, report: Report) -> list[Answer]:
    """What Apollo answered with 200, by its own word, and we do not hold."""
    held = Counter((call.question, call.body) for call in books.calls if call.state in ("done", "received"))
    lost = []
    for answer in report.answers:
        if answer.status != 200:
            continue
        key = (answer.question, answer.body)
        if held[key]:
            held[key] -= 1
        else:
            lost.append(answer)
    return lost


def judge(
    books: Books,
    report: Report,
    clean: Clean,
    allowed: Allowed,
    *,
    strict: bool,
    budget: Mapping[str, Any] | None = None,
) -> Judgement:
    """`strict`: nothing was weighed on Apollo's meter yet, so that every lost answer must be in doubt, also one that
    charged nobody."""
    judgement = Judgement(in_doubt=len(books.doubts))
    told = judgement.violations
    for line in _charged_twice(report, clean):
        judgement.charged_twice += 1
        told.append(line)
    lost = lost_answers(books, report)
    for answer in _neither_stored_nor_in_doubt(books, lost):
        if strict or answer.charged:
            judgement.answers_lost += 1
            told.append(
                f"an answer to {answer.endpoint}, {len(answer.charged)} charged, is neither stored nor in doubt"
            )
    for count, most, what in (
        (len(lost), allowed.lost, "answers of Apollo's were lost"),
        (len(_unexplained(books, report)), allowed.unsent, "calls are in doubt that Apollo never answered"),
        (len(books.doubts), allowed.calls, "calls are in doubt"),
    ):
        if count > most:
            told.append(f"{count} {what}; {most} may be")
    told += _asked_again(books, report)
    told += _costs(books, report)
    told += _spending(books)
    told += _within(books, budget or {})
    told += stuck(books)
    told += _indexed(books)
    told += balanced(books)
    told += _crm(books, report, clean)
    told += [f"{name} of {table} {index} got two different values" for table, index, name in report.overwritten]
    return judgement


def _charged_twice(report: Report, clean: Clean) -> Iterator[str]:
    for apollo_id, count in sorted(report.charged.items()):
        if count > max(1, clean.ended.charged.get(apollo_id, 0)):
            yield f"{apollo_id} was charged {count} times"
    paid = Counter(question for answer in report.answers if answer.charged for question in _questions(answer))
    for question, count in sorted(paid.items()):
        if count > 1:
            yield f"the same question was answered for money {count} times: {question}"


def _questions(answer: Answer) -> list[str]:
    """One text for each person or company a request asks for."""
    if not answer.request:
        return [f"{answer.endpoint}?{answer.query}"]
    return [
        f"{answer.endpoint} {orjson.dumps(detail, option=orjson.OPT_SORT_KEYS).decode()}"
        for detail in orjson.loads(answer.request)["details"]
    ]


def _neither_stored_nor_in_doubt(books: Books, lost: Sequence[Answer]) -> list[Answer]:
    """Lost answers whose call is not known to be in doubt, nor was given up on."""
    doubtful = Counter(call.question for call in books.calls if call.state in (IN_DOUBT, "accepted", "charged"))
    return [answer for answer in lost if not _taken(doubtful, answer.question)]


def _unexplained(books: Books, report: Report) -> list[PaidCall]:
    """Calls in doubt that no lost answer belongs to."""
    lost = Counter(answer.question for answer in lost_answers(books, report))
    return [call for call in books.doubts if not _taken(lost, call.question)]


def _taken(counter: Counter[tuple[str, str, bytes]], question: tuple[str, str, bytes]) -> bool:
    if not counter[question]:
        return False
    counter[question] -= 1
    return True


def _asked_again(books: Books, report: Report) -> Iterator[str]:
    times = Counter(question for answer in report.answers for question in _questions(answer))
    for call in books.doubts:
        endpoint, query, body = call.question
        asked = Answer(endpoint=endpoint, query=query, request=body, status=0, body=b"", charged=())
        for question in _questions(asked):
            if times[question] > 1:
                yield f"somebody in doubt (call {call.id}) was asked for again: {question}"


def _costs(books: Books, report: Report) -> Iterator[str]:
    """Each settled call cost what Apollo charged for it."""
    charged = {(answer.question, answer.body): len(answer.charged) for answer in report.answers if answer.status == 200}
    for call in books.calls:
        if call.state == "done":
            wanted = charged.get((call.question, call.body or b""))
            if wanted is None:
                yield f"call {call.id} holds an answer that Apollo never gave"
            elif call.credits != wanted:
                yield f"call {call.id} was settled at {call.credits} credits, and Apollo charged {wanted}"


def _spending(books: Books) -> Iterator[str]:
    """`spending` is what the journal says, recomputed from its rows."""
    wanted: dict[tuple[str, str, str], list[Any]] = defaultdict(lambda: [0, _ZERO, _ZERO, _ZERO])
    for call in books.calls:
        row = wanted[call.day, call.run_id, call.purse]
        row[0] += 1
        if call.state in (*_UNFINISHED, IN_DOUBT):
            row[1] += call.most
        elif call.state in ("done", "charged"):
            row[2] += call.credits or _ZERO
        elif call.state == "accepted":
            row[3] += call.most
    for key in sorted(wanted.keys() | books.spending.keys()):
        want, have = tuple(wanted.get(key, (0, _ZERO, _ZERO, _ZERO))), books.spending.get(key)
        if have != want:
            yield f"spending of {key} says {_shown(have)}, the journal {_shown(want)} (calls, reserved, settled, doubted)"


def _within(books: Books, budget: Mapping[str, Any]) -> Iterator[str]:
    """No limit is exceeded, with what is open or in doubt at its worst."""
    for name, of in (("per_run", "run_id"), ("per_day", "day")):
        spent: Counter[str] = Counter()
        for call in books.calls:
            if call.state == "done":
                spent[getattr(call, of)] += call.credits or _ZERO
            elif call.state in (*_UNFINISHED, IN_DOUBT, "accepted"):
                spent[getattr(call, of)] += call.most
        for key, amount in spent.items():
            if name in budget and amount > budget[name]:
                yield f"{amount:f} credits were spent in {key}; budget.{name} is {budget[name]}"


def _shown(row: tuple[Any, ...] | None) -> str:
    return (
        "nothing"
        if row is None
        else ", ".join(f"{value:f}" if isinstance(value, Decimal) else str(value) for value in row)
    )


def stuck(books: Books) -> Iterator[str]:
    for call in books.calls:
        if call.state in _UNFINISHED:
            yield f"call {call.id} is {call.state} for ever"
    for run in books.runs:
        if run.status in (RunStatus.RUNNING, RunStatus.QUEUED):
            yield f"run {run.id} is {run.status.value} for ever"
        stuck = sum(count for (_, outcome), count in books.audit.get(run.id, Counter()).items() if outcome == WRITING)
        if stuck:
            yield f"{stuck} records of run {run.id} are {WRITING} for ever"
    doubtful = {call.id for call in books.doubts}
    for verdict, batch_id in books.index.values():
        if verdict == ASKED or (verdict == IN_DOUBT and batch_id not in doubtful):
            yield f"a key of call {batch_id} is guarded ({verdict}) for ever"


def _indexed(books: Books) -> Iterator[str]:
    """Every stored answer can be found by whom it was asked for."""
    for call in books.calls:
        if call.state == "done":
            for key in call.keys:
                if (call.purpose.value, books.digests[key.key]) not in books.index:
                    yield f"call {call.id} is done and somebody it asked for cannot be found in `answers`"


def balanced(books: Books) -> Iterator[str]:
    for run in books.runs:
        audit = books.audit.get(run.id, Counter())
        for counts, own in ((run.counts, True), (run.parents, False)):
            if not counts.balanced:
                yield f"run {run.id}: the books do not balance: {counts}"
            audited: Counter[str] = Counter()
            for (object_type, outcome), count in audit.items():
                if (object_type == run.object_type) is own:
                    audited[outcome] += count
            if audited != _told(counts):
                kind = "records" if own else "companies of the account: section"
                yield f"run {run.id} ({run.status.value}): books and audit of its {kind} differ: {dict(_told(counts))} and {dict(audited)}"


def _told(counts: Counts) -> Counter[str]:
    return Counter(
        {outcome.value: count for outcome in RecordOutcome if (count := getattr(counts, outcome.name.lower()))}
    )


def _crm(books: Books, report: Report, clean: Clean) -> Iterator[str]:
    """Field by field as without the kill. Those in doubt are as they were before, and what only they would have brought
    to their companies may be missing there."""
    doubtful = {key.key for call in books.calls if call.state in (IN_DOUBT, "accepted", "charged") for key in call.keys}
    held = {record_id for record_id, key in clean.keys.items() if key in doubtful}
    for kind in sorted(clean.ended.touched.keys() | report.touched.keys()):
        wanted, found = clean.ended.touched.get(kind, {}), report.touched.get(kind, {})
        for record_id in sorted(wanted.keys() | found.keys()):
            want, have = wanted.get(record_id, {}), found.get(record_id, {})
            is_company = kind in ("Account", "companies")
            if record_id in held and not (is_company and clean.mixed):
                if have != clean.begun.touched.get(kind, {}).get(record_id, {}):
                    yield f"{kind} {record_id} is in doubt and was written: {have}"
            elif is_company and clean.mixed:
                # Who comes first fills it; what was brought by both is the same.
                if any(have[name] != want[name] for name in have.keys() & want.keys()) or not (
                    held or have.keys() >= want.keys()
                ):
                    yield f"{kind} {record_id} holds {have}, and {want} without a kill"
            elif is_company and held:
                if not have.items() <= want.items():
                    yield f"{kind} {record_id} holds {have}, and {want} without a kill"
            elif have != want:
                yield f"{kind} {record_id} holds {have}, and {want} without a kill"
