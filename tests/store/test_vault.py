"""Paid answers can be read with the key and not without it, and no mishap with a key loses any."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select, update

from crm_sync.domain.enrichment import Purpose, RawAnswer
from crm_sync.errors import ConfigError, StoreError
from crm_sync.store.engine import Store
from crm_sync.store.tables import batches, data_keys, metadata
from crm_sync.store.vault import (
    SHORTEST_SECRET,
    Master,
    Vault,
    WrongKeyError,
    key_path,
    masters_in_use,
    open_vault,
    rewrap,
    ring_of,
)
from tests.factories import NOON, SECRET_KEY, a_run, person_keys
from tests.store.books import Books, people_keys

KEYS = {1: b"1" * 32, 3: b"3" * 32}
VAULT = Vault(KEYS, b"index" * 6 + b"ix", lambda: KEYS)
NEW_KEY = "another-secret-of-the-tests-newer-than-that"
OLD, NEW = Master.of(SECRET_KEY), Master.of(NEW_KEY)
PLACE = b"batches.body:7"


# --- sealing ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000), st.binary(max_size=40))
@example(b"", b"")
@example(b"x" * 1_000_000, PLACE)
def test_what_was_sealed_is_unsealed_byte_for_byte(plain: bytes, place: bytes) -> None:
    assert VAULT.unseal(VAULT.seal(plain, place), place) == plain


@given(st.binary(min_size=1, max_size=2000), st.binary(max_size=20), st.binary(max_size=20))
def test_what_was_sealed_for_one_place_does_not_open_in_another(plain: bytes, place: bytes, other: bytes) -> None:
    sealed = VAULT.seal(plain, place)

    if place != other:
        with pytest.raises(StoreError, match="cannot be opened: it was changed outside crm-sync"):
            VAULT.unseal(sealed, other)


@given(st.binary(max_size=200), st.data())
def test_bytes_that_were_changed_do_not_open(plain: bytes, data: Any) -> None:
    sealed = VAULT.seal(plain, PLACE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(StoreError, match=r"batches\.body:7 cannot be opened"):
        VAULT.unseal(bytes(changed), PLACE)


@given(st.binary(max_size=200), st.data())
def test_bytes_that_were_cut_or_lengthened_do_not_open(plain: bytes, data: Any) -> None:
    sealed = VAULT.seal(plain, PLACE)
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    longer = sealed + data.draw(st.binary(min_size=1, max_size=20))

    for changed in (cut, longer):
        with pytest.raises(StoreError):
            VAULT.unseal(changed, PLACE)


@given(st.binary(max_size=100))
def test_bytes_that_were_never_sealed_do_not_open(noise: bytes) -> None:
    with pytest.raises(StoreError):
        VAULT.unseal(noise, PLACE)


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    assert len({VAULT.seal(b"Ada Lovelace", PLACE) for _ in range(100)}) == 100


def test_a_vault_seals_by_its_newest_key_and_opens_by_the_older_ones() -> None:
    before = Vault({1: KEYS[1]}, b"i" * 32, lambda: KEYS).seal(b"Ada", PLACE)
    after = VAULT.seal(b"Ada", PLACE)

    assert (VAULT.is_newest(before), VAULT.is_newest(after)) == (False, True)
    assert VAULT.unseal(before, PLACE) == VAULT.unseal(after, PLACE) == b"Ada"


def test_threads_share_a_vault() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(200):
            plain = b"%d/%d" % (number, turn) * (turn + 1)
            if VAULT.unseal(VAULT.seal(plain, PLACE), PLACE) != plain:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


# --- digests ------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_digest_stands_for_one_identity_and_tells_nothing_of_it(one: str, other: str) -> None:
    assert (VAULT.digest(one) == VAULT.digest(other)) == (one == other)
    assert len(VAULT.digest(one)) == 16


def test_another_database_knows_the_same_person_by_another_digest(tmp_path: Path) -> None:
    digests, signatures = set(), set()
    for name in ("a.db", "b.db"):
        store = Store(f"sqlite:///{tmp_path}/{name}")
        store.ready()
        vault = open_vault(store, [OLD], now=NOON)
        digests.add(vault.digest(person_keys(1).key))
        signatures.add(vault.sign(b"content", b"export"))
        store.close()

    assert (len(digests), len(signatures)) == (2, 2)


def test_a_signature_is_of_one_content_and_one_use() -> None:
    signature = VAULT.sign(b"content", b"export")

    assert signature == VAULT.sign(b"content", b"export")
    assert len({signature, VAULT.sign(b"contents", b"export"), VAULT.sign(b"content", b"backup")}) == 3
    assert VAULT.sign(b"bc", b"a") != VAULT.sign(b"c", b"ab")


# --- what lies in the database ------------------------------------------------------------------------------------


def everything_in(store: Store) -> bytes:
    """All rows as their repr and, of SQLite, all bytes of its files."""
    found = b""
    with store.read() as connection:
        for table in metadata.sorted_tables:
            found += repr(connection.execute(select(table)).all()).encode()
    if store.path is not None:
        files = [store.path, *store.path.parent.glob(f"{store.path.name}-*")]
        found += b"".join(file.read_bytes() for file in files)
    return found


def test_nobody_can_be_read_from_the_database_after_a_call(store: Store) -> None:
    books = Books.opened(store)
    keys = person_keys(1, domain="analytical-engine.example", linkedin_url="http://www.linkedin.com/in/ada-l")
    [call] = books.plan((keys,)).calls
    books.journal.sent(call.id, now=NOON)
    body = b'{"matches": [{"email": "ada.1@lovelace.example", "title": "Countess", "city": "Marylebone"}]}' * 50
    books.journal.received(call.id, RawAnswer(body=body, credits=None, request_id="7"), now=NOON)

    bytes_ = everything_in(store).lower()

    assert books.answers.load([call.id])[call.id].body == body
    assert len(bytes_) > 1000
    for word in (b"ada.1", b"lovelace", b"analytical", b"ada-l", b"countess", b"marylebone"):
        assert word not in bytes_, word


def test_an_answer_moved_to_another_call_does_not_open(store: Store) -> None:
    books = Books.opened(store)
    one, other = books.received(1), books.received(2)
    with store.write() as connection:
        body = connection.execute(select(batches.c.body).where(batches.c.id == one)).scalar_one()
        connection.execute(update(batches).where(batches.c.id == other).values(body=body))

    with pytest.raises(StoreError, match=f"batches.body:{other} cannot be opened"):
        books.answers.load([other])


# --- where the key is ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_mask() -> Iterator[None]:
    """As where somebody's umask lets everybody read everything."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def key_file(store: Store) -> Path:
    path = key_path(store)
    assert path is not None
    return path


def opened(store: Store, secret_key: str = "") -> Vault:
    """As the program opens it."""
    return open_vault(store, ring_of(secret_key, store), now=NOON)


def state_of(store: Store) -> tuple[Any, ...]:
    """What a mishap must leave as it is: the data keys, and the files with their content and rights."""
    with store.read() as connection:
        rows = connection.execute(select(data_keys).order_by(data_keys.c.id)).all()
    if store.path is None:
        return (rows,)
    files = [path for path in sorted(store.path.parent.iterdir()) if ".key" in path.name]
    return rows, [(path.name, path.stat().st_mode, path.read_bytes()) for path in files]


def test_a_key_is_made_beside_sqlite_for_its_owner_alone(sqlite_store: Store, no_mask: None) -> None:
    vault = opened(sqlite_store)

    path = key_file(sqlite_store)
    assert path.name == "crm_sync.db.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= SHORTEST_SECRET
    assert [file.name for file in path.parent.iterdir() if ".key" in file.name] == ["crm_sync.db.key"]
    assert opened(sqlite_store).digest("ada") == vault.digest("ada")


def test_a_key_file_left_half_made_by_a_killed_process_is_in_nobodys_way(sqlite_store: Store) -> None:
    """In a container every process may have the same number."""
    path = key_file(sqlite_store)
    path.with_name(f"{path.name}.{os.getpid()}.new").write_text("half")

    opened(sqlite_store)

    assert len(path.read_text().strip()) >= SHORTEST_SECRET


def test_the_content_of_the_key_file_opens_the_database_as_a_setting(sqlite_store: Store) -> None:
    vault = opened(sqlite_store)
    sealed = vault.seal(b"Ada", PLACE)
    moved = key_file(sqlite_store).read_text()
    key_file(sqlite_store).unlink()

    again = opened(sqlite_store, moved)

    assert again.unseal(sealed, PLACE) == b"Ada"
    assert not key_file(sqlite_store).exists()


def test_a_setting_makes_no_key_file(sqlite_store: Store) -> None:
    opened(sqlite_store, SECRET_KEY)

    assert not key_file(sqlite_store).exists()


def test_a_key_file_that_is_gone_is_missed_and_not_made_anew(sqlite_store: Store) -> None:
    opened(sqlite_store)
    key_file(sqlite_store).unlink()
    before = state_of(sqlite_store)

    with pytest.raises(
        ConfigError, match=r"crm_sync\.db\.key is gone.*put it back, or set CRM_SYNC_SECRET_KEY"
    ) as caught:
        opened(sqlite_store)

    assert type(caught.value) is WrongKeyError
    assert state_of(sqlite_store) == before


def test_a_key_file_of_another_database_is_refused(sqlite_store: Store) -> None:
    opened(sqlite_store)
    key_file(sqlite_store).write_text(NEW_KEY)
    before = state_of(sqlite_store)

    with pytest.raises(ConfigError, match="was sealed under the key with the fingerprint") as caught:
        opened(sqlite_store)

    assert type(caught.value) is WrongKeyError
    assert state_of(sqlite_store) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_file_that_others_can_read_or_write_is_refused(sqlite_store: Store, mode: int) -> None:
    opened(sqlite_store)
    key_file(sqlite_store).chmod(mode)
    before = state_of(sqlite_store)

    with pytest.raises(ConfigError, match="run chmod 600") as caught:
        opened(sqlite_store)

    assert type(caught.value) is ConfigError
    assert state_of(sqlite_store) == before


@pytest.mark.parametrize("content", [b"", b"\n", b"too short", b"\xff\xfe" * 40])
def test_a_key_file_that_holds_no_key_is_refused(sqlite_store: Store, content: bytes) -> None:
    opened(sqlite_store)
    key_file(sqlite_store).write_bytes(content)
    before = state_of(sqlite_store)

    with pytest.raises(ConfigError) as caught:
        opened(sqlite_store)

    assert type(caught.value) is ConfigError
    assert state_of(sqlite_store) == before


def test_a_key_file_that_cannot_be_read_says_why(sqlite_store: Store) -> None:
    key_file(sqlite_store).mkdir(mode=0o700)

    with pytest.raises(ConfigError, match=r"cannot be used \(Is a directory\)") as caught:
        opened(sqlite_store)

    assert type(caught.value) is ConfigError


def test_another_key_in_the_setting_opens_nothing_and_changes_nothing(store: Store) -> None:
    sealed = opened(store, SECRET_KEY).seal(b"Ada", PLACE)
    before = state_of(store)

    with pytest.raises(ConfigError) as caught:
        opened(store, NEW_KEY)

    assert type(caught.value) is WrongKeyError
    assert OLD.fingerprint in str(caught.value)
    assert NEW.fingerprint in str(caught.value)
    assert SECRET_KEY not in str(caught.value)
    assert NEW_KEY not in str(caught.value)
    assert state_of(store) == before
    assert opened(store, SECRET_KEY).unseal(sealed, PLACE) == b"Ada"


@pytest.mark.parametrize("sealed_already", [False, True])
def test_a_key_that_is_too_short_is_refused_by_its_place_and_not_shown(store: Store, sealed_already: bool) -> None:
    short = "x7" * (SHORTEST_SECRET // 2 - 1) + "y"
    if sealed_already:
        opened(store, SECRET_KEY)
    before = state_of(store)

    with pytest.raises(ConfigError, match=r"key 2 of 2 has 23 characters; 24 or more") as caught:
        opened(store, f"{SECRET_KEY},{short}")

    assert type(caught.value) is ConfigError
    assert short not in str(caught.value)
    assert state_of(store) == before


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("setting", ["", " ", " , ,"])
def test_postgresql_without_a_key_is_refused(store: Store, setting: str) -> None:
    before = state_of(store)

    with pytest.raises(
        ConfigError, match="CRM_SYNC_SECRET_KEY is not set, and a PostgreSQL database needs it"
    ) as caught:
        opened(store, setting)

    assert type(caught.value) is ConfigError
    assert state_of(store) == before == ([],)


def test_data_keys_that_changed_places_are_refused(store: Store) -> None:
    """Each is bound to its number and its use."""
    opened(store, SECRET_KEY)
    with store.write() as connection:
        one, other = connection.execute(select(data_keys).order_by(data_keys.c.id)).all()
        for row, wrapped in ((one, other.wrapped), (other, one.wrapped)):
            connection.execute(update(data_keys).where(data_keys.c.id == row.id).values(wrapped=wrapped))

    with pytest.raises(WrongKeyError):
        opened(store, SECRET_KEY)


def test_no_key_lies_in_the_database(store: Store) -> None:
    books = Books(store, vault=opened(store, SECRET_KEY))

    bytes_ = everything_in(store)

    assert SECRET_KEY.encode() not in bytes_
    assert books.vault._index not in bytes_
    assert repr(books.vault._index).encode() not in bytes_


# --- rotation -----------------------------------------------------------------------------------------------------


def test_the_order_of_the_ring_is_newest_first(store: Store) -> None:
    ring = ring_of(f" {NEW_KEY} , {SECRET_KEY},", store)

    assert [master.fingerprint for master in ring] == [NEW.fingerprint, OLD.fingerprint]


def test_a_new_database_is_wrapped_by_the_newest_key_alone(store: Store) -> None:
    open_vault(store, [NEW, OLD], now=NOON)

    assert masters_in_use(store) == {NEW.fingerprint}


def test_putting_a_new_key_first_changes_nothing_by_itself(store: Store) -> None:
    open_vault(store, [OLD], now=NOON)
    before = state_of(store)

    open_vault(store, [NEW, OLD], now=NOON)

    assert state_of(store) == before
    assert masters_in_use(store) == {OLD.fingerprint}


def test_while_a_key_is_rotated_what_either_sealed_can_be_opened(store: Store) -> None:
    before = open_vault(store, [OLD], now=NOON)
    sealed = before.seal(b"old", PLACE)

    after = rewrap(store, [NEW, OLD], now=NOON)
    sealed_anew = after.seal(b"new", PLACE)

    assert after.unseal(sealed, PLACE) == b"old"
    assert (after.is_newest(sealed), after.is_newest(sealed_anew)) == (False, True)
    assert masters_in_use(store) == {NEW.fingerprint}
    for ring in ([NEW, OLD], [OLD, NEW], [NEW]):
        vault = open_vault(store, ring, now=NOON)
        assert (vault.unseal(sealed, PLACE), vault.unseal(sealed_anew, PLACE)) == (b"old", b"new")
    with pytest.raises(WrongKeyError):
        open_vault(store, [OLD], now=NOON)


def test_a_process_that_began_before_a_rotation_works_on(store: Store) -> None:
    """Its keys are those of the setting, which named both when it began."""
    running = open_vault(store, [NEW, OLD], now=NOON)
    rotated = rewrap(store, [NEW, OLD], now=NOON)

    assert running.unseal(rotated.seal(b"new", PLACE), PLACE) == b"new"
    assert rotated.unseal(running.seal(b"still old", PLACE), PLACE) == b"still old"
    assert open_vault(store, [NEW], now=NOON).unseal(running.seal(b"later", PLACE), PLACE) == b"later"


def test_a_rotation_changes_neither_digests_nor_signatures(store: Store) -> None:
    """A digest that changed would forget every answer, and buy it again."""
    before = open_vault(store, [OLD], now=NOON)

    after = rewrap(store, [NEW, OLD], now=NOON)
    again = rewrap(store, [Master.of("a-third-secret-of-the-tests-even-newer"), NEW], now=NOON)

    assert before.digest("ada") == after.digest("ada") == again.digest("ada")
    assert before.sign(b"x", b"y") == after.sign(b"x", b"y") == again.sign(b"x", b"y")


def test_who_was_bought_before_a_rotation_is_held_after_it(store: Store) -> None:
    books = Books.opened(store)
    batch = books.done(1)

    after = Books(store, vault=rewrap(store, [NEW, OLD], now=NOON))

    assert after.plan(people_keys(1)).held == people_keys(1)
    assert after.answers.load([batch])[batch].body == b"{}"


def test_a_rotation_without_the_old_key_changes_nothing(store: Store) -> None:
    open_vault(store, [OLD], now=NOON)
    before = state_of(store)

    with pytest.raises(WrongKeyError):
        rewrap(store, [NEW], now=NOON)

    assert state_of(store) == before


def test_a_database_that_has_no_keys_yet_can_be_rotated(store: Store) -> None:
    vault = rewrap(store, [NEW, OLD], now=NOON)

    assert vault.unseal(vault.seal(b"Ada", PLACE), PLACE) == b"Ada"
    assert masters_in_use(store) == {NEW.fingerprint}


def test_after_sealing_anew_nothing_needs_the_old_sealing_key(store: Store) -> None:
    books = Books.opened(store)
    calls = [books.received(person) for person in range(120)]
    doubted = books.doubted(1000)
    after = Books(store, vault=rewrap(store, [NEW, OLD], now=NOON))

    looked_at = sum(after.journal.reseal(after.vault))

    assert looked_at == after.journal.sealed_count() == 121
    with store.read() as connection:
        rows = connection.execute(select(batches.c.request, batches.c.body)).all()
    assert all(after.vault.is_newest(sealed) for row in rows for sealed in row if sealed is not None)
    assert {call.id: call.keys for call in after.journal.unfinished(a_run().id)} == {
        call: people_keys(person) for person, call in enumerate(calls)
    }
    assert after.call(doubted).keys == people_keys(1000)


def test_sealing_anew_that_was_broken_off_goes_on(store: Store) -> None:
    books = Books.opened(store)
    calls = [books.received(person) for person in range(120)]
    after = Books(store, vault=rewrap(store, [NEW, OLD], now=NOON))
    assert next(iter(after.journal.reseal(after.vault))) == 100

    assert sum(after.journal.reseal(after.vault)) == 120

    assert all(batch.body == b"{}" for batch in after.answers.load(calls).values())
    assert after.answers.look_up(Purpose.PERSON, [person_keys(1).key])


# --- at the same time ---------------------------------------------------------------------------------------------


def make_vault(url: str, secret_key: str, together: Any, told: Any) -> None:
    store = Store(url)
    together.wait(60)
    try:
        vault = opened(store, secret_key)
        told.put((vault.digest("ada"), vault.seal(b"Ada", PLACE)))
    except BaseException as error:
        told.put((repr(error).encode(), b""))
        raise
    finally:
        store.close()


def test_processes_that_make_the_vault_at_once_agree_on_one(store: Store, database_url: str) -> None:
    secret_key = SECRET_KEY if store.path is None else ""
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(4), context.Queue()
    processes = [context.Process(target=make_vault, args=(database_url, secret_key, together, told)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()

    assert len({digest for digest, _ in found}) == 1, found
    vault = opened(store, secret_key)
    assert [vault.unseal(sealed, PLACE) for _, sealed in found] == [b"Ada"] * 4
    with store.read() as connection:
        assert len(connection.execute(select(data_keys)).all()) == 2


def test_threads_that_make_the_vault_at_once_agree_on_one(store: Store, database_url: str) -> None:
    secret_key = SECRET_KEY if store.path is None else ""
    stores = [Store(database_url) for _ in range(4)]
    together = threading.Barrier(4)
    digests: list[bytes] = []

    def work(own: Store) -> None:
        together.wait()
        digests.append(opened(own, secret_key).digest("ada"))

    threads = [threading.Thread(target=work, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in stores:
        own.close()

    assert digests == [opened(store, secret_key).digest("ada")] * 4
