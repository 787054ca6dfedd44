"""`alerts`: what is wrong, who was told, and `alerts test`; what doctor says of them; no address is ever shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crm_sync.bootstrap import App
from tests.cli.conftest import PEOPLE, Desk
from tests.notified import Hook, a_closed_port, a_hook

SECRET = "PASSWORDxyz123"


@pytest.fixture
def crm() -> str:
    return "salesforce"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with a_hook() as made:
        yield made


def with_alerts(desk: Desk, *alerts: str) -> None:
    desk.configure({"version: 1\n": "version: 1\nalerts:\n" + "".join(f"  - {{{alert}}}\n" for alert in alerts)})


def fail_a_run(desk: Desk) -> None:
    """By a key that Apollo does not know."""
    said = desk.run("run", sync_of(desk))
    assert said.code == 1, said.text


def sync_of(desk: Desk) -> str:
    app = App()
    try:
        return next(name for name, sync in app.applied()[0].syncs.items() if sync.object_type == PEOPLE[desk.crm])
    finally:
        app.close()


def look() -> None:
    """As the watch of `serve` does."""
    app = App()
    try:
        app.watch().once()
    finally:
        app.close()


def test_without_alerts_it_says_that_nobody_is_told(desk: Desk) -> None:
    desk.configure()

    assert "nobody is told of anything" in desk.run("alerts").flat
    assert desk.run("alerts", "--json").json == {"configured": [], "firing": [], "undelivered": [], "notices": []}


def test_from_a_failed_run_to_its_recovery(desk: Desk, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    with_alerts(desk, f'when: run_failed, tell: "json://me:{SECRET}@127.0.0.1:{hook.port}/{SECRET}"')
    look()
    assert "nothing is wrong · 1 alert configured" in desk.run("alerts").flat
    with monkeypatch.context() as broken:
        broken.setenv("CRM_SYNC_APOLLO_API_KEY", "not-a-key")
        fail_a_run(desk)
    look()
    look()

    said = desk.run("alerts")
    told = desk.run("alerts", "--json").json
    doctor = desk.run("doctor")
    assert len(hook.got) == 1
    assert "1 thing wrong" in said.flat
    assert "last told 20" in said.flat
    assert "crm-sync show" in said.flat
    assert [each["event"] for each in told["configured"]] == ["run_failed"]
    assert told["firing"][0]["last_told"]
    assert "note alerts: wrong now:" in doctor.text
    for text in (said.text, str(told), doctor.text):
        assert SECRET not in text

    assert desk.run("run", sync_of(desk), "--limit", "2").code in (0, 3)
    look()
    assert len(hook.got) == 2
    assert "Recovered after" in hook.texts[1]
    assert "told, over" in desk.run("alerts").flat


def test_what_could_not_be_told_is_shown_with_why(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with_alerts(desk, f'when: run_failed, tell: "json://127.0.0.1:{a_closed_port()}/{SECRET}"')
    monkeypatch.setenv("CRM_SYNC_APOLLO_API_KEY", "not-a-key")
    fail_a_run(desk)
    look()

    said, doctor = desk.run("alerts"), desk.run("doctor")

    assert "nobody was told yet" in said.flat
    assert "nobody listens there" in said.flat
    assert "1 notice could not be told" in doctor.flat
    assert SECRET not in said.text + doctor.text


@pytest.mark.parametrize("words", [["run_failed"], ["--all"], ["env:CRM_SYNC_NOTIFY_OPS"]])
def test_a_test_message_is_sent_to_whom_it_says(
    words: list[str], desk: Desk, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_SYNC_NOTIFY_OPS", f"json://127.0.0.1:{hook.port}/{SECRET}")
    with_alerts(desk, 'when: run_failed, tell: "env:CRM_SYNC_NOTIFY_OPS"')

    said = desk.run("alerts", "test", *words)

    assert (said.code, said.text) == (0, "env:CRM_SYNC_NOTIFY_OPS: taken\n")
    assert hook.texts[0].startswith("crm-sync: a test")


def test_a_test_message_that_is_refused_fails_the_command(desk: Desk, hook: Hook) -> None:
    with_alerts(desk, f'when: run_failed, tell: "json://127.0.0.1:{hook.port}/{SECRET}"')
    hook.mode = "refuse"

    said = desk.run("alerts", "test", "--all")

    assert said.code == 1
    assert "json://…123: not taken: " in said.flat
    assert "error=403" in said.flat
    assert SECRET not in said.text


@pytest.mark.parametrize("words", [[], ["run_failed", "--all"], ["match_rate"]])
def test_a_test_that_names_nobody_is_a_mistake(words: list[str], desk: Desk) -> None:
    with_alerts(desk, 'when: run_failed, tell: "slack:#revops"')

    said = desk.run("alerts", "test", *words)

    assert said.code == 2


def test_an_address_that_cannot_be_used_is_mended_before_anything_goes_wrong(desk: Desk) -> None:
    with_alerts(desk, 'when: run_failed, tell: ["slack:#revops", "mailto:ops@example.com", "env:CRM_SYNC_NOTIFY_OPS"]')

    checked, said = desk.run("config", "check"), desk.run("doctor")

    assert (checked.code, said.code) == (0, 1)
    for setting in ("CRM_SYNC_SLACK_URL", "CRM_SYNC_MAIL_URL", "CRM_SYNC_NOTIFY_OPS"):
        assert f"{setting} is not set" in said.flat
        assert f"alerts: {setting} is not set" in checked.err


def test_a_notifier_of_a_name_of_ones_own_is_no_unknown_setting(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SYNC_NOTIFY_OPS", "json://127.0.0.1/x")

    assert "CRM_SYNC_NOTIFY_OPS" not in desk.run("doctor").text


@pytest.mark.parametrize("crm", ["salesforce", "hubspot"])
@pytest.mark.parametrize("whose", ["crm", "apollo"])
def test_a_key_that_is_refused_is_told_before_any_run_needs_it(
    desk: Desk, whose: str, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alerts(desk, f'when: credentials_refused, tell: "json://127.0.0.1:{hook.port}/x"')
    secret = "CONSUMER_SECRET" if desk.crm == "salesforce" else "TOKEN"
    setting = "CRM_SYNC_APOLLO_API_KEY" if whose == "apollo" else f"CRM_SYNC_{desk.crm.upper()}_{secret}"
    look()
    assert hook.got == []
    with monkeypatch.context() as broken:
        broken.setenv(setting, "pat-na1-00000000-0000-0000-0000-000000000000")
        look()
        look()
    [text] = hook.texts
    assert text.startswith(f"crm-sync: {'Apollo' if whose == 'apollo' else desk.crm} refuses our credentials\n")
    assert setting in text or whose == "crm"
    assert "00000000" not in text
    look()
    assert len(hook.got) == 2


def test_a_provider_that_is_gone_is_not_said_to_refuse_us(
    desk: Desk, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alerts(desk, f'when: credentials_refused, tell: "json://127.0.0.1:{hook.port}/x"')
    monkeypatch.setenv("CRM_SYNC_APOLLO_URL", f"http://127.0.0.1:{a_closed_port()}")
    look()

    assert hook.got == []
