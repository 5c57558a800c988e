"""Many rows in one statement, with an exact answer as to which of them were written.

The rows travel as one JSON parameter: a driver spends longer on a thousand placeholders than the
database on a thousand values.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, models


def read(
    model: type[models.Model],
    columns: tuple[str, ...],
    *,
    key: str,
    values: Iterable[Any],
    lock: bool = False,
) -> list[tuple[Any, ...]]:
    """Give the columns of the rows with these keys, in the order of their keys.

    With ``lock`` each row is locked against other writers, in that order, until the transaction
    ends.
    """
    rows = [(value,) for value in values]
    if not rows:
        return []
    return _run(_read_sql(model, columns, key, lock), (key,), rows)


def insert_missing(
    model: type[models.Model], columns: tuple[str, ...], rows: Sequence[Sequence[Any]], *, key: str
) -> set[Any]:
    """Insert the rows that no unique constraint forbids; give the ``key`` of those inserted.

    Waits where another transaction has inserted the same row and not ended yet. Rows are inserted
    in the order given: sort them, so that two transactions never wait for each other.
    """
    if not rows:
        return set()
    return {row[0] for row in _run(_insert_sql(model, columns, key), columns, rows)}


def compare_and_set(
    model: type[models.Model],
    columns: tuple[str, ...],
    rows: Sequence[Sequence[Any]],
    *,
    key: str,
    guard: str,
    guards: Sequence[Any],
) -> set[Any]:
    """Set the columns of each row whose ``guard`` still has the value given; give their keys.

    ``columns`` includes the key. Rows are locked in the order of their keys first, since an UPDATE
    with a join takes them in any order, and two such have deadlocked in trials.
    """
    if not rows:
        return set()
    guarded = [(*row, value) for row, value in zip(rows, guards, strict=True)]
    sql = _compare_and_set_sql(model, columns, key, guard)
    return {row[0] for row in _run(sql, (*columns, f"expected_{guard}"), guarded)}


def stored(value: Any) -> Any:
    """Give a value as Django stores it: SQLite holds times as text in UTC, and UUIDs as hex."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    if isinstance(value, UUID):
        return value.hex
    return value


def _run(sql: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    if connection.vendor == "sqlite":
        rows = [[stored(value) for value in row] for row in rows]
    given = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows])
    with connection.cursor() as cursor:
        cursor.execute(sql, [given.decode()])
        return list(cursor.fetchall())


# The statements are the same for every group, so their texts are made once.


@cache
def _read_sql(model: type[models.Model], columns: tuple[str, ...], key: str, lock: bool) -> str:
    table = model._meta.db_table
    names = ", ".join(f"{table}.{name}" for name in columns)
    locking = f" FOR NO KEY UPDATE OF {table}" if lock and connection.vendor != "sqlite" else ""
    return (
        f"WITH given AS ({_given(model, {key: key})}) SELECT {names} FROM {table} "
        f"JOIN given ON {table}.{key} = given.{key} ORDER BY {table}.{key}{locking}"
    )


@cache
def _insert_sql(model: type[models.Model], columns: tuple[str, ...], key: str) -> str:
    names = ", ".join(columns)
    return (
        f"WITH given AS ({_given(model, {name: name for name in columns})}) "
        f"INSERT INTO {model._meta.db_table} ({names}) SELECT {names} FROM given WHERE true "
        f"ON CONFLICT DO NOTHING RETURNING {key}"
    )


@cache
def _compare_and_set_sql(
    model: type[models.Model], columns: tuple[str, ...], key: str, guard: str
) -> str:
    table, expected = model._meta.db_table, f"expected_{guard}"
    given = _given(model, {name: name for name in columns} | {expected: guard})
    changes = ", ".join(f"{name} = given.{name}" for name in columns if name != key)
    match = f"{table}.{key} = given.{key} AND {table}.{guard} = given.{expected}"
    if connection.vendor == "sqlite":  # one writer at a time
        return (
            f"WITH given AS ({given}) UPDATE {table} SET {changes} FROM given WHERE {match} "
            f"RETURNING {table}.{key}"
        )
    return (
        f"WITH given AS ({given}), locked AS (SELECT {table}.{key} FROM {table} JOIN given "
        f"ON {match} ORDER BY {table}.{key} FOR NO KEY UPDATE OF {table}) "
        f"UPDATE {table} SET {changes} FROM given, locked "
        f"WHERE {table}.{key} = given.{key} AND {table}.{key} = locked.{key} "
        f"RETURNING {table}.{key}"
    )


def _given(model: type[models.Model], sources: dict[str, str]) -> str:
    """Give the SELECT that reads the JSON parameter as rows, each of its columns with the type
    of a column of the model."""
    if connection.vendor == "sqlite":
        values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in sources)
        return f"SELECT {values} FROM json_each(%s)"
    fields = {field.column: field for field in model._meta.concrete_fields}
    types = ", ".join(
        f"{name} {fields[source].rel_db_type(connection)}" for name, source in sources.items()
    )
    return f"SELECT * FROM json_to_recordset(%s::json) AS given({types})"
