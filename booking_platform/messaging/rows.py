"""Many rows in one statement, with an exact answer as to which of them were written.

To PostgreSQL the rows travel as one array a column, to SQLite as one JSON text: a driver spends longer on
a thousand placeholders than the database on a thousand values.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection, models

from booking_platform.postgresql.arrays import Kind, array, kind_of

Row = Mapping[str, Any]  # columns and their values; all rows of a call have the same columns

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

    The key must be unique: of several rows with the same one, only one may be found. With ``lock`` each
    row is locked against other writers, in that order, until the transaction ends.
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


def stored(value: Any) -> Any:
    """Return a value as Django stores it: SQLite holds times as text in UTC, and UUIDs as hex."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    if isinstance(value, UUID):
        return value.hex
    return value


class _Statement(NamedTuple):
    """A statement, and how the columns of the rows that it is given travel to PostgreSQL."""

    sql: str
    given: Mapping[str, Kind]


def _run(statement: _Statement, rows: Sequence[Row], same: Row = NOTHING) -> list[tuple[Any, ...]]:
    given: list[Any]
    if connection.vendor == "sqlite":
        texts = [{name: stored(value) for name, value in row.items()} for row in rows]
        given = [msgspec.json.encode(texts).decode()]
    else:
        given = [array(kind, [row[name] for row in rows]) for name, kind in statement.given.items()]
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, [*given, *map(stored, same.values())])
        return list(cursor.fetchall())


# The statements are the same for every group, so their texts are made once.


@cache
def _read_sql(
    model: type[models.Model], columns: tuple[str, ...], key: str, lock: bool
) -> _Statement:
    table = model._meta.db_table
    names = ", ".join(f"{table}.{name}" for name in columns)
    match, order = f"{table}.{key} = given.{key}", f"ORDER BY {table}.{key}"
    if connection.vendor == "sqlite":
        found = f"{table} JOIN given ON {match} {order}"
    elif lock:
        found = f"{table} JOIN given ON {match} {order} FOR NO KEY UPDATE OF {table}"
    else:
        # The limit keeps the planner at the index: of a table that has grown fast it knows the size and
        # not yet the values, and would read the whole of it for each group.
        row = f"SELECT * FROM {table} WHERE {match} LIMIT 1"
        found = f"given CROSS JOIN LATERAL ({row}) AS {table} {order}"
    return _statement(model, {key: key}, f"SELECT {names} FROM {found}")


@cache
def _insert_sql(
    model: type[models.Model],
    columns: tuple[str, ...],
    same: tuple[str, ...],
    key: str,
    unique: tuple[str, ...],
) -> _Statement:
    names = ", ".join(columns + same)
    values = ", ".join([*columns, *(_value(model, name) for name in same)])
    on = f"({', '.join(unique)}) " if unique else ""
    return _statement(
        model,
        {name: name for name in columns},
        f"INSERT INTO {model._meta.db_table} ({names}) SELECT {values} FROM given WHERE true "
        f"ON CONFLICT {on}DO NOTHING RETURNING {key}",
    )


@cache
def _newest_at_sql(
    model: type[models.Model], columns: tuple[str, ...], time: str, key: str
) -> _Statement:
    table = model._meta.db_table
    match = " AND ".join(f"{table}.{name} = given.{name}" for name in columns)
    return _statement(
        model,
        {name: name for name in (*columns, time)},
        f"SELECT (SELECT {key} FROM {table} WHERE {match} AND {table}.{time} <= given.{time} "
        f"ORDER BY {table}.{time} DESC LIMIT 1) FROM given",
    )


@cache
def _keep_newest_sql(
    model: type[models.Model], columns: tuple[str, ...], key: str, version: str
) -> _Statement:
    table, names = model._meta.db_table, ", ".join(columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return _statement(
        model,
        {name: name for name in columns},
        f"INSERT INTO {table} ({names}) SELECT {names} FROM given WHERE true "
        f"ON CONFLICT ({key}) DO UPDATE SET {changes} "
        f"WHERE {table}.{version} < excluded.{version} RETURNING {key}",
    )


@cache
def _compare_and_set_sql(
    model: type[models.Model],
    columns: tuple[str, ...],
    same: tuple[str, ...],
    key: str,
    guard: str,
) -> _Statement:
    table = model._meta.db_table
    changes = ", ".join(
        [
            *(f"{name} = given.{name}" for name in columns if name != key),
            *(f"{name} = {_value(model, name)}" for name in same),
        ]
    )
    match = f"{table}.{key} = given.{key} AND {table}.{guard} = given.{EXPECTED}"
    sources = {name: name for name in columns} | {EXPECTED: guard}
    if connection.vendor == "sqlite":  # one writer at a time
        update = f"UPDATE {table} SET {changes} FROM given WHERE {match} RETURNING {table}.{key}"
        return _statement(model, sources, update)
    locked = (
        f"SELECT {table}.{key} FROM {table} JOIN given ON {match} ORDER BY {table}.{key} "
        f"FOR NO KEY UPDATE OF {table}"
    )
    update = (
        f"UPDATE {table} SET {changes} FROM given, locked WHERE {match} "
        f"AND {table}.{key} = locked.{key} RETURNING {table}.{key}"
    )
    return _statement(model, sources, update, locked=locked)


def _statement(
    model: type[models.Model], sources: Mapping[str, str], what: str, **more: str
) -> _Statement:
    """Return a statement that has the rows as ``given``, and ``more`` queries under their names.

    ``sources`` names the columns of the rows, and for each the column of the model that it has the type of.
    """
    kinds = {name: kind_of(_type(model, source)) for name, source in sources.items()}
    queries = {"given": _given(kinds)} | more
    named = ", ".join(f"{name} AS ({query})" for name, query in queries.items())
    return _Statement(f"WITH {named} {what}", kinds)


def _given(kinds: Mapping[str, Kind]) -> str:
    """Return the query that reads the parameters as rows."""
    if connection.vendor == "sqlite":
        values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in kinds)
        return f"SELECT {values} FROM json_each(%s)"
    values = ", ".join(f"{name}{kind.cast}" for name, kind in kinds.items())
    arrays = ", ".join(f"%s::{kind.array}" for kind in kinds.values())
    return f"SELECT {values} FROM unnest({arrays}) AS given({', '.join(kinds)})"


def _value(model: type[models.Model], column: str) -> str:
    """Return the placeholder of a value that all rows share; the type is what only PostgreSQL asks for."""
    return "%s" if connection.vendor == "sqlite" else f"%s::{_type(model, column)}"


def _type(model: type[models.Model], column: str) -> str:
    """Return the type of a column."""
    [field] = [field for field in model._meta.concrete_fields if field.column == column]
    return str(field.rel_db_type(connection))
