"""By the history of a property: whose edit our write went over, and whose it never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.hubspot.history import Judgement, Version, alike, judge, moment_of, versions_of
from crm_sync.domain.records import FieldKind, Value

NOON = datetime(2026, 10, 8, 12, 0, tzinfo=UTC)
US = ("INTEGRATION", "4711")
OTHER_APP = ("INTEGRATION", "815")
PERSON = ("CRM_UI", "userId:9586504")
WORKFLOW = ("AUTOMATION_PLATFORM", "enrollmentId:3")


def v(text: str, source: tuple[str, str] = US, *, s: float = 0.0) -> Version:
    """A version `s` seconds after the record was read."""
    return Version(text=text, at=NOON + timedelta(seconds=s), source=source)


def judged(
    *versions: Version, sent: str = "CTO", seen: Value = None, kind: FieldKind = FieldKind.TEXT, since: bool = True
) -> Judgement:
    return judge(versions, sent=sent, seen=seen, kind=kind, since=NOON if since else None)


@pytest.mark.parametrize("source", [PERSON, WORKFLOW, OTHER_APP])
def test_what_somebody_wrote_between_our_read_and_our_write_is_an_edit(source: tuple[str, str]) -> None:
    edit = v("Buyer", source, s=1)

    assert judged(v("CTO", s=2), edit, v("n/a", PERSON, s=-900), seen="n/a").edit == edit
    assert judged(v("CTO", s=2), edit).edit == edit


def test_of_several_edits_it_is_the_last() -> None:
    last = v("", PERSON, s=1.5)

    assert judged(v("CTO", s=2), last, v("Buyer", PERSON, s=1), v("n/a", PERSON, s=-9), seen="n/a").edit == last


@pytest.mark.parametrize(
    "versions",
    [
        [v("CTO", s=2)],  # the property was blank
        [v("CTO", s=2), v("n/a", PERSON, s=-9)],  # it was what it was seen as
        [v("CTO", s=3), v("CTO", s=2), v("n/a", PERSON, s=-9)],  # the answer was lost, and it was sent again
        [v("CTO", s=2), v("Chief", s=1), v("n/a", PERSON, s=-9)],  # another write of ours came between
        [v("CTO", s=2), v("CTO", PERSON, s=1), v("n/a", PERSON, s=-9)],  # a person wrote the same as we
        [v("CTO", s=2), v("CTO", PERSON, s=1), v("Buyer", PERSON, s=0.5)],  # the same person, at the second try
        [v("CTO", PERSON, s=1), v("n/a", PERSON, s=-9)],  # and HubSpot kept no version of ours
        [v("CTO", PERSON, s=1), v("Buyer", WORKFLOW, s=0.5), v("n/a", PERSON, s=-9)],
        [v("Boss", PERSON, s=3), v("CTO", s=2), v("Buyer", PERSON, s=1)],  # a later edit stands there anyway
    ],
)
def test_no_edit_that_has_to_come_back(versions: list[Version]) -> None:
    seen = "n/a" if versions[-1].text == "n/a" else None

    assert judged(*versions, seen=seen).edit is None
    assert judged(*versions, seen=seen).is_known


def test_an_edit_between_an_update_and_its_second_sending_is_an_edit() -> None:
    edit = v("Buyer", PERSON, s=2)

    assert judged(v("CTO", s=3), edit, v("CTO", s=1), v("n/a", PERSON, s=-9), seen="n/a").edit == edit


def test_what_an_earlier_run_of_ours_wrote_is_no_edit_and_hides_none_that_came_after_it() -> None:
    edit = v("Buyer", PERSON, s=1)
    earlier = [v("Chief", s=-9), v("Buyer", PERSON, s=-99)]

    assert judged(v("CTO", s=2), *earlier, seen="Chief").edit is None
    assert judged(v("CTO", s=2), edit, *earlier, seen="Chief").edit == edit


def test_a_value_that_was_there_long_before_the_read_is_no_edit_even_where_it_reads_otherwise() -> None:
    """HubSpot may tell a value in the history in another form than among the properties."""
    assert judged(v("CTO", s=2), v("(written otherwise)", PERSON, s=-900), seen="n/a").edit is None


def test_of_a_merged_record_the_survivors_value_counts_however_old_it_is() -> None:
    survivors = v("Buyer", ("MERGE_CONTACTS", "merge"), s=-900)

    assert judged(v("CTO", s=2), survivors, seen="n/a", since=False).edit == survivors


def test_where_nothing_was_to_change_only_what_is_younger_than_the_read_counts() -> None:
    """HubSpot may keep no version of such a write; what stood before is older then, and must not come back."""
    edit = v("Buyer", PERSON, s=1)

    assert judged(v("CTO", PERSON, s=-1), v("Buyer", PERSON, s=-2), seen="CTO").edit is None
    assert judged(v("CTO", s=-1), v("Buyer", PERSON, s=-2), seen="CTO").edit is None
    assert judged(v("CTO", s=2), v("Buyer", PERSON, s=-2), seen="CTO").edit is None
    assert judged(v("CTO", s=2), edit, v("CTO", s=-2), seen="CTO").edit == edit
    assert judged(v("CTO", s=2), edit, seen="CTO", since=False).edit is None


def test_a_history_that_does_not_show_our_write_or_does_not_reach_proves_nothing() -> None:
    assert not judged(v("Boss", WORKFLOW, s=3), v("n/a", PERSON, s=-9), seen="n/a").is_known
    assert not judged(v("CTO", s=2), seen="n/a").is_known
    assert not judged().is_known
    assert judged(sent="").is_known


def test_an_erased_value_is_judged_as_any_other() -> None:
    edit = v("Buyer", PERSON, s=1)

    assert judged(v("", s=2), v("n/a", PERSON, s=-9), sent="", seen="n/a").edit is None
    assert judged(v("", s=2), edit, v("n/a", PERSON, s=-9), sent="", seen="n/a").edit == edit


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("5.0", 5, FieldKind.DECIMAL),
        ("true", True, FieldKind.BOOLEAN),
        ("a;b", ("b", "a"), FieldKind.MULTI_PICKLIST),
        ("2026-11-27", "1795737600000", FieldKind.DATE),
        ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00.000Z", FieldKind.DATETIME),
        ("", None, FieldKind.TEXT),
        (" CTO", "CTO", FieldKind.TEXT),
        ("one\r\ntwo", "one\ntwo", FieldKind.LONG_TEXT),
    ],
)
def test_a_value_is_the_same_in_each_of_hubspots_ways_to_write_it(one: Value, other: Value, kind: FieldKind) -> None:
    assert alike(one, other, kind)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("cto", "CTO", FieldKind.TEXT),
        ("+49 30 1", "+49301", FieldKind.PHONE),
        ("0", "", FieldKind.DECIMAL),
        ("sNaN", 1, FieldKind.DECIMAL),
        ("false", None, FieldKind.BOOLEAN),
        ("2026-11-27", "2026-11-28", FieldKind.DATE),
    ],
)
def test_what_a_person_would_see_as_a_change_is_one(one: Value, other: Value, kind: FieldKind) -> None:
    assert not alike(one, other, kind)


def raw(*versions: dict[str, Any], current: str | None = "CTO") -> dict[str, Any]:
    return {"id": "1", "properties": {"jobtitle": current}, "propertiesWithHistory": {"jobtitle": list(versions)}}


def test_versions_come_newest_first_whatever_the_answers_order() -> None:
    new = {"value": "CTO", "timestamp": "2026-10-08T12:00:01.000Z", "sourceType": "INTEGRATION", "sourceId": "1"}
    old = {"value": "Buyer", "timestamp": "2026-10-08T12:00:00.000Z", "sourceType": "CRM_UI", "sourceId": "userId:1"}
    at_once = {**old, "timestamp": new["timestamp"]}

    for answer in (raw(new, old), raw(old, new), raw(new, at_once), raw(at_once, new)):
        versions = versions_of(answer, "jobtitle")
        assert versions is not None
        assert [version.text for version in versions] == ["CTO", "Buyer"]
        assert [version.is_by_hand for version in versions] == [False, True]


def test_an_answer_without_the_history_is_none_and_odd_parts_of_it_are_borne() -> None:
    assert versions_of({"id": "1", "properties": {}}, "jobtitle") is None
    assert versions_of({"id": "1", "properties": {}, "propertiesWithHistory": {"city": []}}, "jobtitle") is None
    assert versions_of(raw({"value": None}, {}), "jobtitle") == (Version(text="", at=None, source=("", "")),) * 2


@pytest.mark.parametrize("text", ["", "soon", "99999999999999999999", "2026-13-01"])
def test_a_moment_that_is_none_is_none(text: str) -> None:
    assert moment_of(text) is None
