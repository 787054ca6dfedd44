"""The baselines: what a good engineer's script and a naive one cost with the same libraries, and nothing else.

`good`: pages of records, ten people to a call, two hundred (a hundred) records to a write, one Session, an audit row
per record in SQLite with synchronous=FULL; no budget, no journal, no rate limit, no re-read, no resume.
`safe`: the good loop that keeps three of our promises in the plainest way: each call is committed as sent before it
leaves, each raw answer before it is read, and each record is read again just before it is written.
`naive`: one record at a time, as the libraries' READMEs show it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter

SENIORITY = {
    **dict.fromkeys(("owner", "founder", "c_suite", "partner"), "Executive"),
    **dict.fromkeys(("vp", "head"), "VP"),
    "director": "Director",
    "manager": "Manager",
    **dict.fromkeys(("senior", "entry", "intern"), "Individual Contributor"),
}
HS_SENIORITY = {
    **{word: word for word in ("owner", "partner", "vp", "director", "manager", "senior", "entry")},
    "founder": "owner",
    "c_suite": "executive",
    "head": "director",
    "intern": "entry",
}
SF_FIELDS = ("Title", "Seniority__c", "LinkedIn__c", "Department", "MailingCity", "MailingState", "MailingCountry")
HS_FIELDS = ("jobtitle", "hs_seniority", "hs_linkedin_url", "city", "state", "country")


class Apollo:
    def __init__(self, *, keep_alive: bool = True) -> None:
        self.url = os.environ["CRM_SYNC_APOLLO_URL"]
        self.headers = {"x-api-key": os.environ["CRM_SYNC_APOLLO_API_KEY"]}
        self.session: Any = requests.Session() if keep_alive else requests
        self.journal: Audit | None = None
        if keep_alive:
            self.session.trust_env = False

    def bulk(self, people: Sequence[dict[str, str]]) -> list[Any]:
        call = self.journal.sent(people) if self.journal else 0
        answer = self.session.post(f"{self.url}/people/bulk_match", json={"details": people}, headers=self.headers)
        if self.journal:
            self.journal.received(call, answer.content)
        return list(answer.json()["matches"])

    def one(self, person: dict[str, str]) -> Any:
        return self.session.post(f"{self.url}/people/match", json=person, headers=self.headers).json().get("person")


class Audit:
    def __init__(self) -> None:
        self.db = sqlite3.connect("loop.db", isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; DROP TABLE IF EXISTS audit;"
                              "CREATE TABLE audit (id TEXT, changes TEXT);"
                              "CREATE TABLE calls (id INTEGER PRIMARY KEY, asked TEXT, answer BLOB)")  # fmt: skip

    def write(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO audit VALUES (?, ?)", [(key, json.dumps(change)) for key, change in rows])
        self.db.execute("COMMIT")

    def sent(self, people: Sequence[dict[str, str]]) -> int:
        self.db.execute("BEGIN IMMEDIATE")
        call = self.db.execute("INSERT INTO calls (asked) VALUES (?)", (json.dumps(people),)).lastrowid
        self.db.execute("COMMIT")
        assert call is not None
        return call

    def received(self, call: int, body: bytes) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("UPDATE calls SET answer = ? WHERE id = ?", (zlib.compress(body, 1), call))
        self.db.execute("COMMIT")


def person_values(person: dict[str, Any], names: Sequence[str], seniority: dict[str, str]) -> dict[str, Any]:
    values = {
        "title": person.get("title"),
        "seniority": seniority.get(person.get("seniority") or ""),
        "linkedin": person.get("linkedin_url"),
        "city": person.get("city"),
        "state": person.get("state"),
        "country": person.get("country"),
    }
    order = (
        "title",
        "seniority",
        "linkedin",
        *(("department",) if len(names) == 7 else ()),
        "city",
        "state",
        "country",
    )
    values["department"] = ", ".join(person.get("functions") or ())
    return dict(zip(names, (values[name] for name in order), strict=True))


def fill(current: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value and not current.get(name)}


class _Http(HTTPAdapter):
    """simple-salesforce hard-codes https."""

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


def salesforce() -> Any:
    from simple_salesforce import Salesforce

    host = os.environ["CRM_SYNC_SALESFORCE_URL"].removeprefix("http://")
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _Http())
    token = session.post(
        f"https://{host}/services/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(os.environ["CRM_SYNC_SALESFORCE_CONSUMER_KEY"], os.environ["CRM_SYNC_SALESFORCE_CONSUMER_SECRET"]),
    ).json()["access_token"]
    return Salesforce(
        session_id=token, instance_url=f"https://{host}", session=session, version="62.0", object_pairs_hook=None
    )


def hubspot() -> Any:
    from hubspot import HubSpot

    return HubSpot(access_token=os.environ["CRM_SYNC_HUBSPOT_TOKEN"], host=os.environ["CRM_SYNC_HUBSPOT_URL"])


def good_salesforce(*, safe: bool = False) -> int:
    sf, apollo, audit = salesforce(), Apollo(), Audit()
    apollo.journal = audit if safe else None
    columns = ", ".join(("Id", "Email", "FirstName", "LastName", *SF_FIELDS))
    missing = " OR ".join(f"{name} = null" for name in SF_FIELDS)
    done, after = 0, ""
    while True:
        key = f" AND Id > '{after}'" if after else ""
        rows = sf.query(f"SELECT {columns} FROM Contact WHERE ({missing}){key} ORDER BY Id LIMIT 2000")["records"]
        if not rows:
            return done
        after = rows[-1]["Id"]
        found = matched(apollo, rows, lambda r: (r["Email"], r["FirstName"], r["LastName"]))
        if safe:
            found = again(list(found), "Id", lambda ids: sf.restful(
                "composite/sobjects/Contact", method="POST", json={"ids": ids, "fields": ["Id", *SF_FIELDS]}
            ))  # fmt: skip
        changes = []
        for row, person in found:
            values = fill(row, person_values(person, SF_FIELDS, SENIORITY))
            if values:
                changes.append((row["Id"], values))
        for at in range(0, len(changes), 200):
            part = changes[at : at + 200]
            audit.write(part)
            sf.restful("composite/sobjects", method="PATCH", headers={"Sforce-Auto-Assign": "FALSE"}, json={
                "allOrNone": False,
                "records": [{"attributes": {"type": "Contact"}, "id": key, **values} for key, values in part],
            })  # fmt: skip
        done += len(rows)
        if len(rows) < 2000:
            return done


def good_hubspot(*, safe: bool = False) -> int:
    client, apollo, audit = hubspot(), Apollo(), Audit()
    apollo.journal = audit if safe else None
    search, batch = client.crm.contacts.search_api, client.crm.contacts.batch_api
    done, after = 0, "0"
    names = ["email", "firstname", "lastname", *HS_FIELDS]
    while True:
        body = {
            "filterGroups": [
                {
                    "filters": [
                        {"propertyName": "hs_object_id", "operator": "GT", "value": after},
                        {"propertyName": name, "operator": "NOT_HAS_PROPERTY"},
                    ]
                }
                for name in ("jobtitle", "hs_seniority", "hs_linkedin_url", "city")
            ],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "properties": names,
            "limit": 200,
        }
        rows = json.loads(search.do_search(body, _preload_content=False).data)["results"]
        if not rows:
            return done
        after = rows[-1]["id"]
        records = [{"Id": row["id"], **row["properties"]} for row in rows]
        found = matched(apollo, records, lambda r: (r["email"], r["firstname"], r["lastname"]))
        if safe:
            found = again(list(found), "Id", lambda ids: _hubspot_rows(batch, ids))
        changes = []
        for row, person in found:
            values = fill(row, person_values(person, HS_FIELDS, HS_SENIORITY))
            if values:
                changes.append((row["Id"], values))
        for at in range(0, len(changes), 100):
            part = changes[at : at + 100]
            audit.write(part)
            batch.update(
                {"inputs": [{"id": key, "properties": values} for key, values in part]}, _preload_content=False
            )
        done += len(rows)
        if len(rows) < 200:
            return done


def _hubspot_rows(batch: Any, ids: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for at in range(0, len(ids), 100):
        body = {"inputs": [{"id": key} for key in ids[at : at + 100]], "properties": list(HS_FIELDS)}
        answer = json.loads(batch.read(body, _preload_content=False).data)
        rows += [{"Id": row["id"], **row["properties"]} for row in answer["results"]]
    return rows


def again(
    found: Sequence[tuple[dict[str, Any], dict[str, Any]]], key: str, read: Callable[[list[str]], list[dict[str, Any]]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    now = {row[key]: row for row in read([row[key] for row, _ in found])}
    return ((now[row[key]], person) for row, person in found)


def safe_salesforce() -> int:
    return good_salesforce(safe=True)


def safe_hubspot() -> int:
    return good_hubspot(safe=True)


def matched(
    apollo: Apollo, rows: Sequence[dict[str, Any]], keys: Any
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for at in range(0, len(rows), 10):
        ten = rows[at : at + 10]
        asked = []
        for row in ten:
            email, first, last = keys(row)
            asked.append({"email": (email or "").lower(), "first_name": first, "last_name": last})
        for row, person in zip(ten, apollo.bulk(asked), strict=True):
            if person is not None:
                yield row, person


def naive_salesforce() -> int:
    sf, apollo = salesforce(), Apollo(keep_alive=False)
    rows = sf.query_all("SELECT Id FROM Contact")["records"]
    for row in rows:
        contact = sf.Contact.get(row["Id"])
        asked = {"email": contact["Email"], "first_name": contact["FirstName"], "last_name": contact["LastName"]}
        person = apollo.one(asked)
        values = fill(contact, person_values(person, SF_FIELDS, SENIORITY)) if person else {}
        if values:
            sf.Contact.update(row["Id"], values)
    return len(rows)


def naive_hubspot() -> int:
    client, apollo = hubspot(), Apollo(keep_alive=False)
    names = ["email", "firstname", "lastname", *HS_FIELDS]
    done, after = 0, None
    while True:
        page = client.crm.contacts.basic_api.get_page(limit=100, after=after)
        for row in page.results:
            contact = client.crm.contacts.basic_api.get_by_id(row.id, properties=names).properties
            asked = {"email": contact["email"], "first_name": contact["firstname"], "last_name": contact["lastname"]}
            person = apollo.one(asked)
            values = fill(contact, person_values(person, HS_FIELDS, HS_SENIORITY)) if person else {}
            if values:
                client.crm.contacts.basic_api.update(row.id, {"properties": values})
        done += len(page.results)
        if page.paging is None or page.paging.next is None:
            return done
        after = page.paging.next.after


if __name__ == "__main__":
    print(globals()[f"{sys.argv[1]}_{sys.argv[2]}"]())
