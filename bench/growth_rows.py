"""A month of the platform's rows, made by PostgreSQL itself, as a busy installation would have them.

Of so many processed events half are creations. Every third booking is cancelled, which is three events:
for the catalog, the payments and the notifications. Rows are inserted in the order of their time, with all
indexes in place, so that the indexes are as full as they are after a month: event ids are random UUIDs,
ids of bookings are numbers in their order.
"""

import time
from collections.abc import Iterator

import psycopg

DAYS = 30
CHUNK = 250_000  # rows a statement

# {events}, {tours} and {days} are put in; %s are the first and the last number of a chunk.
_BOOKED_AT = "now() - interval '{days} days' * (1 - n::float8 / ({events} / 2))"
_TOUR = "1 + (n * 7919) %% {tours}"

TOURS = (
    "INSERT INTO tours (id, name, description, price, capacity, available_seats, reserved_seats,"
    " unledgered_seats, optimistic_lock_version, created_at, updated_at)"
    " SELECT n, 'Tour ' || n, '', 99, 1000000000, 1000000000, 0, 0, 0, now(), now()"
    " FROM generate_series(%(first)s::bigint, %(last)s) AS n"
)

# A creation, then one of the three events of a cancellation, in turns.
PROCESSED = f"""
INSERT INTO processed_events (event_id, consumer, event_type, aggregate_id, fingerprint, outcome,
                              occurred_at, processed_at)
SELECT md5('created' || n)::uuid::text, 'tour-catalog.booking-created', 'BookingCreated',
       'BK-' || (1000000000 + n), md5('a' || n) || md5('b' || n), 'reserved', {_BOOKED_AT}, {_BOOKED_AT}
FROM generate_series(%(first)s::bigint, %(last)s) AS n
UNION ALL
SELECT md5('cancelled' || booking)::uuid::text,
       (ARRAY['tour-catalog', 'payment-gateway', 'notification'])[1 + n - booking]
           || '.booking-cancelled',
       'BookingCancelled', 'BK-' || (1000000000 + booking), md5('c' || booking) || md5('d' || booking),
       (ARRAY['released', 'refund_requested', 'email_requested'])[1 + n - booking],
       {_BOOKED_AT}, {_BOOKED_AT}
FROM (SELECT n, n - n %% 3 AS booking
      FROM generate_series(greatest(3, %(first)s::bigint), %(last)s) AS n) AS cancelled
"""

RESERVATIONS = f"""
INSERT INTO reservations (booking_id, tour_id, seats, state, created_event_id, cancelled_event_id,
                          created_at, updated_at, booked, steps)
SELECT 'BK-' || (1000000000 + n), {_TOUR}, 1 + n %% 4,
       CASE WHEN n %% 3 = 0 THEN 'released' ELSE 'reserved' END, md5('created' || n)::uuid::text,
       CASE WHEN n %% 3 = 0 THEN md5('cancelled' || n)::uuid::text ELSE '' END,
       {_BOOKED_AT}, {_BOOKED_AT}, CASE WHEN n %% 3 = 0 THEN 1 + n %% 4 END,
       CASE WHEN n %% 3 = 0 THEN '[["left",0,1790000000000000,null,' || (1 + n %% 4) || ',""]]' ELSE '' END
FROM generate_series(%(first)s::bigint, %(last)s) AS n
"""

SEAT_CHANGES = f"""
INSERT INTO seat_changes (tour_id, version, changed_at, capacity, reserved, unledgered, causes)
SELECT {_TOUR}, 2 * ((n - 1) / {{tours}}) + 1, {_BOOKED_AT}, 1000000000, n / {{tours}}, 0,
       '[["' || md5('created' || n)::uuid::text || '","BK-' || (1000000000 + n) || '","reserved",2,0,2]]'
FROM generate_series(%(first)s::bigint, %(last)s) AS n
UNION ALL
SELECT {_TOUR}, 2 * ((n - 1) / {{tours}}) + 2, {_BOOKED_AT}, 1000000000, n / {{tours}}, 0,
       '[["' || md5('cancelled' || n)::uuid::text || '","BK-' || (1000000000 + n) || '","released",-2,0,2]]'
FROM generate_series(%(first)s::bigint, %(last)s) AS n WHERE n %% 3 = 0
"""

REFUNDS = f"""
INSERT INTO idempotency_store (idempotency_key, status, request_payload, response_payload, created_at,
    updated_at, event_id, booking_id, payment_id, amount_asked, amount_minor, currency, first_sent_at,
    stripe_refund_id, stripe_status, attempts, announced)
SELECT 'refund-BK-' || (1000000000 + n) || '-pi_' || substr(md5('p' || n), 1, 24) || '-0', 'completed',
       jsonb_build_object('amount', 9900, 'payment_intent', 'pi_' || substr(md5('p' || n), 1, 24)),
       jsonb_build_object('id', 're_' || substr(md5('r' || n), 1, 24), 'object', 'refund', 'amount', 9900,
                          'currency', 'eur', 'status', 'succeeded'),
       {_BOOKED_AT}, {_BOOKED_AT}, md5('cancelled' || n)::uuid::text, 'BK-' || (1000000000 + n),
       'pi_' || substr(md5('p' || n), 1, 24), 99, 9900, 'eur', {_BOOKED_AT},
       're_' || substr(md5('r' || n), 1, 24), 'succeeded', 1, 1
FROM generate_series(%(first)s::bigint, %(last)s) AS n WHERE n %% 3 = 0
"""

EMAILS = f"""
INSERT INTO cancellation_emails (event_id, booking_id, state, recipient, locale, subject, text_body,
    html_body, message_id, created_at, wanted_at, updated_at, sent_at, attempts, announced)
SELECT md5('cancelled' || n)::uuid::text, 'BK-' || (1000000000 + n), 'sent',
       'guest' || n || '@example.org', 'en', 'Your booking is cancelled', repeat('Dear guest. ', 20), '',
       '<' || md5('m' || n) || '@booking.example>', {_BOOKED_AT}, {_BOOKED_AT}, {_BOOKED_AT},
       {_BOOKED_AT}, 1, 1
FROM generate_series(%(first)s::bigint, %(last)s) AS n WHERE n %% 3 = 0
"""

# A day of groups of ten events, as the last ones of a month.
OUTBOX = """
INSERT INTO outbox (messages, announcements, size, created_at, published_at)
SELECT '[' || (SELECT string_agg('["seats.reserved",{{"eventId":"' || md5(n || '-' || m)::uuid::text
           || '","eventType":"SeatsReserved","timestamp":"2026-01-01T12:00:00+00:00","payload":'
           || '{{"bookingId":"BK-' || (1000000000 + n * 10 + m) || '","tourId":' || m
           || ',"seats":2,"seatsHeld":2}}}},""]', ',') FROM generate_series(1, 10) AS m) || ']',
       10, 2200, now() - interval '1 day' * (1 - n::float8 / ({events} / {days} / 10)),
       now() - interval '1 day' * (1 - n::float8 / ({events} / {days} / 10))
FROM generate_series(%(first)s::bigint, %(last)s) AS n
"""

SUMS = """
UPDATE tours SET reserved_seats = held.seats, available_seats = capacity - held.seats,
                 optimistic_lock_version = 2 * ({events} / 2 / {tours} + 1)
FROM (SELECT tour_id, coalesce(sum(seats) FILTER (WHERE state = 'reserved'), 0) AS seats
      FROM reservations GROUP BY tour_id) AS held
WHERE tours.id = held.tour_id
"""


def fill(connection: psycopg.Connection, *, events: int, tours: int) -> Iterator[str]:
    """Fill a database that is migrated and empty; yield a line about each table."""
    numbers = {"events": events, "tours": tours, "days": DAYS}
    connection.execute("SET synchronous_commit = off")
    bookings = events // 2
    for table, sql, rows in (
        ("tours", TOURS, tours),
        ("reservations", RESERVATIONS, bookings),
        ("processed_events", PROCESSED, bookings),
        ("seat_changes", SEAT_CHANGES, bookings),
        ("idempotency_store", REFUNDS, bookings),
        ("cancellation_emails", EMAILS, bookings),
        ("outbox", OUTBOX, events // DAYS // 10),
    ):
        begun = time.monotonic()
        for first in range(1, rows + 1, CHUNK):
            chunk = {"first": first, "last": min(first + CHUNK - 1, rows)}
            connection.execute(sql.format(**numbers), chunk)
        yield f"{table}: {time.monotonic() - begun:.0f} s"
    connection.execute("SELECT setval(pg_get_serial_sequence('tours', 'id'), max(id)) FROM tours")
    connection.execute(SUMS.format(**numbers))
    connection.execute("RESET synchronous_commit")
    connection.execute("VACUUM (ANALYZE, FREEZE)")
    yield _size(connection)


def _size(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT pg_size_pretty(pg_database_size(current_database()))"
    ).fetchone()
    assert row is not None
    return f"in all {row[0]}"
