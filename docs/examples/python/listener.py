"""Keep the seats of every tour and the refunds of every booking, from announcements alone.

    python listener.py state.sqlite3

RABBITMQ_URL names the broker. What was heard is in the database before it is acknowledged, so that the
program may be killed at any moment; what comes twice is applied once.
"""

import json
import os
import sqlite3
import sys
import time
from decimal import Decimal

import pika

EXCHANGE = "booking-events"
QUEUE = "warehouse.announcements"  # our own; its name begins as our rights on the broker allow
KEYS = ("tour.availability-changed", "refund.*")
ARGUMENTS = {
    "x-queue-type": "quorum",  # survives the loss of a node
    "x-single-active-consumer": True,  # two of this program keep the order, too
    "x-delivery-limit": 2**31 - 1,  # nothing is dropped because it came often
}
STATUS = {
    "RefundRequested": "requested",
    "RefundCompleted": "completed",
    "RefundFailed": "failed",
    "RefundNeedsReview": "needs_review",
    "RefundSettled": "settled",
}
TABLES = """
CREATE TABLE IF NOT EXISTS heard (event_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS tours (
    tour_id INTEGER PRIMARY KEY, capacity INTEGER, available INTEGER, reserved INTEGER,
    overbooked INTEGER, version INTEGER
);
CREATE TABLE IF NOT EXISTS refunds (
    booking_id TEXT, payment_id TEXT, seats_remaining INTEGER, status TEXT, amount TEXT, currency TEXT,
    version INTEGER, PRIMARY KEY (booking_id, payment_id, seats_remaining)
);
"""
TOUR = """
INSERT INTO tours VALUES (:tourId, :capacity, :available, :reserved, :overbooked, :version)
ON CONFLICT (tour_id) DO UPDATE SET capacity = excluded.capacity, available = excluded.available,
    reserved = excluded.reserved, overbooked = excluded.overbooked, version = excluded.version
WHERE excluded.version > tours.version
"""
REFUND = """
INSERT INTO refunds
VALUES (:bookingId, :paymentId, :seatsRemaining, :status, :amount, :currency, :version)
ON CONFLICT DO UPDATE SET status = excluded.status, amount = excluded.amount,
    currency = excluded.currency, version = excluded.version
WHERE excluded.version > refunds.version
"""


def apply(database, event):
    """Apply an announcement, once, in one transaction; ignore those that we do not know."""
    kind, payload = event["eventType"], event["payload"]
    with database:
        if not database.execute(
            "INSERT OR IGNORE INTO heard VALUES (?)", (event["eventId"],)
        ).rowcount:
            return
        if kind == "TourAvailabilityChanged":
            database.execute(TOUR, payload)
        elif kind in STATUS:
            known = {"currency": None} | payload  # what is not known is left out
            database.execute(
                REFUND, known | {"status": STATUS[kind], "amount": str(payload["amount"])}
            )


def listen(database):
    parameters = pika.URLParameters(os.environ["RABBITMQ_URL"])
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=100)
        channel.queue_declare(QUEUE, durable=True, arguments=ARGUMENTS)
        for key in KEYS:
            channel.queue_bind(QUEUE, EXCHANGE, key)
        for method, _, body in channel.consume(QUEUE):
            try:
                apply(database, json.loads(body, parse_float=Decimal))
            except (ValueError, LookupError, TypeError, sqlite3.ProgrammingError) as error:
                print(f"Not an announcement: {error!r}: {body[:200]!r}", file=sys.stderr)
            channel.basic_ack(method.delivery_tag)


def main():
    database = sqlite3.connect(sys.argv[1])
    database.executescript(TABLES)
    while True:
        try:
            listen(database)
        except pika.exceptions.AMQPError as error:
            print(f"{error!r}: once more in a second", file=sys.stderr)
            time.sleep(1)


if __name__ == "__main__":
    main()
