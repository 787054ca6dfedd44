"""Queries run over the world as a stream, and the cursors that keep the rest of an answer."""

from __future__ import annotations

import secrets
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from crm_sync.sandbox.salesforce import predicate, soql
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError
from crm_sync.sandbox.salesforce.org import Org, Row
from crm_sync.sandbox.salesforce.schema import Field

#: Rows of a page: the most, the default, and the least a client may ask for (contracts/salesforce.md 2.1, 2.4).
MAX_PAGE = 2_000
MIN_PAGE = 200
#: A locator lives two days (contracts/salesforce.md 2.1); the sandbox keeps no more than this many.
_LOCATOR_SECONDS = 2 * 86_400
_MAX_LOCATORS = 100

Render = Callable[[Row, str], dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cursor:
    """An answer with more than one page: which records it holds. Values are read when a page is fetched."""

    object_name: str
    render: Render
    indexes: array[int]
    page: int
    with_deleted: bool
    made_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A query's rows by column; `is_sorted`: it has ORDER BY or LIMIT."""

    object_name: str
    columns: list[str]
    fields: list[Field]
    rows: Iterator[list[Any]]
    is_sorted: bool


class Queries:
    """Answers /query, /queryAll and /query/<locator>."""

    def __init__(self, org: Org, *, max_page: int = MAX_PAGE) -> None:
        self._org = org
        self._max_page = max_page
        self._cursors: OrderedDict[str, _Cursor] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, text: str, *, root: str, page: int | None, with_deleted: bool) -> dict[str, object]:
        """Answer a query; `root` is "/services/data/v62.0", `page` the client's Sforce-Query-Options batchSize.

        Records come in no useful order unless the query says one: a client that forgets ORDER BY shall notice.

        Raises:
            RequestError: a query the service refuses or the sandbox does not simulate.
        """
        org = self._org
        query, name = self._parsed(text)
        render = self._render(query, name)
        rows = self._rows(query, name, with_deleted)
        if not query.select:
            if query.order_by:
                raise soql.error_at(text, query.order_by[0].path.position, "COUNT() can not be ordered")
            return {"totalSize": sum(1 for _ in islice(rows, query.limit)), "done": True, "records": []}
        size = min(self._max_page, max(MIN_PAGE, page) if page is not None else self._max_page)
        rows = islice(rows, query.limit)
        records = [render(row, root) for row in islice(rows, size)]
        rest = array("I", (row.index for row in rows))
        total = len(records) + len(rest)
        if not rest:
            return {"totalSize": total, "done": True, "records": records}
        cursor = _Cursor(
            object_name=name,
            render=render,
            indexes=rest,
            page=size,
            with_deleted=with_deleted,
            made_at=org.now(),
        )
        locator = self._keep(cursor)
        return {
            "totalSize": total,
            "done": False,
            "nextRecordsUrl": f"{root}/query/{locator}-{size}",
            "records": records,
        }

    def table(self, text: str) -> Table:
        """What a query reads, as a table; its rows are read as they are taken.

        Raises:
            RequestError: as `run`.
        """
        query, name = self._parsed(text)
        self._render(query, name)
        columns = [self._org.resolve(name, path, text) for path in query.select]
        found = islice(self._rows(query, name, with_deleted=False), query.limit)
        return Table(
            object_name=name,
            columns=[path.text for path in query.select],
            fields=[field for field, _ in columns],
            rows=([get(row) for _, get in columns] for row in found),
            is_sorted=bool(query.order_by) or query.limit is not None,
        )

    def _parsed(self, text: str) -> tuple[soql.Query, str]:
        query = soql.parse(text)
        name = self._org.object_name(query.object_name)
        if name is None:
            raise soql.error_at(
                text,
                query.object_position,
                f"sObject type '{query.object_name}' is not supported. If you are attempting to use a custom object,"
                " be sure to append the '__c' after the entity name. Please reference your WSDL or the describe call"
                " for the appropriate names.",
                RequestCode.INVALID_TYPE,
            )
        return query, name

    def more(self, locator: str, *, root: str) -> dict[str, object]:
        """Answer the page that `locator` ("0r8…-2000") begins; the same page may be fetched again.

        Raises:
            RequestError: 400 INVALID_QUERY_LOCATOR, unknown or two days old.
        """
        key, _, offset = locator.partition("-")
        with self._lock:
            cursor = self._cursors.get(key)
            if cursor is not None and cursor.made_at + _LOCATOR_SECONDS < self._org.now():
                cursor = self._cursors.pop(key) and None
        start = int(offset) - cursor.page if cursor is not None and offset.isdigit() else -1
        if cursor is None or start < 0 or start >= len(cursor.indexes) or start % cursor.page:
            raise RequestError(400, RequestCode.INVALID_QUERY_LOCATOR, "invalid query locator")
        end = start + cursor.page
        records = []
        for index in cursor.indexes[start:end]:
            row = self._org.row(cursor.object_name, index)
            if cursor.with_deleted or not row.is_deleted:
                records.append(cursor.render(row, root))
        answer: dict[str, object] = {"totalSize": cursor.page + len(cursor.indexes), "done": end >= len(cursor.indexes)}
        if not answer["done"]:
            answer["nextRecordsUrl"] = f"{root}/query/{key}-{end + cursor.page}"
        return answer | {"records": records}

    def _keep(self, cursor: _Cursor) -> str:
        key = "0r8" + secrets.token_hex(8).upper()[:15]
        with self._lock:
            self._cursors[key] = cursor
            while len(self._cursors) > _MAX_LOCATORS:
                self._cursors.popitem(last=False)
        return key

    def _rows(self, query: soql.Query, name: str, with_deleted: bool) -> Iterator[Row]:
        """The records that satisfy the query, in its order, before LIMIT."""
        org = self._org
        plan = predicate.plan(query, org, name, org.now())
        orders = [self._order(order, name, query.text) for order in query.order_by]
        by_id = orders[0].descending if orders and orders[0].is_id else None
        # Without ORDER BY: from the newest, so that keyset reading without it visibly loses records.
        descending = by_id if by_id is not None else not orders
        rows = org.rows(name, plan.first, plan.last, only=plan.only, descending=descending)
        holds = plan.holds
        if holds is None:
            found = (row for row in rows if with_deleted or not row.is_deleted)
        else:
            found = (row for row in rows if (with_deleted or not row.is_deleted) and holds(row))
        if by_id is not None or not orders:
            return found
        keyed = [(row.index, [order.get(row) for order in orders]) for row in found]
        for place, order in reversed(list(enumerate(orders))):
            nulls = [entry for entry in keyed if entry[1][place] is None]
            filled = [entry for entry in keyed if entry[1][place] is not None]
            filled.sort(key=lambda entry, at=place: _sortable(entry[1][at]), reverse=order.descending)  # type: ignore[misc]
            keyed = filled + nulls if order.nulls_last else nulls + filled
        return (org.row(name, index) for index, _ in keyed)

    def _order(self, order: soql.Order, name: str, text: str) -> _Order:
        field, get = self._org.resolve(name, order.path, text)
        if not field.sortable:
            raise soql.error_at(
                text,
                order.path.position,
                f"field '{order.path.text}' can not be sorted in a query call",
                RequestCode.INVALID_FIELD,
            )
        return _Order(
            get=get,
            descending=order.descending,
            nulls_last=order.nulls_last,
            is_id=field.type == "id" and len(order.path.names) == 1,
        )

    def _render(self, query: soql.Query, name: str) -> Render:
        """Compile SELECT: a function from a row to its JSON object."""
        seen: set[str] = set()
        tree: dict[str, object] = {}
        for path in query.select:
            if path.text.lower() in seen:
                raise soql.error_at(query.text, path.position, f"duplicate field selected: {path.text}")
            seen.add(path.text.lower())
            names = self._org.canonical(name, path, query.text)
            node = tree
            for parent in names[:-1]:
                node = node.setdefault(parent, {})  # type: ignore[assignment]
            node[names[-1]] = None
        return self._org.renderer(name, tree)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    get: predicate.Getter
    descending: bool
    nulls_last: bool
    is_id: bool


def _sortable(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
