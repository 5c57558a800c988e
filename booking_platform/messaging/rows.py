"""Many rows in one statement, with an exact answer as to which of them were written.

The rows travel as one JSON parameter: a driver spends longer on a thousand placeholders than the
database on a thousand values.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from django.db import connection, models


def insert_missing(
    model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], *, key: str
) -> set[Any]:
    """Insert the rows that no unique constraint forbids; give the ``key`` of those inserted.

    Waits where another transaction has inserted the same row and not ended yet. Rows are inserted
    in the order given: sort them, so that two transactions never wait for each other.
    """
    if not rows:
        return set()
    names = ", ".join(columns)
    sql = (
        f"WITH given AS ({_given(model, columns)}) "
        f"INSERT INTO {model._meta.db_table} ({names}) SELECT {names} FROM given WHERE true "
        f"ON CONFLICT DO NOTHING RETURNING {key}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [_json(columns, rows)])
        return {inserted for (inserted,) in cursor.fetchall()}


def compare_and_set(
    model: type[models.Model],
    columns: Sequence[str],
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
    table, expected = model._meta.db_table, f"expected_{guard}"
    given = _given(model, columns, also={expected: guard})
    changes = ", ".join(f"{name} = given.{name}" for name in columns if name != key)
    match = f"{table}.{key} = given.{key} AND {table}.{guard} = given.{expected}"
    if connection.vendor == "postgresql":
        sql = (
            f"WITH given AS ({given}), locked AS (SELECT {table}.{key} FROM {table} JOIN given "
            f"ON {match} ORDER BY {table}.{key} FOR NO KEY UPDATE OF {table}) "
            f"UPDATE {table} SET {changes} FROM given, locked "
            f"WHERE {table}.{key} = given.{key} AND {table}.{key} = locked.{key}"
        )
    else:  # SQLite: one writer at a time
        sql = f"WITH given AS ({given}) UPDATE {table} SET {changes} FROM given WHERE {match}"
    guarded = [(*row, value) for row, value in zip(rows, guards, strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {table}.{key}", [_json((*columns, expected), guarded)])
        return {changed for (changed,) in cursor.fetchall()}


def stored(value: Any) -> Any:
    """Give a value as Django stores it: SQLite holds times as text in UTC."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _given(
    model: type[models.Model], columns: Sequence[str], also: dict[str, str] | None = None
) -> str:
    """Give the SELECT that reads the JSON parameter as rows of the model's column types."""
    sources = {name: name for name in columns} | (also or {})
    if connection.vendor == "postgresql":
        fields = {field.column: field for field in model._meta.concrete_fields}
        types = ", ".join(
            f"{name} {fields[source].rel_db_type(connection)}" for name, source in sources.items()
        )
        return f"SELECT * FROM json_to_recordset(%s::json) AS given({types})"
    values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in sources)
    return f"SELECT {values} FROM json_each(%s)"


def _json(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if connection.vendor == "sqlite":
        rows = [[stored(value) for value in row] for row in rows]
    return msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
