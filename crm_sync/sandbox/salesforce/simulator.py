"""The sandbox's own view of the org: what tests and demos ask and change behind the service's back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from crm_sync.sandbox.salesforce import auth, rules
from crm_sync.sandbox.salesforce.app import Usage
from crm_sync.sandbox.salesforce.bulk import Jobs
from crm_sync.sandbox.salesforce.bulk_query import QueryJobs
from crm_sync.sandbox.salesforce.errors import RequestError
from crm_sync.sandbox.salesforce.jobs import Habits
from crm_sync.sandbox.salesforce.org import Org
from crm_sync.sandbox.salesforce.schema import Field, SObject
from crm_sync.sandbox.salesforce.writes import Writes

#: What a human's edit may say beyond ordinary fields.
_CONTROLS = ("IsDeleted", "MasterRecordId", "$convert", "$lock", "$fail")


class Simulator:
    def __init__(
        self, *, org: Org, logins: auth.Logins, writes: Writes, jobs: Jobs, query_jobs: QueryJobs, usage: Usage
    ) -> None:
        self._org = org
        self._logins = logins
        self._writes = writes
        self._usage = usage
        self._jobs = jobs
        self._query_jobs = query_jobs
        self._retired: dict[tuple[str, str], Field] = {}

    def state(self, *, limit: int = 1000) -> dict[str, Any]:
        """Records per object, how many were ever written and what was written to the first `limit` of each, logins
        API calls, and the bulk jobs that are kept."""
        return {
            "records": {name: self._org.count(name) for name in self._org.objects},
            "written": {name: self._org.written(name) for name in self._org.objects},
            "touched": {name: dict(self._org.edits(name, limit=limit)) for name in self._org.objects},
            "logins": self._logins.count,
            "api_calls": {"used": self._usage.used, "limit": self._usage.limit},
            "jobs": self._jobs.listed(),
            "query_jobs": self._query_jobs.listed(),
        }

    def edit(self, object_type: str, record_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change a record as a colleague does in the browser, and return it whole.

        Beyond ordinary fields: {"IsDeleted": true} deletes and false brings back, {"MasterRecordId": id} merges the
        record into another one of its object, {"$lock": n} lets the next n writes of it fail with UNABLE_TO_LOCK_ROW,
        {"$fail": n} the next n writes of it alone with HTTP 503, {"$convert": id} converts a lead into that contact.

        Raises:
            ValueError: no such object, record or field, or a value the org would refuse.
        """
        name = self._org.object_name(object_type)
        if name is None:
            raise ValueError(f"No object {object_type} in this org; it has {', '.join(self._org.objects)}.")
        sobject = self._org.objects[name]
        index = self._org.index_of(name, record_id)
        if index is None:
            raise ValueError(f"No {name} with the id {record_id}.")
        ordinary = {key: value for key, value in fields.items() if key not in _CONTROLS}
        values = self._checked(sobject, ordinary)
        if "IsDeleted" in fields:
            values["IsDeleted"] = bool(fields["IsDeleted"])
        if "MasterRecordId" in fields:
            values |= {"IsDeleted": True, "MasterRecordId": self._survivor(name, index, str(fields["MasterRecordId"]))}
        if "$convert" in fields:
            values |= self._conversion(name, str(fields["$convert"]))
        if "$lock" in fields:
            self._writes.lock(record_id, int(fields["$lock"]))
        if "$fail" in fields:
            self._writes.fail(record_id, int(fields["$fail"]))
        with self._org.lock:
            if values:
                self._org.write(name, [(index, values)], by=auth.HUMAN_USER)
            row = self._org.row(name, index)
        shown = self._org.renderer(name, dict.fromkeys(field.name for field in sobject.fields))
        return shown(row, "/services/data/v62.0")

    @property
    def bulk(self) -> Habits:
        """How bulk jobs behave; what is changed here holds from then on."""
        return self._jobs.habits

    def abort_job(self, job_id: str) -> None:
        """As an admin does under Setup > Bulk Data Load Jobs.

        Raises:
            RequestError: there is no such job, or it is over.
        """
        self._jobs.change(job_id, {"state": "Aborted"})

    def retire_choice(self, object_type: str, field: str, value: str) -> None:
        """Deactivate a value of a picklist and restrict it to its active values, as an admin does.

        Raises:
            ValueError: no such object, picklist or value.
        """
        name = self._org.object_name(object_type)
        found = self._org.objects[name].field(field) if name is not None else None
        if name is None or found is None or value not in {choice.value for choice in found.choices}:
            raise ValueError(f"No value {value} in a picklist {field} of {object_type}.")
        choices = tuple(replace(each, active=each.active and each.value != value) for each in found.choices)
        self._retired.setdefault((name, found.name), found)
        self._org.redefine(name, replace(found, choices=choices, restricted=True))

    def restore_choices(self) -> None:
        """Make every picklist what it was before `retire_choice`."""
        for (name, _), field in self._retired.items():
            self._org.redefine(name, field)
        self._retired.clear()

    def expire_tokens(self) -> None:
        """End every session, as an admin does."""
        self._logins.expire()

    def close(self) -> None:
        """Remove what the org keeps on disk; no call may follow."""
        self._org.close()

    def _checked(self, sobject: SObject, fields: Mapping[str, Any]) -> dict[str, object]:
        try:
            values = rules.values_of(sobject, fields, orjson.dumps(fields).decode())
        except RequestError as error:
            raise ValueError(error.message) from error
        if refusal := rules.refuse(sobject, values):
            raise ValueError(refusal.message)
        return values

    def _conversion(self, name: str, contact_id: str) -> dict[str, object]:
        index = self._org.index_of("Contact", contact_id)
        if name != "Lead" or index is None or self._org.row("Contact", index).is_deleted:
            raise ValueError(f"A Lead can only be converted into a living Contact; {contact_id} is none.")
        account = self._org.getter("Contact", "AccountId")(self._org.row("Contact", index))
        full = self._org.id_of("Contact", index)
        return {"IsConverted": True, "ConvertedContactId": full, "ConvertedAccountId": account}

    def _survivor(self, name: str, loser: int, record_id: str) -> str:
        index = self._org.index_of(name, record_id)
        if index is None or index == loser or self._org.row(name, index).is_deleted:
            raise ValueError(f"A {name} can only be merged into another living {name}; {record_id} is none.")
        return self._org.id_of(name, index)
