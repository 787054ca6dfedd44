"""/metrics: to whom it is served, that it says what the database holds, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, insert, text

from crm_sync.bootstrap import App, web_app
from crm_sync.domain.alerts import Address, Finding
from crm_sync.domain.runs import Counts, RunKind, RunStatus
from crm_sync.store.runs import run_values
from crm_sync.store.tables import batches, pace, phone_waits, reviews, run_records, runs, spending
from tests.factories import SECRET_KEY, a_run
from tests.webhooks.servers import served

CONFIG = """\
version: 1
crms: {salesforce: {type: salesforce, environment: sandbox}}
budget: {per_day: 100, phones_per_month: 50}
syncs:
  contacts: {crm: salesforce, object: Contact, match: {send: {email: Email}}, fields: {Title: person.title}}
  leads: {crm: salesforce, object: Lead, match: {send: {email: Email}}, fields: {Title: person.title}}
"""


@pytest.fixture
def app(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("CRM_SYNC_DATABASE_URL", database_url)
    monkeypatch.setenv("CRM_SYNC_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("CRM_SYNC_STATE_FILE", str(tmp_path / "instance"))
    made = App()
    made.versions.add(CONFIG.encode(), {}, author="test", note="", now=made.clock.now())
    yield made
    made.close()


@pytest.fixture
def client(app: App) -> FlaskClient:
    return web_app(app).test_client()


def scraped(client: FlaskClient, **headers: str) -> dict[str, float]:
    """`name{label=value,…}` -> number."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {
        each.name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(each.labels.items())) + "}" if each.labels else ""):
            each.value
        for family in text_string_to_metric_families(answer.text)
        for each in family.samples
    }  # fmt: skip


# --- to whom ----------------------------------------------------------------------------------------------------------


def test_it_is_served_to_this_machine_alone(client: FlaskClient) -> None:
    assert client.get("/metrics").status_code == 200
    other = client.get("/metrics", environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
    assert (other.status_code, other.text) == (404, "not found\n")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_of_this_machine_passes_on_is_of_others(client: FlaskClient, header: str) -> None:
    assert client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 404


@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer a-token", 200), ("bearer  a-token", 200), ("Bearer another", 404), ("Basic a-token", 404), ("", 404)],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9"])
def test_where_a_token_is_set_it_is_needed_from_everywhere(
    app: App, given: str, status: int, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SYNC_METRICS_TOKEN", "a-token")
    headers = {"Authorization": given} if given else {}
    with closing(App()) as again:
        found = (
            web_app(again).test_client().get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": address})
        )

    assert found.status_code == status
    assert status == 200 or found.text == "not found\n"


def test_a_database_that_is_not_there_is_told_as_not_ready(client: FlaskClient, app: App, tmp_path: Path) -> None:
    with app.store.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))

    with closing(App()) as again:
        assert web_app(again).test_client().get("/metrics").status_code == 503


# --- what -------------------------------------------------------------------------------------------------------------


def ended(app: App, nth: int, status: RunStatus, **changes: Any) -> None:
    at = app.clock.now() - timedelta(hours=nth)
    run = a_run(id=f"run-{nth}", started_at=at, **changes)
    app.runs.open(run, owner="here:1")
    app.runs.save(replace(run, status=status, finished_at=at + timedelta(seconds=90)), now=at)


def test_an_empty_database_has_its_budgets_and_no_runs(client: FlaskClient) -> None:
    found = scraped(client)

    assert found["crm_sync_budget_left_credits{limit=per_day}"] == 100
    assert found["crm_sync_budget_limit_credits{limit=phones_per_month}"] == 50
    assert found["crm_sync_calls_in_doubt"] == 0
    assert not any(name.startswith("crm_sync_last_run") for name in found)


def test_without_a_configuration_it_answers_too(client: FlaskClient, app: App) -> None:
    with app.store.write() as connection:
        connection.execute(text("delete from config_versions"))

    assert scraped(client)["crm_sync_reviews_open"] == 0


def test_everything_is_told_by_name(client: FlaskClient, app: App) -> None:
    now = app.clock.now()
    ended(app, 3, RunStatus.COMPLETED)
    ended(app, 2, RunStatus.COMPLETED_WITH_ERRORS, counts=Counts(selected=10, updated=7, rejected=3))
    ended(app, 1, RunStatus.FAILED, counts=Counts(selected=5, updated=2, no_match=3))
    ended(app, 4, RunStatus.COMPLETED, kind=RunKind.PLAN)
    app.runs.open(a_run(id="live", sync="leads", status=RunStatus.RUNNING, started_at=now), owner="here:1")
    today = now.date().isoformat()
    money = {"run_id": "run-1", "sync": "contacts", "day": today}
    with app.store.write() as connection:
        connection.execute(
            insert(spending).values(
                **money, purse="lookups", calls=4, reserved=Decimal(10), settled=Decimal("31.5"), doubted=Decimal(2)
            )
        )
        connection.execute(insert(batches).values(**a_call(now, **money)))
        connection.execute(insert(phone_waits).values(**a_wait(now - timedelta(hours=2), 1)))
        connection.execute(insert(phone_waits).values(**a_wait(now - timedelta(hours=1), 2)))
        connection.execute(insert(phone_waits).values(**a_wait(now, 3, state="applied")))
        connection.execute(
            insert(pace).values(
                endpoint="people/bulk_match", parked_until=now.timestamp() + 60, limits="{}", state=b"{}"
            )
        )
    app.alerts.note(
        [Finding(alert="run_failed", subject="contacts", is_firing=True, since=now, title="t", what="w")],
        possible=[("run_failed", "contacts")],
        tell={"run_failed": [Address(digest=b"x" * 16, shown="slack:#a")]},
        write=lambda *_: "b",
        now=now,
    )

    found = scraped(client)

    for name, value in {
        "crm_sync_runs_total{kind=run,status=Completed,sync=contacts}": 1,
        "crm_sync_runs_total{kind=plan,status=Completed,sync=contacts}": 1,
        "crm_sync_runs_total{kind=run,status=Failed,sync=contacts}": 1,
        "crm_sync_runs_under_way{kind=run,status=Running,sync=leads}": 1,
        "crm_sync_last_run_status{status=Failed,sync=contacts}": 1,
        "crm_sync_last_run_duration_seconds{sync=contacts}": 90,
        "crm_sync_last_run_records{outcome=no_match,sync=contacts}": 3,
        "crm_sync_credits_settled_total{purse=lookups}": 31.5,
        "crm_sync_credits_reserved{purse=lookups}": 10,
        "crm_sync_credits_doubted{purse=lookups}": 2,
        "crm_sync_paid_calls_total{purse=lookups}": 4,
        "crm_sync_budget_left_credits{limit=per_day}": 56.5,
        "crm_sync_calls_in_doubt": 1,
        "crm_sync_calls_in_doubt_credits": 10,
        "crm_sync_phones_waiting{sync=contacts}": 2,
        "crm_sync_alerts_firing{alert=run_failed}": 1,
        "crm_sync_notices_waiting": 1,
    }.items():
        assert found[name] == value, name
    success = found["crm_sync_last_success_timestamp_seconds{sync=contacts}"]
    assert success == pytest.approx((now - timedelta(hours=2)).timestamp() + 90, abs=1)
    assert found["crm_sync_phones_oldest_wait_seconds{sync=contacts}"] == pytest.approx(7200, abs=30)
    assert found["crm_sync_endpoint_parked_seconds{endpoint=people/bulk_match}"] == pytest.approx(60, abs=30)


def a_call(now: Any, **changes: Any) -> dict[str, Any]:
    values = {
        "purpose": "person", "single": 0, "endpoint": "people/bulk_match", "fingerprint": "f", "request": b"",
        "asked": 10, "state": "in doubt", "purse": "lookups", "most": Decimal(10), "planned_at": now, "sent_at": now,
        "request_id": "", "error": "", "resolved_by": "",
    }  # fmt: skip
    return values | changes


def a_wait(asked_at: Any, record: int, **changes: Any) -> dict[str, Any]:
    values = {
        "crm": "salesforce", "object_type": "Contact", "record_id": f"{record}", "sync": "contacts", "run_id": "run-1",
        "person": b"p" * 16, "identity": b"i" * 16, "batch_id": 1, "position": 0, "order_id": None, "state": "waiting",
        "reason": "", "asked_at": asked_at, "settled_run": "",
    }  # fmt: skip
    return values | changes


# --- at what cost -----------------------------------------------------------------------------------------------------


def test_a_long_history_costs_little(app: App, client: FlaskClient) -> None:
    """100,000 audit rows, 10,000 runs and their spending, 20,000 waits that have ended, 20,000 settled reviews."""
    now = app.clock.now()
    told = [
        a_run(
            id=f"r{n:06}",
            status=RunStatus.COMPLETED,
            started_at=now - timedelta(minutes=10_000 - n),
            finished_at=now - timedelta(minutes=10_000 - n),
        )
        for n in range(10_000)
    ]
    with app.store.write() as connection:
        connection.execute(
            insert(runs), [run_values(run) | {"owner": "x", "alive_at": now, "cancel_asked_at": None} for run in told]
        )
        connection.execute(
            insert(run_records),
            [
                {"run_id": told[n % 10_000].id, "object_type": "Contact", "record_id": f"{n}", "outcome": "Updated",
                 "reason": "", "decisions": None, "batch_id": None, "identity": None, "at": now}
                for n in range(100_000)
            ],
        )  # fmt: skip
        connection.execute(
            insert(spending),
            [
                {"day": run.started_at.date().isoformat(), "run_id": run.id, "purse": "lookups", "sync": "contacts",
                 "calls": 1, "reserved": Decimal(0), "settled": Decimal(1), "doubted": Decimal(0)}
                for run in told
            ],
        )  # fmt: skip
        ended_waits = [a_wait(now, n, state="applied", run_id="r000000", settled_at=now) for n in range(20_000)]
        connection.execute(insert(phone_waits), ended_waits)
        connection.execute(
            insert(reviews),
            [
                {"sync": "contacts", "crm": "salesforce", "object_type": "Contact", "record_id": f"{n}", "field": "",
                 "kind": "match", "proposal": b"p" * 16, "reason": "", "run_id": "r000000", "state": "refused",
                 "created_at": now, "resolved_by": "x"}
                for n in range(20_000)
            ],
        )  # fmt: skip
    scraped(client)
    asked: list[str] = []
    event.listen(app.store.engine, "before_cursor_execute", lambda *words: asked.append(words[2]))
    began = time.perf_counter()
    for _ in range(5):
        assert scraped(client)["crm_sync_runs_total{kind=run,status=Completed,sync=contacts}"] == 10_000
    each = (time.perf_counter() - began) / 5

    print(f"{app.store.dialect}: {each * 1000:.1f} ms a scrape")
    assert each < 0.5
    assert not any("run_records" in statement for statement in asked)


def test_what_is_few_is_found_by_its_index(tmp_path: Path, sqlite_store: Any) -> None:
    from crm_sync.store.health import Health

    asked: list[tuple[str, Any]] = []
    event.listen(sqlite_store.engine, "before_cursor_execute", lambda *words: asked.append((words[2], words[3])))
    Health(sqlite_store).snapshot(("contacts",))
    plans = []
    with sqlite_store.read() as connection:
        for statement, parameters in [each for each in asked if each[0].startswith("SELECT")]:
            rows = connection.exec_driver_sql(f"explain query plan {statement}", parameters)
            plans += [row[3] for row in rows]

    whole = [plan for plan in plans if plan.startswith("SCAN") and "USING" not in plan]
    assert {plan.split()[1] for plan in whole} <= {"pace", "alert_states", "spending"}, plans
    for index in ("batches_in_doubt", "phone_waits_open", "reviews_open", "alert_notices_waiting", "runs_by_sync"):
        assert any(index in plan for plan in plans), index


@pytest.mark.parametrize("server", ["waitress", "gunicorn"])
def test_a_real_server_serves_it_to_this_machine(server: str, app: App, tmp_path: Path) -> None:
    import requests

    if app.store.dialect != "sqlite":
        pytest.skip("one database is enough for the servers")
    settings = {
        "CRM_SYNC_DATABASE_URL": app.settings.database_url,
        "CRM_SYNC_SECRET_KEY": SECRET_KEY,
        "CRM_SYNC_STATE_FILE": str(tmp_path / "instance"),
    }
    with served(server, tmp_path, settings=settings) as made:
        answer = requests.get(f"{made.url}/metrics", timeout=10)
        passed_on = requests.get(f"{made.url}/metrics", headers={"Via": "1.1 proxy"}, timeout=10)

    assert answer.status_code == 200
    assert "crm_sync_build_info" in answer.text
    assert passed_on.status_code == 404
