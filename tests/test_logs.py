"""The log: one line an event, with ids, and nothing of people or keys, whatever happens."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crm_sync import logs
from crm_sync.errors import StoreError
from crm_sync.log_ids import log_ids
from tests.factories import SECRET_KEY
from tests.logged import lines, logging_as_before

_log = logging.getLogger("crm_sync.test")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    with logging_as_before():
        yield io.StringIO()


def test_a_line_is_one_json_object_with_the_ids_of_what_it_is_about(out: io.StringIO) -> None:
    logs.set_up(kind="json", stream=out)
    with log_ids(run="20261128-1", sync="contacts"), log_ids(delivery=7):
        _log.warning("it took %d s", 3)
    _log.info("and on")

    first, second = lines(out)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first.pop("time"))
    assert first == {
        "level": "warning", "event": "it took 3 s", "logger": "crm_sync.test", "run": "20261128-1", "sync": "contacts",
        "delivery": "7",
    }  # fmt: skip
    assert "run" not in second


def test_on_a_terminal_it_is_key_and_value(out: io.StringIO) -> None:
    out.isatty = lambda: True  # type: ignore[method-assign]
    logs.set_up(stream=out)
    with log_ids(run="r1"):
        _log.info("two words")

    assert re.fullmatch(r'time=\S+ level=info event="two words" logger=crm_sync\.test run=r1\n', out.getvalue())


def test_less_than_the_level_is_not_logged(out: io.StringIO) -> None:
    logs.set_up(kind="json", level="warning", stream=out)
    _log.info("x")

    assert out.getvalue() == ""


def test_an_error_is_told_by_where_it_was_and_not_by_what_it_held(out: io.StringIO) -> None:
    logs.set_up(kind="json", stream=out)
    for error in (ValueError("Ada Lovelace"), StoreError("The disk is full; ada@lovelace.example")):
        try:
            raise error
        except (ValueError, StoreError):
            _log.exception("unforeseen")

    unforeseen, ours = lines(out)
    assert unforeseen["error"] == "ValueError"
    assert re.search(r"test_logs\.py:\d+ test_an_error", unforeseen["traceback"])
    assert ours["error"] == "StoreError: The disk is full; (an address)"
    assert "Ada" not in out.getvalue()


def test_a_line_cannot_be_forged(out: io.StringIO) -> None:
    logs.set_up(kind="text", stream=out)
    _log.info("x\nlevel=error event=forged\x1b[2J")

    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


def test_libraries_do_not_repeat_their_requests_at_any_level(out: io.StringIO) -> None:
    logs.set_up(kind="json", level="debug", stream=out)
    for name in ("urllib3.connectionpool", "hubspot.crm", "simple_salesforce.api", "requests_oauthlib.oauth2_session"):
        logging.getLogger(name).debug("POST /services/SECRET")

    assert out.getvalue() == ""


def test_serve_logs_json_with_the_level_and_kind_of_its_settings(tmp_path: Path) -> None:
    import os
    import signal
    import subprocess
    import sys
    import time

    root = Path(__file__).parents[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CRM_SYNC_")},
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "CRM_SYNC_LOG_FORMAT": "json",
        "CRM_SYNC_SECRET_KEY": SECRET_KEY,
    }
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "crm_sync", "serve", "--port", "0"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 30
        while not all(each in (tmp_path / "log").read_text() for each in ("deliveries wait", "nobody watches")):
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)

    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert {"crm_sync.watch", "crm_sync.workers"} <= {each["logger"] for each in told}
    assert {each["level"] for each in told} == {"warning"}
    assert all("No configuration has been applied yet" in each["event"] for each in told)
