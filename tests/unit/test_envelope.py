import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from booking_platform.contract.envelope import (
    Event,
    InvalidEvent,
    MalformedEvent,
    decode,
    identify,
)
from booking_platform.contract.events import BookingCancelled, BookingCreated

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ADDRESS = "ann@example.com"

# Events as JSON text by field, so that a test can put in what no JSON library would write.
CREATED = {
    "eventId": '"e-1"',
    "eventType": '"BookingCreated"',
    "timestamp": '"2026-11-22T10:00:00Z"',
    "payload.bookingId": '"BK-1"',
    "payload.tourId": "42",
    "payload.seatsBooked": "2",
}
CANCELLED = {
    "eventId": '"e-1"',
    "eventType": '"BookingCancelled"',
    "timestamp": '"2026-11-22T10:00:00Z"',
    "payload.bookingId": '"BK-1"',
    "payload.tourId": "42",
    "payload.seatsReleased": "2",
    "payload.paymentId": '"pi_1"',
    "payload.amount": "150.0",
    "payload.currency": '"eur"',
    "payload.userEmail": f'"{ADDRESS}"',
    "payload.tourName": '"Paris City Tour"',
    "payload.locale": '"fr"',
}
TYPES = {'"BookingCreated"': BookingCreated, '"BookingCancelled"': BookingCancelled}
REQUIRED = [
    *((CREATED, field) for field in CREATED if field != "payload.bookingId"),
    *((CANCELLED, f"payload.{field}") for field in ("bookingId", "tourId", "seatsReleased")),
]
IDENTIFIERS = [
    (CREATED, "eventId"),
    (CREATED, "payload.bookingId"),
    (CANCELLED, "payload.bookingId"),
    (CANCELLED, "payload.paymentId"),
]
TEXTS = ("bookingId", "paymentId", "currency", "userEmail", "tourName", "locale")
DEEP = 10_000  # levels
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(fields: dict[str, str]) -> bytes:
    def joined(part: dict[str, str]) -> str:
        return ",".join(f'"{name}":{text}' for name, text in part.items())

    outer = {name: text for name, text in fields.items() if not name.startswith("payload.")}
    inner = {name[8:]: text for name, text in fields.items() if name.startswith("payload.")}
    return f"{{{joined({'payload': f'{{{joined(inner)}}}'} | outer)}}}".encode()


def without(fields: dict[str, str], field: str) -> dict[str, str]:
    return {name: text for name, text in fields.items() if name != field}


def read(fields: dict[str, str] | bytes, payload_type: type | None = None) -> Event:
    if isinstance(fields, bytes):
        return decode(fields, payload_type or BookingCreated, now=NOW)
    return decode(written(fields), payload_type or TYPES[fields["eventType"]], now=NOW)


def refusal(fields: dict[str, str] | bytes, payload_type: type | None = None) -> str:
    with pytest.raises(InvalidEvent) as refused:
        read(fields, payload_type)
    return str(refused.value)


def names(message: str, field: str, text: str, problem: str = "") -> bool:
    """Return whether a message names field and value, in JSON's spelling or in Python's."""
    values = text, repr(json.loads(text))
    return any(message.startswith(f"{field} is {value}: {problem}") for value in values)


def spelled(field: Any) -> Any:
    """Identify a test by its field."""
    return field if isinstance(field, str) else field["eventType"].strip('"')


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

        assert payload == BookingCancelled(
            booking_id="BK-1", tour_id=42, seats_released=2, currency="eur", locale="fr"
        )

    def test_a_creation_may_name_no_booking(self) -> None:
        assert read(without(CREATED, "payload.bookingId")).payload.booking_id is None

    @pytest.mark.parametrize("field", ["paymentId", "amount", "userEmail", "tourName"])
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
    @pytest.mark.parametrize("text", ["é" * 255, "😀" * 255, " ", "' OR 1=1 --", "\\u00e9\\n"])
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
            (b'{"eventId":"\xed\xa0\x80"}', "not UTF-8: invalid continuation byte at byte 12"),
            (b"\xef\xbb\xbf" + written(CREATED), "not JSON: .* invalid character .byte 0."),
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
        ["NaN", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1_000", "", "2,", '"\\ud800"',
         '"\\udc00x"', '"\\x00"', '"\0"', '"\n"', "'2'", "/**/2", "undefined"],
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


class TestARefusedField:
    @pytest.mark.parametrize(("event", "field"), REQUIRED, ids=spelled)
    def test_it_is_named_where_it_is_missing(self, event: dict[str, str], field: str) -> None:
        message = refusal(without(event, field), TYPES[event["eventType"]])

        assert f"missing required field `{field.removeprefix('payload.')}`" in message

    def test_the_whole_payload_is_named_where_it_is_missing(self) -> None:
        body = written(CREATED).replace(b'"payload"', b'"load"')

        assert "missing required field `payload`" in refusal(body)

    @pytest.mark.parametrize(("event", "field"), REQUIRED, ids=spelled)
    def test_null_is_no_value_for_what_is_required(self, event: dict[str, str], field: str) -> None:
        kind = "str" if event[field].startswith('"') else "int"

        message = refusal(event | {field: "null"}, TYPES[event["eventType"]])

        assert names(message, field, "null", f"Expected `{kind}`, got `null`")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("0", "Expected `int` >= 1"),
            ("-1", "Expected `int` >= 1"),
            ("1.5", "Expected `int`, got `float`"),
            ("1.0", "Expected `int`, got `float`"),
            ("1e0", "Expected `int`, got `float`"),
            ("1e400", "Number out of range"),
            ("1e999999999", "Number out of range"),
            ("1e99999999999999999999", "Number out of range"),
            ('"2"', "Expected `int`, got `str`"),
            ("true", "Expected `int`, got `bool`"),
            ("[1]", "Expected `int`, got `array`"),
            ("{}", "Expected `int`, got `object`"),
            ("1000001", "Expected `int` <= 1000000"),
            ("1" + 30 * "0", "Expected `int` <= 1000000"),
        ],
        ids=lambda text: text[:24],
    )
    @pytest.mark.parametrize(
        ("event", "field"),
        [(CREATED, "payload.seatsBooked"), (CANCELLED, "payload.seatsReleased")],
        ids=spelled,
    )
    def test_seats_are_integers_from_1_to_a_million(
        self, event: dict[str, str], field: str, text: str, problem: str
    ) -> None:
        assert names(refusal(event | {field: text}), field, text, problem)

    @pytest.mark.parametrize("text", ["0", "-1", "1.0", '"42"', "true", str(2**63), str(2**64)])
    def test_a_tour_is_a_number_that_a_column_holds(self, text: str) -> None:
        message = refusal(CREATED | {"payload.tourId": text})

        assert names(message, "payload.tourId", text, "Expected `int`")
        assert read(CREATED | {"payload.tourId": str(2**63 - 1)}).payload.tour_id == 2**63 - 1

    @pytest.mark.parametrize("field", ["tourId", "seatsBooked"])
    def test_an_integer_of_5000_digits_is_no_integer(self, field: str) -> None:
        message = refusal(CREATED | {f"payload.{field}": "9" * 5_000})

        assert message.startswith(f"payload.{field} is 99999")
        assert "(5000 characters): Integer value out of range" in message

    @pytest.mark.parametrize(
        "text",
        ["1e400", "-1e400", "1e-400", "1e31", "1e-31", "1e999999999", "1e99999999999999999999",
         "1e-99999999999999999999", "1" * 101, "1" * 5_000, "0." + "1" * 99],
        ids=lambda text: text[:24],
    )  # fmt: skip
    def test_an_amount_has_no_endless_digits(self, text: str) -> None:
        message = refusal(CANCELLED | {"payload.amount": text})

        assert message.startswith(f"payload.amount is {text[:70]}")

    @pytest.mark.parametrize("text", ['"12.50"', '"NaN"', '"Infinity"', '"x"', '""', "true", "[]"])
    def test_an_amount_is_a_number(self, text: str) -> None:
        assert names(refusal(CANCELLED | {"payload.amount": text}), "payload.amount", text)

    @pytest.mark.parametrize(
        "text", ["1e400", "1e99999999999999999999", "9" * 5_000], ids=lambda text: text[:24]
    )
    def test_numbers_without_end_are_refused_in_unknown_fields_too(self, text: str) -> None:
        refusal(CREATED | {"payload.unknown": f"[{text}]"})

    @pytest.mark.parametrize(("event", "field"), IDENTIFIERS, ids=spelled)
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('""', "is (\"\"|''): Expected `str` of length >= 1"),
            (f'"{256 * "x"}"', r"is .x{79}… \(258 characters\): Expected `str` of length <= 255"),
            ('"a\\u0000"', "holds a NUL character"),
            ("5", "is 5: Expected `str"),
            ('["a"]', r"is \[.a.\]: Expected `str"),
        ],
        ids=["empty", "256", "NUL", "number", "array"],
    )
    def test_an_identifier_has_1_to_255_characters(
        self, event: dict[str, str], field: str, text: str, why: str
    ) -> None:
        assert re.match(f"{re.escape(field)} {why}", refusal(event | {field: text}))

    @pytest.mark.parametrize("field", ["currency", "userEmail", "tourName", "locale"])
    @pytest.mark.parametrize("text", ["5", f'"{10_001 * "x"}"', '"\\u0000en"'], ids=lambda t: t[:4])
    def test_any_other_text_is_bounded_too(self, field: str, text: str) -> None:
        assert refusal(CANCELLED | {f"payload.{field}": text}).startswith(f"payload.{field}")

    @pytest.mark.parametrize("text", ["5", "null", "[1]", '"text"'])
    def test_the_payload_is_an_object(self, text: str) -> None:
        message = refusal({k: t for k, t in CREATED.items() if "." not in k} | {"payload": text})

        assert message.startswith("payload")
        assert "Expected `object`" in message

    def test_a_message_stays_short(self) -> None:
        assert len(refusal(CREATED | {"payload.seatsBooked": f'"{100_000 * "x"}"'})) < 200


class TestAPrivateField:
    @pytest.mark.parametrize(
        "text",
        [f'["{ADDRESS}"]', f'{{"a":"{ADDRESS}"}}', f'"{ADDRESS * 100}"', f'"{ADDRESS}\\u0000"'],
        ids=["array", "object", "long", "NUL"],
    )
    def test_it_is_named_without_its_value(self, text: str) -> None:
        message = refusal(CANCELLED | {"payload.userEmail": text})

        assert message.startswith("payload.userEmail")
        assert ADDRESS not in message

    @pytest.mark.parametrize("encode", [json.dumps, lambda text: f"[{text}]"], ids=["text", "list"])
    def test_it_is_private_inside_a_refused_payload_too(self, encode: Callable[[str], str]) -> None:
        """A producer that encodes its payload twice is a common mistake."""
        payload = encode(f'{{"userEmail":"{ADDRESS}"}}')
        outer = {k: t for k, t in CANCELLED.items() if "." not in k}

        message = refusal(outer | {"payload": payload})

        assert message.startswith("payload")
        assert ADDRESS not in message


class TestTheTypeOfAnEvent:
    def test_it_is_that_of_the_queue(self) -> None:
        message = refusal(written(CANCELLED), BookingCreated)

        assert message == "eventType is 'BookingCancelled': expected 'BookingCreated'"

    @pytest.mark.parametrize("text", ['"bookingcreated"', '""', '"BookingCreated\\u0000"'])
    def test_it_is_spelled_exactly(self, text: str) -> None:
        assert refusal(written(CREATED | {"eventType": text})).startswith("eventType is ")

    def test_a_number_is_no_type(self) -> None:
        message = refusal(written(CREATED | {"eventType": "5"}))

        assert message == "eventType is 5: Expected `str`, got `int`"


class TestATimestamp:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-11-22T10:00:00Z", NOW),
            ("2026-11-22T10:00:00", NOW),
            ("2026-11-22T12:00:00.000+02:00", NOW),
            ("20261122T100000Z", NOW),
            ("2026-11-23T10:00:00Z", NOW + timedelta(days=1)),
            ("1999-12-31T23:59:59.999999Z", datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)),
        ],
    )
    def test_it_is_iso_8601_in_utc_unless_it_says_otherwise(
        self, text: str, moment: datetime
    ) -> None:
        assert read(CREATED | {"timestamp": f'"{text}"'}).occurred_at == moment

    @pytest.mark.parametrize(
        "text",
        ["garbage", "", " ", "now", "1700000000", "22/11/2026", "2026-11-31T10:00:00Z",
         "2026-11-22T25:00:00Z", "2026-11-22T10:00:00+24:00", " 2026-11-22T10:00:00Z"],
    )  # fmt: skip
    def test_garbage_is_refused(self, text: str) -> None:
        message = refusal(CREATED | {"timestamp": f'"{text}"'})

        assert message.startswith(f"timestamp is {text!r}: expected ISO 8601")

    def test_it_holds_no_nul(self) -> None:
        assert refusal(CREATED | {"timestamp": '"2026-11-22T10:00:00Z\\u0000"'}).startswith(
            "timestamp is "
        )

    def test_a_number_is_refused(self) -> None:
        message = refusal(CREATED | {"timestamp": "1700000000"})

        assert message == "timestamp is 1700000000: Expected `str`, got `int`"

    @pytest.mark.parametrize("text", ["2026-11-23T10:00:00.000001Z", "9999-12-31T23:59:59-23:59"])
    def test_more_than_a_day_ahead_is_refused(self, text: str) -> None:
        message = refusal(CREATED | {"timestamp": f'"{text}"'})

        assert message == f"timestamp is {text!r}: more than a day in the future"

    @patiently
    @given(
        st.datetimes(max_value=datetime(2026, 11, 20)),  # noqa: DTZ001  (its offset comes next)
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
    )
    @example(datetime(1, 1, 1), timedelta(hours=5))  # noqa: DTZ001
    def test_what_is_accepted_can_be_stored_in_utc(
        self, local: datetime, offset: timedelta
    ) -> None:
        sign, hours = "-" if offset < timedelta(0) else "+", abs(offset) // timedelta(hours=1)
        fields = CREATED | {"timestamp": f'"{local.isoformat()}{sign}{hours:02}:00"'}
        with suppress(InvalidEvent):
            moment = read(fields).occurred_at

            assert moment.astimezone(UTC) == moment


class TestAFingerprint:
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


def numbers() -> st.SearchStrategy[str]:
    digits = st.from_regex(
        r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,25})?", fullmatch=True
    )
    return digits | st.sampled_from(["9" * 5_000, "1e400", "-0.0", "1" * 4_300, "1e-999999999"])


def texts() -> st.SearchStrategy[str]:
    return (st.text(max_size=8) | st.sampled_from(["\0", "a" * 256])).map(json.dumps)


def json_values() -> st.SearchStrategy[str]:
    """Draw the text of any JSON value, and of some that only look like one."""
    hostile = st.sampled_from(["NaN", '"\\ud800"', "", "[" * 2_000, "]", '"', "Infinity"])
    return st.recursive(
        st.one_of(numbers(), texts(), st.sampled_from(["null", "true", "false"]), hostile),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
            | st.dictionaries(texts(), inner, max_size=3).map(
                lambda items: f"{{{','.join(f'{name}:{text}' for name, text in items.items())}}}"
            )
        ),
        max_leaves=6,
    )


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw what a producer could send: an event of which some fields are anything, then cut up."""
    fields = dict(draw(st.sampled_from([CREATED, CANCELLED])))
    names = st.sampled_from([*fields, "unknown", "payload.unknown"])
    for name in draw(st.lists(names, max_size=3)):
        fields[name] = draw(json_values())
    body = written(fields)
    start, end = sorted(draw(st.tuples(*2 * [st.integers(0, len(body))])))
    cut = draw(
        st.sampled_from([b"", b"", body[:start], body[start:end], body[:start] + body[end:]])
    )
    return cut or body


class TestAnyBody:
    @patiently
    @given(st.one_of(st.binary(), json_values().map(str.encode), bodies()))
    @example(b'{"eventId":5,"x":')
    @example(b'{"eventId":5,"x":1e99999999999999999999}')
    def test_it_is_read_or_refused(self, body: bytes) -> None:
        for payload_type in (BookingCreated, BookingCancelled):
            with suppress(InvalidEvent):  # anything else would return the whole group, for ever
                event = decode(body, payload_type, now=NOW)

                assert event == decode(body, payload_type, now=NOW)

    @patiently
    @given(st.one_of(st.binary(), json_values().map(str.encode), bodies()))
    @example(b'{"eventId":"e","x":1e99999999999999999999}')
    def test_it_can_be_identified(self, body: bytes) -> None:
        event_id, event_type = identify(body)

        assert len(event_id) <= 255
        assert len(event_type) <= 100
        assert "\0" not in event_id + event_type

    @pytest.mark.parametrize(
        ("text", "known"),
        [('"e-1"', "e-1"), ("5", ""), ("null", ""), (f'"{256 * "x"}"', ""), ('"\\u0000"', "")],
        ids=["text", "number", "null", "long", "NUL"],
    )
    def test_it_is_identified_where_its_id_could_be_stored(self, text: str, known: str) -> None:
        assert identify(b'{"eventId":%s,"eventType":"X"}' % text.encode()) == (known, "X")


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
