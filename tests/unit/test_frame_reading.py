"""The laws of reading hold for what is read at once, and for py-amqp's own reading, which it replaces."""

import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trustme
from amqp.exceptions import (
    ConnectionForced,
    ConsumerCancelled,
    NotFound,
    RecoverableConnectionError,
    UnexpectedFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.asynchronous import Hub
from kombu.transport import pyamqp

from booking_platform.messaging import frame_reading
from booking_platform.messaging.farewell import PatientConnection
from booking_platform.messaging.frame_reading import LARGEST_FRAME, READ_BYTES, Frame, Frames
from tests.amqp_frames import BODY, HEADER, HEARTBEAT, METHOD, short
from tests.amqp_peer import (
    CANCEL,
    CHANNEL_CLOSE,
    CHANNEL_CLOSE_OK,
    CLOSE,
    CLOSE_OK,
    CONSUME,
    DECLARE,
    HEARTBEAT_FRAME,
    Peer,
    delivery,
    frame,
    method,
    refusal,
)
from tests.servers import wait_until

SECONDS = 10
frames = st.lists(
    st.tuples(
        st.sampled_from([METHOD, HEADER, BODY, HEARTBEAT]),
        st.integers(0, 65_535),
        st.binary(max_size=40),
    ),
    max_size=8,
)


def taken(found: Frames) -> list[Frame]:
    return list(iter(found.take, None))


def written(expected: list[Frame]) -> bytes:
    return b"".join(frame(*each) for each in expected)


class TestFrames:
    def test_wherever_they_are_cut_they_are_the_same(self) -> None:
        expected = [(METHOD, 1, b"\x00\x3c"), (HEADER, 1, b"h" * 20), (BODY, 1, b"\xce\x01\x00"),
                    (HEARTBEAT, 0, b""), (METHOD, 65_535, b"")]  # fmt: skip
        data = written(expected)
        for first in range(len(data) + 1):
            for second in range(first, len(data) + 1):
                found, came = Frames(), []
                for part in (data[:first], data[first:second], data[second:]):
                    if part:
                        found.add(part)
                    came += taken(found)
                assert came == expected
                assert not found.ready

    @given(frames, st.data())
    def test_however_many_come_in_however_many_parts(
        self, expected: list[Frame], data: st.DataObject
    ) -> None:
        left, found, came = written(expected), Frames(), []
        while left:
            size = data.draw(st.integers(1, len(left)))
            found.add(left[:size])
            left = left[size:]
            if data.draw(st.booleans()):  # or later
                came += taken(found)
        assert came + taken(found) == expected

    def test_a_large_one_in_many_parts_is_joined_once(self) -> None:
        data, found = frame(BODY, 1, bytes(8 * 1024 * 1024)), Frames()
        for at in range(0, len(data), 64):  # joined at each part it would be 500 GB to copy
            assert found.take() is None
            found.add(data[at : at + 64])
        assert found.take() == (BODY, 1, bytes(8 * 1024 * 1024))

    @pytest.mark.parametrize(
        "garbage",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            struct.pack(">BHI", BODY, 1, LARGEST_FRAME + 1) + b"\0",
            struct.pack(">BHI", METHOD, 0, 2**32 - 1) + b"\0",
            frame(BODY, 1, b"abc")[:-1] + b"\xcf",
            b"\0" * 9,
        ],
    )
    def test_what_is_none_is_refused_at_once_and_for_ever(self, garbage: bytes) -> None:
        found = Frames()
        found.add(HEARTBEAT_FRAME + garbage)
        assert found.take() == (HEARTBEAT, 0, b"")
        for _ in range(2):
            with pytest.raises(UnexpectedFrame):
                found.take()
            assert not found.ready
            found.add(HEARTBEAT_FRAME)

    def test_a_header_larger_than_agreed_is_none_of_it(self) -> None:
        """The broker adds to the headers of a message that was dead-lettered, and splits none."""
        found = Frames()
        found.add(frame(HEADER, 1, bytes(300_000)))
        assert found.take() == (HEADER, 1, bytes(300_000))


@pytest.fixture(params=["plain", "tls"])
def encrypted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority, and the file by which clients know it."""
    authority, file = trustme.CA(), tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, file


@pytest.fixture
def peer(encrypted: bool, authority: tuple[trustme.CA, Path]) -> Iterator[Peer]:
    context = None
    if encrypted:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority[0].issue_cert("localhost").configure_cert(context)
    with Peer(context) as found:
        yield found


class Client:
    """A connection to the peer with a channel; the bodies that it has consumed."""

    def __init__(self, connection: Connection) -> None:
        self.kombu = connection
        self.connection: Any = connection.connection
        self.channel = self.connection.channel()
        self.bodies: list[bytes] = []
        self.hub: Any = None

    def consume(self, receive: Any = None, on_cancel: Any = None) -> None:
        receive = receive or self.receive
        self.channel.basic_consume("q", "t", callback=receive, on_cancel=on_cancel)

    def receive(self, message: Any) -> None:
        self.bodies.append(message.body or b"")

    def loop(self) -> None:
        """Have an event loop read the connection."""
        self.hub = Hub()
        self.kombu.transport.register_with_event_loop(self.connection, self.hub)
        self.hub.call_repeatedly(0.01, int)  # the longest that a turn waits
        self.turns = self.hub.create_loop()

    def run_until(self, count: int) -> list[bytes]:
        """Run the event loop until so many messages came."""
        end = time.monotonic() + SECONDS
        while len(self.bodies) < count:
            assert time.monotonic() < end, f"{len(self.bodies)} of {count} came"
            next(self.turns)
        return self.bodies

    def drain(self, count: int) -> list[bytes]:
        """Take messages as a caller without an event loop does."""
        while len(self.bodies) < count:
            self.connection.drain_events(timeout=SECONDS)
        return self.bodies

    def close(self) -> None:
        if self.hub is not None:
            self.hub.close()
        self.kombu.collect()


Open = Callable[..., Client]


@pytest.fixture
def open_client(peer: Peer, encrypted: bool, authority: tuple[trustme.CA, Path]) -> Iterator[Open]:
    clients: list[Client] = []
    secured = {
        "ca_certs": str(authority[1]),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "localhost",
    }

    def open_client(**options: Any) -> Client:
        connection = Connection(
            "amqp://localhost//",
            port=peer.port,
            ssl=secured if encrypted else False,
            transport_options=options,
        )
        clients.append(Client(connection))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture(params=["at once", "one by one"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of reading in turn: the laws hold for both."""
    if request.param == "one by one":
        monkeypatch.setattr(pyamqp.Transport, "Connection", PatientConnection)


@pytest.fixture(params=["event loop", "caller"])
def read(request: pytest.FixtureRequest) -> Callable[[Client, int], list[bytes]]:
    """Whoever reads: an event loop, or a caller that waits. Returns the bodies when so many came."""

    def by_loop(client: Client, count: int) -> list[bytes]:
        if client.hub is None:
            client.loop()
        return client.run_until(count)

    return by_loop if request.param == "event loop" else Client.drain


Read = Callable[[Client, int], list[bytes]]


@pytest.mark.usefixtures("reading")
class TestMessages:
    def test_cut_anywhere(self, peer: Peer, open_client: Open, read: Read) -> None:
        client = open_client()
        client.consume()
        parts = b"".join(delivery(b"one", tag=1) + delivery(b"two", tag=2))
        for number, at in enumerate(range(1, len(parts))):
            peer.send(parts[:at], parts[at:])
            assert read(client, 2 * number + 2)[-2:] == [b"one", b"two"]

    def test_from_a_slow_broker(self, peer: Peer, open_client: Open, read: Read) -> None:
        client = open_client()
        client.consume()
        data = b"".join((*delivery(b"a"), HEARTBEAT_FRAME, *delivery(b"", tag=2)))
        peer.send(*(data[at : at + 1] for at in range(len(data))))
        assert read(client, 2) == [b"a", b""]

    def test_many_at_once(self, peer: Peer, open_client: Open, read: Read) -> None:
        client = open_client()
        client.consume()
        bodies = [b"%d" % number * 100 for number in range(3000)]
        peer.send(b"".join(b"".join(delivery(body, tag=tag)) for tag, body in enumerate(bodies, 1)))
        assert read(client, 3000) == bodies

    def test_bodies_in_several_frames_and_none(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()
        client.consume()
        large = bytes(range(256)) * 4096
        peer.send(
            b"".join(delivery(large) + delivery(b"", tag=2) + delivery(b"x" * 7, tag=3, most=1))
        )
        assert read(client, 3) == [large, b"", b"x" * 7]

    def test_channels_that_interleave(self, peer: Peer, open_client: Open, read: Read) -> None:
        client = open_client()
        client.consume()
        client.connection.channel().basic_consume("q", "t", callback=client.receive)
        first = delivery(b"first", most=2)
        second = delivery(b"second", channel=2, most=2)
        peer.send(b"".join(part for pair in zip(first, second, strict=True) for part in pair))
        assert read(client, 2) == [b"first", b"second"]

    def test_heartbeats_count_as_signs_of_life(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()
        client.consume()
        before = client.connection.bytes_recv
        peer.send(HEARTBEAT_FRAME * 5 + b"".join(delivery(b"a")))
        read(client, 1)
        assert client.connection.bytes_recv == before + 5 + 3


class TestAnswers:
    """py-amqp's own reading fails these where the comments say so."""

    def test_a_caller_leaves_what_is_not_its_own(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()  # over TLS, it leaves them in what is decrypted, unseen by the loop
        messages = [b"".join(delivery(b"%d" % tag, tag=tag)) for tag in range(1, 5)]
        peer.around[CONSUME] = (b"", messages[0] + messages[1])
        peer.around[DECLARE] = (messages[2], messages[3] + HEARTBEAT_FRAME[:3])
        client.consume()
        assert client.channel.queue_declare("q", passive=True).message_count == 7
        assert read(client, 4) == [b"1", b"2", b"3", b"4"]

    def test_a_message_may_ask_for_something_itself(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()
        messages = [b"".join(delivery(b"%d" % tag, tag=tag)) for tag in range(1, 5)]

        def ask(message: Any) -> None:
            client.receive(message)
            if message.body == b"1":
                client.channel.queue_declare("q", passive=True)

        peer.around[DECLARE] = (messages[2], messages[3])
        client.consume(ask)
        peer.send(messages[0] + messages[1])
        assert read(client, 4) == [b"1", b"2", b"3", b"4"]

    def test_what_the_event_loop_itself_asks_for(self, peer: Peer, open_client: Open) -> None:
        client = open_client()
        client.loop()
        message = b"".join(delivery(b"a"))
        peer.around[CONSUME] = (b"", message)
        client.hub.call_soon(client.consume)
        assert client.run_until(1) == [b"a"]
        peer.around[DECLARE] = (b"", message)
        client.hub.call_soon(client.channel.queue_declare, "q")
        assert client.run_until(2) == [b"a", b"a"]

    def test_a_caller_waits_no_longer_than_it_said(self, peer: Peer, open_client: Open) -> None:
        client = open_client()
        client.consume()
        whole = b"".join(delivery(b"a"))  # in the middle of it, it asks again without end
        for part, rest in ((b"", whole), (whole[:50], whole[50:])):
            peer.send(part)
            for timeout in (0, 0.05):
                with pytest.raises(TimeoutError):
                    client.connection.drain_events(timeout=timeout)
            peer.send(rest)
            client.drain(len(client.bodies) + 1)
        assert client.bodies == [b"a", b"a"]

    @pytest.mark.parametrize("encrypted", [False])  # TLS has another, of its own
    def test_a_connection_may_have_a_patience_of_its_own(
        self, peer: Peer, open_client: Open
    ) -> None:
        client = open_client(read_timeout=0.1)
        for part in (b"", HEARTBEAT_FRAME[:5]):
            peer.send(part)
            with pytest.raises(TimeoutError):
                client.connection.drain_events()


@pytest.mark.usefixtures("reading")
class TestEnds:
    def test_a_reset_in_the_middle_of_a_frame(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()
        client.consume()
        peer.send(b"".join(delivery(b"a") + delivery(b"b", tag=2))[:-3])
        read(client, 1)
        peer.reset()
        with pytest.raises(OSError):  # noqa: PT011  (of several kinds)
            read(client, 2)
        assert not client.connection.connected
        assert client.bodies == [b"a"]

    def test_the_broker_closes_the_connection(
        self, peer: Peer, open_client: Open, read: Read
    ) -> None:
        client = open_client()
        client.consume()
        close = method(0, CLOSE, refusal(320, b"CONNECTION_FORCED"))
        peer.send(b"".join(delivery(b"a")) + close + b"".join(delivery(b"b", tag=2)))
        with pytest.raises(ConnectionForced):
            read(client, 2)
        assert client.bodies == [b"a"]
        assert not client.connection.connected
        wait_until(lambda: CLOSE_OK in peer.heard, what="the close is answered")

    def test_the_broker_closes_a_channel(self, peer: Peer, open_client: Open, read: Read) -> None:
        client = open_client()
        client.connection.channel().basic_consume("q", "t", callback=client.receive)
        close = method(1, CHANNEL_CLOSE, refusal(404, b"NOT_FOUND"))
        peer.send(close + b"".join(delivery(b"a", channel=2)))
        with pytest.raises(NotFound):
            read(client, 1)
        assert CHANNEL_CLOSE_OK in peer.heard
        assert client.connection.connected
        assert client.drain(1) == [b"a"]  # the other channel lives

    def test_the_broker_ends_a_consumer(self, peer: Peer, open_client: Open, read: Read) -> None:
        cancelled: list[str] = []
        client = open_client()
        client.consume(on_cancel=cancelled.append)
        cancel = method(1, CANCEL, short(b"t") + b"\1")
        client.connection.channel().basic_consume("q", "t", callback=client.receive)
        peer.send(cancel + b"".join(delivery(b"a", channel=2)))
        assert read(client, 1) == [b"a"]
        assert cancelled == ["t"]
        peer.send(cancel)
        with pytest.raises(ConsumerCancelled):
            read(client, 2)

    def test_the_client_ends_its_consumer(self, peer: Peer, open_client: Open) -> None:
        client = open_client()
        client.consume()
        peer.around[CANCEL] = (b"".join(delivery(b"late")), b"")
        client.channel.basic_cancel("t")
        assert client.bodies == [b"late"]

    def test_the_client_closes_while_messages_come(self, peer: Peer, open_client: Open) -> None:
        client = open_client()
        client.consume()
        message = b"".join(delivery(b"a"))
        peer.around[CHANNEL_CLOSE] = (message * 3, b"")
        peer.around[CLOSE] = (HEARTBEAT_FRAME, b"")
        client.channel.close()
        client.kombu.close()
        assert client.bodies == []
        assert not client.connection.connected


class TestAtOnce:
    def test_one_turn_of_the_loop_takes_all_that_is_there(
        self, peer: Peer, open_client: Open
    ) -> None:
        client = open_client()
        client.consume()
        peer.around[DECLARE] = (b"".join(delivery(b"a") * 100), b"")
        client.channel.queue_declare("q")
        assert len(client.bodies) == 100
        messages = b"".join(delivery(b"b") * 100)
        assert len(messages) < READ_BYTES // 4
        client.loop()
        peer.send(messages)
        turns = 0
        while len(client.bodies) < 200:
            next(client.turns)
            turns += 1
        assert turns <= 10

    def test_but_no_more_than_its_share(self, peer: Peer, open_client: Open) -> None:
        """What else the loop has to do waits for a bounded time, however much comes."""
        client = open_client()
        client.consume()
        client.loop()
        message = b"".join(delivery(bytes(1000)))
        count = 40 * READ_BYTES // len(message)
        peer.send(message * count)
        most = before = 0
        while before < count:
            next(client.turns)
            most, before = max(most, len(client.bodies) - before), len(client.bodies)
        assert most <= READ_BYTES // len(message) + 1

    def test_a_frame_that_does_not_end_holds_nothing_up(
        self, peer: Peer, open_client: Open
    ) -> None:
        client = open_client()
        client.consume()
        client.loop()
        peer.send(b"".join(delivery(b"a")) + b"".join(delivery(b"b"))[:-1])
        client.run_until(1)
        fired: list[bool] = []
        client.hub.call_later(0.01, fired.append, True)
        end = time.monotonic() + SECONDS
        while not fired and time.monotonic() < end:
            next(client.turns)
        assert fired

    def test_a_socket_that_has_nothing_after_all_holds_nothing_up(self, open_client: Open) -> None:
        """Whoever was told of it in the same turn has read it."""
        client = open_client(connect_timeout=SECONDS)
        client.loop()
        begin = time.monotonic()
        client.connection._on_readable()
        assert time.monotonic() - begin < SECONDS / 2

    def test_nothing_comes_after_a_message_that_closes_the_connection(
        self, peer: Peer, open_client: Open
    ) -> None:
        client = open_client()

        def receive(message: Any) -> None:
            client.receive(message)
            client.kombu.close()

        client.consume(receive)
        client.loop()
        peer.around[CLOSE] = (b"", b"".join(delivery(b"b", tag=2)))
        peer.send(b"".join(delivery(b"a")))
        assert client.run_until(1) == [b"a"]
        assert not client.connection.connected

    def test_what_an_error_leaves_is_taken_in_the_next_turn(
        self, peer: Peer, open_client: Open
    ) -> None:
        """Celery's remote ``shutdown`` is such an error, and the loop is run on to finish."""
        client = open_client()

        def receive(message: Any) -> None:
            client.receive(message)
            if message.body == b"stop":
                raise SystemExit

        client.consume(receive)
        client.loop()
        peer.send(b"".join(delivery(b"stop") + delivery(b"a", tag=2)))
        with pytest.raises(SystemExit):
            client.run_until(2)
        client.turns = client.hub.create_loop()
        assert client.run_until(2) == [b"stop", b"a"]

    @pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100_000])
    def test_garbage_ends_the_connection_and_no_one_waits(
        self, peer: Peer, open_client: Open, read: Read, garbage: bytes
    ) -> None:
        client = open_client()
        client.consume()
        peer.send(b"".join(delivery(b"a")) + garbage)
        with pytest.raises(UnexpectedFrame):
            read(client, 2)
        assert client.bodies == [b"a"]
        with pytest.raises(UnexpectedFrame):
            client.channel.queue_declare("q")

    def test_a_socket_that_is_shut_down_is_an_error(self, open_client: Open, read: Read) -> None:
        """So a worker that was told to stop gives up a broker that does not answer."""
        client = open_client()
        client.connection.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError):  # noqa: PT011  (of several kinds)
            read(client, 1)
        assert not client.connection.connected

    def test_a_loop_hears_that_its_connection_is_gone(self, open_client: Open) -> None:
        client = open_client()
        client.loop()
        client.connection.collect()
        with pytest.raises(RecoverableConnectionError):
            client.connection._on_readable()
        client.connection._on_bell()  # and has nothing to take, if it was told to


class TestInstalled:
    def test_these_versions_are_known(self) -> None:
        """Else: compare what `frame_reading` replaces with the new versions, and name them there."""
        assert (version("amqp"), version("kombu")) == frame_reading.KNOWN
        assert issubclass(pyamqp.Transport.Connection, frame_reading.ReadsAtOnce)
        assert issubclass(pyamqp.Transport.Connection, PatientConnection)

    def test_with_others_py_amqp_reads_as_ever_and_the_worker_says_so(self) -> None:
        program = (
            "from importlib import metadata\n"
            "found = metadata.version\n"
            "metadata.version = lambda name: '6.0.0' if name == 'amqp' else found(name)\n"
            "from kombu.transport import pyamqp\n"
            "from celery import signals\n"
            "import booking_platform\n"
            "from booking_platform.messaging.farewell import PatientConnection\n"
            "assert pyamqp.Transport.Connection is PatientConnection\n"
            "signals.celeryd_after_setup.send(sender='w', instance=None, conf=None)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        [line] = (done.stdout + done.stderr).splitlines()
        assert "read one by one" in line
