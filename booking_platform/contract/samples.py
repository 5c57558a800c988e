"""An example of each event, from the notes of its fields."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from booking_platform.contract.announcing import Announcement, announced
from booking_platform.contract.examples import body
from booking_platform.contract.payloads import Payload, notes

MOMENT = datetime(2026, 11, 22, 10, tzinfo=UTC)  # of all examples


def sample(payload_type: type[Payload]) -> bytes:
    """Return an example of an event as the bytes of a message, always the same ones.

    The example of an announcement is made as the platform makes it.
    """
    given = {name: note.example for name, note in notes(payload_type).items()}
    payload = payload_type(**{name: value for name, value in given.items() if value is not None})
    name = payload_type.__name__
    if isinstance(payload, Announcement):
        return announced(payload, cause=f"the example of {name}", at=MOMENT).body
    values = msgspec.to_builtins(payload, builtin_types=(Decimal,))
    return body(
        {
            "eventId": str(uuid5(NAMESPACE_OID, name)),
            "eventType": name,
            "timestamp": f"{MOMENT:%Y-%m-%dT%H:%M:%SZ}",
            "payload": {field: value for field, value in values.items() if value is not None},
        }
    )


def sample_value(payload_type: type[Payload]) -> Any:
    """Return the example of an event as plain values, its numbers exact."""
    return msgspec.json.Decoder(float_hook=Decimal).decode(sample(payload_type))
