"""The rights on the broker that the README gives to producers: what they let through, and what not."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection

from booking_platform import servers
from tests.servers import control_broker, rabbitmqctl

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not shutil.which(rabbitmqctl()[0]), reason="rabbitmqctl makes the users"),
]

README = Path(__file__).parents[2] / "README.md"
EXCHANGE = "booking-events"
HERE = f"rights-{os.getpid()}"  # a virtual host of our own, and how its users' names begin
CREATED, CHANGED, CANCELLED = "booking.created", "booking.changed", "booking.cancelled"


def commands() -> list[list[str]]:
    """Return the commands of the README, for users and a virtual host of our own."""
    lines = re.findall(r"^    rabbitmqctl (set_.*)$", README.read_text(), re.MULTILINE)
    split = [shlex.split(line) for line in lines]
    return [
        [command, option, HERE, f"{HERE}-{user}", *rights]
        for command, option, _, user, *rights in split
    ]


def connect(user: str) -> Any:
    host = urlsplit(servers.broker_url()).netloc.rpartition("@")[2]
    url = f"amqp://{user}:secret@{host}/{HERE}"
    return Connection(url, transport_options={"confirm_publish": True})


@pytest.fixture(scope="module", autouse=True)
def users() -> Iterator[None]:
    """The users of the README, and ``stranger``, who has no rights but those to connect."""
    named = [f"{HERE}-{name}" for name in ("bookings", "shop", "stranger", "admin")]
    try:
        assert control_broker("add_vhost", HERE)
        for user in named:
            assert control_broker("add_user", user, "secret")
        assert control_broker("set_permissions", "-p", HERE, named[-2], "^$", "^$", "^$")
        assert control_broker("set_permissions", "-p", HERE, named[-1], ".*", ".*", ".*")
        with connect(named[-1]) as connection, connection.channel() as channel:
            channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
            channel.queue_declare("events", durable=True, auto_delete=False)
            channel.queue_bind("events", EXCHANGE, "#")
        for command in commands():
            assert control_broker(*command)
        yield
    finally:
        for user in named:
            control_broker("delete_user", user)
        control_broker("delete_vhost", HERE)


def publish(user: str, key: str, exchange: str = EXCHANGE, **headers: Any) -> None:
    """Publish an event, confirmed.

    Raises:
        AccessRefused: the user has no right to.
    """
    with connect(f"{HERE}-{user}") as connection, connection.channel() as channel:
        message = channel.prepare_message(b"{}", headers=headers)
        channel.basic_publish(message, exchange=exchange, routing_key=key)


def arrived() -> list[str]:
    """Return the routing keys of what has arrived, and take it away."""
    keys = []
    with connect(f"{HERE}-admin") as connection, connection.channel() as channel:
        while message := channel.basic_get("events", no_ack=True):
            keys.append(message.delivery_info["routing_key"])
    return keys


class TestTheReadmesRights:
    def test_there_are_some(self) -> None:
        assert [command[0] for command in commands()] == [
            "set_permissions",
            "set_topic_permissions",
        ] * 2

    @pytest.mark.parametrize(
        ("user", "key"),
        [("bookings", CREATED), ("bookings", CHANGED), ("bookings", CANCELLED), ("shop", CREATED)],
    )
    def test_they_are_enough_to_publish(self, user: str, key: str) -> None:
        publish(user, key)
        assert arrived() == [key]

    @pytest.mark.parametrize(
        ("user", "key"),
        [
            ("shop", CANCELLED),
            ("shop", CHANGED),
            ("shop", "booking.created.cancelled"),
            ("bookings", "refund.completed"),
            ("bookings", "booking.cancelled.again"),
            ("stranger", CREATED),
            ("stranger", CANCELLED),
        ],
    )
    def test_nothing_else_is_published(self, user: str, key: str) -> None:
        with pytest.raises(AccessRefused):
            publish(user, key)
        assert arrived() == []

    @pytest.mark.parametrize("user", ["bookings", "shop"])
    def test_no_queue_is_reached_past_the_exchange(self, user: str) -> None:
        with pytest.raises(AccessRefused):
            publish(user, "events", exchange="")
        assert arrived() == []

    @pytest.mark.parametrize("user", ["bookings", "shop"])
    def test_nothing_is_read_and_nothing_declared(self, user: str) -> None:
        publish("bookings", CREATED)
        with connect(f"{HERE}-{user}") as connection:
            for method, *arguments in (
                ("basic_get", "events"),
                ("queue_declare", "mine"),
                ("queue_bind", "events", EXCHANGE, "x"),
                ("queue_purge", "events"),
                ("exchange_delete", EXCHANGE),
            ):
                with pytest.raises(AccessRefused):
                    getattr(connection.channel(), method)(*arguments)
        assert arrived() == [CREATED]

    def test_a_header_adds_no_routing_key(self) -> None:
        with connect(f"{HERE}-admin") as connection:
            version = connection.connection.server_properties["version"]
        if tuple(map(int, version.split(".")[:2])) < (4, 1):
            pytest.skip(f"RabbitMQ {version} does not look at it, as the README says")
        with pytest.raises(AccessRefused):
            publish("shop", CREATED, CC=[CANCELLED])
        assert arrived() == []
