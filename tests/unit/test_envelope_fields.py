import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import InvalidEvent
from booking_platform.contract.events import BookingCreated
from tests.unit.envelopes import (
    ADDRESS,
    CANCELLED,
    CREATED,
    IDENTIFIERS,
    NOW,
    REQUIRED,
    TYPES,
    patiently,
    read,
    refusal,
    spelled,
    without,
    written,
)


def names(message: str, field: str, text: str, problem: str = "") -> bool:
    """Return whether a message names field and value, in JSON's spelling or in Python's."""
    values = text, repr(json.loads(text))
    return any(message.startswith(f"{field} is {value}: {problem}") for value in values)


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

    @pytest.mark.parametrize(("event", "field"), IDENTIFIERS, ids=spelled)
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("BK\u200b-1", r"BK\u200b-1"),  # zero width space
            ("\ufeffBK-1", r"\ufeffBK-1"),  # byte order mark
            ("BK-1\u200e", r"BK-1\u200e"),  # left-to-right mark
            ("\u202eBK-1", r"\u202eBK-1"),  # right-to-left override
            ("BK\u2060-1", r"BK\u2060-1"),  # word joiner
            ("BK\u200d1", r"BK\u200d1"),  # zero width joiner
            ("BK\u00ad-1", r"BK\u00ad-1"),  # soft hyphen
            ("BK\U000e00011", r"BK\U000e00011"),  # language tag
            ("BK-1\n", r"BK-1\n"),
            ("BK\t1", r"BK\t1"),
            ("BK\x1b1", r"BK\u001b1"),
            ("BK\x851", r"BK\u00851"),
            ("BK\u20281", r"BK\u20281"),  # line separator
            (" BK-1", " BK-1"),
            ("BK-1 ", "BK-1 "),
            (" ", " "),
            ("BK-1\u00a0", r"BK-1\u00a0"),  # no-break space
            ("\u3000BK-1", r"\u3000BK-1"),  # ideographic space
        ],
        ids=ascii,
    )
    def test_an_identifier_that_can_not_be_told_from_another_is_shown_with_escapes(
        self, event: dict[str, str], field: str, text: str, shown: str
    ) -> None:
        for spelled_so in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
            message = refusal(event | {field: spelled_so})
            assert message.startswith(f'{field} is "{shown}": expected no invisible characters')

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
