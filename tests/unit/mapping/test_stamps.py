"""A stamp tells of one answer, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.model import Stamps
from crm_sync.domain.records import Choice, FieldKind, FieldSchema, ObjectSchema, Value
from crm_sync.mapping.stamps import WORDS, Stamping, compile_stamps, misfit, moment_of

NOON = datetime(2026, 11, 27, 12, 0, 0, 431_000, tzinfo=UTC)
BOTH = Stamps(enriched_at="At", status="Status")


def a_field(name: str, kind: FieldKind, **more: object) -> FieldSchema:
    values: dict[str, object] = {"label": name, "native_type": "any", "writable": True, **more}
    return FieldSchema(name=name, kind=kind, **values)  # type: ignore[arg-type]


def stamping(stamps: Stamps = BOTH, *, at: FieldKind = FieldKind.DATETIME, **status: object) -> Stamping:
    fields = (a_field("At", at), a_field("Status", **{"kind": FieldKind.TEXT, **status}))  # type: ignore[arg-type]
    return compile_stamps(
        stamps, ObjectSchema(crm="c", object_type="Contact", label="Contact", fields={f.name: f for f in fields})
    )


def a_picklist(*words: str) -> tuple[Choice, ...]:
    return tuple(Choice(value=word.lower().replace(" ", "_"), label=word) for word in words)


def test_a_record_without_a_stamp_gets_the_moment_of_the_answer_and_the_word() -> None:
    wanted = stamping().wanted({"At": None, "Status": ""}, NOON, "No match", with_data=False)

    assert wanted == {"At": "2026-11-27T12:00:00Z", "Status": "No match"}


@pytest.mark.parametrize("shown", ["2026-11-27T12:00:00.000+0000", "2026-11-27T12:00:00.000Z", "1795780800000"])
def test_a_record_that_shows_this_answer_gets_nothing(shown: str) -> None:
    assert moment_of("1795780800000") == NOON.replace(microsecond=0)

    assert stamping().wanted({"At": shown, "Status": "Updated"}, NOON, "Unchanged", with_data=False) == {}


def test_the_word_changes_with_the_data_and_never_alone() -> None:
    values: dict[str, Value] = {"At": "2026-11-27T12:00:00Z", "Status": "Unchanged"}

    assert stamping().wanted(values, NOON, "Updated", with_data=True) == {"Status": "Updated"}
    assert stamping().wanted(values, NOON, "Updated", with_data=False) == {}


def test_a_newer_answer_is_stamped_and_an_older_one_is_not() -> None:
    values: dict[str, Value] = {"At": "2026-11-27T12:00:00Z", "Status": "Updated"}

    later = stamping().wanted(values, NOON + timedelta(days=90), "Unchanged", with_data=False)
    earlier = stamping().wanted(values, NOON - timedelta(days=90), "Unchanged", with_data=False)

    assert later == {"At": "2027-02-25T12:00:00Z", "Status": "Unchanged"}
    assert earlier == {}


def test_an_answer_of_the_same_day_is_news_only_beside_data() -> None:
    values: dict[str, Value] = {"At": "2026-11-27T12:00:00Z", "Status": "Updated"}
    soon_after = NOON + timedelta(minutes=1)

    assert stamping().wanted(values, soon_after, "Unchanged", with_data=False) == {}
    assert stamping().wanted(values, soon_after, "Updated", with_data=True) == {"At": "2026-11-27T12:01:00Z"}


def test_a_date_field_gets_the_day_in_utc_and_leaves_the_hours_open() -> None:
    days = stamping(at=FieldKind.DATE)
    evening_in_new_york = datetime(2026, 11, 26, 22, 0, tzinfo=timezone(-timedelta(hours=5)))

    stamp = days.read({"At": "2026-11-27", "Status": "Updated"})

    assert days.wanted({}, evening_in_new_york, "Updated", with_data=False)["At"] == "2026-11-27"
    assert days.wanted({"At": "2026-11-27", "Status": "x"}, NOON, "Updated", with_data=False) == {}
    assert stamp is not None
    assert stamp.first == datetime(2026, 11, 27, tzinfo=UTC)
    assert stamp.last == datetime(2026, 11, 27, 23, 59, 59, tzinfo=UTC)


def test_a_picklists_own_values_are_written_and_read() -> None:
    chosen = stamping(kind=FieldKind.PICKLIST, choices=a_picklist(*WORDS))

    stamp = chosen.read({"At": "2026-11-27T12:00:00Z", "Status": "no_match"})

    assert chosen.wanted({}, NOON, "No match", with_data=False)["Status"] == "no_match"
    assert chosen.wanted({"At": None, "Status": "no_match"}, NOON, "No match", with_data=False).keys() == {"At"}
    assert stamp is not None
    assert stamp.word == "No match"


def test_a_word_of_somebody_elses_reads_as_none() -> None:
    stamp = stamping().read({"At": "2026-11-27T12:00:00Z", "Status": "by hand"})

    assert stamp is not None
    assert stamp.word == ""
    assert stamping().read({"At": "soon", "Status": "Updated"}) is None


def test_a_status_alone_is_written_where_none_of_our_words_stands() -> None:
    alone = stamping(Stamps(status="Status"))

    assert alone.wanted({"Status": None}, NOON, "No match", with_data=False) == {"Status": "No match"}
    assert alone.wanted({"Status": "Updated"}, NOON, "Unchanged", with_data=False) == {}
    assert alone.wanted({"Status": "Unchanged"}, NOON, "Updated", with_data=True) == {"Status": "Updated"}
    assert alone.read({"Status": "Updated"}) is None


@pytest.mark.parametrize(
    ("key", "field", "said"),
    [
        ("enriched_at", a_field("At", FieldKind.TEXT), "of the type text; `enriched_at` needs a date and time"),
        (
            "enriched_at",
            a_field("At", FieldKind.DATETIME, writable=False, why_not="it is a formula"),
            "it is a formula",
        ),
        ("enriched_at", a_field("At", FieldKind.DATETIME, filterable=False), "cannot be searched by"),
        ("status", a_field("Status", FieldKind.DATETIME), "`status` needs a text, or a picklist"),
        ("status", a_field("Status", FieldKind.TEXT, length=8), 'holds 8 characters, and "Needs review" has 12'),
        (
            "status",
            a_field("Status", FieldKind.PICKLIST, choices=a_picklist(*WORDS[:5])),
            "lacks the picklist values Rejected, In doubt",
        ),
    ],
)
def test_a_field_that_cannot_hold_a_stamp_says_why(key: str, field: FieldSchema, said: str) -> None:
    assert said in misfit(key, field)


def test_a_field_that_is_gone_or_closed_is_left_out_and_told() -> None:
    gone = stamping(Stamps(enriched_at="Elsewhere", status="Status"))
    closed = stamping(writable=False)

    assert gone.fields == ("Status",)
    assert gone.problem == "Contact has no field Elsewhere, or this user may not see it"
    assert closed.fields == ("At",)
    assert closed.problem.startswith("Status cannot be written")


moments = st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))


@given(answered_at=moments, word=st.sampled_from(WORDS), kind=st.sampled_from([FieldKind.DATE, FieldKind.DATETIME]))
def test_what_was_stamped_is_never_stamped_again(answered_at: datetime, word: str, kind: FieldKind) -> None:
    made = stamping(at=kind)

    first = made.wanted({"At": None, "Status": None}, answered_at, word, with_data=False)

    assert set(first) == {"At", "Status"}
    assert made.wanted(first, answered_at, word, with_data=True) == {}


@given(st.one_of(st.none(), st.text(max_size=30), st.integers(), st.booleans()))
def test_whatever_stands_in_the_field_is_read_as_a_time_or_not_at_all(value: Value) -> None:
    moment = moment_of(value)

    assert moment is None or moment.tzinfo is UTC
