"""A broker's user who may not configure binds the keys of what is announced all the same."""

from secrets import token_hex
from urllib.parse import quote, urlsplit

import pytest
from celery import current_app
from kombu import Connection

from booking_platform import servers
from booking_platform.messaging import broker, topology
from booking_platform.messaging.publishing import Outgoing, Publisher
from tests.servers import control_broker

pytestmark = pytest.mark.servers


def test_keys_that_are_new_are_bound_without_the_right_to_configure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an upgrade what is announced would go to the unroutable events, and old workers park that."""
    vhost = current_app.connection_for_write().virtual_host
    host = urlsplit(servers.broker_url()).netloc.rpartition("@")[2]
    user = f"limited-{token_hex(4)}"
    assert control_broker("add_user", user, "secret")
    assert control_broker("set_permissions", "-p", vhost, user, "^$", ".*", ".*")
    try:
        with broker.connection_to_publish() as connection:
            broker.connect(connection)
        with monkeypatch.context() as patched:
            patched.setattr(topology, "known_keys", lambda: ["new.key"])
            with Connection(f"amqp://{user}:secret@{host}/{quote(vhost, safe='')}") as connection:
                broker.declare(connection)
        publisher = Publisher()
        publisher.publish([Outgoing("new.key", b"{}")])
        publisher.close()
        with broker.connection_to_publish() as connection:
            assert topology.unroutable_queue()(connection.channel()).get(no_ack=True) is None
    finally:
        control_broker("delete_user", user)
