"""Which task messages Celery's code in the main process gets to see."""

from typing import Any

import pytest
from kombu.message import Message

from booking_platform.messaging.task_messages import Malformed, check

HEADERS = {"task": "payments.attempt", "id": "1", "lang": "py"}


def message(*, body: Any = ([1], {}, {}), headers: Any = None, **properties: Any) -> Message:
    made: Any = Message(headers=HEADERS | (headers or {}), properties=properties)
    made._decoded_cache = list(body) if isinstance(body, tuple) else body
    return made  # type: ignore[no-any-return]


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


SIGNATURE = {"task": "payments.sweep", "args": [], "kwargs": {}, "options": {}}


class TestWhatIsTaken:
    @pytest.mark.parametrize(
        "follows",
        [{}, {"callbacks": None, "chord": None}, {"errbacks": [SIGNATURE]}, {"chord": SIGNATURE}],
        ids=repr,
    )
    def test_what_celery_sends(self, follows: dict[str, Any]) -> None:
        headers = {"timelimit": [None, 5], "expires": "2999-01-01", "retries": 0, "group": None}
        check(message(body=([], {}, follows), headers=headers))

    def test_what_celery_does_not_know_is_left_out(self) -> None:
        odd = message(headers={"odd": nested(480)}, odd=nested(480), correlation_id="1")
        check(odd)
        assert odd.headers == HEADERS
        assert odd.properties == {"correlation_id": "1"}


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "headers",
        [
            {"id": [1]}, {"id": None}, {"task": {}}, {"task": "celery.chord_unlock"},
            {"task": "x" * 20_000}, {"root_id": [1]}, {"timelimit": "1"}, {"timelimit": [1]},
            {"timelimit": [-1, 0]}, {"timelimit": [10**12, None]}, {"retries": "1"},
            {"retries": 10**18}, {"expires": 5}, {"eta": {}}, {"shadow": nested(480)},
        ],
        ids=lambda headers: repr(headers)[:40],
    )  # fmt: skip
    def test_headers_of_another_kind(self, headers: dict[str, Any]) -> None:
        with pytest.raises(Malformed):
            check(message(headers=headers))

    @pytest.mark.parametrize(
        "body",
        [
            None, 7, "text", [], {}, ([],), ([], {}), ([], {}, {}, {}), ({}, {}, {}), ([], [], {}),
            ([], {}, []), ([], {}, {"errbacks": [5]}), ([], {}, {"callbacks": "x"}),
            ([], {}, {"chain": [{"task": 5}]}), ([], {}, {"chord": {"task": "a", "args": 5}}),
        ],
        ids=repr,
    )  # fmt: skip
    def test_bodies_of_another_shape(self, body: Any) -> None:
        with pytest.raises(Malformed):
            check(message(body=body))

    def test_a_body_that_can_not_be_read(self) -> None:
        unreadable = Message(body="{", content_type="application/json", headers=HEADERS)
        with pytest.raises(Malformed, match="can't be read"):
            check(unreadable)
