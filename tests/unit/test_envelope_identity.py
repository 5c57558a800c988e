"""The id and type of a body that is refused, so that a person can tell which event it was."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import identify
from tests.unit.envelopes import CREATED, bodies, json_values, patiently, written

EVENT = written(CREATED)
KNOWN = ("e-1", "BookingCreated")
CLOUD = (
    b'{"specversion":"1.0","id":"7","source":"/shop","type":"com.example.BookingCreated","data":{}}'
)


class TestARefusedBody:
    @pytest.mark.parametrize(
        "body",
        [
            EVENT,
            b"\xef\xbb\xbf" + EVENT,
            b"  \n" + EVENT,
            EVENT + b"x",
            EVENT + b'{"eventId":"other","eventType":"Other"}',
            EVENT[:-1],
            EVENT[:-30],
            EVENT[: EVENT.index(b'"timestamp"')],
            b"[" + EVENT + b"]",
            b")]}',\n" + EVENT,
            written(CREATED | {"payload.seatsBooked": "NaN"}),
            written(CREATED | {"payload.seatsBooked": "-Infinity"}),
            written(CREATED | {"x": "9" * 5_000}),
            written(CREATED | {"x": "1e99999999999999999999"}),
            written(CREATED | {"x": '"\\ud83d"'}),
            written(CREATED).replace(b'"BK-1"', b'"BK-\xff"'),
            written(CREATED | {"x": "[" * 100_000}),
            written(CREATED | {"x": "'single'"}),
            written(CREATED | {"x": '{"eventId":"inner","eventType":"Inner"}'}),
            written(CREATED | {"payload.eventId": '"inner"', "payload.eventType": '"Inner"'}),
            written(CREATED | {"x": '"\\"eventId\\":\\"quoted\\""'}),
            b'{"eventId":"first",' + EVENT[1:],
            EVENT.replace(b'"eventId":"e-1"', b'"event\\u0049d" : "\\u0065-1"'),
            EVENT.replace(b":", b" :\n "),
            EVENT[1:],
            EVENT.replace(b'"42', b"42").replace(b'"BK-1"', b'"BK-1'),
        ],
        ids=lambda body: repr(body[:24]),
    )
    def test_its_id_and_type_are_read_wherever_they_can_be(self, body: bytes) -> None:
        assert identify(body) == KNOWN

    @pytest.mark.parametrize(
        ("text", "known"),
        [
            ('"e-1"', "e-1"),
            ('"\\u00e9\\/\\"\\ud83d\\ude00"', 'é/"😀'),
            ('"é"', "é"),
            ('"e\\ud83d"', "e�"),
            ("5", ""),
            ("null", ""),
            ('["e-1"]', ""),
            ('{"a":"e-1"}', ""),
            ('"' + 256 * "x" + '"', ""),
            ('"\\u0000"', ""),
            ('"\\q"', ""),
            ('""', ""),
        ],
        ids=ascii,
    )
    def test_its_id_is_read_where_it_could_be_stored(self, text: str, known: str) -> None:
        assert identify(b'{"eventId":%s,"eventType":"X"}' % text.encode()) == (known, "X")

    @pytest.mark.parametrize(
        "body",
        [
            b'{"eventId":5,"eventType"',
            b'{"eventId":"cut off',
            b'{"eventId"',
            b'{"causedBy":{"eventId":"another","eventType":"Another"}}',
            b'{"a":["eventId","b"]}',
            b'{"a":"eventId","b":"c"}',
            b'{"eventId":5,"other"}',
            b"",
            b"{",
            b'"',
            b"\\",
            b'{"\\',
        ],
    )
    def test_nothing_else_passes_for_its_id(self, body: bytes) -> None:
        assert identify(body)[0] == ""

    @pytest.mark.parametrize(
        ("body", "known"),
        [
            (CLOUD, ("/shop#7", "BookingCreated")),
            (CLOUD[:-1], ("/shop#7", "BookingCreated")),
            (CLOUD.replace(b"com.example.", b""), ("/shop#7", "BookingCreated")),
            (CLOUD.replace(b'"source":"/shop",', b""), ("", "BookingCreated")),
            (CLOUD.replace(b"/shop", b"x" * 254), ("", "BookingCreated")),
            (CLOUD.replace(b'"specversion":"1.0",', b""), ("", "")),
            (CLOUD.replace(b'"id"', b'"eventId":"e-1","id"'), ("e-1", "")),
        ],
        ids=range(7),
    )
    def test_a_cloud_event_is_named_by_source_and_id(
        self, body: bytes, known: tuple[str, str]
    ) -> None:
        assert identify(body) == known

    @patiently
    @given(st.one_of(st.binary(), json_values().map(str.encode), bodies()))
    @example(b'{"eventId":"e","x":1e99999999999999999999}')
    def test_whatever_it_holds_it_can_be_identified(self, body: bytes) -> None:
        event_id, event_type = identify(body)

        assert len(event_id) <= 255
        assert len(event_type) <= 100
        assert "\0" not in event_id + event_type
        (event_id + event_type).encode()

    @patiently
    @given(st.text(max_size=255).filter(lambda text: "\0" not in text), st.booleans())
    def test_an_id_is_read_as_any_decoder_reads_it(self, event_id: str, ascii_only: bool) -> None:
        body = json.dumps({"a": '"{[', "eventId": event_id}, ensure_ascii=ascii_only).encode(
            errors="surrogatepass"
        )

        expected = event_id.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if expected == event_id:
            assert identify(body)[0] == event_id

    @pytest.mark.parametrize(
        "unit",
        [b'"', b'\\"', b"[", b"[]", b'"eventId":', b'"eventId" ', b'"eventId":"\\', b'"a"', b"\xff", b'"\\ud83d"', b'{"eventId":"'],
    )  # fmt: skip
    def test_it_takes_no_long_time(self, unit: bytes) -> None:
        body = b'{"' + unit * (256 * 1024 // len(unit))
        began = time.process_time()

        identify(body)

        assert time.process_time() - began < 2
