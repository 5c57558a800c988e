from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Queue
from kombu.message import Message

from booking_platform.messaging.groups import GroupMessage
from booking_platform.messaging.intake import Intake
from booking_platform.messaging.sources import Source
from tests.unit.intakes import ack, at_once


def message(body: bytes, tag: int, channel: object) -> Message:
    """Return a message as AMQP delivers it; for kombu-types its parts can be text only."""
    parts: dict[str, Any] = {"body": body, "delivery_tag": tag, "channel": channel}
    return Message(**parts)


class Broker:
    """A model of RabbitMQ's side of one channel: deliveries, and what was said of each."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.outstanding: dict[int, Message] = {}
        self.acked: set[int] = set()
        self.returned: set[int] = set()
        self.commands: list[tuple[str, int, bool]] = []

    def deliver(self) -> Message:
        tag = 1 + len(self.outstanding) + len(self.acked) + len(self.returned)
        self.outstanding[tag] = message(b"", tag, self)
        return self.outstanding[tag]

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.commands.append(("ack", tag, multiple))
        tags = [t for t in self.outstanding if t <= tag] if multiple else [tag]
        assert tags, "PRECONDITION_FAILED - unknown delivery tag"
        self._forget(tags, self.acked)

    def basic_reject(self, tag: int, requeue: bool) -> None:
        assert requeue
        self._forget([tag], self.returned)

    def close(self) -> None:
        self._forget(list(self.outstanding), self.returned)

    def _forget(self, tags: list[int], kind: set[int]) -> None:
        for tag in tags:
            assert tag in self.outstanding, "PRECONDITION_FAILED - unknown delivery tag"
            del self.outstanding[tag]
            kind.add(tag)


Endings = tuple[list[int], list[tuple[int, bool, bool]]]


@st.composite
def endings(draw: st.DrawFn) -> Endings:
    """Draw groups by their sizes, and how some end: which, well or not, after a stop or before."""
    sizes = draw(st.lists(st.integers(1, 3), max_size=6))
    order = draw(st.permutations(range(len(sizes))))[: draw(st.integers(0, len(sizes)))]
    stop_at = draw(st.integers(0, len(order)))
    well = st.sampled_from([True, True, True, False])
    return sizes, [(group, draw(well), n >= stop_at) for n, group in enumerate(order)]


def next_group(source: Source) -> list[Message]:
    return [waiting.message for waiting in source.next_group()]


class TestAcknowledgements:
    """The laws of `multiple`, which acknowledges all that is older on the channel too."""

    @given(endings(), st.integers(0, 2))
    @settings(deadline=None, max_examples=300)
    def test_they_say_of_every_delivery_what_became_of_its_group(
        self, drawn: Endings, waiting: int
    ) -> None:
        sizes, ends = drawn
        broker, source = Broker(), Source(Queue("queue"), "task", batch=3)
        source.channel = broker
        groups: list[list[Message]] = []
        for size in sizes:
            for _ in range(size):
                source.receive(broker.deliver())
            groups.append(next_group(source))
        for _ in range(waiting):
            source.receive(broker.deliver())
        succeeded: set[Any] = set()

        for number, well, closing in ends:
            if well:
                succeeded |= {message.delivery_tag for message in groups[number]}
                source.ack(groups[number], closing=closing)
            else:
                source.reject(groups[number])
            assert broker.acked <= succeeded
            assert closing or len(succeeded - broker.acked) <= source.batch
        source.return_waiting(at_once)
        source.close(at_once)

        assert broker.acked == succeeded
        assert not broker.outstanding

    def test_after_a_stop_they_wait_for_what_is_older(self) -> None:
        broker, source = Broker(), Source(Queue("queue"), "task", batch=1)
        source.channel = broker
        groups: list[GroupMessage] = []
        intake = Intake([source], places=lambda: 2, handle=groups.append)
        for _ in range(2):
            intake._receive(source, broker.deliver())

        intake.stop(at_once)
        ack(groups[1])
        assert broker.acked == set()

        ack(groups[0])
        intake.close(at_once)
        assert broker.acked == {1, 2}

    def test_a_group_takes_one_command_where_nothing_older_is_open(self) -> None:
        broker, source = Broker(), Source(Queue("queue"), "task", batch=100)
        for _ in range(100):
            source.receive(broker.deliver())

        source.ack(next_group(source), closing=False)

        assert broker.commands == [("ack", 100, True)]
        assert broker.acked == set(range(1, 101))

    @pytest.mark.parametrize("answer", ["ack", "reject"])
    def test_an_answer_that_does_not_reach_the_broker_is_logged(
        self, answer: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = Source(Queue("queue"), "task", batch=1)
        connection: Any = BrokenConnection()
        source.consume(connection, 1, source.receive)
        source.receive(message(b"{}", 1, BrokenChannel()))
        group = next_group(source)

        source.ack(group, closing=False) if answer == "ack" else source.reject(group)

        assert f"Couldn't {answer} 1" in caplog.text


class BrokenChannel:
    """Stands in for a channel whose connection is lost."""

    no_ack_consumers = None
    connection = None

    def basic_ack(self, *_: Any, **__: Any) -> None:
        raise ConnectionResetError

    basic_reject = basic_ack

    def __getattr__(self, name: str) -> Any:
        if name == "auto_decode":
            raise AttributeError(name)
        return lambda *_, **__: None


class BrokenConnection:
    connection_errors = (ConnectionResetError,)

    def channel(self) -> BrokenChannel:
        return BrokenChannel()
