"""Many rows in one statement, where Django's ORM can't say which of them it wrote."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

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
    quote = connection.ops.quote_name
    row = f"({', '.join(['%s'] * len(columns))})"
    sql = (
        f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(map(quote, columns))}) "
        f"VALUES {', '.join([row] * len(rows))} ON CONFLICT DO NOTHING RETURNING {quote(key)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [stored(value) for values in rows for value in values])
        return {inserted for (inserted,) in cursor.fetchall()}


def update_each(sql: str, rows: Sequence[Sequence[Any]]) -> int:
    """Run one UPDATE for each row of parameters, pipelined; give how many rows changed in all."""
    if not rows:
        return 0
    with connection.cursor() as cursor:
        cursor.executemany(sql, [[stored(value) for value in values] for values in rows])
        return cursor.rowcount


def stored(value: Any) -> Any:
    """Give a value as Django stores it: SQLite holds times as text in UTC."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value
