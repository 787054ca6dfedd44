"""What is sealed in the database, and with which key: paid answers are readable only with CRM_SYNC_SECRET_KEY.

Sealed means compressed (zstd), then encrypted (AES-GCM).

Two data keys are made once for a database and kept in it, wrapped by the newest key of the ring: one seals, one
makes digests of identities. So a new CRM_SYNC_SECRET_KEY changes neither what is known of whom, nor what was
bought: a digest that changed with the secret would forget every answer and buy it again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Row, select, update

from crm_sync import crash
from crm_sync.errors import ConfigError, StoreError
from crm_sync.store.engine import Store
from crm_sync.store.tables import data_keys
from crm_sync.store.upsert import upsert

SETTING = "CRM_SYNC_SECRET_KEY"
#: Fewer characters are guessed too soon: they guard people's data in every copy of the database.
SHORTEST_SECRET = 24
_FORMAT = b"\x01"
_NONCE = 12
_HEAD = len(_FORMAT) + 2
DIGEST_SIZE = 16


class WrongKeyError(ConfigError):
    """None of the keys at hand opens this database; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Master:
    """One key of the ring: `fingerprint` names it without telling it."""

    fingerprint: str
    _wrapping: bytes
    _calling: bytes

    @classmethod
    def of(cls, secret: str) -> Master:
        key = secret.encode()
        return cls(_derive(key, b"fingerprint", 8).hex(), _derive(key, b"wrap", 32), _derive(key, b"webhook", 32))

    def mark(self, message: bytes) -> bytes:
        """Sixteen bytes that only the holder of this key can make for an address that is called back."""
        return hmac.new(self._calling, message, hashlib.sha256).digest()[:16]

    def wrap(self, key: bytes, name: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self._wrapping).encrypt(nonce, key, name)

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        return AESGCM(self._wrapping).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], name)


class Vault:
    """Seals and unseals, and makes the digests by which people are known. Thread-safe."""

    def __init__(self, sealing: Mapping[int, bytes], index: bytes, reload: Callable[[], Mapping[int, bytes]]) -> None:
        """`sealing`: data keys by number, the highest one seals. `reload` reads them again, when somebody rotated."""
        self._reload = reload
        self._ciphers = {number: AESGCM(key) for number, key in sealing.items()}
        self._newest = max(sealing)
        self._index = index
        self._local = threading.local()  # zstandard's objects must not be shared between threads

    def seal(self, plain: bytes, what: bytes) -> bytes:
        """`what` names the place ("batches.body:17"): moved elsewhere, the bytes do not open."""
        nonce = os.urandom(_NONCE)
        head = _FORMAT + self._newest.to_bytes(2, "big")
        return head + nonce + self._ciphers[self._newest].encrypt(nonce, self._zstd()[0].compress(plain), head + what)

    def unseal(self, sealed: bytes, what: bytes) -> bytes:
        """
        Raises:
            StoreError: the bytes were changed or moved, or their data key is gone.
        """
        head, nonce = sealed[:_HEAD], sealed[_HEAD : _HEAD + _NONCE]
        cipher = self._cipher(int.from_bytes(head[1:], "big")) if head[:1] == _FORMAT else None
        try:
            if cipher is not None and len(sealed) > _HEAD + _NONCE:
                packed = cipher.decrypt(nonce, sealed[_HEAD + _NONCE :], head + what)
                return bytes(self._zstd()[1].decompress(packed))
        except InvalidTag:
            pass
        place = what.decode(errors="replace")
        raise StoreError(f"What is stored at {place} cannot be opened: it was changed outside crm-sync; restore it")

    def _cipher(self, number: int) -> AESGCM | None:
        if number not in self._ciphers:
            self._ciphers = {each: AESGCM(key) for each, key in self._reload().items()}
        return self._ciphers.get(number)

    def _zstd(self) -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
        made: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] | None = getattr(self._local, "zstd", None)
        if made is None:
            made = self._local.zstd = (zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor())
        return made

    def is_newest(self, sealed: bytes) -> bool:
        return int.from_bytes(sealed[1:_HEAD], "big") == self._newest

    def digest(self, text: str) -> bytes:
        """Sixteen bytes that stand for an identity; nobody without the key can tell or try out whose they are."""
        return hashlib.blake2b(text.encode(), key=self._index, digest_size=DIGEST_SIZE).digest()

    def sign(self, content: bytes, what: bytes) -> str:
        """A signature only this installation can make, in hexadecimal digits."""
        return hmac.new(self._index, what + b"\0" + content, hashlib.sha256).hexdigest()


def ring_of(secret_key: str, store: Store) -> tuple[Master, ...]:
    """The masters, newest first: of the setting (a comma list), else of the file beside a SQLite database.

    Raises:
        ConfigError: no key, or one that is too short.
    """
    words = [word.strip() for word in secret_key.split(",") if word.strip()]
    if not words:
        words = [_key_file(store)]
    for position, word in enumerate(words, start=1):
        if len(word) < SHORTEST_SECRET:
            raise ConfigError(
                f"{SETTING}: key {position} of {len(words)} has {len(word)} characters; {SHORTEST_SECRET} or more are "
                "needed. `crm-sync secrets new` makes one"
            )
    return tuple(Master.of(word) for word in words)


def key_path(store: Store) -> Path | None:
    """Where the key lies when the setting names none; None on PostgreSQL, where the setting is needed."""
    return store.path.with_name(store.path.name + ".key") if store.path is not None else None


def _key_file(store: Store) -> str:
    path = key_path(store)
    if path is None:
        raise ConfigError(
            f"{SETTING} is not set, and a PostgreSQL database needs it: `crm-sync secrets new` makes one. Keep it "
            "where the database's backups are not"
        )
    try:
        if not path.exists():
            if _rows(store) and not path.exists():  # else another process has just made both
                raise WrongKeyError(
                    f"The key file {path} is gone, and {store.shown_url} was sealed with it: put it back, or set "
                    f"{SETTING} to its content. Nothing was changed"
                )
            _write_private(path, secrets.token_urlsafe(32))
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(f"The key file {path} can be read by others: run chmod 600 {path}")
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"The key file {path} cannot be used ({error.strerror}); or set {SETTING}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"The key file {path} holds no key; put the right one back, or set {SETTING}") from None


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, also when two make it at the same time: the first one's stays."""
    made = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    crash.point("vault.key_file")
    try:
        os.link(made, path)
    except FileExistsError:
        pass  # another process was first, and its key counts
    finally:
        made.unlink()


def open_vault(store: Store, ring: Sequence[Master], *, now: datetime) -> Vault:
    """The vault of this database; its data keys are made when there are none.

    Raises:
        WrongKeyError: no key of the ring opens it.
    """
    with store.read() as connection:
        rows = connection.execute(select(data_keys)).all()
    if not rows:
        with store.write() as connection:
            for number, purpose in ((1, "seal"), (2, "index")):
                # Where two processes do this at once, the keys of the first one count.
                connection.execute(upsert(connection, data_keys, ()), _new(ring[0], number, purpose, now))
                crash.point("vault.keys.inside")
            rows = connection.execute(select(data_keys)).all()
    crash.point("vault.keys.after")
    index = next(_unwrap(row, ring, store) for row in rows if row.purpose == "index")

    def sealing() -> Mapping[int, bytes]:
        return {row.id: _unwrap(row, ring, store) for row in _rows(store) if row.purpose == "seal"}

    return Vault(sealing(), index, sealing)


def masters_in_use(store: Store) -> set[str]:
    """Fingerprints of the keys that this database's data keys are wrapped by."""
    return {row.master for row in _rows(store)}


def rewrap(store: Store, ring: Sequence[Master], *, now: datetime) -> Vault:
    """Wrap every data key by the newest key of the ring and begin a new sealing key.

    The old sealing keys stay, wrapped anew: a process that began before may still be sealing with them.

    Raises:
        WrongKeyError: no key of the ring opens one of them; nothing was changed.
    """
    open_vault(store, ring, now=now)
    with store.write() as connection:
        rows = connection.execute(select(data_keys)).all()
        for row in rows:
            wrapped = ring[0].wrap(_unwrap(row, ring, store), _name(row.id, row.purpose))
            connection.execute(
                update(data_keys).where(data_keys.c.id == row.id).values(wrapped=wrapped, master=ring[0].fingerprint)
            )
        number = max(row.id for row in rows) + 1
        connection.execute(upsert(connection, data_keys, ()), _new(ring[0], number, "seal", now))
    return open_vault(store, ring, now=now)


def _rows(store: Store) -> Sequence[Row[Any]]:
    if store.schema_version() == "":
        return []
    with store.read() as connection:
        return connection.execute(select(data_keys)).all()


def _new(master: Master, number: int, purpose: str, now: datetime) -> dict[str, Any]:
    return {
        "id": number,
        "purpose": purpose,
        "wrapped": master.wrap(os.urandom(32), _name(number, purpose)),
        "master": master.fingerprint,
        "created_at": now,
    }


def _unwrap(row: Row[Any], ring: Sequence[Master], store: Store) -> bytes:
    for master in ring:
        if master.fingerprint == row.master:
            try:
                return master.unwrap(row.wrapped, _name(row.id, row.purpose))
            except InvalidTag:
                break
    raise WrongKeyError(
        f"{store.shown_url} was sealed under the key with the fingerprint {row.master}, and {SETTING} has "
        f"{', '.join(master.fingerprint for master in ring)}: put that key back into the list (newest first). Nothing "
        "was changed, and nothing can be spent until then"
    )


def _name(number: int, purpose: str) -> bytes:
    return f"data_keys:{number}:{purpose}".encode()


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=b"crm-sync", info=purpose).derive(secret)
