"""The outbox beside storms of broken messages, a broker that confirms slowly, and threads that fail."""

import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
from django.utils import timezone

from booking_platform.messaging import broker, dead_letters, outbox, relaying
from booking_platform.messaging.backoff import Backoff
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, OutboxRow
from booking_platform.messaging.publishing import Publisher
from booking_platform.messaging.rules import INVALID, Refused
from tests.integration.test_outbox import store, waiting
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
CREATED = "tour-catalog.booking-created"


def test_what_was_closed_of_other_messages_is_not_read() -> None:
    now = timezone.now()
    DeadLetter.objects.bulk_create(
        DeadLetter(
            queue=CREATED, event_id="", fingerprint=f"{n:032}", body=b"", reason="malformed", detail="",
            state=DeadLetter.State.DISCARDED, parked_at=now, last_parked_at=now, resolved_at=now,
        )
        for n in range(50)
    )  # fmt: skip
    parking = Parking(CREATED, Delivery(b"no event"), None, Refused(INVALID, "x"))
    assert dead_letters._closed([parking.identity()]) == {}


def test_another_reason_is_another_announcement_and_the_same_one_is_not() -> None:
    for detail in ("a", "a", "b"):
        refused = Refused(INVALID, detail)
        parking = Parking(CREATED, Delivery(b'{"eventId": "e"}'), None, refused)
        outbox.store_all(dead_letters.park([parking]))
    ids = [
        message.body.partition(b'"eventId":"')[2][:32]
        for row in OutboxRow.objects.order_by("pk")
        for message in outbox._read(row.messages)
    ]
    assert ids[0] == ids[1] != ids[2]


class SlowChannel:
    """A channel that answers to some of the messages of a go, and then to no more."""

    def __init__(self, answers: int) -> None:
        self.channel_id, self.frame_max, self.events = 1, 131_072, dict[str, Any]()
        self.connection = self.transport = self
        self._answers = answers

    def write(self, _: bytes) -> None:
        pass

    def drain_events(self, timeout: float) -> None:
        if not self._answers:
            raise TimeoutError("timed out")
        self._answers -= 1
        self._tag = getattr(self, "_tag", 0) + 1
        for acked in self.events["basic_ack"]:
            acked(self._tag, False)


class TestABrokerThatConfirmsSlowly:
    @pytest.mark.parametrize(("answers", "waits"), [(3, [4]), (2, [3, 4]), (4, [])])
    def test_makes_progress(self, monkeypatch: Any, answers: int, waits: list[int]) -> None:
        store(1, 2, 3, 4)
        publisher = Publisher()
        publisher._connection, publisher._channel = Mock(), SlowChannel(answers)
        assert outbox.relay(publisher) == answers
        assert waiting() == waits
        assert (publisher._connection is None) == bool(waits)

    def test_is_away_where_it_makes_none(self) -> None:
        store(1)
        publisher = Publisher()
        publisher.open = lambda: None  # type: ignore[method-assign]
        publisher._fresh = True
        publisher._channel = SlowChannel(0)
        with pytest.raises(TimeoutError):
            outbox.relay(publisher)
        assert waiting() == [1]


class TestAConnection:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """Let connections be opened to nobody, and return those that were."""
        opened: list[object] = []
        monkeypatch.setattr(broker, "connection_to_publish", Mock)
        monkeypatch.setattr(broker, "connect", opened.append)
        return opened

    def test_that_was_just_opened_is_not_tried_twice(
        self, opened: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broker that does not answer would be sent the same once more, for nothing."""
        store(1)
        monkeypatch.setattr(Publisher, "_publish", Mock(side_effect=TimeoutError))
        with pytest.raises(TimeoutError):
            outbox.relay(Publisher())
        assert len(opened) == 1

    def test_that_was_kept_is_opened_anew(
        self, opened: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publisher = Publisher()
        answers = Mock(side_effect=[1, TimeoutError, 1])
        monkeypatch.setattr(Publisher, "_publish", answers)
        for number in (1, 2):
            store(number)
            assert outbox.relay(publisher) == 1
        assert (len(opened), waiting()) == (2, [])


class TestAThread:
    def test_that_can_not_start_ends_no_work_and_is_tried_again(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(relaying, "drain", lambda *_: 0)
        relay = relaying.Relay()
        relay.enable()

        def fails(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fails)
            assert not relay.nudge()
        assert relay.nudge()
        assert relay._thread is not None
        assert relay._thread.is_alive()

    @pytest.mark.usefixtures("broken_telemetry")
    def test_goes_on_after_an_error_that_can_not_be_told(self, monkeypatch: Any) -> None:
        calls: list[float] = []

        def drain(*_: Any) -> int:
            calls.append(time.monotonic())
            if len(calls) == 1:
                raise OSError("no broker")
            return 0

        monkeypatch.setattr(relaying, "drain", drain)
        monkeypatch.setattr(relaying, "PAUSES", Backoff(0.01, 0.01))
        relay = relaying.Relay()
        relay.enable()
        relay.nudge()
        wait_until(lambda: len(calls) == 2, what="it goes on")
