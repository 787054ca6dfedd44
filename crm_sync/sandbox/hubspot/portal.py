"""The account: its contacts and companies, how they hang together, and how a record looks in an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from crm_sync.sandbox.hubspot import moments, sources
from crm_sync.sandbox.hubspot.errors import RequestError, invalid
from crm_sync.sandbox.hubspot.properties import ALWAYS, BY_DEFAULT
from crm_sync.sandbox.hubspot.records import FIRST_ID, Row, Table
from crm_sync.sandbox.hubspot.search import Searches
from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.world import World

__all__ = ["FIRST_ID", "PORTAL_ID", "UI_DOMAIN", "Portal", "Renderer"]

PORTAL_ID = 44_117_203
UI_DOMAIN = "app.hubspot.com"

#: What makes a row's JSON object.
Renderer = Callable[[Row], dict[str, Any]]


class Portal:
    """Hold `lock` while reading or writing the tables. `oldest_first`: so histories are told."""

    def __init__(
        self,
        world: World,
        *,
        overlay: Overlay,
        lag_s: float,
        now: Callable[[], float] = time.time,
        oldest_first: bool = False,
    ) -> None:
        self.lock = threading.RLock()
        self.now = now
        self._order = -1 if oldest_first else 1
        self._overlay = overlay
        shared: dict[str, Any] = {"overlay": overlay, "lag_s": lag_s, "now": now}
        self.companies = Table(
            "companies",
            count=world.accounts,
            base=world.account,
            first_values=lambda: sources.companies(world),
            key_prefix="A",
            **shared,
        )
        self.contacts = Table(
            "contacts",
            count=world.contacts,
            base=world.contact,
            first_values=lambda: sources.contacts(world, self._company_id),
            key_prefix="C",
            **shared,
        )
        self.contacts.native_holder = lambda name, value: (
            next(iter(world.by_email(value)), None) if name == "email" else None
        )
        self.companies.native_holder = lambda name, value: world.by_domain(value) if name == "domain" else None
        self.tables = {table.name: table for table in (self.contacts, self.companies)}
        self._names = {**self.tables, **{table.type_id: table for table in self.tables.values()}}
        self.searches = {name: Searches(table) for name, table in self.tables.items()}
        #: How many more writes of a record find it locked.
        self.locks: dict[tuple[str, int], int] = {}
        #: Until when the account moves to another data centre, epoch seconds.
        self.moving_until = 0.0

    def table(self, name: str) -> Table:
        """
        Raises:
            RequestError: 400, no such object type.
        """
        found = self._names.get(name)
        if found is None:
            raise invalid(f"Unable to infer object type from: {name}")
        return found

    def living(self, table: Table, record_id: str) -> int | None:
        """The index of the living record with this id, or of the one it was merged into; None where it is gone."""
        index = table.index_of(record_id)
        if index is None:
            return None
        index = table.survivor(index)
        return index if table.row(index).is_living else None

    def _company_id(self, index: int) -> str | None:
        """The id of a company as its contacts hold it: follows a merge, and is gone with the company."""
        stored = self.companies.stored(index)
        if stored is None:
            return self.companies.id_of(index)
        index = self.companies.survivor(index)
        return self.companies.id_of(index) if self.companies.row(index).is_living else None

    def company_changed(self) -> None:
        """A company was merged or archived: what its contacts hold changed with it."""
        self.searches["contacts"].forget()

    def close(self) -> None:
        self._overlay.close()

    # --- rendering ---

    def renderer(
        self,
        table: Table,
        names: Sequence[str] | None,
        *,
        with_history: Sequence[str] = (),
        associations: Sequence[str] = (),
        with_url: bool = False,
    ) -> Renderer:
        """`names`: the properties asked for; unknown ones are left out without a word, blank ones are null.

        Raises:
            RequestError: 400 for associations that are not simulated.
        """
        wanted = BY_DEFAULT[table.name] if not names else (*names, *ALWAYS[table.name])
        getters = [(name, table.getter(name)) for name in dict.fromkeys((*wanted, *with_history)) if _has(table, name)]
        versioned = [name for name in dict.fromkeys(with_history) if _has(table, name)]
        if wrong := [each for each in associations if (table.name, each) != ("contacts", "companies")]:
            raise invalid(f"The crm-sync sandbox does not simulate the association of {table.name} with {wrong[0]}")
        id_of, iso = table.id_of, moments.iso

        def render(row: Row) -> dict[str, Any]:
            record_id = id_of(row.index)
            shown: dict[str, Any] = {
                "id": record_id,
                "properties": {name: get(row) for name, get in getters},
                "createdAt": table.created_at(row),
                "updatedAt": iso(table.modified_ms(row)),
                "archived": False,
            }
            if row.stored is not None and "archived" in row.stored:
                shown |= {"archived": True, "archivedAt": iso(row.stored["archived"])}
            if versioned:
                shown["propertiesWithHistory"] = {
                    name: _versions(table.history(row, name)[:: self._order]) for name in versioned
                }
            if associations and (company := self.contacts.getter("associatedcompanyid")(row)):
                shown["associations"] = {
                    "companies": {
                        "results": [
                            {"id": company, "type": "contact_to_company"},
                            {"id": company, "type": "contact_to_company_unlabeled"},
                        ]
                    }
                }
            if with_url:
                shown["url"] = f"https://{UI_DOMAIN}/contacts/{PORTAL_ID}/record/{table.type_id}/{record_id}"
            return shown

        return render

    # --- locks and moves ---

    def check_moving(self) -> None:
        """
        Raises:
            RequestError: 477 with Retry-After in seconds.
        """
        left = self.moving_until - self.now()
        if left > 0:
            raise RequestError(477, "Migration in progress", headers={"Retry-After": str(round(left + 0.5))})

    def check_locks(self, table: Table, indexes: Iterable[int]) -> None:
        """
        Raises:
            RequestError: 423; somebody else writes one of the records.
        """
        for index in indexes:
            left = self.locks.get((table.name, index), 0)
            if left > 0:
                self.locks[table.name, index] = left - 1
                raise RequestError(423, "The record is locked by another operation. Try again in two seconds.")


def _has(table: Table, name: str) -> bool:
    found = table.properties.get(name)
    return found is not None and not found.archived


def _versions(history: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    shown = []
    for value, ms, source, source_id in history:
        version: dict[str, Any] = {
            "value": value, "timestamp": moments.iso(ms), "sourceType": source, "sourceId": source_id,
        }  # fmt: skip
        if source == "CRM_UI":
            version["updatedByUserId"] = 9_586_504
        shown.append(version)
    return shown
