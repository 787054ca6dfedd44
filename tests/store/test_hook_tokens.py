"""The token in the address that is called back."""

from __future__ import annotations

import random
import string
from datetime import timedelta
from urllib.parse import quote

import pytest

from crm_sync.store.hook_tokens import LIVES_FOR, HookTokens, new_order_id
from crm_sync.store.vault import Master
from tests.factories import NOON

OLD, NEW = Master.of("an old secret of the tests, long enough"), Master.of("a new secret of the tests, long enough")


def tokens(*ring: Master, instance: str = "here") -> HookTokens:
    return HookTokens(ring or (NEW,), lambda: instance)


def test_a_token_stands_for_its_order_until_it_expires() -> None:
    order = new_order_id()
    token = tokens().make(order, now=NOON)

    assert tokens().read(token, now=NOON) == order
    assert tokens().read(token, now=NOON + LIVES_FOR - timedelta(seconds=1)) == order
    assert tokens().read(token, now=NOON + LIVES_FOR) is None
    assert len(token) <= 110
    assert set(token) <= set(string.ascii_letters + string.digits + "_-")
    assert quote(quote(token)) == token


def test_a_new_key_makes_tokens_and_the_old_ones_still_count_until_their_key_is_taken_out() -> None:
    order = new_order_id()
    token = tokens(OLD).make(order, now=NOON)

    assert tokens(NEW, OLD).read(token, now=NOON) == order
    assert tokens(NEW).read(token, now=NOON) is None
    assert tokens(NEW, OLD).make(order, now=NOON).split("_")[1] == NEW.fingerprint


def test_a_token_of_another_installation_is_none() -> None:
    token = tokens(instance="there").make(new_order_id(), now=NOON)

    assert tokens(instance="here").read(token, now=NOON) is None


@pytest.mark.parametrize("part", range(4))
def test_each_changed_character_makes_it_a_forgery(part: int) -> None:
    token = tokens().make(new_order_id(), now=NOON)
    pieces = token.split("_")
    for at, character in enumerate(pieces[part]):
        other = "0" if character != "0" else "1"
        forged = [*pieces]
        forged[part] = pieces[part][:at] + other + pieces[part][at + 1 :]
        assert tokens().read("_".join(forged), now=NOON) is None


def test_a_hundred_thousand_forged_tokens_are_none() -> None:
    chance = random.Random(4)
    known = tokens()
    real = known.make(new_order_id(), now=NOON)
    alphabet = string.ascii_letters + string.digits + "_-%./\0é"

    def forged() -> str:
        kind = chance.randrange(4)
        if kind == 0:
            return "".join(chance.choice(alphabet) for _ in range(chance.randrange(140)))
        if kind == 1:
            return f"v1_{NEW.fingerprint}_{chance.getrandbits(128):032x}_{2**33}_{chance.getrandbits(128):032x}"
        at = chance.randrange(len(real))
        if kind == 2:
            return real[:at] + chance.choice(alphabet) + real[at + 1 :] if real[at] != "_" else real[:at]
        return real[:at] + real[at + 1 :]

    accepted = [token for token in (forged() for _ in range(100_000)) if token != real and known.read(token, now=NOON)]

    assert accepted == []
