"""The portal's records: the world underneath, what was written on top, and what search already knows of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from crm_sync.sandbox.hubspot import properties
from crm_sync.sandbox.hubspot.search import Test
from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.world import World

FIRST_ID = {"contacts": 10_001, "companies": 5_000_001}
_MERGED_FROM = {"contacts": 900_000_001, "companies": 950_000_001}
_EPOCH = 1_672_531_200
_SENIORITY = {
    "owner": "owner", "founder": "owner", "c_suite": "executive", "partner": "partner", "vp": "vp", "head": "director",
    "director": "director", "manager": "manager", "senior": "senior", "entry": "entry", "intern": "entry",
}  # fmt: skip
_MODIFIED = {"contacts": "lastmodifieddate", "companies": "hs_lastmodifieddate"}

Values = dict[str, "str | None"]


class Record:
    """One record as it stands: `id` may be a merge's new one."""

    __slots__ = ("archived", "history", "id", "index", "values", "written_at")

    def __init__(self, index: int, record_id: str, values: Values, edits: Mapping[str, Any]) -> None:
        self.index = index
        self.id = record_id
        self.values = values
        self.archived = bool(edits.get("archived"))
        self.written_at: float = edits.get("at", 0.0)
        self.history: dict[str, list[dict[str, Any]]] = edits.get("history", {})


class Portal:
    """All records of one object type. Thread-safe.

    `lag_s`: for so long after a write, search goes on seeing the values from before it.
    """

    def __init__(
        self, world: World, object_type: str, *, overlay: Overlay, lag_s: float, now: Callable[[], float]
    ) -> None:
        self.object_type = object_type
        self.known = properties.of(object_type)
        self.count = world.contacts if object_type == "contacts" else world.accounts
        self.lock = threading.RLock()
        self.written = 0
        self._world = world
        self._overlay = overlay
        self._lag_s = lag_s
        self._now = now
        self._first = FIRST_ID[object_type]
        self._edited = bytearray(self.count)
        #: A merge's new id -> the survivor's index; old ids lead there too.
        self._new_ids: dict[str, int] = {}
        self._renamed: dict[int, str] = {}
        self._merged_away: dict[int, int] = {}
        #: Filter -> which records match, as search sees them; and the writes it has to look at again.
        self._found: dict[str, bytearray] = {}
        self._unseen: dict[str, list[int]] = {}

    # --- ids and rows ---------------------------------------------------------------------------------------------

    def id_of(self, index: int) -> str:
        return self._renamed.get(index) or str(self._first + index)

    def index_of(self, record_id: str) -> int | None:
        """The record behind an id, old ids of merged ones included; None where there never was one."""
        if record_id in self._new_ids:
            return self._new_ids[record_id]
        if not record_id.isdigit():
            return None
        index = int(record_id) - self._first
        if not 0 <= index < self.count:
            return None
        return self._merged_away.get(index, index)

    def get(self, index: int) -> Record:
        edits = self._overlay.get(self.object_type, index) if self._edited[index] else None
        return self._record(index, edits or {})

    def find(self, record_id: str, *, archived: bool = False) -> Record | None:
        index = self.index_of(record_id)
        if index is None:
            return None
        record = self.get(index)
        return record if record.archived is archived else None

    def _record(self, index: int, edits: Mapping[str, Any], *, as_indexed: bool = False) -> Record:
        values = self._base(index)
        values.update(edits.get("p") or {})
        if as_indexed and edits and self._now() - edits.get("at", 0.0) < self._lag_s:
            values.update(edits.get("was") or {})
        record_id = self.id_of(index)
        values["hs_object_id"] = record_id
        if "at" in edits:
            values[_MODIFIED[self.object_type]] = stamp(edits["at"])
        return Record(index, record_id, values, edits)

    def _base(self, index: int) -> Values:
        created = stamp(_EPOCH + index * 7919 % 60_000_000)
        if self.object_type == "contacts":
            one = self._world.contact(index)
            return {
                "email": one.email.lower() or None,
                "firstname": one.first_name,
                "lastname": one.last_name,
                "jobtitle": one.title or None,
                "hs_seniority": _SENIORITY.get(one.seniority),
                "hs_linkedin_url": one.linkedin_url or None,
                "city": one.city or None,
                "state": one.state or None,
                "country": one.country or None,
                "phone": one.phone or None,
                "mobilephone": one.mobile or None,
                "company": self._world.company(one.company).name if one.company is not None else None,
                "website": self._world.account(one.company).website or None if one.company is not None else None,
                "associatedcompanyid": str(FIRST_ID["companies"] + one.company) if one.company is not None else None,
                "hs_contact_enrichment_opt_out": "true" if one.opted_out else None,
                "createdate": created,
                "lastmodifieddate": created,
            }
        account = self._world.account(index)
        industry = {"Technology": "COMPUTER_SOFTWARE", "Manufacturing": "MACHINERY", "Other": "CONSUMER_SERVICES"}
        return {
            "name": account.name,
            "domain": account.domain,
            "website": account.website or None,
            "industry": industry.get(account.industry),
            "numberofemployees": str(account.employees) if account.employees is not None else None,
            "annualrevenue": str(account.revenue) if account.revenue is not None else None,
            "city": account.city or None,
            "state": account.state or None,
            "country": account.country or None,
            "phone": account.phone or None,
            "createdate": created,
            "hs_lastmodifieddate": created,
        }

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, index: int, changes: Mapping[str, str], *, source: str) -> Record:
        """Set properties; "" erases. `source`: INTEGRATION or CRM_UI."""
        with self.lock:
            edits = dict(self._overlay.get(self.object_type, index) or {}) if self._edited[index] else {}
            before = self._record(index, edits).values
            now = self._now()
            kept, was, history = dict(edits.get("p") or {}), {}, dict(edits.get("history") or {})
            if now - edits.get("at", 0.0) < self._lag_s:
                was = dict(edits.get("was") or {})
            for name, value in changes.items():
                new = _appended(before.get(name), value) if value.startswith(";") else value
                was.setdefault(name, before.get(name))
                kept[name] = new.lower() if name == "email" else new or None
                entry = {"value": new, "timestamp": stamp(now), "sourceType": source}
                history[name] = [entry, *history.get(name, [])][:20]
            self._keep(index, {**edits, "p": kept, "was": was, "at": now, "history": history})
            self.written += 1
            return self.get(index)

    def archive(self, index: int, *, archived: bool = True) -> None:
        with self.lock:
            edits = dict(self._overlay.get(self.object_type, index) or {}) if self._edited[index] else {}
            self._keep(index, {**edits, "archived": archived, "at": self._now()})

    def merge(self, loser: int, survivor: int) -> str:
        """Both old ids lead to a record with a new id (contracts/hubspot.md 7); returns it."""
        with self.lock:
            new_id = str(_MERGED_FROM[self.object_type] + len(self._new_ids))
            self.archive(loser)
            self._merged_away[loser] = survivor
            self._renamed[survivor] = new_id
            self._new_ids[new_id] = survivor
            self._touch(survivor)
            return new_id

    def _keep(self, index: int, edits: Mapping[str, Any]) -> None:
        self._overlay.put(self.object_type, index, edits)
        self._edited[index] = 1
        self._touch(index)

    def _touch(self, index: int) -> None:
        for unseen in self._unseen.values():
            unseen.append(index)

    # --- walking --------------------------------------------------------------------------------------------------

    def listed(self, after: str | None, limit: int, *, archived: bool) -> tuple[list[Record], str | None]:
        """A page in id order from the record with id `after` on, and the next record's id."""
        records: list[Record] = []
        for record in self._in_order(after):
            if record.archived is archived:
                if len(records) == limit:
                    return records, record.id
                records.append(record)
        return records, None

    def _in_order(self, start: str | None) -> Iterator[Record]:
        wanted = int(start) if start else 0
        for index in range(max(wanted - self._first, 0), self.count):
            if index not in self._renamed and index not in self._merged_away:
                yield self.get(index)
        for new_id, index in self._new_ids.items():
            if int(new_id) >= wanted:
                yield self.get(index)

    def matching(self, key: str, test: Test, after: int) -> tuple[int, Iterator[Record]]:
        """(how many records with an id above `after` match, those records in rising id order) as search sees them."""
        with self.lock:
            found = self._found.get(key)
            if found is None:
                if len(self._found) > 8:
                    self._found.clear()
                    self._unseen.clear()
                found = self._found[key] = bytearray(self.count)
                self._unseen[key] = []
                for index in range(self.count):
                    found[index] = self._matches(index, test)
            self._look_again(key, found, test)
            start = max(after + 1 - self._first, 0)
            renamed = [(int(new_id), index) for new_id, index in self._new_ids.items() if int(new_id) > after]
            matching = [(new_id, index) for new_id, index in sorted(renamed) if self._matches(index, test)]
            return found.count(1, start) + len(matching), self._walk(found, start, [index for _, index in matching])

    def _look_again(self, key: str, found: bytearray, test: Test) -> None:
        unseen, still = self._unseen[key], []
        for index in dict.fromkeys(unseen):
            found[index] = 0 if index in self._renamed or index in self._merged_away else self._matches(index, test)
            edits = self._overlay.get(self.object_type, index) or {}
            if self._now() - edits.get("at", 0.0) < self._lag_s:
                still.append(index)
        self._unseen[key] = still

    def _matches(self, index: int, test: Test) -> bool:
        edits = (self._overlay.get(self.object_type, index) or {}) if self._edited[index] else {}
        return not edits.get("archived") and test(self._record(index, edits, as_indexed=True).values)

    def _walk(self, found: bytearray, start: int, renamed: Sequence[int]) -> Iterator[Record]:
        index = found.find(1, start)
        while index >= 0:
            yield self._indexed(index)
            index = found.find(1, index + 1)
        for each in renamed:
            yield self._indexed(each)

    def _indexed(self, index: int) -> Record:
        """A record as search shows it: stale where the index lags."""
        edits = (self._overlay.get(self.object_type, index) or {}) if self._edited[index] else {}
        return self._record(index, edits, as_indexed=True)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _appended(old: str | None, value: str) -> str:
    """A leading semicolon adds to a checkbox property instead of replacing it (contracts/hubspot.md 3)."""
    parts = [*(old or "").split(";"), *value.split(";")]
    return ";".join(dict.fromkeys(part for part in parts if part))
