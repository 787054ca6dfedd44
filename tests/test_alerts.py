"""Telling: Apprise's own services against servers that take, refuse, hang and drip; and nothing of an address is said."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import apprise
import pytest

from crm_sync.alerts import Notifiers, shown
from crm_sync.domain.alerts import Message
from tests.notified import Hook, MailServer, a_closed_port, a_hook, a_mail_server

SECRET = "PASSWORDxyz123"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with a_hook() as made:
        yield made


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with a_mail_server() as made:
        yield made


def message(address: str, *, is_good_news: bool = False) -> Message:
    return Message(
        address=address, title="contacts has failed", body="It failed.\nNext: look.", is_good_news=is_good_news
    )


def told(address: str, notifiers: Notifiers | None = None) -> str:
    [outcome] = (notifiers or Notifiers()).tell([message(address)])
    return outcome


def json_address(hook: Hook) -> str:
    return f"json://me:{SECRET}@127.0.0.1:{hook.port}/{SECRET}/hook"


def test_a_web_hook_gets_title_and_body(hook: Hook) -> None:
    assert told(json_address(hook)) == ""

    [(path, body)] = hook.got
    assert path == f"/{SECRET}/hook"
    assert (body["title"], body["message"]) == ("contacts has failed", "It failed.\nNext: look.")


def test_slack_gets_it_in_the_channel_by_the_setting(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(slack_service()), "webhook_url", f"http://127.0.0.1:{hook.port}/services")
    url = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"

    assert told("slack:#revops", Notifiers(slack_url=url)) == ""

    [(path, body)] = hook.got
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert body["channel"] == "#revops"
    assert "contacts has failed" in str(body["attachments"])


@pytest.mark.parametrize(
    ("url", "address", "whole"),
    [
        ("slack://xoxb-1234-1234-abc124", "slack:#revops", "slack://xoxb-1234-1234-abc124/%23revops"),
        ("slack://xoxb-1234-1234-abc124/?footer=no", "slack:ops", "slack://xoxb-1234-1234-abc124/%23ops?footer=no"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack:@ada",
         "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/@ada"),
    ],
)  # fmt: skip
def test_a_bots_token_and_its_options_may_stand_in_the_setting(url: str, address: str, whole: str) -> None:
    notifiers = Notifiers(slack_url=url)

    assert notifiers._resolved(address) == (whole, "CRM_SYNC_SLACK_URL")
    assert notifiers.problem(address) == ""


def slack_service() -> apprise.NotifyBase:
    made = apprise.Apprise.instantiate("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    assert isinstance(made, apprise.NotifyBase)
    return made


def mail_setting(mail: MailServer) -> str:
    return f"mailto://127.0.0.1:{mail.port}?from=crm-sync@example.com&to=somebody@example.com&mode=insecure"


@pytest.mark.parametrize("address", ["mailto:ops@example.com", "mailto://ops@example.com"])
def test_mail_goes_to_the_recipient_by_the_setting(address: str, mail: MailServer) -> None:
    assert told(address, Notifiers(mail_url=mail_setting(mail))) == ""

    [(recipients, content)] = mail.got
    assert recipients == ["ops@example.com"]
    assert content["Subject"] == "contacts has failed"
    assert "crm-sync@example.com" in content["From"]


def test_an_address_is_taken_from_the_setting_it_names(hook: Hook) -> None:
    notifiers = Notifiers(named={"CRM_SYNC_NOTIFY_OPS": json_address(hook)})

    assert told("env:CRM_SYNC_NOTIFY_OPS", notifiers) == ""
    assert len(hook.got) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("slack:#revops", "CRM_SYNC_SLACK_URL is not set, and slack:#revops needs it"),
        ("mailto:ops@example.com", "CRM_SYNC_MAIL_URL is not set, and mail needs it"),
        ("env:CRM_SYNC_NOTIFY_OPS", "CRM_SYNC_NOTIFY_OPS is not set, and alerts name it"),
        (f"nosuch://{SECRET}", "is no address that Apprise can read"),
        (f"slack://{SECRET}", "is no address that Apprise can read"),
    ],
)
def test_what_cannot_be_told_is_said_before_anything_is_sent(address: str, said: str) -> None:
    problem = Notifiers().problem(address)

    assert said in problem
    assert SECRET not in problem
    assert told(address) == problem


def test_a_setting_that_apprise_cannot_read_is_named_and_not_shown() -> None:
    problem = Notifiers(named={"CRM_SYNC_NOTIFY_OPS": f"nosuch://{SECRET}"}).problem("env:CRM_SYNC_NOTIFY_OPS")

    assert problem.startswith("CRM_SYNC_NOTIFY_OPS is no address that Apprise can read")
    assert SECRET not in problem


def test_who_refuses_is_told_with_the_status_and_without_the_address(hook: Hook) -> None:
    hook.mode = "refuse"

    outcome = told(json_address(hook))

    assert "error=403" in outcome
    assert SECRET not in outcome


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.mode = "redirect"

    assert "error=302" in told(json_address(hook))
    assert len(hook.got) == 1


def test_where_nobody_listens_is_told_so() -> None:
    outcome = told(f"json://me:{SECRET}@127.0.0.1:{a_closed_port()}/{SECRET}")

    assert outcome.endswith("nobody listens there")
    assert SECRET not in outcome


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_one_that_hangs_holds_up_nobody_and_is_not_asked_twice(mode: str, hook: Hook) -> None:
    notifiers = Notifiers(deadline_s=0.8)
    with a_hook() as other:
        hook.mode = mode
        began = time.monotonic()
        outcomes = notifiers.tell([message(json_address(hook)), message(json_address(other))])

        assert time.monotonic() - began < 3
        assert outcomes == ["it did not answer within 0.8 s", ""]
        assert told(json_address(hook), notifiers) == "an earlier attempt still hangs there"
        assert len(hook.got) == 1


def test_one_that_has_let_go_is_asked_again(hook: Hook) -> None:
    notifiers = Notifiers(deadline_s=0.5)
    hook.mode = "drip"
    assert told(json_address(hook), notifiers) != ""
    hook.mode = "take"
    hook.released.set()
    time.sleep(0.5)

    assert told(json_address(hook), notifiers) == ""


@pytest.mark.parametrize(("mode", "said"), [("refuse", "failed"), ("hang", "it did not answer within 0.8 s")])
def test_a_mail_server_that_refuses_or_hangs(mode: str, said: str, mail: MailServer) -> None:
    mail.mode = mode

    outcome = told("mailto:ops@example.com", Notifiers(mail_url=mail_setting(mail), deadline_s=0.8))

    assert said in outcome
    assert "ops@" not in outcome


def test_nothing_of_an_address_is_logged(hook: Hook) -> None:
    """A handler of our own: pytest's listens to loggers that tell nobody else."""
    said: list[str] = []

    class Everything(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    root, handler = logging.getLogger(), Everything(logging.DEBUG)
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for mode in ("take", "refuse"):
            hook.mode = mode
            told(json_address(hook))
        told(f"json://me:{SECRET}@127.0.0.1:{a_closed_port()}/{SECRET}")
        told(f"slack://{SECRET}")
        logging.getLogger("urllib3.connectionpool").debug("of others it is heard")
    finally:
        root.removeHandler(handler)
        root.setLevel(before)

    assert "of others it is heard" in said
    assert SECRET not in "\n".join(said)
    assert SECRET not in repr(Notifiers(slack_url=SECRET, mail_url=SECRET))


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("slack:#revops", "slack:#revops"),
        ("env:CRM_SYNC_NOTIFY_OPS", "env:CRM_SYNC_NOTIFY_OPS"),
        ("mailto://ops@example.com", "mailto:o…@example.com"),
        (f"mailtos://me:{SECRET}@example.com", "mailtos://…"),
        (f"slack://{SECRET}/{SECRET}/TIiajkdnlazkcOXrIdevi7FQ", "slack://…7FQ"),
        (f"json://me:{SECRET}@h/ab", "json://…"),
    ],
)
def test_what_is_shown_of_an_address(address: str, seen: str) -> None:
    assert shown(address) == seen
