"""What tells on the CRM record itself that Apollo was asked about it: when, and with what result. Pure.

A stamp says nothing but what the answer says: the moment it came, and what became of the record with it. So it is
written where the record shows none or that of an earlier answer, and a second run, which has the same answers, has
nothing to stamp. It is the second ledger: what it says survives the loss of our database (pipeline/restore.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from crm_sync.config.model import Stamps
from crm_sync.domain.records import FieldKind, FieldSchema, ObjectSchema, Value
from crm_sync.domain.runs import RecordOutcome
from crm_sync.mapping.picklists import Choices

#: What can become of a record that Apollo was asked about; a picklist for `stamps.status` needs them all.
WORDS = tuple(
    outcome.value
    for outcome in (
        RecordOutcome.UPDATED,
        RecordOutcome.UNCHANGED,
        RecordOutcome.NO_MATCH,
        RecordOutcome.NEEDS_REVIEW,
        RecordOutcome.INVALID,
        RecordOutcome.REJECTED,
        RecordOutcome.IN_DOUBT,
    )
)
_LONGEST = max(WORDS, key=len)
_TIMES = (FieldKind.DATETIME, FieldKind.DATE)
_A_DAY = timedelta(days=1)
#: Alone, a stamp is not renewed for an answer this little newer: one run may buy the same person by two names, before
#: it learns that they are one, and whichever is looked up next must not cause a write.
_WORTH_A_WRITE = _A_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A stamp as a record shows it. A date field leaves a whole day open, from `first` to `last`; `word` is one of
    WORDS, "" when it is none of ours."""

    first: datetime
    last: datetime
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamping:
    """The stamp fields of one object, "" for none. `words`: ours -> what the CRM takes. `problem` says why one that is
    configured is not written."""

    enriched_at: str = ""
    status: str = ""
    is_date: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(name for name in (self.enriched_at, self.status) if name)

    def wanted(
        self, values: Mapping[str, Value], answered_at: datetime, word: str, *, with_data: bool
    ) -> dict[str, Value]:
        """The fields to write beside the data, or alone where there is none; {} when the record shows this answer.

        The word alone never causes a write: a record that is looked at again without news keeps the word of the time
        it was stamped.
        """
        wanted: dict[str, Value] = {}
        if self.enriched_at:
            text = self._written(answered_at)
            shown, new = moment_of(values.get(self.enriched_at)), moment_of(text)
            is_news = shown is None or (
                new is not None and shown < new - (timedelta(0) if with_data else _WORTH_A_WRITE)
            )
            if is_news:
                wanted[self.enriched_at] = text
        else:
            is_news = not self._word(values.get(self.status))
        if self.status and (is_news or with_data) and self._word(values.get(self.status)) != word:
            wanted[self.status] = self.words[word]
        return wanted

    def read(self, values: Mapping[str, Value]) -> Stamp | None:
        """What the record shows, None where it tells no time."""
        shown = moment_of(values.get(self.enriched_at)) if self.enriched_at else None
        if shown is None:
            return None
        last = shown + _A_DAY - timedelta(seconds=1) if self.is_date else shown
        return Stamp(first=shown, last=last, word=self._word(values.get(self.status)) if self.status else "")

    def _written(self, moment: datetime) -> str:
        """Both CRMs take ISO 8601 with Z, and YYYY-MM-DD for a date (contracts/hubspot.md 3, salesforce.md 2.1,
        2026-11). A date is the day in UTC: the CRMs keep it without a zone, and we compare by it."""
        return moment.astimezone(UTC).strftime("%Y-%m-%d" if self.is_date else "%Y-%m-%dT%H:%M:%SZ")

    def _word(self, value: Value) -> str:
        shown = str(value or "").strip().casefold()
        return next((word for word, taken in self.words.items() if shown in (word.casefold(), taken.casefold())), "")


def compile_stamps(stamps: Stamps, schema: ObjectSchema) -> Stamping:
    """The stamps as this object can take them today. A field that vanished, or was closed to us, is left out and
    told: a stamp never costs a data field."""
    problems: list[str] = []

    def usable(key: str, name: str) -> str:
        if not name:
            return ""
        found = schema.fields.get(name)
        problem = (
            misfit(key, found)
            if found is not None
            else f"{schema.object_type} has no field {name}, or this user may not see it"
        )
        if problem:
            problems.append(problem)
        return "" if problem else name

    enriched_at = usable("enriched_at", stamps.enriched_at)
    status = usable("status", stamps.status)
    return Stamping(
        enriched_at=enriched_at,
        status=status,
        is_date=bool(enriched_at) and schema.fields[enriched_at].kind is FieldKind.DATE,
        words=_words(schema.fields[status]) if status else {},
        problem="; ".join(problems),
    )


def misfit(key: str, found: FieldSchema) -> str:
    """Why this field cannot hold `stamps.<key>`, "" when it can."""
    if not found.writable:
        return f"{found.name} cannot be written: {found.why_not.strip() or 'the CRM does not let this user write it'}"
    if key == "enriched_at":
        if found.kind not in _TIMES:
            return f"{found.name} is of the type {found.kind.value}; `enriched_at` needs a date and time, or a date"
        if not found.filterable:
            return f"{found.name} cannot be searched by, and after a restore the stamps have to be found"
        return ""
    if found.kind is FieldKind.PICKLIST:
        live = Choices(found.choices)
        missing = [word for word in WORDS if live.find(word) is None]
        return f"{found.name} lacks the picklist values {', '.join(missing)}" if missing else ""
    if found.kind not in (FieldKind.TEXT, FieldKind.LONG_TEXT):
        return f"{found.name} is of the type {found.kind.value}; `status` needs a text, or a picklist with our words"
    if found.length is not None and found.length < len(_LONGEST):
        return f'{found.name} holds {found.length} characters, and "{_LONGEST}" has {len(_LONGEST)}'
    return ""


def _words(found: FieldSchema) -> dict[str, str]:
    if found.kind is not FieldKind.PICKLIST:
        return {word: word for word in WORDS}
    live = Choices(found.choices)
    return {word: live.find(word) or word for word in WORDS}


def moment_of(value: Value) -> datetime | None:
    """A CRM's date or time as an instant, to the second; a date is its midnight in UTC. None for what is none.

    HubSpot answers ISO text or milliseconds as it likes (contracts/hubspot.md 3, 2026-11).
    """
    text = str(value if value is not None else "").strip()
    try:
        if text.lstrip("-").isdecimal():
            return datetime.fromtimestamp(int(text) // 1000, UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    moment = moment.replace(microsecond=0)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
