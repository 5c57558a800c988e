"""Nothing that a producer can put on the wire ends or stalls a worker.

Frames are drawn from a seed (``FRAMES_SEED``; printed), and written past every client library: method
arguments, properties, header tables, bodies. The worker must survive, apply what is an event, and
park what is none: not one less, not one more.
"""

import os
import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from booking_platform import servers
from booking_platform.messaging import topology
from booking_platform.messaging.models import DeadLetter
from catalog.models import Tour
from tests.amqp_frames import (
    APP_ID,
    CLUSTER_ID,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    DELIVERY_MODE,
    EXPIRATION,
    FRAME_MAX,
    HEADERS,
    MESSAGE_ID,
    PERSISTENT,
    PRIORITY,
    REPLY_TO,
    TIMESTAMP,
    TYPE,
    Closed,
    FrameWriter,
    array,
    nested,
    properties,
    short,
    table,
    text,
)
from tests.events import body, created
from tests.platform import Platform, assert_adds_up, processed

pytestmark = pytest.mark.servers

SEED = int(os.environ.get("FRAMES_SEED", "10"))
MESSAGES = int(os.environ.get("FRAMES_MESSAGES", "1000"))
EXCHANGE, CREATED = b"booking-events", b"tour-catalog.booking-created"
TASK_QUEUES = (b"catalog", b"payments", b"notifications", b"maintenance")
NAMES = (b"task", b"x-death", b"x-replay-of", b"compression", b"id", b"x-delivery-count",
         b"content-type", b"\xff\xfe", b"", b"x-first-death-queue", b"lang", b"eta", b"args")  # fmt: skip


class Frames:
    """Draws what a producer may write."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def noise(self, most: int) -> bytes:
        return self.random.randbytes(self.random.randint(0, most))

    def value(self) -> bytes:
        """Draw a field of a table, its type first."""
        draw = self.random
        return draw.choice((
            lambda: text(self.noise(40)),
            lambda: text(b"x" * 5000),
            lambda: nested(draw.choice((1, 3, 480, 5000))),
            lambda: b"T" + struct.pack(">Q", draw.getrandbits(64)),
            lambda: b"I" + struct.pack(">i", draw.randint(-(2**31), 2**31 - 1)),
            lambda: b"l" + struct.pack(">q", draw.randint(-(2**63), 2**63 - 1)),
            lambda: b"d" + draw.randbytes(8),
            lambda: b"D" + draw.randbytes(5),
            lambda: b"t" + draw.choice((b"\0", b"\1", b"\7")),
            lambda: b"V",
            lambda: b"x" + struct.pack(">I", 3) + b"\xff\0\x80",
            lambda: b"F" + table((b"queue", text(CREATED)), (b"reason", text(b"delivery_limit"))),
            lambda: array(b"F" + table((b"queue", nested(480)), (b"reason", b"V"))),
            lambda: text(b"application/x-gzip"),
        ))()  # fmt: skip

    def headers(self, *, cc: bool, task: bool) -> bytes:
        names = [name for name in NAMES if task or name != b"task"]
        fields = [
            (self.random.choice(names), self.value()) for _ in range(self.random.randint(0, 3))
        ]
        if cc:
            fields.append((b"CC", array(text(b"booking.created"))))
        return table(*fields)

    def properties(self, *, cc: bool = False, task: bool = False) -> bytes:
        draw = self.random
        values = {
            bit: short(self.noise(60))
            for bit in (CONTENT_TYPE, CONTENT_ENCODING, CORRELATION_ID, REPLY_TO, MESSAGE_ID,
                        TYPE, APP_ID, CLUSTER_ID)
            if draw.random() < 0.2
        }  # fmt: skip
        if draw.random() < 0.2:
            values[PRIORITY] = draw.randbytes(1)
        if draw.random() < 0.2:
            values[TIMESTAMP] = draw.randbytes(8)
        if cc or draw.random() < 0.7:
            values[HEADERS] = self.headers(cc=cc, task=task)
        values[DELIVERY_MODE] = bytes([PERSISTENT])
        return properties(values)

    def bad_body(self, number: int) -> bytes:
        mark = b'{"n": %d, ' % number
        return self.random.choice((
            lambda: mark + self.noise(200),
            lambda: self.noise(20) + mark,
            lambda: body(created(1, f"B{number}", seats=self.random.choice((0, -1, "2", 10**30)))),
            lambda: mark + b'"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
            lambda: mark + b'"large": "' + b"x" * self.random.choice((140_000, 300_000)) + b'"}',
            lambda: b"%d" % number,
        ))()  # fmt: skip


def write(open_writer: Any, messages: Iterator[dict[str, Any]]) -> int:
    """Publish; return how many the broker took. What it refuses costs a connection."""
    taken = 0
    with ExitStack() as stack:
        writer = stack.enter_context(open_writer())
        for message in messages:
            try:
                writer.publish(**message)
                taken += 1
            except Closed:
                writer = stack.enter_context(open_writer())
    return taken


def route(frames: Frames) -> dict[str, Any]:
    """Draw one of the ways that lead to the queue of created bookings."""
    way = frames.random.randrange(3)
    if way == 0:
        return {"exchange": EXCHANGE, "key": b"booking.created"}
    if way == 1:
        return {"exchange": b"", "key": CREATED}
    return {"exchange": EXCHANGE, "key": frames.random.choice((b"\xff\xfe", frames.noise(200)))}


class TestFrames:
    @pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
    def test_each_is_applied_or_parked_and_the_worker_lives(
        self, platform: Platform, tour: Tour, pool: str
    ) -> None:
        frames = Frames(SEED)
        open_writer = partial(FrameWriter, servers.broker_url())
        worker = platform.start("-P", pool, "-c", "2")

        def bad() -> Iterator[dict[str, Any]]:
            for number in range(MESSAGES):
                way = route(frames)
                props = frames.properties(
                    cc=way["key"] not in (b"booking.created", CREATED), task=True
                )
                yield {"body": frames.bad_body(number), "props": props, **way}

        def good() -> Iterator[dict[str, Any]]:
            for number in range(MESSAGES // 5):
                way = route(frames)
                props = frames.properties(cc=way["key"] not in (b"booking.created", CREATED))
                yield {"body": body(created(tour.pk, f"G{number}")), "props": props, **way}

        def lost() -> Iterator[dict[str, Any]]:
            for number in range(MESSAGES // 10):
                where: dict[str, Any] = {"exchange": EXCHANGE, "key": b"lost." + frames.noise(90)}
                if number % 2:
                    where = {"exchange": b"booking-events.dead-letter", "key": frames.noise(90)}
                props = frames.properties(task=True)
                yield {"body": b"lost %d" % number, "props": props, **where}

        def tasks() -> Iterator[dict[str, Any]]:
            for number in range(MESSAGES // 10):
                props = frames.properties(task=True)
                key = frames.random.choice(TASK_QUEUES)
                yield {"body": frames.bad_body(number), "props": props, "key": key}

        write(open_writer, tasks())
        refused = write(open_writer, bad())
        applied = write(open_writer, good())
        unclaimed = write(open_writer, lost())

        assert min(refused / MESSAGES, applied * 5 / MESSAGES, unclaimed * 10 / MESSAGES) > 0.9
        platform.wait_for(lambda: processed() == applied, f"{applied} events applied")
        platform.wait_for(
            lambda: DeadLetter.objects.count() == refused + unclaimed,
            f"{refused} + {unclaimed} dead letters, with seed {SEED}",
        )
        assert worker.process.poll() is None
        assert "Traceback" not in worker.log
        platform.publish([created(tour.pk, "the last")])
        platform.wait_for_processed(applied + 1)
        assert set(DeadLetter.objects.values_list("attempts", flat=True)) == {1}
        assert_adds_up(tour)


class TestHeaders:
    def test_one_that_the_broker_has_made_larger_than_agreed_is_read(
        self, platform: Platform
    ) -> None:
        """It adds to the header of what it gives up, and splits none: no limit may end the worker."""
        dead = topology.dead_letter_queue().name
        headers = table((b"pad", text(b"p" * (FRAME_MAX - 172))))
        props = {HEADERS: headers, DELIVERY_MODE: bytes([PERSISTENT]), EXPIRATION: short(b"1")}
        with FrameWriter(servers.broker_url()) as writer:
            writer.publish(b"{}", key=CREATED, props=properties(props))
        with platform.channel() as channel:
            platform.wait_for(
                lambda: channel.queue_declare(dead, passive=True).message_count, "it has expired"
            )
        worker = platform.start("-c", "1")
        platform.wait_for(DeadLetter.objects.exists, "the dead letter")
        assert worker.process.poll() is None
        assert "Traceback" not in worker.log
