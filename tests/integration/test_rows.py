"""Many rows in one statement: which are written, and that no table is read whole for a few of them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from booking_platform.messaging import rows
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import EXPECTED, compare_and_set, insert_missing, read
from booking_platform.postgresql.arrays import array
from catalog.models import Reservation, Tour

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
SAME = {"consumer": "a", "event_type": "T", "outcome": "done", "processed_at": NOW}


def claims(*event_ids: str, **more: Any) -> list[dict[str, Any]]:
    names = {"aggregate_id": "B", "fingerprint": "f", "occurred_at": NOW}
    return [{"event_id": event_id} | names | more for event_id in event_ids]


def insert(rows: list[dict[str, Any]], same: dict[str, Any] = SAME) -> set[str]:
    unique = ("event_id", "consumer")
    return insert_missing(ProcessedEvent, rows, key="event_id", same=same, unique=unique)


class TestInsertMissing:
    def test_what_is_the_same_is_in_every_row(self) -> None:
        assert insert(claims("1", "2")) == {"1", "2"}
        for event in ProcessedEvent.objects.all():
            assert {name: getattr(event, name) for name in SAME} == SAME
            assert event.occurred_at == NOW

    def test_what_is_there_stays(self) -> None:
        insert(claims("1"))
        assert insert(claims("1", "2", aggregate_id="C")) == {"2"}
        assert ProcessedEvent.objects.get(event_id="1").aggregate_id == "B"

    def test_the_same_key_with_other_columns_of_the_constraint_is_another_row(self) -> None:
        insert(claims("1"))
        assert insert(claims("1"), SAME | {"consumer": "b"}) == {"1"}

    def test_another_constraint_is_an_error_and_no_repeat(self) -> None:
        insert(claims("1"))
        [pk] = ProcessedEvent.objects.values_list("pk", flat=True)
        with pytest.raises(IntegrityError), transaction.atomic():
            insert(claims("2", id=pk))
        assert ProcessedEvent.objects.count() == 1


class TestCompareAndSet:
    def test_what_is_the_same_is_set_in_the_rows_that_match(self, tour: Tour) -> None:
        other = Tour.objects.create(name="Other", price=1, capacity=5)
        version = tour.optimistic_lock_version
        found = [{"id": tour.pk, EXPECTED: version}, {"id": other.pk, EXPECTED: 99}]
        same = {"description": "new"}
        guard = "optimistic_lock_version"

        assert compare_and_set(Tour, found, key="id", guard=guard, same=same) == {tour.pk}

        assert list(Tour.objects.filter(description="new")) == [tour]


class TestRead:
    COLUMNS = ("booking_id", "seats")

    def fill(self, tour: Tour, count: int) -> None:
        made = [
            Reservation(
                booking_id=f"B-{number}",
                tour=tour,
                seats=number,
                state="reserved",
                created_at=NOW,
                updated_at=NOW,
            )
            for number in range(count)
        ]
        Reservation.objects.bulk_create(made)

    def test_it_finds_what_is_there_in_order(self, tour: Tour) -> None:
        self.fill(tour, 4)
        found = read(Reservation, self.COLUMNS, key="booking_id", values={"B-3", "B-1", "none"})
        assert found == [("B-1", 1), ("B-3", 3)]

    @pytest.mark.servers  # SQLite does not choose by what it has counted
    def test_a_table_that_has_just_grown_is_not_read_whole(self, tour: Tour) -> None:
        self.fill(tour, 3000)
        statement = rows._read_sql(Reservation, self.COLUMNS, "booking_id", lock=False)
        names = [array(kind, ["B-1", "B-2"]) for kind in statement.given.values()]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement.sql}", names)
            plan = "\n".join(line for [line] in cursor.fetchall())
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan, plan
