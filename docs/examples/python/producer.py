"""Publish a booking, and wait for what becomes of its seats.

    python producer.py --booking BK-1 --tour 1 --seats 2

RABBITMQ_URL names the broker. The exit status is 0 if the booking has its seats, 1 if it was refused,
2 if nothing was heard.
"""

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime

import pika

EXCHANGE = "booking-events"
QUEUE = "shop.outcomes"  # our own; its name begins as our rights on the broker allow
HEARD = ("seats.reserved", "seats.rejected", "event.parked")
ARGUMENTS = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}


def booking_created(booking, tour, seats):
    return {
        # Of the fact, not of the attempt: whoever publishes it again, by whatever mishap, uses it again.
        "eventId": f"shop-{booking}-created",
        "eventType": "BookingCreated",
        "timestamp": datetime.now(UTC).isoformat(),
        "payload": {"bookingId": booking, "tourId": tour, "seatsBooked": seats},
    }


def publish(channel, routing_key, event):
    """Publish an event; return when the broker has it safe, raise if it has not."""
    channel.basic_publish(
        EXCHANGE,
        routing_key,
        json.dumps(event).encode(),
        pika.BasicProperties(
            content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent
        ),
        mandatory=True,
    )


def outcome(channel, event_id, seconds):
    """Return what was announced of an event; none if nothing was in time."""
    deadline = time.monotonic() + seconds
    for method, _, body in channel.consume(QUEUE, inactivity_timeout=0.2):
        if method is not None:
            said = json.loads(body)
            # A system with more than one booking at a time stores here what was said of the others.
            channel.basic_ack(method.delivery_tag)
            if said["payload"].get("causedBy") == event_id:
                return said
        if time.monotonic() > deadline:
            break
    return None


def publish_and_wait(event, seconds):
    parameters = pika.URLParameters(os.environ["RABBITMQ_URL"])
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # First the queue, then the event: so that no outcome comes before somebody listens.
        channel.queue_declare(QUEUE, durable=True, arguments=ARGUMENTS)
        for key in HEARD:
            channel.queue_bind(QUEUE, EXCHANGE, key)
        publish(channel, "booking.created", event)
        return outcome(channel, event["eventId"], seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--booking", required=True)
    parser.add_argument("--tour", type=int, required=True)
    parser.add_argument("--seats", type=int, default=1)
    parser.add_argument("--wait", type=float, default=30, metavar="SECONDS")
    options = parser.parse_args()
    event = booking_created(options.booking, options.tour, options.seats)
    for pause in (1, 2, 4, 8, None):
        try:
            said = publish_and_wait(event, options.wait)
            break
        except pika.exceptions.AMQPConnectionError:  # it may have arrived: the same event again
            if pause is None:
                raise
            time.sleep(pause)
    if said is None:
        print(f"Nothing was heard of {event['eventId']} within {options.wait:g} s.")
        return 2
    print(said["eventType"], json.dumps(said["payload"]))
    return 0 if said["eventType"] == "SeatsReserved" else 1


if __name__ == "__main__":
    sys.exit(main())
