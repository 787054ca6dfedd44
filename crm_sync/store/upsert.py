"""Insert, or update what is there, in the words of the database at hand."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement


def upsert(
    connection: Connection,
    table: Table,
    changed: tuple[str, ...],
    *,
    add: tuple[str, ...] = (),
    only: ColumnElement[bool] | None = None,
) -> Executable:
    """An INSERT that on a conflict of the primary key sets the `changed` columns and increases the `add` ones, where
    `only` holds for the row that is there.

    Nothing to change and nothing to add: the row that is there stays.
    """
    return _upsert(connection.dialect.name, table, changed, add, only)


@cache  # composing a statement costs more than running it
def _upsert(
    dialect: str,
    table: Table,
    changed: tuple[str, ...],
    add: tuple[str, ...],
    only: ColumnElement[bool] | None,
) -> Executable:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(table)
    keys = [column.name for column in table.primary_key]
    if not changed and not add:
        return statement.on_conflict_do_nothing(index_elements=keys)
    assignments: dict[str, Any] = {name: statement.excluded[name] for name in changed}
    assignments |= {name: table.c[name] + statement.excluded[name] for name in add}
    return statement.on_conflict_do_update(index_elements=keys, set_=assignments, where=only)
