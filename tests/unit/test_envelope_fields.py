import json
import re
from collections.abc import Callable
from decimal import Decimal

import pytest

from booking_platform.contract.events import BookingCreated
from tests.unit.envelopes import (
    ADDRESS,
    CANCELLED,
    CHANGED,
    CREATED,
    IDENTIFIERS,
    REQUIRED,
    TYPES,
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

        assert message.startswith(f"{field} is missing: expected ")

    def test_the_whole_payload_is_named_where_it_is_missing(self) -> None:
        body = written(CREATED).replace(b'"payload"', b'"load"')

        assert refusal(body) == "payload is missing: expected a JSON object"

    @pytest.mark.parametrize(("event", "field"), REQUIRED, ids=spelled)
    def test_null_is_no_value_for_what_is_required(self, event: dict[str, str], field: str) -> None:
        message = refusal(event | {field: "null"}, TYPES[event["eventType"]])

        assert names(message, field, "null", "expected ")

    @pytest.mark.parametrize(
        "text",
        ["0", "-1", "1.5", "1.0", "1e0", "1e400", "1e999999999", "1e99999999999999999999", '"2"',
         "true", "[1]", "{}", "1000001", "1" + 30 * "0"],
        ids=lambda text: text[:24],
    )  # fmt: skip
    @pytest.mark.parametrize(
        ("event", "field"),
        [
            (CREATED, "payload.seatsBooked"),
            (CANCELLED, "payload.seatsReleased"),
            (CHANGED, "payload.seats"),
        ],
        ids=spelled,
    )
    def test_seats_are_integers_from_1_to_a_million(
        self, event: dict[str, str], field: str, text: str
    ) -> None:
        expected = "expected a JSON integer from 1 to 1,000,000, such as 2"

        assert names(refusal(event | {field: text}), field, text, expected)

    def test_none_may_remain(self) -> None:
        assert read(CANCELLED | {"payload.seatsRemaining": "0"}).payload.seats_remaining == 0
        assert refusal(CANCELLED | {"payload.seatsRemaining": "-1"}) == (
            "payload.seatsRemaining is -1: expected a JSON integer from 0 to 1,000,000, such as 1"
        )

    @pytest.mark.parametrize("event", [CANCELLED, CHANGED], ids=spelled)
    def test_a_revision_may_be_0(self, event: dict[str, str]) -> None:
        assert read(event | {"payload.revision": "0"}).payload.revision == 0
        assert "expected a JSON integer from 0 to 2⁶³−1" in refusal(
            event | {"payload.revision": str(2**63)}
        )

    @pytest.mark.parametrize("text", ["0", "-1", "1.0", '"42"', "true", str(2**63), str(2**64)])
    def test_a_tour_is_a_number_that_a_column_holds(self, text: str) -> None:
        message = refusal(CREATED | {"payload.tourId": text})

        assert names(message, "payload.tourId", text, "expected a JSON integer from 1 to 2⁶³−1")
        assert read(CREATED | {"payload.tourId": str(2**63 - 1)}).payload.tour_id == 2**63 - 1

    @pytest.mark.parametrize("field", ["tourId", "seatsBooked"])
    def test_an_integer_of_5000_digits_is_no_integer(self, field: str) -> None:
        message = refusal(CREATED | {f"payload.{field}": "9" * 5_000})

        assert message.startswith(f"payload.{field} is 99999")
        assert "(5000 characters): expected a JSON integer" in message

    @pytest.mark.parametrize(
        "text",
        ["1e400", "-1e400", "1e-400", "1e31", "1e-31", "1e999999999", "1e99999999999999999999",
         "1e-99999999999999999999", "1" * 101, "1" * 5_000, "0." + "1" * 99],
        ids=lambda text: text[:24],
    )  # fmt: skip
    def test_an_amount_has_no_endless_digits(self, text: str) -> None:
        message = refusal(CANCELLED | {"payload.amount": text})

        assert message.startswith(f"payload.amount is {text[:70]}")

    @pytest.mark.parametrize(
        "text",
        ['"NaN"', '"Infinity"', '"x"', '""', "true", "[]", '"80,00"', '"1_000"', '" 80.00"',
         '"80.00 "', '"8e1"', '".5"', '"80."', '"€80"', '"EUR 80"', '"+-5"', '"\u0668\u0660"', f'"{"0" * 101}"'],
        ids=ascii,
    )  # fmt: skip
    def test_an_amount_is_a_number(self, text: str) -> None:
        expected = "expected a number with a decimal point, such as 80.00"

        message = refusal(CANCELLED | {"payload.amount": text})

        assert message.startswith(f"payload.amount is {text[:80]}")
        assert message.endswith(expected)

    @pytest.mark.parametrize(
        "text", ["80.00", "80", "+80.00", "-80.00", "0080.00", "0.1000000000000000055511151231"]
    )
    def test_an_amount_may_be_written_as_a_string(self, text: str) -> None:
        amount = read(CANCELLED | {"payload.amount": f'"{text}"'}).payload.amount

        assert (amount, str(amount)) == (Decimal(text), str(Decimal(text)))

    def test_an_amount_as_a_string_is_other_content_than_the_number(self) -> None:
        as_text, as_number = (CANCELLED | {"payload.amount": t} for t in ('"80.00"', "80.00"))

        assert read(as_text).fingerprint != read(as_number).fingerprint

    @pytest.mark.parametrize("text", [f'"{"9" * 32}"', f'"0.{"1" * 31}"'])
    def test_an_amount_as_a_string_has_no_endless_digits(self, text: str) -> None:
        assert refusal(CANCELLED | {"payload.amount": text}) == (
            f"payload.amount is {text}: more digits than any amount"
        )

    @pytest.mark.parametrize("text", ['"euro"', '"€"', "978", '""'])
    def test_a_currency_has_three_letters(self, text: str) -> None:
        assert refusal(CANCELLED | {"payload.currency": text}) == (
            f"payload.currency is {text}: expected three letters, such as eur"
        )

    @pytest.mark.parametrize(("event", "field"), IDENTIFIERS, ids=spelled)
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('""', 'is "": expected a string of 1 to 255 characters'),
            (f'"{256 * "x"}"', r"is .x{79}… \(258 characters\): expected a string of 1 to 255"),
            ('"a\\u0000"', "holds a NUL character"),
            ("5", "is 5: expected a string"),
            ('["a"]', r"is \[.a.\]: expected a string"),
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

        assert message == "payload: expected a JSON object"

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

        assert message == "eventType is 5: expected the name of a type, such as BookingCreated"
