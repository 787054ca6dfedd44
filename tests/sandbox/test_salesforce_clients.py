"""Clients other people wrote, unchanged, against the simulator over loopback: simple-salesforce and jsforce."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from requests.adapters import HTTPAdapter
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceMalformedRequest

from crm_sync.sandbox.salesforce import Credentials, Simulator, create
from crm_sync.sandbox.server import Server
from crm_sync.sandbox.world import World
from tests.sandbox.salesforce_org import contact_id, lead_id

CONTACTS = 2_300
KNOWN = Credentials()
JSFORCE = Path(__file__).parent / "jsforce"


class Loopback(HTTPAdapter):
    """simple-salesforce builds https addresses only; this sends them to the simulator (contracts/salesforce.md 1.2)."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = urlsplit(target)

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.url = urlunsplit((self._target.scheme, self._target.netloc, parts.path, parts.query, ""))
        return super().send(request, *args, **more)


class RunningOrg:
    def __init__(self, server: Server, simulator: Simulator, private_key: str) -> None:
        self.url = server.url
        self.simulator = simulator
        self.private_key = private_key

    def session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", Loopback(self.url))
        return session

    def client(self, **login: Any) -> Salesforce:
        return Salesforce(session=self.session(), version="62.0", **login)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningOrg]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    app = create(World(7, CONTACTS), credentials=Credentials(jwt_public_key=public.decode()))
    server = Server(app).start()
    try:
        yield RunningOrg(server, app.extensions["simulator"], private.decode())
    finally:
        server.stop()
        app.extensions["simulator"].close()


@pytest.fixture
def salesforce(running: RunningOrg) -> Salesforce:
    return running.client(consumer_key=KNOWN.consumer_key, consumer_secret=KNOWN.consumer_secret, domain="acme.my")


# --- simple-salesforce ----------------------------------------------------------------------------------------------


def test_simple_salesforce_logs_in_by_every_way_it_knows(running: RunningOrg) -> None:
    app = {"consumer_key": KNOWN.consumer_key, "consumer_secret": KNOWN.consumer_secret}
    user = {"username": KNOWN.username, "password": KNOWN.password + KNOWN.security_token}
    ways = [
        app | {"domain": "acme.my"},
        app | user,
        {
            "username": KNOWN.username,
            "consumer_key": KNOWN.consumer_key,
            "privatekey": running.private_key,
            "domain": "acme.my",
        },
        {"username": KNOWN.username, "password": KNOWN.password, "security_token": KNOWN.security_token},
    ]

    assert [running.client(**way).query("SELECT COUNT() FROM Contact")["totalSize"] for way in ways] == [CONTACTS] * 4


def test_simple_salesforce_understands_a_refused_login(running: RunningOrg) -> None:
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid client credentials"):
        running.client(consumer_key=KNOWN.consumer_key, consumer_secret="x", domain="acme.my")
    with pytest.raises(SalesforceAuthenticationFailed, match="INVALID_LOGIN"):
        running.client(username=KNOWN.username, password="x", security_token="y")


def test_simple_salesforce_reads_describes_pages_and_limits(salesforce: Salesforce) -> None:
    names = [item["name"] for item in salesforce.describe()["sobjects"]]
    title = next(field for field in salesforce.Contact.describe()["fields"] if field["name"] == "Title")
    records = list(salesforce.query_all_iter("SELECT Id, Account.Website FROM Contact ORDER BY Id"))
    limits = salesforce.limits()

    assert "Contact" in names
    assert title["length"] == 128
    assert [record["Id"] for record in records] == [contact_id(index) for index in range(CONTACTS)]
    assert limits["DailyApiRequests"]["Max"] == 115_000
    assert salesforce.api_usage["api-usage"].total == 115_000


def test_simple_salesforce_updates_and_rereads_collections(salesforce: Salesforce) -> None:
    results = salesforce.restful(
        "composite/sobjects",
        method="PATCH",
        headers={"Sforce-Auto-Assign": "FALSE"},
        json={
            "allOrNone": False,
            "records": [
                {"attributes": {"type": "Contact"}, "id": contact_id(10), "Title": "CTO"},
                {"attributes": {"type": "Contact"}, "id": contact_id(11), "Seniority__c": "Wizard"},
            ],
        },
    )
    reread = salesforce.restful(
        "composite/sobjects/Contact",
        method="POST",
        json={"ids": [contact_id(10), contact_id(CONTACTS)], "fields": ["Id", "Title"]},
    )

    assert [result["success"] for result in results] == [True, False]
    assert results[1]["errors"][0]["statusCode"] == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    assert reread[0]["Title"] == "CTO"
    assert reread[1] is None


def test_simple_salesforce_works_on_single_records_and_sees_their_errors(salesforce: Salesforce) -> None:
    status = salesforce.Lead.update(lead_id(0), {"Title": "CTO"}, headers={"Sforce-Auto-Assign": "FALSE"})

    assert status == 204
    assert salesforce.Lead.get(lead_id(0))["Title"] == "CTO"
    with pytest.raises(SalesforceMalformedRequest, match="STRING_TOO_LONG"):
        salesforce.Lead.update(lead_id(0), {"Title": "x" * 129})
    with pytest.raises(SalesforceMalformedRequest, match="No such column"):
        salesforce.query("SELECT Nonsense FROM Contact")


def test_simple_salesforce_runs_a_bulk_job(
    running: RunningOrg, salesforce: Salesforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simple_salesforce.bulk2.sleep", lambda _seconds: None)

    (told,) = salesforce.bulk2.Contact.update(
        records=[{"Id": contact_id(20), "Title": "CTO"}, {"Id": contact_id(21), "Title": "x" * 129}]
    )
    failed = salesforce.bulk2.Contact.get_failed_records(told["job_id"])

    assert (told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (2, 1)
    assert "STRING_TOO_LONG:" in failed
    assert contact_id(21) in failed
    assert salesforce.Contact.get(contact_id(20))["Title"] == "CTO"


def test_simple_salesforce_reads_by_a_query_job(salesforce: Salesforce, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simple_salesforce.bulk2.sleep", lambda _seconds: None)

    pages = list(salesforce.bulk2.Contact.query("SELECT Id, Account.Name FROM Contact", max_records=2_000))

    assert [page.splitlines()[0] for page in pages] == ['"Id","Account.Name"'] * 2
    assert sum(len(page.splitlines()) - 1 for page in pages) == CONTACTS


def test_simple_salesforce_renews_an_ended_session_by_itself(running: RunningOrg, salesforce: Salesforce) -> None:
    running.simulator.expire_tokens()

    assert salesforce.query("SELECT COUNT() FROM Lead")["totalSize"] == CONTACTS // 4


def test_many_writers_at_once_lose_nothing(running: RunningOrg, salesforce: Salesforce) -> None:
    def write(worker: int) -> None:
        headers = {"Authorization": f"Bearer {salesforce.session_id}", "Sforce-Auto-Assign": "FALSE"}
        with running.session() as session:
            for place in range(3):
                first = 100 + worker * 150 + place * 50
                records = [
                    {"attributes": {"type": "Contact"}, "Id": contact_id(index), "Region_Note__c": f"{worker}"}
                    for index in range(first, first + 50)
                ]
                url = "https://x/services/data/v62.0/composite/sobjects"
                session.patch(url, json={"records": records}, headers=headers, timeout=20)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    notes = salesforce.query("SELECT Region_Note__c FROM Contact WHERE Region_Note__c != null")["records"]
    assert sorted(note["Region_Note__c"] for note in notes) == [f"{worker}" for worker in range(4) for _ in range(150)]


# --- jsforce --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def jsforce() -> Path:
    """Return a folder with jsforce as locked, installed once per lock file outside of the source tree."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node is not installed: the Salesforce simulator is NOT judged by jsforce on this machine")
    lock = (JSFORCE / "package-lock.json").read_bytes()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crm-sync-tests"
    folder = caches / f"jsforce-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "node_modules" / "jsforce").is_dir():
        caches.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="jsforce-", dir=caches))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(JSFORCE / name, building)
        options = ["--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [npm, "ci", *options], cwd=building, capture_output=True, text=True, timeout=240, check=False
        )
        if done.returncode:
            shutil.rmtree(building)
            pytest.skip(f"npm ci failed: the Salesforce simulator is NOT judged by jsforce: {done.stderr[-400:]}")
        try:
            building.rename(folder)
        except OSError:
            # Another worker was quicker.
            shutil.rmtree(building)
    return folder


@pytest.mark.node
def test_jsforce_queries_describes_updates_and_reads_limits(running: RunningOrg, jsforce: Path) -> None:
    token = running.client(
        consumer_key=KNOWN.consumer_key, consumer_secret=KNOWN.consumer_secret, domain="acme.my"
    ).session_id
    # An ES module finds its packages beside itself.
    shutil.copy(JSFORCE / "driver.mjs", jsforce / "driver.mjs")
    task = {
        "instanceUrl": running.url,
        "accessToken": token,
        "version": "62.0",
        "contacts": [contact_id(index) for index in (1000, 1001, 1002)],
    }

    done = subprocess.run(
        ["node", "driver.mjs", json.dumps(task)], cwd=jsforce, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["totalSize"], seen["pages"], seen["distinctIds"]) == (CONTACTS, [2000, 300], CONTACTS)
    assert seen["fetched"] == task["contacts"]
    assert seen["titleLength"] == 128
    assert seen["objects"] == ["Account", "Contact", "Lead"]
    assert [result["success"] for result in seen["results"]] == [True, False, False]
    assert [result["errors"][0]["statusCode"] for result in seen["results"][1:]] == [
        "INVALID_EMAIL_ADDRESS",
        "STRING_TOO_LONG",
    ]
    assert seen["retrieved"][0] == "Head of Proof"
    assert seen["single"] == {"Title": "Head of Proof", "type": "Contact"}
    assert seen["refusal"]["errorCode"] == "INVALID_FIELD"
    assert [row["sf__Id"] for row in seen["bulk"]["successfulResults"]] == task["contacts"][:1]
    assert seen["bulk"]["successfulResults"][0]["Title"] == 'Chief of Äußeres, "quoted"'
    assert [row["sf__Error"].partition(":")[0] for row in seen["bulk"]["failedResults"]] == ["STRING_TOO_LONG"]
    assert seen["bulk"]["unprocessedRecords"] == []
    assert seen["limits"]["Max"] == 115_000
    assert seen["usage"]["limit"] == 115_000
