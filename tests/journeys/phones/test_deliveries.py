"""Whatever becomes of a callback on its way: the numbers come, once, and cost what Apollo says."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import requests

from crm_sync.domain.runs import RunStatus
from crm_sync.sandbox.apollo.errors import Refusal
from crm_sync.sandbox.numbers import other_number
from tests.journeys.phones.conftest import MOBILE, OpenPhones, PhoneOffice

#: One that is by the polls' way must not be told apart from one of the callbacks' way.
POLLED = ("never", "latin1", "huge", "failed")


def walked(office: PhoneOffice, *scripts: dict[str, Any]) -> RunStatus:
    office.script(*scripts)
    return office.walk().status


@pytest.mark.parametrize("what", ["early", "late", "double", "enveloped", "waterfall", "chunked"])
def test_a_callback_of_any_kind_is_applied_once(open_phones: OpenPhones, crm: str, what: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    assert walked(office, {"what": what, "times": 9, "seconds": 0.3}) is RunStatus.WAITING_FOR_PHONES

    office.carry_out()

    assert office.with_mobile == office.targets
    assert set(office.told()) <= {"done"}
    office.books_agree()


def test_callbacks_in_the_wrong_order_are_all_applied(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=60)
    walked(office, {"what": "reversed"})

    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


@pytest.mark.parametrize("what", POLLED)
def test_what_is_not_delivered_is_fetched(open_phones: OpenPhones, crm: str, what: str) -> None:
    """In its time, where nothing came; at once where something came that could not be taken or read."""
    office = open_phones(tidy=True, contacts=20, apollo_options={"callback_tries": 1})
    walked(office, {"what": what, "times": 9})
    office.until(lambda: office.sold["running"] == 0)
    if what in ("huge", "latin1"):
        office.until(lambda: any(each["attempts"] for each in office.sold["by_request"]))
        office.carry_out(until=lambda: "new" not in office.told())
        if what == "latin1":
            assert office.told() == {"dead": 1}
        assert office.sweep().polled == 1, "what could not be read is fetched at once"
    else:
        assert office.sweep().polled == 0, "its time has not come"
        office.later(timedelta(minutes=3))
        assert office.sweep().polled == 1

    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


def test_of_two_that_differ_apollos_own_copy_counts(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    walked(office, {"what": "changed", "times": 9})
    office.until(lambda: sum(office.told().values()) == 2)  # the poll has the second one's numbers from now on

    office.carry_out()

    told = {each.state: each for each in office.app.deliveries.listed()}
    assert "differs" in told["quarantined"].reason
    for index in office.targets:
        [sold] = office.numbers_of(index)
        assert office.value(index, MOBILE[crm]) == other_number(sold.sanitized)
    office.books_agree()


def test_nothing_found_closes_the_wait_without_a_credit(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    walked(office, {"what": "nothing", "times": 9})

    office.carry_out()

    assert office.app.reveals.counts() == {"no number": len(office.targets)}
    assert office.with_mobile == []
    assert office.money()["billed"] == 0
    office.books_agree()
    again = office.walk()
    assert again.status is RunStatus.COMPLETED
    assert again.credits == 0


def test_a_stranger_in_a_delivery_gets_nothing_and_the_others_theirs(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    walked(office, {"what": "foreign", "times": 9})

    office.carry_out()

    assert office.with_mobile == office.targets
    assert "1 whom nobody asked for" in office.app.deliveries.listed()[0].reason
    office.books_agree()


# --- by what it is believed -----------------------------------------------------------------------------------------

ALL_BUT_POLLS = {"people/bulk_match", "people/match", "usage_stats/credit_usage_stats", "usage_stats/api_usage_stats"}


@pytest.mark.parametrize(
    "options", [{"scopes": ALL_BUT_POLLS}, {"poll_per_minute": 0}], ids=["without the scope", "beyond the limit"]
)
def test_where_apollo_may_not_be_asked_the_token_has_to_do(
    open_phones: OpenPhones, crm: str, options: dict[str, Any]
) -> None:
    office = open_phones(tidy=True, contacts=20, apollo_options=options)
    office.walk()

    office.carry_out()

    assert [each.belief for each in office.app.deliveries.listed()] == ["token"]
    assert office.with_mobile == office.targets
    office.books_agree()


@pytest.mark.parametrize("what", ["500", "404", "403"])
def test_a_poll_that_goes_wrong_puts_a_delivery_off_and_does_not_lose_it(
    open_phones: OpenPhones, crm: str, what: str
) -> None:
    office = open_phones(tidy=True, contacts=20)
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    office.fault("apollo", call="*webhook_result*", what=what, times=3 if what == "500" else 1)

    office.carry_out(until=lambda: "new" not in office.told())
    if office.told().get("waiting"):
        office.later(timedelta(minutes=1))
    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


def test_a_poll_that_fails_for_long_leaves_it_to_the_token(open_phones: OpenPhones, crm: str) -> None:
    office = open_phones(tidy=True, contacts=20)
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    office.fault("apollo", call="*webhook_result*", what="500", times=1000)

    for _ in range(6):
        office.carry_out(until=lambda: "new" not in office.told())
        office.later(timedelta(hours=1))
    office.carry_out()

    assert office.with_mobile == office.targets
    assert [each.belief for each in office.app.deliveries.listed()] == ["token"]


def test_what_apollo_does_not_know_of_is_put_aside(open_phones: OpenPhones, crm: str) -> None:
    """A forged delivery, say: Apollo knows nothing of it, and says so as often as it is asked."""
    office = open_phones(tidy=True, contacts=20)
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    reveals = office.sandbox.apps["apollo"].extensions["simulator"]._reveals
    orders = dict(reveals._orders)
    reveals._orders.clear()

    for _ in range(4):
        office.carry_out(until=lambda: "new" not in office.told())
        office.later(timedelta(minutes=5))

    assert office.told() == {"quarantined": 1}
    assert office.with_mobile == []
    reveals._orders.update(orders)
    office.poll()
    office.carry_out()
    assert office.with_mobile == office.targets
    office.books_agree()


# --- the order's answer ---------------------------------------------------------------------------------------------


def test_an_order_that_apollo_skips_gets_its_numbers_under_the_earlier_one(open_phones: OpenPhones, crm: str) -> None:
    """The answer to the first order is lost, a person has it asked for once more, and both are one reveal."""
    office = open_phones(tidy=True, contacts=20, apollo_options={"reveal_delay_s": 3.0})
    office.fault("apollo", call="*bulk_match", what="cut", when="after", nth=3)
    office.walk()
    doubt = office.app.journal.doubts()
    assert [call.purse for call in doubt] == ["phones"]
    office.app.journal.accept(doubt[0].id, ask_again=True, by="somebody", now=office.app.clock.now())

    again = office.walk()
    assert office.sold["skipped"] == 1
    assert again.status is RunStatus.WAITING_FOR_PHONES, again.reason
    office.carry_out()

    assert office.with_mobile == office.targets
    assert office.sold["more_than_once"] == {}
    ended = office.app.runs.get(again.id)
    assert ended is not None
    assert ended.status is RunStatus.COMPLETED


def _with_a_lost_match(open_phones: OpenPhones) -> PhoneOffice:
    """Matched and ordered in one call, whose answer never comes; its numbers do, and a person lets it be asked anew."""
    office = open_phones(tidy=True, contacts=20)
    office.text = office.text.replace("workers: 4", "workers: 1")
    office.order_phones(**{"      route:": "      order: with_match\n      route:"})
    plain = -(-(20 - len(office.targets)) // 10)
    office.fault("apollo", call="*bulk_match", what="cut", when="after", nth=plain + 1)
    office.walk()
    doubt = office.app.journal.doubts()
    assert [call.purse for call in doubt] == ["phones"]
    office.carry_out(until=lambda: office.told() == {"unknown": 1})
    office.app.journal.accept(doubt[0].id, ask_again=True, by="somebody", now=office.app.clock.now())
    return office


def test_numbers_of_a_match_whose_answer_is_lost_are_written_once_it_is_matched_again(
    open_phones: OpenPhones, crm: str
) -> None:
    office = _with_a_lost_match(open_phones)

    again = office.walk()
    office.carry_out()

    assert again.status is RunStatus.WAITING_FOR_PHONES, again.reason
    assert office.with_mobile == office.targets
    assert office.told() == {"done": 1}
    assert office.sold["more_than_once"] == {}, "what was paid for and is here is not bought again"


def test_numbers_of_a_lost_match_go_to_nobody_whom_it_was_not_made_for(open_phones: OpenPhones, crm: str) -> None:
    """Such an order is believed by its token alone: it proves nothing about a record under another address."""
    office = _with_a_lost_match(open_phones)
    other, *others = office.targets
    email = {"salesforce": "Email", "hubspot": "email"}[crm]
    office.order_phones()  # after the match from now on
    office.edit(other, {email: f"other.{office.sandbox.world.contact(other).email}"})

    office.walk()
    office.carry_out(until=lambda: office.with_mobile == others)
    office.app.reveals.close_stranded(now=office.app.clock.now())

    assert office.with_mobile == others
    assert office.ended(other)[0] == "expired"


def test_a_skipped_order_of_another_installation_expires(
    open_phones: OpenPhones, crm: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers go to whoever asked first: here nobody waits for ever, and nothing is bought again."""
    office = open_phones(tidy=True, contacts=20, apollo_options={"reveal_delay_s": 6.0})
    office.walk()
    other = PhoneOffice(office.sandbox, crm, f"sqlite:///{tmp_path}/other.db", monkeypatch)
    try:
        run = other.walk()
        assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
        other.later(timedelta(days=4))
        assert other.sweep().given_up == 1
        assert set(other.app.reveals.counts()) == {"expired"}
        ended = other.app.runs.get(run.id)
        assert ended is not None
        assert ended.status is RunStatus.COMPLETED
        assert other.money()["reserved"] == 0
        assert other.walk().credits == 0
    finally:
        other.stop_serving()
        other.front.close()
        other.app.close()


def test_two_syncs_that_want_the_same_people_buy_them_once(open_phones: OpenPhones, crm: str) -> None:
    """Into another field each; the second one's run comes while the first one's numbers are still awaited."""
    office = open_phones(tidy=True, contacts=20)
    second = {"salesforce": "AssistantPhone", "hubspot": "hs_whatsapp_phone_number"}[crm]
    version = office.app.versions.latest()
    assert version is not None
    head, _, sync = version.text.decode().partition("  contacts:\n")
    end = re.search(r"^  \w", sync, re.MULTILINE)
    sync = sync[: end.start()] if end is not None else sync
    copied = sync.replace(f"mobile: {MOBILE[crm]}", f"mobile: {second}", 1)
    copied = copied.replace(f"other: {second}", "other: skip", 1)
    office.apply(f"{head}  contacts:\n{sync}  again:\n{copied}")
    office.restart()

    office.walk()
    run = office.walk("again")
    assert run.status is RunStatus.WAITING_FOR_PHONES, run.reason
    office.carry_out()

    assert office.with_mobile == office.targets
    assert [index for index in range(20) if office.value(index, second)] == office.targets
    office.books_agree()


def test_a_delivery_that_apollo_has_forgotten_meanwhile_is_believed_by_its_token(
    open_phones: OpenPhones, crm: str
) -> None:
    """Apollo keeps results for 30 days; what came in time, and could not be carried out, is worth its credits still."""
    office = open_phones(tidy=True, contacts=20)
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    requests.post(f"{office.sandbox.apollo_url}/_sandbox/phones", json={"age_days": 31}, timeout=10)

    office.carry_out()

    assert office.with_mobile == office.targets
    office.books_agree()


def test_a_delivery_of_which_apollo_says_that_it_is_not_finished_waits_for_hours(
    open_phones: OpenPhones, crm: str
) -> None:
    """However often Apollo says "again in 10 seconds"."""
    office = open_phones(tidy=True, contacts=20)
    office.walk()
    office.until(lambda: office.told().get("new") == 1)
    reveals = office.sandbox.apps["apollo"].extensions["simulator"]._reveals
    poll, left = reveals.poll, [6]

    def pending(text: str) -> dict[str, Any]:
        left[0] -= 1
        if left[0] < 0:
            told: dict[str, Any] = poll(text)
            return told
        raise Refusal(404, {"error_code": "result_pending", "retry_after_seconds": 10})

    reveals.poll = pending
    for _ in range(6):
        office.carry_out(until=lambda: "new" not in office.told())
        assert office.told() == {"waiting": 1}
        office.later(timedelta(minutes=50))
    office.carry_out()

    assert office.with_mobile == office.targets
    assert [each.belief for each in office.app.deliveries.listed()] == ["poll"]
    office.books_agree()
