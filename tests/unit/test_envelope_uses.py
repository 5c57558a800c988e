"""Each consumer validates what it uses: what is wrong with another field keeps it from nothing."""

from itertools import combinations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import InvalidEvent, Payload
from booking_platform.contract.events import BookingCancelled
from booking_platform.contract.payloads import narrowed
from tests.unit.envelopes import (
    CANCELLED,
    CREATED,
    REQUIRED,
    patiently,
    read,
    refusal,
    without,
)

SEATS = ("seats_remaining", "revision")
MONEY = ("seats_remaining", "payment_id", "amount", "currency")
MAIL = (*MONEY, "user_email", "tour_name", "locale")
OPTIONAL = [field.name for field in msgspec.structs.fields(BookingCancelled) if not field.required]
NAMES = {field.name: field.encode_name for field in msgspec.structs.fields(BookingCancelled)}

ANYTHING = [
    "null", "true", "-1", "0.5", "[]", "{}", '"euro"', '"80,00"', '""', f'"{"x" * 20_000}"',
    '"\\ud83d"', '"\\ude00\\ud83d"', '"\\u0000"', '"\\u200b"', '[{"a":["\\ud83d"]}]',
    "1e999", "-1e999", "1e-999", "1e99999999999999999999", "9" * 400, "-" + "9" * 4_300,
    "9" * 5_000, f"[{'9' * 5_000}]", str(2**63), str(2**64), str(-(2**64)), "-0", "-0.0",
]  # fmt: skip


class TestAFieldThatIsNotUsed:
    @pytest.mark.parametrize("text", ANYTHING, ids=lambda text: text[:24])
    @pytest.mark.parametrize("name", OPTIONAL)
    def test_it_may_hold_anything(self, name: str, text: str) -> None:
        others = tuple(other for other in OPTIONAL if other != name)

        event = read(CANCELLED | {f"payload.{NAMES[name]}": text}, uses=others)

        assert event[:4] == read(without(CANCELLED, f"payload.{NAMES[name]}"))[:4]

    @pytest.mark.parametrize("uses", [(), SEATS, MONEY, MAIL], ids=len)
    def test_it_has_its_default(self, uses: tuple[str, ...]) -> None:
        payload, whole = read(CANCELLED, uses=uses).payload, read(CANCELLED).payload

        assert type(payload) is BookingCancelled
        for name in OPTIONAL:
            assert getattr(payload, name) == (getattr(whole, name) if name in uses else None)

    def test_it_counts_for_the_fingerprint_all_the_same(self) -> None:
        events = [
            read(CANCELLED | {"payload.amount": text}, uses=SEATS).fingerprint for text in ANYTHING
        ]

        same = {"-0", "-0.0"}  # by value
        assert len(set(events)) == len(ANYTHING) - len(same) + 1

    def test_numbers_without_end_are_compared_by_their_text(self) -> None:
        texts = ["1e999", "1E999", "10e998", "1e1000", "9" * 5_000, "9" * 4_999 + "8"]
        texts += [f'"{text}"' for text in texts]

        one = {read(CREATED | {"payload.x": text}).fingerprint for text in texts}

        assert len(one) == len(texts)

    @pytest.mark.parametrize("number", ["1e999", "9" * 5_000], ids=["exponent", "digits"])
    def test_formatting_does_not_change_the_fingerprint_of_a_number_without_end(
        self, number: str
    ) -> None:
        one = f'{{"tourId":42,"seatsBooked":2,"x":[{number},150.0,"é"]}}'
        other = f'{{ "x": [{number}, 1.5e2, "\\u00e9"], "seatsBooked": 2, "tourId": 42 }}'

        events = [read(CREATED | {"payload": text}) for text in (one, other)]

        assert events[0] == events[1]


class TestAFieldThatIsUsed:
    @pytest.mark.parametrize(
        ("event", "field"), [each for each in REQUIRED if each[0] is CANCELLED]
    )
    def test_a_required_one_is_used_by_all(self, event: dict[str, str], field: str) -> None:
        assert refusal(without(event, field), uses=()).startswith(f"{field} is missing")

    @pytest.mark.parametrize(
        ("field", "text"),
        [("currency", '"euro"'), ("amount", '"80,00"'), ("amount", "1e999"), ("paymentId", "5"),
         ("amount", "1e99999999999999999999"), ("seatsRemaining", '"0"'), ("paymentId", '"\\ud83d"')],
    )  # fmt: skip
    def test_it_is_validated(self, field: str, text: str) -> None:
        broken = CANCELLED | {f"payload.{field}": text}

        for uses in (MONEY, MAIL, None):
            assert refusal(broken, uses=uses).startswith(f"payload.{field} ")

    @patiently
    @given(
        st.lists(st.sampled_from(OPTIONAL), unique=True),
        st.dictionaries(st.sampled_from(OPTIONAL), st.sampled_from(ANYTHING), max_size=3),
    )
    @example(list(MAIL), {})
    def test_who_uses_less_reads_the_same_as_who_uses_all(
        self, uses: list[str], over: dict[str, str]
    ) -> None:
        fields = CANCELLED | {f"payload.{NAMES[name]}": text for name, text in over.items()}
        try:
            whole = read(fields)
        except InvalidEvent:
            return

        event = read(fields, uses=tuple(uses))

        assert event._replace(payload=None) == whole._replace(payload=None)
        for name in ("booking_id", "tour_id", "seats_released", *uses):
            assert getattr(event.payload, name) == getattr(whole.payload, name)


class TestANarrowedType:
    def test_it_is_the_payload_itself_where_all_is_used(self) -> None:
        assert narrowed(BookingCancelled, tuple(OPTIONAL)) is BookingCancelled
        assert narrowed(BookingCancelled, None) is BookingCancelled

    def test_it_is_made_once(self) -> None:
        for uses in combinations(OPTIONAL, 2):
            assert narrowed(BookingCancelled, uses) is narrowed(BookingCancelled, uses)

    def test_it_keeps_names_and_defaults_of_any_payload(self) -> None:
        class Shipped(Payload, frozen=True, kw_only=True):
            parcel: str = msgspec.field(name="parcel-no")
            weights: list[int] = msgspec.field(default_factory=lambda: [1])
            note: str = "none"

        read_as = msgspec.json.decode(b'{"parcel-no":"7"}', type=narrowed(Shipped, ("weights",)))

        assert msgspec.structs.asdict(read_as) == {"parcel": "7", "weights": [1]}
