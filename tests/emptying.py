"""The database emptied after a test that commits, as Django does it, but quickly.

Django empties every table and then makes its content types and permissions anew, which takes longer than
most tests. Here they stay where a test has not changed them, and only tables with rows are emptied.
"""

from typing import Any

from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.test import TransactionTestCase

KEPT = ("django_content_type", "auth_permission")

_kept: dict[str, Any] = {}  # the rows of these tables as Django makes them, by database
_tables: dict[str, list[str]] = {}


def empty_quickly(self: TransactionTestCase) -> None:
    """Leave no row but those that Django itself makes; takes the place of ``_fixture_teardown``."""
    for alias in self._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        if alias not in _kept or not _emptied(alias):
            call_command("flush", verbosity=0, interactive=False, database=alias)
            _tables[alias] = connections[alias].introspection.django_table_names(only_existing=True)
            _kept[alias] = _rows(alias)


def _emptied(alias: str) -> bool:
    """Empty the tables that have rows; return whether that is all there is to do."""
    connection = connections[alias]
    try:
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            if connection.vendor == "postgresql":  # what a killed worker has sent is done first
                cursor.execute(f"LOCK TABLE {', '.join(_tables[alias])} IN ACCESS EXCLUSIVE MODE")
            if _rows(alias) != _kept[alias]:
                return False
            tables = [each for each in _tables[alias] if each not in KEPT]
            cursor.execute(
                " UNION ALL ".join(
                    f"SELECT '{each}' WHERE EXISTS (SELECT 1 FROM {each})" for each in tables
                )
            )
            for [table] in cursor.fetchall():
                cursor.execute(f"DELETE FROM {table}")
    except DatabaseError:
        return False
    return True


def _rows(alias: str) -> list[Any]:
    with connections[alias].cursor() as cursor:
        found = []
        for table in KEPT:
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            found += cursor.fetchall()
        return found
