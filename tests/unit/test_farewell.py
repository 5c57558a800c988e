"""A pool that shares a queue among its processes ends, even if one of them has died over it."""

import threading
from typing import Any

import pytest
from billiard import get_context
from billiard.pool import Pool

from booking_platform.messaging import farewell
from tests.servers import PATIENCE


@pytest.fixture
def queue() -> Any:
    return get_context("spawn").SimpleQueue()


def end(queue: Any) -> bool:
    """Return whether a pool gets its queue empty, with a thread that waits to fill it."""
    over = threading.Event()
    filling = threading.Thread(target=over.wait, daemon=True)
    filling.start()
    pool: Any = Pool  # whose stubs know no private names
    given: Any = (queue, filling, [])
    ending = threading.Thread(target=pool._help_stuff_finish, args=given, daemon=True)
    ending.start()
    ending.join(PATIENCE)
    over.set()
    return not ending.is_alive()


def test_it_ends_though_a_process_that_is_gone_has_the_lock(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "PATIENCE", 0.1)
    queue._rlock.acquire()
    assert end(queue)


def test_it_takes_out_what_is_left(queue: Any) -> None:
    for number in range(3):
        queue.put(number)
    assert end(queue)
    assert not queue._reader.poll()
