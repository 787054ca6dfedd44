"""Insert, or update what is there, in the words of the database at hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Executable, Table, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.sql.elements import ColumnElement


def upsert(
    connection: Connection,
    table: Table,
    changed: tuple[str, ...],
    *,
    add: tuple[str, ...] = (),
    only: tuple[str, str] | None = None,
    where: ColumnElement[bool] | None = None,
    on: tuple[str, ...] = (),
) -> Executable:
    """An INSERT that on a conflict of the primary key, or of the unique columns `on`, sets the `changed` columns and
    increases the `add` ones; with `where` only if that holds for the row that is there.

    Nothing to change and nothing to add: the row that is there stays. `only` (column, value): so does one that has
    another value there.
    """
    return _upsert(connection.dialect.name, table, changed, add, only, where, on)


@cache  # composing a statement costs more than running it
def _upsert(
    dialect: str,
    table: Table,
    changed: tuple[str, ...],
    add: tuple[str, ...],
    only: tuple[str, str] | None,
    where: ColumnElement[bool] | None,
    on: tuple[str, ...],
) -> Executable:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(table)
    keys = list(on) or [column.name for column in table.primary_key]
    if not changed and not add:
        return statement.on_conflict_do_nothing(index_elements=keys)
    assignments: dict[str, Any] = {name: statement.excluded[name] for name in changed}
    assignments |= {name: table.c[name] + statement.excluded[name] for name in add}
    if only is not None:
        where = table.c[only[0]] == literal_column(f"'{only[1]}'")
    return statement.on_conflict_do_update(index_elements=keys, set_=assignments, where=where)


def run_many(
    connection: Connection, statement: Executable, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Execute an INSERT or UPDATE for many rows, each a tuple of values in the order of the bind `names`, as the driver
    takes them (tables.millis for times).

    SQLAlchemy composes and converts each row's parameters anew, which took a tenth of a walk's CPU (bench/, 2026-11);
    here the statement is compiled by it once, and the driver does the rest.
    """
    text, order = _compiled(connection.dialect.name, statement, tuple(names))
    pick = itemgetter(*order)
    connection.exec_driver_sql(text, [pick(row) for row in rows])


@cache
def _compiled(dialect: str, statement: Executable, names: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    maker = psycopg.dialect(paramstyle="format") if dialect == "postgresql" else pysqlite.dialect()  # type: ignore[no-untyped-call]
    compiled = statement.compile(dialect=maker)  # type: ignore[attr-defined]
    return str(compiled), tuple(names.index(name) for name in compiled.positiontup)
