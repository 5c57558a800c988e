"""The AsyncAPI document: which event goes where, from the platform's point of view.

https://www.asyncapi.com/docs/reference/specification/v3.0.0, with the bindings of AMQP 0-9-1:
https://github.com/asyncapi/bindings/tree/master/amqp
"""

from collections.abc import Mapping
from typing import Any

from booking_platform.contract.announcing import Announcement
from booking_platform.contract.payloads import Payload
from booking_platform.contract.samples import sample_value
from booking_platform.contract.schemas import described, event_schema

# Raised when the contract grows: the second number for an event or a field more, the third for words.
# The first one stays: what would break somebody is another event, under another routing key.
VERSION = "1.0.0"
EXCHANGE = "booking-events"
PERSISTENT = 2  # AMQP 0-9-1, basic class, delivery-mode

_ABOUT = """\
The booking systems publish what happened to bookings; the platform says what became of it. Both publish to \
the topic exchange `booking-events`, an event of each type under a routing key of its own: UTF-8 JSON, \
persistent, confirmed. An event may come more than once, always under the same `eventId`, and is applied \
once. Fields that are not known are ignored. `receive` is what the platform takes, `send` what it announces. \
docs/events.md and docs/producers-and-listeners.md say the rest."""

Json = dict[str, Any]


def document(
    events: Mapping[str, type[Payload]], announcements: Mapping[str, type[Announcement]]
) -> Json:
    """Return the document of the events in and out, each by its routing key."""
    both: dict[str, type[Payload]] = {**events, **announcements}
    operations = dict(
        [
            *(_operation("receive", each, {"ack": True}) for each in events.values()),
            *(
                _operation("send", each, {"deliveryMode": PERSISTENT})
                for each in announcements.values()
            ),
        ]
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Booking platform",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "rabbitmq": {
                "host": "rabbitmq.example.com:5671",
                "protocol": "amqps",
                "protocolVersion": "0-9-1",
                "description": "Your RabbitMQ.",
            }
        },
        "channels": {each.__name__: _channel(key, each) for key, each in both.items()},
        "operations": operations,
        "components": {"messages": {each.__name__: _message(each) for each in both.values()}},
    }


def _channel(key: str, payload_type: type[Payload]) -> Json:
    name = payload_type.__name__
    exchange = {"name": EXCHANGE, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": key,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}},
    }


def _operation(action: str, payload_type: type[Payload], binding: Json) -> tuple[str, Json]:
    name = payload_type.__name__
    return f"{action}{name}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": _summary(payload_type),
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"amqp": binding | {"bindingVersion": "0.3.0"}},
    }


def _message(payload_type: type[Payload]) -> Json:
    name = payload_type.__name__
    message = {
        "name": name,
        "title": name,
        "summary": _summary(payload_type),
        "contentType": "application/json",
        "payload": event_schema(payload_type),
        "examples": [{"name": "example", "payload": sample_value(payload_type)}],
    }
    if "caused_by" in payload_type.__struct_fields__:
        message["correlationId"] = {
            "description": "The `eventId` of the event that made it happen.",
            "location": "$message.payload#/payload/causedBy",
        }
    return message


def _summary(payload_type: type[Payload]) -> str:
    """Return the first sentence of what an event means."""
    sentence, _, _ = described(payload_type).partition(". ")
    return f"{sentence.rstrip('.')}."
