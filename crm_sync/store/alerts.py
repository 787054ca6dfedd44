"""What is wrong and who is told of it, kept so that no restart and no second process tells it twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, literal_column, select, update

from crm_sync.domain.alerts import Address, Finding, Firing, Notice
from crm_sync.store.engine import Store
from crm_sync.store.tables import alert_notices as notices
from crm_sync.store.tables import alert_states as states
from crm_sync.store.upsert import upsert

BEGAN, RECOVERED = "began", "recovered"
WAITING, TOLD, SUPERSEDED, GIVEN_UP = "waiting", "told", "superseded", "given up"
PENDING, FIRING = "pending", "firing"
#: After a failed attempt; each further pause is twice as long, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
#: Whoever could not be told for so long is not told any more.
GIVE_UP_AFTER = timedelta(days=3)
_KEPT = timedelta(days=90)
#: What was given up on is nobody's business for longer.
_SHOWN = timedelta(days=7)
#: In words, not as a parameter: else SQLite does not take the index of the few that wait.
_WAITS = notices.c.state == literal_column("'waiting'")

#: The text of a notice: (kind, finding, since when, what was wrong before) -> body.
Writer = Callable[[str, Finding, datetime, str], str]


class Alerts:
    """Every method commits before it returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- states -------------------------------------------------------------------------------------------------

    def firing(self) -> list[Firing]:
        """All that is wrong now, pending ones too, oldest first."""
        with self._store.read() as connection:
            return list(_known(connection).values())

    def note(
        self,
        findings: Sequence[Finding],
        *,
        possible: Collection[tuple[str, str]],
        tell: Mapping[str, Sequence[Address]],
        write: Writer,
        now: datetime,
    ) -> int:
        """Take over what changed since the last look, and make the notices of it in the same transaction; returns how
        many notices were made.

        `possible`: every (alert, subject) of the configuration: what is known of others is forgotten, untold. One that
        has no finding stays as it is: nobody could look.
        """
        with self._store.read() as connection:
            known = _known(connection)
        changed = [each for each in findings if _changes(known.get((each.alert, each.subject)), each, now)]
        gone = [key for key in known if key not in possible]
        if not changed and not gone:
            return 0
        with self._store.write() as connection:
            made = 0
            for finding in changed:
                made += _take_over(connection, finding, tell.get(finding.alert, ()), write, now)
            for alert, subject in gone:
                connection.execute(delete(states).where(states.c.alert == alert, states.c.subject == subject))
                connection.execute(_superseding(alert, subject, now))
        return made

    # --- notices ------------------------------------------------------------------------------------------------

    def claim(self, *, now: datetime, limit: int = 20) -> list[Notice]:
        """Notices whose time has come, oldest first, each for this caller alone: the next attempt at it, by whoever it
        is, comes after the pause, so that one whose teller dies is told by another, maybe a second time."""
        with self._store.read() as connection:
            due = connection.execute(
                select(notices).where(_WAITS, notices.c.try_at <= now).order_by(notices.c.id).limit(limit)
            ).all()
        if not due:
            return []
        mine = []
        with self._store.write() as connection:
            for row in due:
                taking = update(notices).where(
                    notices.c.id == row.id, notices.c.state == WAITING, notices.c.attempts == row.attempts
                )
                values = {"attempts": row.attempts + 1, "try_at": now + pause_after(row.attempts + 1)}
                if connection.execute(taking.values(**values)).rowcount == 1:
                    mine.append(_notice(row))
        return mine

    def told(self, notice_id: int, *, now: datetime) -> None:
        with self._store.write() as connection:
            connection.execute(
                update(notices).where(notices.c.id == notice_id).values(state=TOLD, error="", ended_at=now)
            )

    def not_told(self, notice: Notice, error: str, *, now: datetime) -> None:
        """It is tried again after its pause, or given up on. `error` names no address."""
        is_over = now - notice.made_at > GIVE_UP_AFTER
        ended: dict[str, Any] = {"state": GIVEN_UP, "ended_at": now} if is_over else {}
        with self._store.write() as connection:
            connection.execute(
                update(notices)
                .where(notices.c.id == notice.id, notices.c.state == WAITING)
                .values(error=error, **ended)
            )

    def drop(self, notice_id: int, error: str, *, now: datetime) -> None:
        """Nobody is to be told it any more."""
        with self._store.write() as connection:
            connection.execute(
                update(notices).where(notices.c.id == notice_id).values(state=GIVEN_UP, error=error, ended_at=now)
            )

    def undelivered(self, *, now: datetime) -> list[Notice]:
        """What waits to be told after a failed attempt, and what was given up on lately; oldest first."""
        lately = and_(notices.c.state == GIVEN_UP, notices.c.ended_at >= now - _SHOWN)
        return sorted([*self._select(and_(_WAITS, notices.c.attempts > 0)), *self._select(lately)], key=_by_id)

    def waiting(self) -> list[Notice]:
        return self._select(_WAITS)

    def last_told(self) -> dict[tuple[str, str], datetime]:
        """(alert, subject) -> when somebody was told last."""
        query = (
            select(notices.c.alert, notices.c.subject, func.max(notices.c.ended_at))
            .where(notices.c.state == TOLD)
            .group_by(notices.c.alert, notices.c.subject)
        )
        with self._store.read() as connection:
            return {(alert, subject): at for alert, subject, at in connection.execute(query)}

    def history(self, *, limit: int) -> list[Notice]:
        """Newest first."""
        query = select(notices).order_by(notices.c.id.desc()).limit(limit)
        with self._store.read() as connection:
            return [_notice(row) for row in connection.execute(query)]

    def forget_old(self, *, now: datetime) -> int:
        with self._store.write() as connection:
            return connection.execute(
                delete(notices).where(notices.c.ended_at < now - _KEPT, notices.c.state != WAITING)
            ).rowcount

    def _select(self, which: ColumnElement[bool]) -> list[Notice]:
        with self._store.read() as connection:
            return [_notice(row) for row in connection.execute(select(notices).where(which).order_by(notices.c.id))]


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 20)), LONGEST_PAUSE)


def _changes(known: Firing | None, finding: Finding, now: datetime) -> bool:
    if known is None:
        return finding.is_firing
    if not finding.is_firing:
        return True
    if known.is_pending and now - known.since >= finding.lasts:
        return True
    return (known.title, known.what, known.advice) != (finding.title, finding.what, finding.advice)


def _take_over(
    connection: Connection, finding: Finding, addresses: Iterable[Address], write: Writer, now: datetime
) -> int:
    """The state as the finding says, decided by what this transaction finds: another process may have been first."""
    mine = and_(states.c.alert == finding.alert, states.c.subject == finding.subject)
    row = connection.execute(select(states).where(mine).with_for_update()).one_or_none()
    text = {"title": finding.title, "what": finding.what, "advice": finding.advice}
    if not finding.is_firing:
        if row is None or connection.execute(delete(states).where(mine)).rowcount != 1 or row.state == PENDING:
            return 0
        return _make(connection, RECOVERED, finding, row.since, addresses, write, now, before=row.what)
    if row is None:
        is_told = finding.lasts <= timedelta(0)
        values: dict[str, Any] = {"alert": finding.alert, "subject": finding.subject, "since": finding.since, **text}
        values["state"] = FIRING if is_told else PENDING
        statement = upsert(connection, states, ())
        # Of an INSERT that returns its key, as it does on PostgreSQL, the count is not kept unless it is asked for.
        done = connection.execute(statement, values, execution_options={"preserve_rowcount": True}).rowcount == 1
        return _make(connection, BEGAN, finding, finding.since, addresses, write, now) if done and is_told else 0
    begins = row.state == PENDING and now - row.since >= finding.lasts
    changed = {**text, "state": FIRING} if begins else text
    connection.execute(update(states).where(mine).values(**changed))
    return _make(connection, BEGAN, finding, row.since, addresses, write, now) if begins else 0


def _make(
    connection: Connection,
    kind: str,
    finding: Finding,
    since: datetime,
    addresses: Iterable[Address],
    write: Writer,
    now: datetime,
    *,
    before: str = "",
) -> int:
    """A notice to each address. What it was not told yet of the same alert and subject is in the new one's text, so
    that a notifier that comes back after a day gets one message, not all of them."""
    connection.execute(_superseding(finding.alert, finding.subject, now))
    rows = [
        {
            "alert": finding.alert,
            "subject": finding.subject,
            "kind": kind,
            "address": each.digest,
            "shown": each.shown,
            "title": finding.title,
            "body": write(kind, finding, since, before),
            "state": WAITING,
            "attempts": 0,
            "error": "",
            "made_at": now,
            "try_at": now,
            "ended_at": None,
        }
        for each in addresses
    ]
    if rows:
        connection.execute(insert(notices), rows)
    return len(rows)


def _superseding(alert: str, subject: str, now: datetime) -> Any:
    return (
        update(notices)
        .where(notices.c.alert == alert, notices.c.subject == subject, notices.c.state == WAITING)
        .values(state=SUPERSEDED, ended_at=now)
    )


def _known(connection: Connection) -> dict[tuple[str, str], Firing]:
    rows = connection.execute(select(states).order_by(states.c.since, states.c.alert, states.c.subject))
    return {
        (row.alert, row.subject): Firing(
            alert=row.alert,
            subject=row.subject,
            is_pending=row.state == PENDING,
            since=row.since,
            title=row.title,
            what=row.what,
            advice=row.advice,
        )
        for row in rows
    }


def _by_id(notice: Notice) -> int:
    return notice.id


def _notice(row: Row[Any]) -> Notice:
    return Notice(**{**row._mapping, "address": bytes(row.address)})  # noqa: SLF001
