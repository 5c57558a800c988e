"""Many rows in one statement, with an exact answer as to which of them were written.

The rows travel as one JSON parameter: a driver spends longer on a thousand placeholders than the
database on a thousand values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from django.db import connection, models

Row = Mapping[str, Any]  # columns and their values; all rows of a call have the same columns

M = TypeVar("M", bound=models.Model)

NOTHING: Row = MappingProxyType({})
EXPECTED = "expected"  # the name, in a row of ``compare_and_set``, of what the guard must still be


def read(
    model: type[models.Model],
    columns: tuple[str, ...],
    *,
    key: str,
    values: Iterable[Any],
    lock: bool = False,
) -> list[tuple[Any, ...]]:
    """Return the columns of the rows with these keys, in the order of their keys.

    With ``lock`` each row is locked against other writers, in that order, until the transaction
    ends.
    """
    rows = [{key: value} for value in values]
    return _run(_read_sql(model, columns, key, lock), rows) if rows else []


def insert_missing(
    model: type[models.Model],
    rows: Sequence[Row],
    *,
    key: str,
    same: Row = NOTHING,
    unique: tuple[str, ...] = (),
) -> set[Any]:
    """Insert the rows that no unique constraint forbids; return the ``key`` of those inserted.

    ``same`` are columns that have one value in all rows. With ``unique`` only the constraint on these
    columns makes a row one that is there already, and another is an error; to look into one index instead
    of each is cheaper. Waits where another transaction has inserted the same row and not ended yet. Rows
    are inserted in the order given: sort them, so that two transactions never wait for each other.
    """
    if not rows:
        return set()
    sql = _insert_sql(model, tuple(rows[0]), tuple(same), key, unique)
    return {row[0] for row in _run(sql, rows, same)}


def compare_and_set(
    model: type[models.Model],
    rows: Sequence[Row],
    *,
    key: str,
    guard: str,
    same: Row = NOTHING,
) -> set[Any]:
    """Set the columns of each row whose ``guard`` still has the value ``EXPECTED``.

    The key need not be unique: rows of the same key and another guard stay as they are. Return the keys
    of the rows that were set. Each of ``rows`` has the key, ``EXPECTED``, and the
    columns to set; ``same`` are columns that are set to one value in all rows. Rows are locked in the
    order of their keys first: an UPDATE with a join takes them in any order, and two such have deadlocked
    in trials.
    """
    if not rows:
        return set()
    columns = tuple(column for column in rows[0] if column != EXPECTED)
    sql = _compare_and_set_sql(model, columns, tuple(same), key, guard)
    return {row[0] for row in _run(sql, rows, same)}


def keep_newest(
    model: type[models.Model], rows: Sequence[Row], *, key: str, version: str
) -> set[Any]:
    """Insert each row, or let it replace the row of its key that has a lower ``version``.

    Return the keys of the rows that were written. Whatever the order and the repetition of the calls, the
    row of the greatest version stays. A row of the key that is as new or newer stays as it is, but is locked
    until the transaction ends. The keys of ``rows`` must differ; sort the rows by them, so that two
    transactions never wait for each other.
    """
    if not rows:
        return set()
    return {row[0] for row in _run(_keep_newest_sql(model, tuple(rows[0]), key, version), rows)}


def newest_at(
    model: type[models.Model], moments: Iterable[datetime], *, time: str, key: str, of: Row
) -> set[Any]:
    """Return the ``key`` of the row that was the newest at each of the moments, by its ``time``.

    Only rows with the columns of ``of`` count; an index on these and the time makes it cheap, however many
    rows there are. A moment before the first row has none.
    """
    rows = [{**of, time: moment} for moment in moments]
    found = _run(_newest_at_sql(model, tuple(of), time, key), rows) if rows else []
    return {row[0] for row in found} - {None}


def one_at_a_time(name: str) -> None:
    """Wait until no other transaction that has named the same is open; they end one by one.

    It holds until the transaction of the caller ends. SQLite has one writer at a time anyway.
    """
    if connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


def alone(name: str) -> bool:
    """Return whether no other transaction that has named the same is open; until this one ends, none is.

    SQLite has one writer at a time anyway.
    """
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        [locked] = cursor.fetchone()
    return bool(locked)


def in_pages(rows: "models.QuerySet[Any, tuple[Any, ...]]", size: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that are there now, in the order of their keys, ``size`` in one query.

    The key is the first column. Memory stays bounded behind a pooler too, where a cursor on the
    server does not outlast a transaction, and nothing stays open while the caller is busy.
    """
    ordered = rows.order_by("pk")
    newest = rows.aggregate(newest=models.Max("pk"))["newest"]
    page = list(ordered[:size])
    while page:
        yield from page
        page = list(ordered.filter(pk__gt=page[-1][0], pk__lte=newest)[:size])


def in_spans(rows: "models.QuerySet[M]", size: int) -> "Iterator[models.QuerySet[M]]":
    """Yield the rows that are there now as one query for each ``size`` of them, in the order of their keys.

    Each query has bounds of the key, so that what a caller filters or joins in it costs no more, however
    few rows are found. Nothing stays open in between.
    """
    keys = rows.order_by("pk").values_list("pk", flat=True)
    newest = rows.aggregate(newest=models.Max("pk"))["newest"]
    last = None
    while newest is not None and last != newest:
        rest = (
            keys.filter(pk__lte=newest)
            if last is None
            else keys.filter(pk__lte=newest, pk__gt=last)
        )
        end = rest[size - 1 : size].first() or rest.last()
        if end is None:  # deleted meanwhile
            return
        after = rows.filter(pk__lte=end)
        yield after if last is None else after.filter(pk__gt=last)
        last = end


def stored(value: Any) -> Any:
    """Return a value as Django stores it: SQLite holds times as text in UTC, and UUIDs as hex."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    if isinstance(value, UUID):
        return value.hex
    return value


def _run(sql: str, rows: Sequence[Row], same: Row = NOTHING) -> list[tuple[Any, ...]]:
    if connection.vendor == "sqlite":
        rows = [{name: stored(value) for name, value in row.items()} for row in rows]
    values = [stored(value) for value in same.values()]
    with connection.cursor() as cursor:
        cursor.execute(sql, [msgspec.json.encode(rows).decode(), *values])
        return list(cursor.fetchall())


# The statements are the same for every group, so their texts are made once.


@cache
def _read_sql(model: type[models.Model], columns: tuple[str, ...], key: str, lock: bool) -> str:
    table = model._meta.db_table
    names = ", ".join(f"{table}.{name}" for name in columns)
    given = f"WITH given AS ({_given(model, {key: key})}) SELECT {names} FROM"
    order = f"ORDER BY {table}.{key}"
    if connection.vendor == "sqlite":
        return f"{given} {table} JOIN given ON {table}.{key} = given.{key} {order}"
    if lock:
        match = f"{table}.{key} = given.{key}"
        return f"{given} {table} JOIN given ON {match} {order} FOR NO KEY UPDATE OF {table}"
    # The limit keeps the planner at the index: of a table that has grown fast it knows the size and not
    # yet the values, and would read the whole of it for each group.
    row = f"SELECT * FROM {table} WHERE {table}.{key} = given.{key} LIMIT 1"
    return f"{given} given CROSS JOIN LATERAL ({row}) AS {table} {order}"


@cache
def _insert_sql(
    model: type[models.Model],
    columns: tuple[str, ...],
    same: tuple[str, ...],
    key: str,
    unique: tuple[str, ...],
) -> str:
    names = ", ".join(columns + same)
    values = ", ".join([*columns, *(_value(model, name) for name in same)])
    on = f"({', '.join(unique)}) " if unique else ""
    return (
        f"WITH given AS ({_given(model, {name: name for name in columns})}) "
        f"INSERT INTO {model._meta.db_table} ({names}) SELECT {values} FROM given WHERE true "
        f"ON CONFLICT {on}DO NOTHING RETURNING {key}"
    )


@cache
def _newest_at_sql(model: type[models.Model], columns: tuple[str, ...], time: str, key: str) -> str:
    table = model._meta.db_table
    match = " AND ".join(f"{table}.{name} = given.{name}" for name in columns)
    return (
        f"WITH given AS ({_given(model, {name: name for name in (*columns, time)})}) "
        f"SELECT (SELECT {key} FROM {table} WHERE {match} AND {table}.{time} <= given.{time} "
        f"ORDER BY {table}.{time} DESC LIMIT 1) FROM given"
    )


@cache
def _keep_newest_sql(
    model: type[models.Model], columns: tuple[str, ...], key: str, version: str
) -> str:
    table, names = model._meta.db_table, ", ".join(columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return (
        f"WITH given AS ({_given(model, {name: name for name in columns})}) "
        f"INSERT INTO {table} ({names}) SELECT {names} FROM given WHERE true "
        f"ON CONFLICT ({key}) DO UPDATE SET {changes} "
        f"WHERE {table}.{version} < excluded.{version} RETURNING {key}"
    )


@cache
def _compare_and_set_sql(
    model: type[models.Model],
    columns: tuple[str, ...],
    same: tuple[str, ...],
    key: str,
    guard: str,
) -> str:
    table = model._meta.db_table
    given = _given(model, {name: name for name in columns} | {EXPECTED: guard})
    changes = ", ".join(
        [
            *(f"{name} = given.{name}" for name in columns if name != key),
            *(f"{name} = {_value(model, name)}" for name in same),
        ]
    )
    match = f"{table}.{key} = given.{key} AND {table}.{guard} = given.{EXPECTED}"
    if connection.vendor == "sqlite":  # one writer at a time
        return (
            f"WITH given AS ({given}) UPDATE {table} SET {changes} FROM given WHERE {match} "
            f"RETURNING {table}.{key}"
        )
    return (
        f"WITH given AS ({given}), locked AS (SELECT {table}.{key} FROM {table} JOIN given "
        f"ON {match} ORDER BY {table}.{key} FOR NO KEY UPDATE OF {table}) "
        f"UPDATE {table} SET {changes} FROM given, locked "
        f"WHERE {match} AND {table}.{key} = locked.{key} "
        f"RETURNING {table}.{key}"
    )


def _value(model: type[models.Model], column: str) -> str:
    """Return the placeholder of a value that all rows share; the type is what only PostgreSQL asks for."""
    if connection.vendor == "sqlite":
        return "%s"
    return f"%s::{_types(model)[column]}"


def _types(model: type[models.Model]) -> dict[str | None, str | None]:
    """Return the type of each column."""
    fields = model._meta.concrete_fields
    return {field.column: field.rel_db_type(connection) for field in fields}


def _given(model: type[models.Model], sources: dict[str, str]) -> str:
    """Return the SELECT that reads the JSON parameter as rows.

    ``sources`` names its columns, and for each the column of the model that it has the type of.
    """
    if connection.vendor == "sqlite":
        values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in sources)
        return f"SELECT {values} FROM json_each(%s)"
    types = _types(model)
    columns = ", ".join(f"{name} {types[source]}" for name, source in sources.items())
    return f"SELECT * FROM json_to_recordset(%s::json) AS given({columns})"
