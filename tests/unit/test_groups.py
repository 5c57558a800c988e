from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.worker import request as celery_requests
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

import booking_platform.messaging.tasks  # noqa: F401  (registers its Celery tasks)
import catalog.tasks  # noqa: F401  (registers its Celery tasks)
from booking_platform.celery import app
from booking_platform.messaging.groups import (
    LONGEST_FACT,
    REPLAY_HEADER,
    Delivery,
    GroupMessage,
    GroupRequest,
    GroupTask,
)

TASK = "catalog.booking_created"
QUEUE = "tour-catalog.booking-created"
PID: Any = 4711  # celery-types take a process id for text

End = Callable[[Request], object]


class Pool(BasePool):
    """Stands in for the processes: it notes what it is given and what it should kill."""

    def __init__(self) -> None:
        super().__init__(limit=1, app=app)
        self.given: list[Any] = []
        self.killed: list[int] = []

    def on_apply(self, *args: Any, **kwargs: Any) -> None:
        self.given.append((args, kwargs))

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        self.killed.append(pid)


def delivered(**message: Any) -> Delivery:
    return Delivery.of(Message(**message), most_bytes=1000, kept_bytes=10)


class Group:
    """Three deliveries as one message and as one request of a worker; it notes its answers."""

    def __init__(self, **delivery: Any) -> None:
        self.answers: list[str] = []
        self.message = GroupMessage(
            TASK,
            QUEUE,
            [delivered(**{"body": b"{}"} | delivery) for _ in range(3)],
            lambda acknowledged: self.answers.append("ack" if acknowledged else "reject"),
        )
        self.pool = Pool()
        self.request = self._request()

    def _request(self) -> Request:
        """Build the request as Celery's worker does (celery.worker.strategy)."""
        task = app.tasks[TASK]
        create = celery_requests.create_request_cls  # type: ignore[attr-defined]  # celery-types leave it out
        made = create(task.Request, task, self.pool, "host", None, app=app)
        request: Request = made(
            self.message,
            on_ack=self.message.ack_log_error,
            on_reject=self.message.reject_log_error,
            app=app,
            hostname="host",
            task=task,
            connection_errors=(ConnectionResetError,),
            body=self.message.body,
            headers=self.message.headers,
        )
        return request


@pytest.fixture(autouse=True)
def _worker_state() -> Iterator[None]:
    yield
    state.reset_state()


@pytest.fixture
def group() -> Group:
    return Group()


def raised(error: BaseException) -> ExceptionInfo:
    try:
        raise error
    except BaseException:
        return ExceptionInfo()


def succeed(request: Request) -> None:
    request.on_success((False, None, 0.1))


def fail_with(error: BaseException) -> End:
    """End it as the pool reports an error that the task raised."""
    return lambda request: request.on_success((True, raised(error), 0.1))


def die_with(error: BaseException) -> End:
    """End it as the pool reports an error of its own."""
    return lambda request: request.on_failure(raised(error))


def revoke(request: Request) -> None:
    state.revoked.add(request.id)
    assert request.revoked()


def revoke_by_stamp(request: Request) -> None:
    request.request_dict.update(stamped_headers=["tenant"], stamps={"tenant": "a"})
    state.revoked_stamps["tenant"] = ["a"]  # type: ignore[assignment]  # Celery stores lists
    assert request.revoked()


def expire(request: Request) -> None:
    request.expires = datetime(2026, 1, 1, tzinfo=UTC)
    assert request.revoked()


def terminate(request: Request) -> None:
    request.on_accepted(PID, 0.0)
    pool = Pool()
    request.terminate(pool)
    assert pool.killed == [PID]
    request.on_failure(raised(Terminated("SIGTERM")))


def terminate_before_it_starts(request: Request) -> None:
    request.terminate(Pool())
    request.on_accepted(PID, 0.0)
    request.on_failure(raised(Terminated("SIGTERM")))


def time_out_twice(request: Request) -> None:
    """End it as the pool does that reports a hard time limit by both of its ways."""
    request.on_timeout(False, 10)
    request.on_failure(raised(TimeLimitExceeded(10)))


ENDS_WITHOUT_SUCCESS: dict[str, End] = {
    "a bug": fail_with(ValueError("bug")),
    "a soft time limit": fail_with(SoftTimeLimitExceeded()),
    "a retry": fail_with(Retry("later")),
    "ignored": fail_with(Ignore()),
    "rejected": fail_with(Reject("no", requeue=False)),
    "rejected, to be requeued": fail_with(Reject("no", requeue=True)),
    "a lost process": die_with(WorkerLostError("SIGKILL")),
    "a process that exits": die_with(SystemExit(1)),
    "a hard time limit": lambda request: request.on_timeout(False, 10),
    "a hard time limit, told twice": time_out_twice,
    "a killed process": die_with(Terminated("SIGKILL")),
    "terminated": terminate,
    "terminated early": terminate_before_it_starts,
    "revoked": revoke,
    "revoked by a stamp": revoke_by_stamp,
    "expired": expire,
    "acknowledged by hand": lambda request: request.acknowledge(),
    "rejected by hand": lambda request: request.reject(requeue=False),
}


class TestAGroupsEnd:
    def test_success_acknowledges_it(self, group: Group) -> None:
        succeed(group.request)

        assert group.answers == ["ack"]

    @pytest.mark.parametrize("end", ENDS_WITHOUT_SUCCESS.values(), ids=ENDS_WITHOUT_SUCCESS)
    def test_anything_else_returns_it(self, group: Group, end: End) -> None:
        end(group.request)

        assert group.answers == ["reject"]

    @pytest.mark.parametrize("end", ENDS_WITHOUT_SUCCESS.values(), ids=ENDS_WITHOUT_SUCCESS)
    def test_a_late_success_changes_no_answer(self, group: Group, end: End) -> None:
        end(group.request)
        succeed(group.request)

        assert group.answers == ["reject"]

    @pytest.mark.parametrize("end", ENDS_WITHOUT_SUCCESS.values(), ids=ENDS_WITHOUT_SUCCESS)
    def test_success_is_final(self, group: Group, end: End) -> None:
        succeed(group.request)
        end(group.request)

        assert group.answers == ["ack"]

    def test_a_soft_time_limit_alone_is_no_end(self, group: Group) -> None:
        group.request.on_timeout(True, 10)

        assert group.answers == []

    def test_one_group_says_nothing_of_another(self, group: Group) -> None:
        other = Group()
        succeed(group.request)

        other.request.acknowledge()

        assert other.answers == ["reject"]

    def test_a_revoked_group_does_not_run(self, group: Group) -> None:
        state.revoked.add(group.request.id)

        with pytest.raises(TaskRevokedError):
            group.request.execute_using_pool(group.pool)

        assert group.pool.given == []
        assert group.answers == ["reject"]


class TestAGroupsMessage:
    def test_celery_is_told_of_a_task_and_not_of_customers(self, group: Group) -> None:
        info = group.request.info(safe=False)

        assert (info["name"], info["args"]) == (TASK, f"<3 of {QUEUE}>")
        assert group.message.headers["id"] == group.message.properties["correlation_id"]
        assert Group().message.headers["id"] != group.message.headers["id"]

    def test_its_body_goes_to_the_pool_as_it_is(self, group: Group) -> None:
        group.request.execute_using_pool(group.pool)

        [((_trace, (name, _id, _request, body, *encoding), *_), _)] = group.pool.given
        assert name == TASK
        assert body == ([[Delivery(b"{}")] * 3], {}, {})
        assert encoding == [None, None]

    @pytest.mark.parametrize(
        ("body", "raw"),
        [
            (b"\xff\0", b"\xff\0"),
            ("é", b"\xc3\xa9"),
            (memoryview(b"x"), b"x"),
            ("", b""),
            (b"", b""),
        ],
    )
    def test_a_body_is_bytes_whatever_the_transport_makes_of_it(
        self, body: str | bytes | memoryview, raw: bytes
    ) -> None:
        [[deliveries], *_] = Group(body=body).message.body

        assert deliveries == [Delivery(raw)] * 3

    def test_no_header_of_a_producer_reaches_celery(self) -> None:
        headers = {"task": "os.system", "id": "x", "compression": None, "eta": "2999-01-01"}

        group = Group(headers=headers)

        assert group.message.headers["task"] == TASK
        assert group.request.eta is None

    @pytest.mark.parametrize(
        ("info", "redelivered"),
        [({"redelivered": True}, True), ({"redelivered": False}, False), ({}, False)],
    )
    def test_it_says_whether_it_is_a_redelivery(
        self, info: dict[str, bool], redelivered: bool
    ) -> None:
        group = Group(delivery_info=info)

        assert group.request.delivery_info == {
            "exchange": "", "routing_key": QUEUE, "priority": 0, "redelivered": redelivered
        }  # fmt: skip


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


class TestWhatIsToldOfADelivery:
    def test_the_headers_that_mean_something_are_kept(self) -> None:
        death = {"queue": "q", "reason": "delivery_limit", "count": 1}
        headers = {"task": "os.system", REPLAY_HEADER: "a token", "x-death": [death, {}]}

        delivery = delivered(body=b"{}", headers=headers)

        assert delivery == Delivery(
            b"{}", task="os.system", replay_of="a token", died_in="q", died_of="delivery_limit"
        )

    @pytest.mark.parametrize(
        "odd", [nested(480), {"a": nested(480)}, 7, None, b"x", 1.5, True, [], {}], ids=repr
    )
    def test_nothing_else_is_handed_on(self, odd: Any) -> None:
        for headers in (
            {"task": odd, REPLAY_HEADER: odd, "x-death": odd},
            {"task": odd, "x-death": [odd]},
            {"task": odd, "x-death": [{"queue": odd, "reason": odd}]},
        ):
            assert delivered(body=b"{}", headers=headers) == Delivery(b"{}", task="?")

    def test_no_fact_is_long(self) -> None:
        long = "x" * (LONGEST_FACT + 1)
        headers = {"task": long, REPLAY_HEADER: long, "x-death": [{"queue": long, "reason": long}]}

        facts = delivered(body=b"{}", headers=headers, delivery_info={"routing_key": long})

        assert {len(fact) for fact in facts if isinstance(fact, str)} == {0, LONGEST_FACT}

    def test_a_large_body_is_cut_and_its_size_kept(self) -> None:
        large = delivered(body=b"x" * 1001)

        assert (large.body, large.size) == (b"x" * 10, 1001)
        assert delivered(body=b"x" * 1000) == Delivery(b"x" * 1000)

    def test_two_large_bodies_that_begin_alike_stay_two(self) -> None:
        one, other = (delivered(body=b"x" * 1001 + end) for end in (b"1", b"2"))

        assert one.digest != other.digest

    def test_what_the_transport_has_cut_is_large(self) -> None:
        assert delivered(body=b"x", delivery_info={"size": 5000}).size == 5000


class TestAGroupTask:
    @pytest.mark.parametrize(
        "name",
        [
            TASK,
            "catalog.booking_cancelled",
            "messaging.record_dead_letters",
            "messaging.record_unroutable",
        ],
    )
    def test_it_is_acknowledged_late_and_by_success_only(self, name: str) -> None:
        task = app.tasks[name]

        assert isinstance(task, GroupTask)
        assert task.Request is GroupRequest
        assert (task.acks_late, task.acks_on_failure, task.acks_on_timeout) == (True, False, False)
        assert task.reject_on_worker_lost


class TaskMessage:
    """A task message of Celery's as one request of a worker; it notes the answers."""

    def __init__(self, task: str) -> None:
        self.answers: list[str] = []
        self.pool = Pool()
        registered = app.tasks[task]
        create = celery_requests.create_request_cls  # type: ignore[attr-defined]  # celery-types leave it out
        made = create(registered.Request, registered, self.pool, "host", None, app=app)
        body: Any = [[{}], {}, {}]
        headers = {"task": task, "id": "1", "lang": "py"}
        self.request: Request = made(
            Message(body="", headers=headers),
            on_ack=lambda *_: self.answers.append("ack"),
            on_reject=lambda _log, _errors, requeue: self.answers.append(f"requeue={requeue}"),
            app=app,
            hostname="host",
            task=registered,
            body=body,
            headers=headers,
            decoded=True,
        )


class TestATaskMessageIsNeverDoneAgain:
    """For every task that a worker knows: whoever may send one can't have it loop."""

    @pytest.mark.parametrize("end", ENDS_WITHOUT_SUCCESS.values(), ids=ENDS_WITHOUT_SUCCESS)
    def test_one_of_a_consumer_is_acknowledged_however_it_ends(self, end: End) -> None:
        message = TaskMessage(TASK)
        end(message.request)
        succeed(message.request)

        assert message.answers == ["ack"]

    def test_any_other_is_acknowledged_before_it_runs(self) -> None:
        others = [task for task in app.tasks.values() if not isinstance(task, GroupTask)]

        assert {task.name for task in others} > {"payments.attempt", "messaging.cleanup"}
        assert [task.name for task in others if task.acks_late] == []
