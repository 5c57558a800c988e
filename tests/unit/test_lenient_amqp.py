"""What py-amqp makes of frames that no client library writes."""

import struct
from typing import Any

import pytest
from amqp import spec
from hypothesis import given
from hypothesis import strategies as st

from booking_platform.messaging import lenient_amqp
from booking_platform.messaging.lenient_amqp import KEPT_BYTES, LenientMessage, load_arguments
from tests.amqp_frames import CONTENT_TYPE, HEADERS, nested, properties, short, table, text

DELIVER = "sLbss"  # consumer tag, delivery tag, redelivered, exchange, routing key


def arguments(routing_key: bytes) -> bytes:
    return short(b"tag") + struct.pack(">Q", 7) + b"\1" + short(b"events") + short(routing_key)


def header(size: int, props: bytes) -> bytes:
    return struct.pack(">HHQ", 60, 0, size) + props


def received(size: int, props: bytes, *frames: bytes) -> Any:
    message: Any = LenientMessage(frame_method=spec.Basic.Deliver, frame_args=b"")
    message.inbound_header(header(size, props))
    for frame in frames:
        assert not message.ready
        message.inbound_body(frame)
    return message


class TestMethodArguments:
    @pytest.mark.parametrize(
        ("raw", "read"),
        [
            (b"booking.created", "booking.created"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("é".encode(), "é"),
            (b"caf\xe9", "caf\\xe9"),
            (b"", ""),
        ],
    )
    def test_a_routing_key_is_text_whatever_it_holds(self, raw: bytes, read: str) -> None:
        values, _ = load_arguments(DELIVER, arguments(raw), 0)
        assert values == ["tag", 7, True, "events", read]

    @given(st.binary(max_size=255))
    def test_none_can_not_be_read(self, raw: bytes) -> None:
        values, offset = load_arguments(DELIVER, arguments(raw), 0)
        assert values[:4] == ["tag", 7, True, "events"]
        assert offset == len(arguments(raw))


class TestProperties:
    def test_text_that_is_not_utf_8_is_made_readable_and_the_rest_kept(self) -> None:
        props = {
            CONTENT_TYPE: short(b"\xff"),
            HEADERS: table((b"x-death", text(b"\xfe")), (b"task", text(b"a"))),
        }
        message = received(0, properties(props))
        assert message.properties["content_type"] == "\\xff"
        assert message.properties["application_headers"] == {"x-death": "\\xfe", "task": "a"}

    @pytest.mark.parametrize("value", [nested(5000), b"T" + b"\xff" * 8, b"?"], ids=repr)
    def test_those_that_can_not_be_read_are_left_out(self, value: bytes) -> None:
        message = received(2, properties({HEADERS: table((b"odd", value))}), b"{}")
        assert message.properties == {}
        assert message.body == b"{}"


class TestBodies:
    def test_of_one_that_is_too_large_the_beginning_is_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lenient_amqp, "LARGEST_BODY", 10_000)
        frames = [bytes([number]) * 3000 for number in range(4)]
        message = received(12_000, b"\0\0", *frames)
        assert message.ready
        assert message.body_size == 12_000
        assert message.body == b"".join(frames)[:KEPT_BYTES]

    def test_any_other_is_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lenient_amqp, "LARGEST_BODY", 10_000)
        message = received(10_000, b"\0\0", b"x" * 6000, b"y" * 4000)
        assert message.body == b"x" * 6000 + b"y" * 4000
