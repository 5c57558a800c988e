"""CloudEvents 1.0, in structured and in binary mode."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.message import Message

from booking_platform.contract.cloud_events import (
    ATTRIBUTES,
    LONGEST_ATTRIBUTE,
    PREFIXES,
    structured,
)
from booking_platform.contract.envelope import MalformedEvent, identify
from booking_platform.messaging.groups import Delivery
from tests.unit.envelopes import CREATED, patiently, read, refusal, written

DATA = {"bookingId": "BK-1", "tourId": 42, "seatsBooked": 2}
BODY = json.dumps(DATA).encode()
CLOUD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "7",
    "source": "https://shop.example/bookings",
    "type": "com.example.BookingCreated",
    "time": "2026-11-22T10:00:00Z",
}
EVENT_ID = "https://shop.example/bookings#7"


def cloud(**over: Any) -> bytes:
    fields = CLOUD | {"data": DATA} | over
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def headers(prefix: str = "cloudEvents:", **over: Any) -> dict[str, Any]:
    fields = CLOUD | over
    return {prefix + name: value for name, value in fields.items() if value is not ...}


def received(body: bytes, headers: Any) -> bytes:
    return delivered(body=body, headers=headers).body


def delivered(**message: Any) -> Delivery:
    return Delivery.of(Message(**message), most_bytes=100_000, kept_bytes=4096)


class TestStructuredMode:
    def test_it_is_read_as_an_event_of_ours(self) -> None:
        ours = read(CREATED)

        assert read(cloud()) == ours._replace(event_id=EVENT_ID)

    @pytest.mark.parametrize(
        "type_", ["BookingCreated", "com.example.BookingCreated", ".BookingCreated"]
    )
    def test_its_type_ends_with_ours(self, type_: str) -> None:
        assert read(cloud(type=type_)).event_type == "BookingCreated"

    @pytest.mark.parametrize(
        "type_", ["com.example.BookingCreated.v2", "NotBookingCreated", "BookingCancelled", ""]
    )
    def test_another_type_is_refused(self, type_: str) -> None:
        assert refusal(cloud(type=type_)) == (
            f"type is {type_!r}: expected 'BookingCreated', or a name that ends with .BookingCreated"
        )

    def test_attributes_that_nobody_knows_are_ignored(self) -> None:
        extended = cloud(
            datacontenttype="application/json", traceparent="00-1", payload=5, data_base64=None
        )

        assert read(extended) == read(cloud())

    def test_formatting_does_not_change_it(self) -> None:
        spaced = json.dumps(CLOUD | {"data": DATA}, indent=3).encode()

        assert read(b"\xef\xbb\xbf" + spaced) == read(cloud())

    def test_half_a_character_is_mended_in_its_data_and_refused_in_its_id(self) -> None:
        shown = cloud(data=DATA | {"note": "\ud83d"})

        assert read(shown).payload == read(CREATED).payload
        for over in ({"id": "\ud83d"}, {"source": "\ud83d"}):
            assert refusal(cloud(**over)).startswith("eventId holds half a character")
        assert refusal(cloud(data=DATA | {"bookingId": "\ud83d"})).startswith(
            "payload.bookingId holds half"
        )

    @pytest.mark.parametrize(
        ("over", "why"),
        [
            ({"time": ...}, "time is missing: expected a string in ISO 8601, such as 2026-11-22T10:00:00Z"),
            ({"time": None}, "time is null: expected a string in ISO 8601, such as 2026-11-22T10:00:00Z"),
            ({"time": "now"}, "timestamp is 'now': expected ISO 8601, such as 2026-11-22T10:00:00Z"),
            ({"id": ...}, "id is missing: expected a string that is not empty"),
            ({"id": 7}, "id is 7: expected a string that is not empty"),
            ({"id": ""}, 'id is "": expected a string that is not empty'),
            ({"source": ...}, "source is missing: expected a string that is not empty"),
            ({"type": ...}, "type is missing: expected a string, such as com.example.BookingCreated"),
            ({"specversion": "0.3"}, "specversion is '0.3': expected '1.0'"),
            ({"specversion": 1}, "specversion is 1: expected a string, such as 1.0"),
            ({"source": "a#b"}, "source is 'a#b': expected no #, which divides it from the id"),
            ({"data": ...}, "data: expected the payload, as a JSON object"),
            ({"data": None}, "data: expected the payload, as a JSON object"),
            ({"data": "{}"}, "data: expected the payload, as a JSON object"),
            ({"data": [DATA]}, "data: expected the payload, as a JSON object"),
            ({"data": ..., "data_base64": "e30="}, "data_base64 is given: expected the payload in data, as a JSON object"),
            ({"data": DATA | {"seatsBooked": "2"}}, 'payload.seatsBooked is "2": expected a JSON integer from 1 to 1,000,000, such as 2'),
            ({"id": "7\u200b"}, f'eventId is "{EVENT_ID}\\u200b": expected no invisible characters, and no space at either end'),
        ],
        ids=lambda over: repr(over)[:40],
    )  # fmt: skip
    def test_what_is_refused_says_what_to_send_instead(self, over: Any, why: str) -> None:
        assert refusal(cloud(**over)) == why

    def test_its_event_id_has_255_characters_at_most(self) -> None:
        longest = "x" * (255 - len(EVENT_ID) + 1)

        assert len(read(cloud(id=longest)).event_id) == 255
        assert refusal(cloud(id=longest + "x")) == (
            "source#id, which is the event id, has 256 characters: expected 255 at most"
        )

    def test_an_event_of_ours_stays_ours(self) -> None:
        both = json.loads(written(CREATED)) | CLOUD | {"data": DATA | {"seatsBooked": 9}}

        assert read(json.dumps(both).encode()) == read(CREATED)

    def test_where_it_has_an_id_of_ours_the_rest_must_be_ours(self) -> None:
        assert refusal(cloud(eventId="e-1")).startswith("eventType is missing")

    @patiently
    @given(*4 * [st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=9)])
    def test_two_ids_stay_two(self, one: str, id_one: str, other: str, id_other: str) -> None:
        sources = [one.replace("#", "/"), other.replace("#", "/")]

        ids = [
            read(cloud(source=source, id=own)).event_id
            for source, own in zip(sources, (id_one, id_other), strict=True)
        ]

        assert (ids[0] == ids[1]) == ((sources[0], id_one) == (sources[1], id_other))


class TestBinaryMode:
    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_its_body_holds_all_of_it_from_then_on(self, prefix: str) -> None:
        body = received(BODY, headers(prefix))

        assert json.loads(body) == CLOUD | {"data": DATA}
        assert read(body) == read(cloud())
        assert received(body, {}) == received(body, headers(prefix)) == body

    @pytest.mark.parametrize(
        "data", [b" \n" + BODY + b"\n", b"\xef\xbb\xbf" + BODY], ids=["space", "BOM"]
    )
    def test_its_data_may_be_framed(self, data: bytes) -> None:
        assert read(received(data, headers())) == read(cloud())

    def test_the_time_may_have_the_type_that_amqp_has_for_it(self) -> None:
        for moment in (datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 22, 10)):  # noqa: DTZ001
            assert read(received(BODY, headers(time=moment))) == read(cloud())

    def test_its_data_may_need_mending(self) -> None:
        data = BODY[:-1] + b',"note":"\xff \\ud83d"}'

        assert read(received(data, headers())).payload == read(CREATED).payload

    @pytest.mark.parametrize("name", ["id", "source", "type", "time"])
    def test_an_attribute_that_is_missing_is_named(self, name: str) -> None:
        missing: dict[str, Any] = {name: ...}

        assert refusal(received(BODY, headers(**missing))).startswith(f"{name} is missing")

    @pytest.mark.parametrize("body", [b"", b"  ", b"5", b"[]", b"null"])
    def test_the_data_is_an_object(self, body: bytes) -> None:
        assert refusal(received(body, headers())) == "data: expected the payload, as a JSON object"

    @pytest.mark.parametrize("end", [b"", b"}", b',"x":{', b',"x":"'])
    def test_a_body_that_is_no_json_brings_no_attributes_of_its_own(self, end: bytes) -> None:
        body = received(b'{},"id":"another","data":%b%b' % (BODY, end), headers())

        with pytest.raises(MalformedEvent):
            read(body)

    def test_prefixes_are_not_mixed(self) -> None:
        mixed = headers("ce-", id=...) | headers("ce_", specversion=...)

        assert refusal(received(BODY, mixed)).startswith("id is missing")

    @pytest.mark.parametrize(
        "odd",
        [5, 1.5, True, None, b"7", [], {}, ["7"], {"a": {"b": []}}, "x" * (LONGEST_ATTRIBUTE + 1),
         "\\xff", "\ud83d", ""],
        ids=lambda odd: repr(odd)[:20],
    )  # fmt: skip
    @pytest.mark.parametrize("name", ATTRIBUTES)
    def test_an_odd_header_leaves_the_body_as_it_is(self, name: str, odd: Any) -> None:
        assert received(BODY, headers(**{name: odd})) == BODY

    @pytest.mark.parametrize(
        "body",
        [written(CREATED), cloud(), cloud(id="another")],
        ids=["ours", "structured", "other"],
    )
    def test_a_body_with_an_envelope_needs_no_header(self, body: bytes) -> None:
        assert received(body, headers()) == body

    def test_headers_of_others_mean_nothing(self) -> None:
        given = {
            "traceparent": "00-1",
            "id": "7",
            "cloudEvents:id": "7",
            "ce-type": "BookingCreated",
        }

        assert received(BODY, given) == BODY

    def test_a_large_body_is_cut_and_can_still_be_told(self) -> None:
        delivery = delivered(body=BODY[:-1] + b" " * 200_000 + b"}", headers=headers())

        assert len(delivery.body) == 4096
        assert delivery.size > 200_000
        assert identify(delivery.body) == (EVENT_ID, "BookingCreated")

    @patiently
    @given(
        st.dictionaries(
            st.sampled_from([f"{prefix}{name}" for prefix in PREFIXES for name in ATTRIBUTES]),
            st.none() | st.integers() | st.text(st.characters(), max_size=9) | st.binary(max_size=9)
            | st.lists(st.text(max_size=3), max_size=2) | st.datetimes(),
        ),
        st.binary(max_size=20),
    )  # fmt: skip
    def test_whatever_the_headers_hold_the_body_is_whole(
        self, given: dict[str, Any], body: bytes
    ) -> None:
        found = structured(given, body)

        assert found == body or (body.removeprefix(b"\xef\xbb\xbf").strip() or b"null") in found
