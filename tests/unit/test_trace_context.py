"""The trace of an event, as headers and CloudEvents name it: W3C's rules, held against what anybody may send."""

from typing import Any

import pytest
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st
from kombu.message import Message

from booking_platform.contract import trace_context
from booking_platform.contract.trace_context import LONGEST_STATE, PARENT_LENGTH
from booking_platform.messaging.groups import Delivery, traced
from booking_platform.messaging.publishing import _properties
from tests.events import body, created

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # of the standard's examples
VALID = f"00-{TRACE}-{PARENT}-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"

INVALID: dict[str, Any] = {
    "nothing": "",
    "too short": VALID[:-1],
    "too long for version 00": VALID + "0",
    "version 00 with more fields": VALID + "-00",
    "version ff": "ff" + VALID[2:],
    "uppercase version": "0A" + VALID[2:],
    "uppercase trace id": VALID.replace("bf", "BF"),
    "uppercase parent id": VALID.replace("f067", "F067"),
    "uppercase flags": VALID[:-2] + "0A",
    "no hex in the trace id": VALID.replace("4bf", "4bg"),
    "no hex in the parent id": VALID.replace("f067", "g067"),
    "no hex in the flags": VALID[:-2] + "0x",
    "no hex in the version": "0x" + VALID[2:],
    "no trace id": f"00-{'0' * 32}-{PARENT}-01",
    "no parent id": f"00-{TRACE}-{'0' * 16}-01",
    "short trace id, long parent id": f"00-{TRACE[:-1]}-{PARENT}0-01",
    "other separators": VALID.replace("-", "_"),
    "no separators": VALID.replace("-", "") + "0000",
    "a blank before it": " " + VALID,
    "a blank after it": VALID + " ",
    "a line break after it": VALID + "\n",
    "a line break in its place": VALID[:-1] + "\n",
    "digits of another script": VALID[:-1] + "١",
    "several": f"{VALID},{VALID}",
    "a later version that goes on without a separator": "01" + VALID[2:] + "0",
    "bytes": VALID.encode(),
    "a number": 1,
    "a list": [VALID],
    "a table": {"traceparent": VALID},
    "a truth": True,
    "halves of characters": "\ud800" * PARENT_LENGTH,
}

STATES: dict[str, tuple[str, str]] = {
    "one": ("a=1", "a=1"),
    "blanks between members": ("a=1 ,\tb=2", "a=1,b=2"),
    "empty members": (",a=1,, ,b=2,", "a=1,b=2"),
    "a blank in a value": ("a=x y", "a=x y"),
    "a blank at the beginning of a value": ("a= x", "a= x"),
    "a key of a tenant": ("1t@sys=1", "1t@sys=1"),
    "odd characters of a key": ("a_-*/0=1", "a_-*/0=1"),
    "the longest key": (f"{'k' * 256}=1", f"{'k' * 256}=1"),
    "the longest value": (f"a={'v' * 256}", f"a={'v' * 256}"),
    "the most members": (
        ",".join(f"k{n}=1" for n in range(32)),
        ",".join(f"k{n}=1" for n in range(32)),
    ),
}

INVALID_STATES: dict[str, Any] = {
    "more members than there may be": ",".join(f"k{n}=1" for n in range(33)),
    "a key twice": "a=1,b=2,a=3",
    "no value": "a=",
    "no key": "=1",
    "no equals sign": "a",
    "an equals sign in a value": "a=1=2",
    "a key in uppercase": "A=1",
    "a key that begins with a digit": "1a=1",
    "a blank in a key": "a b=1",
    "a blank before the equals sign": "a =1",
    "two tenants": "a@b@c=1",
    "no tenant": "@a=1",
    "no system": "a@=1",
    "a long tenant": f"{'t' * 242}@a=1",
    "a long system": f"a@{'s' * 15}=1",
    "a long key": f"{'k' * 257}=1",
    "a long value": f"a={'v' * 257}",
    "a character that is not printable": "a=\x1f",
    "a tab in a value": "a=x\ty",
    "no ASCII": "a=é",
    "what was no UTF-8": "a=\\xff",
    "one good, one bad": "a=1,B=2",
    "endless": "a=1," * 100_000,
    "bytes": b"a=1",
    "a list": ["a=1"],
    "a table": {"a": "1"},
}


class TestTraceparent:
    @pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
    def test_a_valid_one_is_passed_on_as_it_is(self, flags: str) -> None:
        parent = f"00-{TRACE}-{PARENT}-{flags}"
        assert trace_context.context(parent) == parent

    @pytest.mark.parametrize("value", INVALID.values(), ids=INVALID.keys())
    def test_what_is_not_valid_is_as_if_it_were_not_there(self, value: Any) -> None:
        assert trace_context.context(value, STATE) == ""

    @pytest.mark.parametrize("more", ["", "-", "-what-comes", "-" + "x" * 100_000])
    @pytest.mark.parametrize(("flags", "known"), [("01", "01"), ("00", "00"), ("ff", "01")])
    def test_of_a_later_version_what_is_known_is_passed_on(
        self, more: str, flags: str, known: str
    ) -> None:
        for version in ("01", "cc", "fe"):
            later = f"{version}-{TRACE}-{PARENT}-{flags}{more}"
            assert trace_context.context(later) == f"00-{TRACE}-{PARENT}-{known}"


class TestTracestate:
    @pytest.mark.parametrize(("given", "passed"), STATES.values(), ids=STATES.keys())
    def test_a_valid_one_is_passed_on(self, given: str, passed: str) -> None:
        assert trace_context.context(VALID, given) == f"{VALID} {passed}"

    @pytest.mark.parametrize("value", INVALID_STATES.values(), ids=INVALID_STATES.keys())
    def test_what_is_not_valid_is_left_out_and_the_parent_kept(self, value: Any) -> None:
        assert trace_context.context(VALID, value) == VALID

    def test_where_there_is_no_room_large_members_go_first_and_then_the_last(self) -> None:
        large, small = f"large={'v' * 200}", [f"k{n:02}={'v' * 96}" for n in range(7)]
        kept = trace_context.state(trace_context.context(VALID, ",".join([large, *small])))
        assert kept == ",".join(small[:5])

    @given(st.lists(st.text("ab=, @\\\x00é", max_size=30)).map(",".join) | st.text(max_size=600))
    def test_what_is_passed_on_is_bounded_and_passes_again(self, value: str) -> None:
        once = trace_context.context(VALID, value)
        assert len(once) <= PARENT_LENGTH + 1 + LONGEST_STATE
        assert trace_context.context(VALID, trace_context.state(once)) == once


class TestMessages:
    def test_headers_name_it(self) -> None:
        delivery = of({"traceparent": VALID, "tracestate": STATE})
        assert delivery.trace == f"{VALID} {STATE}"

    @pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_", "ce-", "ce_"])
    def test_attributes_of_a_cloud_event_in_headers_name_it(self, prefix: str) -> None:
        names = {"specversion": "1.0", "traceparent": VALID, "tracestate": STATE}
        delivery = of({prefix + name: value for name, value in names.items()})
        assert delivery.trace == f"{VALID} {STATE}"

    def test_such_headers_of_what_is_no_cloud_event_say_nothing(self) -> None:
        assert of({"ce-traceparent": VALID}).trace == ""

    def test_the_hop_is_told_before_the_beginning(self) -> None:
        hop = VALID.replace(PARENT, "1" * 16)
        begun = {"ce-specversion": "1.0", "ce-traceparent": VALID, "ce-tracestate": "a=1"}
        assert of(begun | {"traceparent": hop}).trace == hop
        assert of(begun | {"traceparent": "junk"}).trace == f"{VALID} a=1"

    def test_a_cloud_event_in_the_body_names_it(self) -> None:
        assert traced(Delivery(cloud_event())).trace == f"{VALID} {STATE}"
        assert traced(Delivery(b"\xef\xbb\xbf" + cloud_event())).trace == f"{VALID} {STATE}"

    def test_what_the_headers_name_is_told_before_the_body(self) -> None:
        hop = VALID.replace(PARENT, "1" * 16)
        assert traced(Delivery(cloud_event(), trace=hop)).trace == hop

    @pytest.mark.parametrize(
        "over",
        [
            {"eventId": "it is ours then"},
            {"specversion": None},
            {"traceparent": [VALID]},
            {"traceparent": VALID.upper()},
            {"traceparent": None},
        ],
    )
    def test_another_body_names_none(self, over: dict[str, Any]) -> None:
        assert traced(Delivery(cloud_event(**over))).trace == ""

    @pytest.mark.parametrize(
        "junk", [b"", b"[", b"\xff", b'"\\ud800"', b"[" * 100_000, b"[" * 2000 + b"]" * 2000]
    )
    def test_a_body_that_is_none_is_no_error(self, junk: bytes) -> None:
        names = b'"traceparent" "specversion"'
        for text in (
            junk + names,
            b'{"specversion":"1.0","x":' + junk + b',"traceparent":"' + junk,
        ):
            assert traced(Delivery(text)).trace == ""

    @pytest.mark.parametrize("value", [*INVALID.values(), *INVALID_STATES.values()])
    def test_nothing_nested_and_nothing_long_goes_to_the_pool(self, value: Any) -> None:
        trace = of({"traceparent": VALID, "tracestate": value}).trace
        assert isinstance(trace, str)
        assert len(trace) <= PARENT_LENGTH + 1 + LONGEST_STATE
        assert of({"traceparent": value}).trace == ""


class TestOutgoingHeaders:
    def test_there_are_none_without_a_trace(self) -> None:
        assert trace_context.as_headers("") == {}

    @pytest.mark.parametrize("state", ["", STATE, "a=x y"])
    def test_they_are_those_that_came(self, state: str) -> None:
        expected = {"traceparent": VALID} | ({"tracestate": state} if state else {})
        assert trace_context.as_headers(trace_context.context(VALID, state)) == expected

    @pytest.mark.parametrize("trace", [VALID, f"{VALID} {STATE}"])
    def test_as_amqp_writes_them(self, trace: str) -> None:
        """Properties are made once and filled in; they must be the bytes that py-amqp would write."""
        table = dumps("F", (trace_context.as_headers(trace),))
        other = trace.replace(TRACE, "1" * 32)
        assert _properties(other) != _properties(trace)
        assert table in _properties(trace)

    @pytest.mark.parametrize("odd", ["x", "é" * PARENT_LENGTH, "\ud800" * PARENT_LENGTH])
    def test_whatever_is_stored_the_frame_has_its_length(self, odd: str) -> None:
        assert len(_properties(odd)) in (len(_properties("")), len(_properties(VALID)))


def of(headers: dict[str, Any]) -> Delivery:
    content: Any = body(created(1, "B"))
    message = Message(body=content, headers=headers)
    return Delivery.of(message, most_bytes=1000, kept_bytes=10)


def cloud_event(**over: Any) -> bytes:
    event = created(1, "B")
    attributes = {
        "specversion": "1.0",
        "id": "7",
        "source": "/shop",
        "type": "BookingCreated",
        "time": event["timestamp"],
        "traceparent": VALID,
        "tracestate": STATE,
    }
    return body(attributes | {"data": event["payload"]} | over)
