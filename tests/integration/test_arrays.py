"""Arrays in PostgreSQL's binary format: what is written is what the server reads."""

import json
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from django.test.utils import CaptureQueriesContext

from booking_platform.postgresql.arrays import array, kind_of
from catalog.bookings import State

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.servers]

EAST = timezone(timedelta(hours=5))
VALUES: dict[str, list[Any]] = {
    "bigint": [0, -1, 2**63 - 1, -(2**63), 10],
    "integer": [0, 2**31 - 1, -(2**31)],
    "boolean": [True, False],
    "varchar(255)": ["", "a", "Zürich 山", "NULL", '{"a,b"}', "\\", "a\tb\n", State.RELEASED],
    "text": ["x" * 100_000],
    "timestamp with time zone": [
        datetime(2026, 11, 27, 8, 30, 1, 123456, UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2026, 11, 27, 8, tzinfo=EAST),
    ],
    "numeric(10, 2)": [Decimal("12.34"), Decimal("-0.01"), 5],
    "jsonb": [{"a": [1, None, "ü"]}, "text", [], 1.5],
    "smallint": [7, -7],
}


def read_back(type_: str, values: list[Any]) -> list[Any]:
    kind = kind_of(type_)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT value{kind.cast} FROM unnest(%s::{kind.array}) AS given(value)",
            [array(kind, values)],
        )
        return [value for [value] in cursor.fetchall()]


class TestArray:
    @pytest.mark.parametrize("type_", VALUES)
    def test_what_is_written_is_read(self, type_: str) -> None:
        values = VALUES[type_]
        found = read_back(type_, values)
        if type_ == "jsonb":  # Django reads it, and here is no field
            found = [json.loads(value) for value in found]
        assert found == values

    @pytest.mark.parametrize("type_", VALUES)
    def test_none_is_null_wherever_it_stands(self, type_: str) -> None:
        first = VALUES[type_][0]
        assert [value is None for value in read_back(type_, [None, first, None])] == [
            True,
            False,
            True,
        ]
        assert read_back(type_, [None]) == [None]

    def test_many_keep_their_order(self) -> None:
        assert read_back("bigint", list(range(5000))) == list(range(5000))

    @pytest.mark.parametrize(("type_", "value"), [("integer", 2**31), ("bigint", 2**63)])
    def test_a_number_that_is_too_large_is_refused(self, type_: str, value: int) -> None:
        with pytest.raises(struct.error):
            array(kind_of(type_), [value])

    def test_half_a_character_is_refused(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            array(kind_of("text"), ["\ud800"])

    def test_a_nul_is_refused_by_the_server(self) -> None:
        with pytest.raises(DataError), transaction.atomic():
            read_back("text", ["a\0b"])

    def test_a_statement_that_is_shown_does_not_show_the_values(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            read_back("text", ["secret"])
        [query] = queries.captured_queries
        assert "bytes)" in query["sql"]
        assert "secret" not in query["sql"]
