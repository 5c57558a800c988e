import json
import random
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import InvalidEvent, MalformedEvent, decode
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from tests.unit.envelopes import (
    ADDRESS,
    CANCELLED,
    CHANGED,
    CREATED,
    IDENTIFIERS,
    NOW,
    REQUIRED,
    bodies,
    json_values,
    patiently,
    read,
    refusal,
    spelled,
    without,
    written,
)

TEXTS = ("bookingId", "paymentId", "currency", "userEmail", "tourName", "locale")
DEEP = 1_000_000  # levels: Python 3.14 goes as deep as the stack of the thread has room for


class TestAValidEvent:
    def test_it_becomes_a_value(self) -> None:
        event = read(CANCELLED)

        assert event[:4] == (
            "e-1",
            "BookingCancelled",
            NOW,
            BookingCancelled(
                booking_id="BK-1",
                tour_id=42,
                seats_released=2,
                seats_remaining=1,
                revision=7,
                payment_id="pi_1",
                amount=Decimal("150.0"),
                currency="eur",
                user_email=ADDRESS,
                tour_name="Paris City Tour",
                locale="fr",
            ),
        )

    def test_it_needs_its_required_fields_only(self) -> None:
        required = {field for event, field in REQUIRED if event is CANCELLED}
        bare = {f: t for f, t in CANCELLED.items() if "." not in f or f in required}

        payload = read(bare).payload

        assert payload == BookingCancelled(booking_id="BK-1", tour_id=42, seats_released=2)

    def test_a_creation_may_name_no_booking(self) -> None:
        assert read(without(CREATED, "payload.bookingId")).payload.booking_id is None

    def test_a_change_names_the_new_number_of_seats(self) -> None:
        assert read(CHANGED).payload == BookingChanged(
            booking_id="BK-1", tour_id=42, seats=2, revision=7
        )

    @pytest.mark.parametrize(
        "field",
        ["seatsRemaining", "revision", "paymentId", "amount", "currency", "userEmail", "tourName", "locale"],
    )  # fmt: skip
    def test_null_says_that_an_optional_field_is_missing(self, field: str) -> None:
        payload = read(CANCELLED | {f"payload.{field}": "null"}).payload

        assert payload == read(without(CANCELLED, f"payload.{field}")).payload

    def test_it_ignores_unknown_fields(self) -> None:
        event = read(CREATED | {"payload.unknown": "[1, {}]", "unknown": "null"})

        assert event.payload == read(CREATED).payload

    def test_it_reads_an_amount_exactly(self) -> None:
        amount = read(
            CANCELLED | {"payload.amount": "0.1000000000000000055511151231"}
        ).payload.amount

        assert amount == Decimal("0.1000000000000000055511151231")

    @pytest.mark.parametrize(("event", "field"), IDENTIFIERS, ids=spelled)
    @pytest.mark.parametrize(
        "text",
        ["é" * 255, "😀" * 255, "a  b", "' OR 1=1 --", '\\u00e9/\\"', "a\\u00a0b", "\\ue000"],
    )
    def test_an_identifier_is_any_text_of_255_characters(
        self, event: dict[str, str], field: str, text: str
    ) -> None:
        read_event = read(event | {field: f'"{text}"'})

        attribute = {"payload.paymentId": "payment_id"}.get(field, "booking_id")
        payload = read_event.payload
        stored = read_event.event_id if field == "eventId" else getattr(payload, attribute)
        assert stored == json.loads(f'"{text}"')

    def test_the_last_of_duplicate_keys_counts(self) -> None:
        twice = b'{"eventId":"e-0",' + written(CREATED)[1:].replace(
            b'"seatsBooked":2', b'"seatsBooked":1,"seatsBooked":2'
        )

        assert read(twice) == read(CREATED)


class TestAnEventThatIsNoJSONObject:
    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"", "not JSON: Input data was truncated"),
            (b" ", "not JSON: Input data was truncated"),
            (b"\xff", "not UTF-8: invalid start byte at byte 0"),
            (b'{"eventId":"\xed\xa0\x80"', "not UTF-8: invalid continuation byte at byte 12"),
            (b'\xff{"eventId":"e-1"}', "not UTF-8: invalid start byte at byte 0"),
            (2 * b"\xef\xbb\xbf" + written(CREATED), "not JSON: .* invalid character .byte 0."),
            (written(CREATED).decode().encode("utf-16"), "not UTF-8: invalid start byte at byte 0"),
            (b"[]", "not a JSON object: Expected `object`, got `array`"),
            (b"[" + written(CREATED) + b"]", "not a JSON object: Expected `object`, got `array`"),
            (b"null", "not a JSON object: Expected `object`, got `null`"),
            (b"5", "not a JSON object: Expected `object`, got `int`"),
            (b'"{}"', "not a JSON object: Expected `object`, got `str`"),
            (b"NaN", "not JSON"),
            (b"{'eventId': 1}", "not JSON"),
            (b"\x80\x04K\x01.", "not UTF-8"),
            (written(CREATED)[:-1], "not JSON: Input data was truncated"),
            (written(CREATED) + b"x", "not JSON: .* trailing characters"),
            (written(CREATED) * 2, "not JSON: .* trailing characters"),
        ],
        ids=lambda given: repr(given[:12]) if isinstance(given, bytes) else "",
    )
    def test_it_is_malformed(self, body: bytes, why: str) -> None:
        with pytest.raises(MalformedEvent, match=why):
            read(body)

    @pytest.mark.parametrize(
        "text",
        ["NaN", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1_000", "", "2,", '"\\x00"', '"\0"',
         '"\n"', "'2'", "/**/2", "undefined", "\\ud800", '"\\ud800', '"\\u00"'],
    )  # fmt: skip
    @pytest.mark.parametrize("field", ["payload.seatsBooked", "payload.unknown"])
    def test_it_is_malformed_by_any_value(self, field: str, text: str) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            read(CREATED | {field: text})

    @pytest.mark.parametrize("level", ["[", '{"a":'])
    @pytest.mark.parametrize("field", ["eventId", "payload", "payload.tourId", "payload.x", "x"])
    def test_nesting_without_end_is_refused(self, field: str, level: str) -> None:
        nested = level * DEEP + "1" + {"[": "]"}.get(level, "}") * DEEP

        refusal(CREATED | {field: nested})

    @pytest.mark.parametrize("level", [b"[", b'{"a":'])
    def test_nothing_but_nesting_is_malformed(self, level: bytes) -> None:
        with pytest.raises(MalformedEvent, match=r"^not (read: nested too deeply|a JSON object)"):
            read(level * DEEP)

    @pytest.mark.parametrize(
        "rest",
        ["", "}", "]", "1} x", '"\\ud800"}', "[" * 100_000, "9" * 5_000 + "}",
         "1e400}", "1e99999999999999999999}"],
        ids=lambda rest: rest[:24] or "nothing",
    )  # fmt: skip
    def test_what_follows_a_refused_field_may_be_anything(self, rest: str) -> None:
        refusal(f'{{"eventId":5,"x":{rest}'.encode())


class TestAFingerprint:
    def test_it_is_that_of_older_versions(self) -> None:
        """Rows of processed events hold it: a repeat of an older event must stay one."""
        payload = (
            '{"bookingId":"BK-é","tourId":42,"seatsBooked":2,"x":[1.50,-0.0,1e3,null,"\\u0000"]}'
        )

        assert read(CREATED | {"payload": payload}).fingerprint == (
            "39e8083047315d60226c2481cce2cd701c31f20b288ee550830ea4c3dca2c29e"
        )

    @pytest.mark.parametrize("text", ["150", "150.00", "1.5e2", "1.5E+2", "15000e-2", "0.15e3"])
    def test_it_takes_numbers_by_value(self, text: str) -> None:
        fields = {"payload.amount": text, "payload.unknown": f"[{text}]"}
        as_float = {"payload.amount": "150.0", "payload.unknown": "[150.0]"}

        assert read(CANCELLED | fields).fingerprint == read(CANCELLED | as_float).fingerprint

    @pytest.mark.parametrize(
        "text",
        [b'{ "tourName":"Paris" , "n":-0,"l":\n[0.0]\t}', b'{"n":0,"l":[0],"tourName":"Paris"}',
         b'{"n":0,"l":[0],"tour\\u004eame":"\\u0050aris"}'],
        ids=["spaces", "order", "escapes"],
    )  # fmt: skip
    def test_it_takes_no_notice_of_formatting(self, text: bytes) -> None:
        plain = b'{"tourName":"Paris","n":0,"l":[0]}'

        def fingerprint(text: bytes) -> str:
            rest = written(CANCELLED).partition(b'"payload":{')[2]
            return read(b'{"payload":' + text[:-1] + b"," + rest, BookingCancelled).fingerprint

        assert fingerprint(text) == fingerprint(plain)

    @pytest.mark.parametrize("field", ["eventId", "timestamp", "unknown"])
    def test_it_covers_no_field_of_the_envelope(self, field: str) -> None:
        other = CREATED | {field: '"2026-11-22T09:59:00Z"'}

        assert read(other).fingerprint == read(CREATED).fingerprint

    def test_it_covers_the_type(self) -> None:
        payload = CREATED | CANCELLED
        created = read(payload | {"eventType": '"BookingCreated"'})
        cancelled = read(payload | {"eventType": '"BookingCancelled"'})

        assert created.fingerprint != cancelled.fingerprint

    @pytest.mark.parametrize(
        ("field", "text"),
        [
            *((f"payload.{name}", '"xyz"') for name in TEXTS),
            ("payload.tourId", "43"),
            ("payload.seatsReleased", "3"),
            ("payload.amount", "150.0000000000000000000000000001"),
            ("payload.amount", "null"),
            ("payload.unknown", "null"),
        ],
    )
    def test_it_covers_every_field_of_the_payload(self, field: str, text: str) -> None:
        other = read(CANCELLED | {field: text})

        assert other.fingerprint != read(CANCELLED).fingerprint

    UNKNOWN = ["null", "0", "1", "1.1", '"1"', "true", "false", '""', "[]", "[1,2]", "[2,1]", "{}",
               '{"a":1}', '{"b":1}', '{"a":{"a":1}}', "[[]]", "1e30", "1e-30", "1.1000000000000000000001", "1" + "0" * 31]  # fmt: skip

    def test_it_tells_unknown_fields_apart(self) -> None:
        events = [read(CREATED | {"payload.unknown": text}) for text in self.UNKNOWN]

        assert len({event.fingerprint for event in events}) == len(self.UNKNOWN)


class TestAnyBody:
    @patiently
    @given(st.one_of(st.binary(), json_values().map(str.encode), bodies()))
    @example(b'{"eventId":5,"x":')
    @example(b'{"eventId":5,"x":1e99999999999999999999}')
    def test_it_is_read_or_refused(self, body: bytes) -> None:
        for payload_type in (BookingCreated, BookingCancelled, BookingChanged):
            with suppress(InvalidEvent):  # anything else would return the whole group, for ever
                event = decode(body, payload_type, now=NOW)
                least = decode(body, payload_type, now=NOW, uses=())

                assert event == decode(body, payload_type, now=NOW)
                assert least._replace(payload=None) == event._replace(payload=None)
            with suppress(InvalidEvent):
                decode(body, payload_type, now=NOW, uses=())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(-1e15, 1e15).map(lambda f: round(f, 9)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    if isinstance(value, dict):
        names = order.sample(list(value), len(value))
        return {name: shuffled(value[name], order) for name in names}
    return value


def exact(value: Any) -> Any:
    """Convert a value so that two are equal only if JSON's are: in Python, True equals 1."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value), value
    return Decimal(repr(value))


class TestAnyPayload:
    KNOWN = {"tourId": 42, "seatsBooked": 2}

    def fingerprint(self, payload: dict[str, Any], **style: Any) -> str:
        return read(CREATED | {"payload": json.dumps(payload, **style)}).fingerprint

    @patiently
    @given(
        st.dictionaries(st.text().filter(lambda name: name != "bookingId"), VALUES, max_size=6),
        st.randoms(use_true_random=False),
        st.booleans(),
        st.sampled_from([None, 0, 3]),
    )
    def test_encoding_it_otherwise_keeps_its_fingerprint(
        self, unknown: dict[str, Any], order: random.Random, ascii_only: bool, indent: int | None
    ) -> None:
        payload = unknown | self.KNOWN

        again = self.fingerprint(shuffled(payload, order), ensure_ascii=ascii_only, indent=indent)

        assert again == self.fingerprint(payload)

    @patiently
    @given(VALUES, VALUES)
    @example(1, True)
    @example([0.0], [0])
    @example({"a": None}, {})
    def test_it_has_the_fingerprint_of_another_if_they_are_equal(
        self, one: Any, other: Any
    ) -> None:
        fingerprints = [self.fingerprint(self.KNOWN | {"x": value}) for value in (one, other)]

        assert (fingerprints[0] == fingerprints[1]) == (exact(one) == exact(other))
