"""What a property's history says about our own write of it: whether it went over an edit of somebody's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from adapters.hubspot.wire import is_blank, kept
from crm_sync.domain.records import FieldKind, Value

#: The most records of one call that asks for histories (contracts/hubspot.md 2.1, 2026-11).
MOST_WITH_HISTORY = 50
#: A version that is older than the record as it was read by more than this was there when it was read. HubSpot's clocks
#: and the moments it stamps a record with agree within it; what is younger is judged by its value alone.
_CERTAINLY_OLDER = timedelta(seconds=60)

_DATES = (FieldKind.DATE, FieldKind.DATETIME)
_NUMBERS = (FieldKind.DECIMAL, FieldKind.INTEGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One value that a property had. `text` is "" where it was erased, `at` None where HubSpot tells no moment, and
    `source` HubSpot's (sourceType, sourceId)."""

    text: str
    at: datetime | None
    source: tuple[str, str]

    @property
    def is_by_hand(self) -> bool:
        """Whether a person typed it into HubSpot's pages. An app's id stands where a user's does there
        (contracts/hubspot.md 8, 2026-11); what else wrote it, a workflow, an import, is no longer told apart."""
        kind, writer = self.source
        return kind.startswith("CRM_UI") or writer.startswith("userId:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`edit`: the version that our write went over and that is not ours, None where there is none. `newest`: what the
    property holds now. `is_known` is False where the history does not reach, or does not show our write."""

    edit: Version | None = None
    newest: Version | None = None
    is_known: bool = True


def versions_of(raw: Mapping[str, Any], name: str) -> tuple[Version, ...] | None:
    """The versions of one property of a record, newest first; None where the answer has no history of it."""
    histories = raw.get("propertiesWithHistory")
    listed = histories.get(name) if isinstance(histories, dict) else None
    if not isinstance(listed, list):
        return None
    versions = [_version(each) for each in listed if isinstance(each, dict)]
    return tuple(reversed(versions) if _is_oldest_first(versions, raw["properties"].get(name)) else versions)


def _is_oldest_first(versions: Sequence[Version], current: Any) -> bool:
    """Captures have the newest first; no page promises it. What happens in one millisecond is told by what the property
    holds now."""
    if len(versions) < 2:
        return False
    first, last = versions[0], versions[-1]
    if first.at is not None and last.at is not None and first.at != last.at:
        return first.at < last.at
    text = "" if current is None else str(current)
    return first.text != text == last.text


def _version(raw: Mapping[str, Any]) -> Version:
    text = raw.get("value")
    return Version(
        text="" if text is None else str(text),
        at=moment_of(str(raw.get("timestamp") or "")),
        source=(str(raw.get("sourceType") or ""), str(raw.get("sourceId") or "")),
    )


def judge(
    versions: Sequence[Version], *, sent: str, seen: Value, kind: FieldKind | None, since: datetime | None
) -> Judgement:
    """Whether the write of `sent` went over a value that somebody put there after the property was seen as `seen`.

    `versions`: newest first. `since`: when the record, as it was seen, had last changed, by HubSpot's clock; None where
    that says nothing about this property.
    """
    if not versions:
        return Judgement(is_known=not sent)  # erasing what was never filled leaves no version
    newest, *older = versions
    if newest.is_by_hand or not _is_sent(newest, sent, kind):
        # Somebody wrote after us, or the same as we did: that stands.
        return Judgement(newest=newest, is_known=newest.is_by_hand or any(_is_sent(v, sent, kind) for v in older))
    if since is None and alike(newest.text, seen, kind):
        return Judgement(newest=newest)  # still what was seen, which `sent` may only read like: it never arrived
    margin = _CERTAINLY_OLDER
    if alike(sent, seen, kind):
        # Nothing was to change, and HubSpot may keep no version of such a write: only what is certainly younger counts.
        margin = timedelta()
        if since is None or newest.at is None or newest.at <= since:
            return Judgement(newest=newest)
    for version in older:
        if since is not None and version.at is not None and version.at <= since - margin:
            return Judgement(newest=newest)
        if margin and alike(version.text, seen, kind):
            return Judgement(newest=newest)
        if _is_own(version, newest, sent, kind):
            continue
        if alike(version.text, sent, kind):
            return Judgement(newest=newest)
        return Judgement(edit=version, newest=newest)
    return Judgement(newest=newest, is_known=is_blank(seen))


def _is_sent(version: Version, sent: str, kind: FieldKind | None) -> bool:
    if kind in _DATES:
        return alike(version.text, sent, kind)
    return kept(sent, version.text, kind)


def _is_own(version: Version, newest: Version, sent: str, kind: FieldKind | None) -> bool:
    """Another write of ours: the same update sent twice after a lost answer, or an earlier run's. `newest` is ours."""
    if version.is_by_hand:
        return False
    has_our_source = all(version.source) and version.source == newest.source
    return has_our_source or (not all(newest.source) and alike(version.text, sent, kind))


def alike(one: Value, other: Value, kind: FieldKind | None) -> bool:
    """Whether two values of a property are the same, each as HubSpot's text or as we hold it."""
    return one == other or _canonical(one, kind) == _canonical(other, kind)


def _canonical(value: Value, kind: FieldKind | None) -> object:
    if is_blank(value):
        return None
    if isinstance(value, tuple) or kind is FieldKind.MULTI_PICKLIST:
        parts = value if isinstance(value, tuple) else str(value).split(";")
        return frozenset(part for part in parts if part)
    text = str(value).strip()
    if kind is FieldKind.BOOLEAN:
        return text.casefold()
    if kind in _NUMBERS:
        try:
            number = Decimal(text)
        except InvalidOperation:
            return text
        return number if number.is_finite() else text
    if kind in _DATES:
        return moment_of(text) or text
    return text.replace("\r\n", "\n")


def moment_of(text: str) -> datetime | None:
    """A moment as HubSpot writes it, ISO 8601 or milliseconds; a date is its midnight in UTC."""
    try:
        if text.lstrip("-").isdecimal():
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
