"""What is announced, heard as the rest of the business hears it."""

import json
from decimal import Decimal
from typing import Any

import msgspec

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging.models import OutboxRow

Event = dict[str, Any]  # an envelope, with exact numbers


def announced() -> list[Event]:
    """Return all that was announced, in the order in which it is published, each true to its type."""
    events = []
    for row in OutboxRow.objects.order_by("pk"):
        for routing_key, event, _ in json.loads(row.messages, parse_float=Decimal):
            payload_type = ANNOUNCEMENTS[routing_key]
            msgspec.convert(event["payload"], payload_type)
            assert event["eventType"] == payload_type.__name__
            events.append(event)
    return events


def kinds() -> list[str]:
    return [event["eventType"] for event in announced()]


def payloads() -> list[dict[str, Any]]:
    return [event["payload"] for event in announced()]


def words() -> str:
    """Return what is told in words: all but the ids, in which any letters may follow each other."""
    ids = ("causedBy", "refundId", "paymentId")
    told = [{name: each[name] for name in each if name not in ids} for each in payloads()]
    return json.dumps(told, default=str)


class Listener:
    """Keeps what was said last of each thing, and hears each event once.

    It checks that the announcements of one thing come in their order, and that none is missing.
    """

    def __init__(self, *named_by: str) -> None:
        self.named_by = named_by
        self.heard: set[str] = set()
        self.last: dict[tuple[Any, ...], Event] = {}

    def hear(self, event: Event) -> None:
        if event["eventId"] in self.heard:
            return
        self.heard.add(event["eventId"])
        payload = event["payload"]
        name = tuple(payload[field] for field in self.named_by)
        before = self.last[name]["payload"]["version"] if name in self.last else 0
        assert payload["version"] == before + 1
        self.last[name] = event
