"""Halves of characters: mended where a text is shown, refused where it names something."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import Event, InvalidEvent, MalformedEvent
from booking_platform.contract.mending import mend
from tests.unit.envelopes import (
    ADDRESS,
    CANCELLED,
    CREATED,
    IDENTIFIERS,
    patiently,
    read,
    refusal,
    spelled,
    written,
)

EMOJI = "😀".encode()
HALVES = [
    b"\\ud83d", b"\\uD83D", b"\\ude00", b"\\ude00\\ud83d", b"\\ud83d\\n", b"\\ud83d\\\\ude00", b"\\ud83dx",
    b"\\ud83d\\u0041", b"\xff", b"\xe9", EMOJI[:3], EMOJI[1:], b"\xc0\x80", b"\xed\xa0\x80", b"\\ud83d\xff",
]  # fmt: skip


def holding(event: dict[str, str], field: str, text: bytes) -> bytes:
    return written(event | {field: '"<here>"'}).replace(b"<here>", text)


def cancelled(field: str, text: bytes) -> Event:
    return read(holding(CANCELLED, field, text), kind(CANCELLED))


def kind(event: dict[str, str]) -> type:
    return type(read(event).payload)


class TestShownText:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (b"Paris \\ud83d", "Paris �"),
            (b"\\ud83d Paris", "� Paris"),
            (b"\\ude00\\ud83d", "��"),
            (b"\\ud83d\\ud83d\\ude00", "�😀"),
            (b"\\\\ud83d \\ud83d", "\\ud83d �"),
            (b"\\\\\\ud83d", "\\�"),
            (b"\\\"\\ud83d", '"�'),
            (b"\\ufffd\xef\xbf\xbd\\ud83d", "���"),
            (b"Paris " + EMOJI[:3], "Paris �"),
            (b"Paris " + EMOJI[:2] + b"!", "Paris �!"),
            (b"Caf\xe9 " + EMOJI, "Caf� 😀"),
        ],
    )  # fmt: skip
    def test_a_half_is_shown_as_the_character_for_what_is_none(
        self, text: bytes, shown: str
    ) -> None:
        assert cancelled("payload.tourName", text).payload.tour_name == shown

    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("field", ["payload.unknown", "unknown"])
    def test_it_may_be_in_a_field_that_nobody_knows(self, field: str, half: bytes) -> None:
        assert read(holding(CREATED, field, half)).payload == read(CREATED).payload

    def test_it_may_be_in_the_name_of_a_field(self) -> None:
        assert read(written(CREATED | {"payload.\\ud83d": "1"})).payload == read(CREATED).payload

    @pytest.mark.parametrize("escape", [b"\\ud83d\\ude00", EMOJI, b"\\uD83D\\uDE00"])
    def test_a_whole_character_stays(self, escape: bytes) -> None:
        event = cancelled("payload.tourName", escape)

        assert event.payload.tour_name == "😀"
        assert event.fingerprint == cancelled("payload.tourName", EMOJI).fingerprint
        assert mend(escape) is None


class TestAnId:
    @pytest.mark.parametrize(("event", "field"), IDENTIFIERS, ids=spelled)
    @pytest.mark.parametrize("half", HALVES)
    def test_half_a_character_is_refused(
        self, event: dict[str, str], field: str, half: bytes
    ) -> None:
        message = refusal(holding(event, field, b"BK" + half), kind(event))

        assert message.startswith(f"{field} holds half a character: expected whole ones")

    def test_it_may_hold_the_character_for_what_is_none(self) -> None:
        body = holding(CREATED | {"payload.x": '"\\ud83d"'}, "payload.bookingId", b"BK\\ufffd")

        assert read(body).payload.booking_id == "BK�"

    def test_a_long_one_with_a_half_is_refused_too(self) -> None:
        assert refusal(holding(CREATED, "eventId", b"x" * 254 + b"\\ud83d")).startswith("eventId")

    def test_nul_is_named_as_before(self) -> None:
        body = holding(CREATED | {"payload.x": '"\\ud83d"'}, "payload.bookingId", b"BK\\u0000")

        assert refusal(body) == "payload.bookingId holds a NUL character"

    @pytest.mark.parametrize("half", HALVES)
    def test_an_address_is_as_exact_as_an_id(self, half: bytes) -> None:
        message = refusal(
            holding(CANCELLED, "payload.userEmail", ADDRESS.encode() + half), kind(CANCELLED)
        )

        assert message.startswith("payload.userEmail holds half a character")
        assert ADDRESS not in message

    @patiently
    @given(st.binary(min_size=1, max_size=6), st.binary(min_size=1, max_size=6))
    @example(b"\\ud83d", b"\\ud83e")
    @example(b"\\ud83d", b"\xff")
    @example(b"\xff", b"\xfe")
    @example(b"\xef\xbf\xbd", b"\\ud83d")
    def test_mending_never_makes_two_ids_one(self, one: bytes, other: bytes) -> None:
        ids = []
        for text in (one, other):
            body = holding(CREATED | {"payload.x": '"\\ud83d"'}, "payload.bookingId", text)
            try:
                ids.append(read(body).payload.booking_id)
            except InvalidEvent:
                return

        assert ids == [json.loads(b'"%b"' % text) for text in (one, other)]


class TestAMendedFingerprint:
    def test_each_half_is_content_of_its_own(self) -> None:
        texts = [
            *(half for half in HALVES if half != b"\\uD83D"),
            b"\\ufffd", b"\xef\xbf\xbd", b"\\u0000ud83d", b"\\u0000\\u0000", b"\xfe", b"xff", b"ud83d", b"\\u0000xff",
        ]  # fmt: skip
        fields = [holding(CREATED, "payload.x", text) for text in texts]

        found = {read(field).fingerprint for field in fields}

        assert len(found) == len(texts) - 1  # \ufffd has two spellings

    @pytest.mark.parametrize("other", [b"\\u0000ud83d", b"\\u0000\\u0000ud83d", b"\\ufffd"])
    def test_no_whole_text_passes_for_a_half(self, other: bytes) -> None:
        also_mended = CREATED | {"payload.y": '"\\ud83e"'}
        for event in (CREATED, also_mended):
            bodies = [holding(event, "payload.x", text) for text in (b"\\ud83d", other)]

            assert read(bodies[0]).fingerprint != read(bodies[1]).fingerprint

    def test_it_takes_no_notice_of_formatting(self) -> None:
        one = b'{"tourId":42,"seatsBooked":2,"x":"\\ud83d","y":"\xff"}'
        other = b'{ "y":"\xff","x":"\\uD83D", "seatsBooked":2,"tourId":42 }'
        outer = CREATED | {"payload": "<here>"}

        events = [read(written(outer).replace(b"<here>", payload)) for payload in (one, other)]

        assert events[0] == events[1]


class TestABodyThatCanNotBeMended:
    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (written(CREATED).decode().encode("utf-16"), "not UTF-8: invalid start byte at byte 0"),
            (b'{"eventId":\xff}', "not UTF-8: invalid start byte at byte 11"),
            (b'{"a":"\\\xff"}', "not UTF-8: invalid start byte at byte 7"),
            (b'{"a":"\xff"', "not UTF-8: invalid start byte at byte 6"),
            (b'{"a":"\\ud83d"', "not JSON"),
            (b'{"a":"\\ud83d\\q"}', "not JSON"),
        ],
    )
    def test_it_is_malformed_in_the_words_of_before(self, body: bytes, why: str) -> None:
        with pytest.raises(MalformedEvent, match=why):
            read(body)


class TestAByteOrderMark:
    def test_it_is_no_part_of_the_body(self) -> None:
        assert read(b"\xef\xbb\xbf" + written(CREATED)) == read(CREATED)

    def test_what_follows_it_may_need_mending(self) -> None:
        body = holding(CANCELLED, "payload.tourName", b"\\ud83d")

        assert read(b"\xef\xbb\xbf" + body, kind(CANCELLED)) == read(body, kind(CANCELLED))
