"""The sandbox's own view of the portal: what tests and demos ask and change behind the service's back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from crm_sync.sandbox.hubspot import values
from crm_sync.sandbox.hubspot.auth import Tokens
from crm_sync.sandbox.hubspot.batches import BY_API
from crm_sync.sandbox.hubspot.errors import RequestError
from crm_sync.sandbox.hubspot.limits import Limits
from crm_sync.sandbox.hubspot.portal import Portal
from crm_sync.sandbox.hubspot.properties import Property
from crm_sync.sandbox.hubspot.records import Table

#: What a human's edit may say beyond properties.
_CONTROLS = ("archived", "merge_into", "$lock", "$app")
#: The person who edits, as histories name them.
_PERSON = ("CRM_UI", "userId:9586504")


class Simulator:
    def __init__(self, *, portal: Portal, tokens: Tokens, limits: Limits) -> None:
        self._portal = portal
        self._tokens = tokens
        self._limits = limits
        self._retired: dict[tuple[str, str], Property] = {}

    def state(self, *, limit: int = 1000) -> dict[str, Any]:
        """Living records per type, how many were ever written and what was written to the first `limit` of each, the
        day's calls, those refused by a limit, and tokens issued."""
        with self._portal.lock:
            tables = self._portal.tables.values()
            return {
                "records": {each.name: each.count - self._gone(each) for each in tables},
                "written": {each.name: each.written() for each in tables},
                "touched": {each.name: dict(each.edits(limit=limit)) for each in tables},
                "api_calls": {"used": self._limits.used_today, "limit": self._limits.daily},
                "refused_by_limit": self._limits.refused,
                "logins": self._tokens.refreshed,
            }

    @staticmethod
    def _gone(table: Table) -> int:
        return len(table.archived) + 2 * (table.count - table.native)

    def edit(self, object_type: str, record_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change a record as a colleague does in the browser, and return it whole: "id", "properties", "archived" and
        the "history" of what was ever written.

        Beyond properties (text; "" or null erases): {"archived": true} puts it into the recycle bin and false brings it
        back, {"merge_into": id} merges it with another one into a third with a new id, which is returned; {"$lock": n}
        lets the next n writes that touch it fail with 423; with {"$app": number} that app edits by API, not a person.

        Raises:
            ValueError: no such type, record or property, or a value HubSpot would refuse.
        """
        try:
            table = self._portal.table(object_type)
        except RequestError as error:
            raise ValueError(f"No object type {object_type}; there are {', '.join(self._portal.tables)}.") from error
        with self._portal.lock:
            index = table.index_of(record_id)
            if index is None:
                raise ValueError(f"No {table.name} record with the id {record_id}.")
            index = table.survivor(index)
            accepted = self._checked(table, index, {k: v for k, v in fields.items() if k not in _CONTROLS})
            if accepted:
                source, source_id = (BY_API, str(fields["$app"])) if "$app" in fields else _PERSON
                table.write([(index, accepted)], source=source, source_id=source_id)
            if "archived" in fields:
                table.archive(index, archived=bool(fields["archived"]))
            if "merge_into" in fields:
                index = table.merge(self._partner(table, index, str(fields["merge_into"])), index)
            if table.name == "companies" and {"archived", "merge_into"} & set(fields):
                self._portal.company_changed()
            if "$lock" in fields:
                self._portal.locks[table.name, index] = int(fields["$lock"])
            row = table.row(index)
            names = [name for name, each in table.properties.items() if not each.archived]
            touched = row.stored["history"] if row.stored is not None else ()
            shown = self._portal.renderer(table, names, with_history=tuple(touched))(row)
            return {**shown, "history": shown.pop("propertiesWithHistory", {})}

    def retire_choice(self, object_type: str, field: str, value: str) -> None:
        """Remove an option of an enumeration, as an admin does.

        Raises:
            ValueError: no such object type, enumeration or option.
        """
        try:
            table = self._portal.table(object_type)
        except RequestError as error:
            raise ValueError(f"No object type {object_type}; there are {', '.join(self._portal.tables)}.") from error
        found = table.properties.get(field)
        if found is None or value not in found.allowed:
            raise ValueError(f"No option {value} of an enumeration {field} of {object_type}.")
        with self._portal.lock:
            self._retired.setdefault((table.name, field), found)
            options = tuple(option for option in found.options if option.value != value)
            table.properties[field] = replace(found, options=options)

    def restore_choices(self) -> None:
        """Make every enumeration what it was before `retire_choice`."""
        with self._portal.lock:
            for (name, field), found in self._retired.items():
                self._portal.table(name).properties[field] = found
            self._retired.clear()

    def expire_tokens(self) -> None:
        """End every OAuth access token."""
        self._tokens.expire()

    def revoke(self, token: str) -> None:
        """Withdraw a service key or private-app token."""
        self._tokens.revoke(token)

    def move_account(self, seconds: float) -> None:
        """Answer every call with 477 for so long, as while an account moves to another data centre."""
        self._portal.moving_until = self._portal.now() + seconds

    def close(self) -> None:
        """Remove what the portal keeps on disk; no call may follow."""
        self._portal.close()

    @staticmethod
    def _checked(table: Table, index: int, fields: Mapping[str, Any]) -> dict[str, str | None]:
        row = table.row(index)
        accepted: dict[str, str | None] = {}
        for name, text in fields.items():
            if text is not None and not isinstance(text, str):
                raise ValueError(f"The value of {name} is not text.")
            current = table.getter(name)(row) if name in table.properties else None
            value, finding = values.judge(table.properties, name, text or "", current)
            if finding is not None:
                raise ValueError(finding.message)
            accepted[name] = value
        return accepted

    def _partner(self, table: Table, index: int, record_id: str) -> int:
        other = self._portal.living(table, record_id)
        if other is None or other == index or not table.row(index).is_living:
            raise ValueError(f"{record_id} is no other living record of {table.name} to merge with.")
        return other
