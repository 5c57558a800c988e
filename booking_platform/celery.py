"""The Celery application: ``celery -A booking_platform worker|beat``."""

import os
import warnings
from typing import Any

from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.exceptions import CPendingDeprecationWarning
from celery.utils import nodenames
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import maybe_sanitize_url

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")

from booking_platform import redaction, servers, standard_streams
from booking_platform.messaging import (
    bound,
    broker,
    farewell,
    frame_reading,
    lenient_amqp,
    metric_files,
    topology,
)
from booking_platform.messaging.telling import safely
from booking_platform.messaging.worker import EventConsumers

lenient_amqp.install()
metric_files.install()
farewell.install()
frame_reading.install()  # after farewell, whose connections it extends
# By name, so that nothing of it is imported before somebody asks for it; in production nobody can.
TRANSPORT_ALIASES["embedded"] = "booking_platform.development.embedded_broker:Transport"

# Celery looks here before it looks at its settings, which it prints (`celery report`). What
# `celery -b` has left here is replaced: RABBITMQ_URL alone names the broker, since that is checked.
os.environ["CELERY_BROKER_URL"] = servers.broker_url()


class DiscreetConnection(Connection):
    """A connection that shows no password where several brokers are named: `inspect stats` does."""

    def info(self) -> dict[str, Any]:
        shown: dict[str, Any] = super().info()
        return shown | {"alternates": [maybe_sanitize_url(url) for url in shown["alternates"]]}


class DiscreetAmqp(AMQP):
    Connection = DiscreetConnection


class Application(Celery):
    """Celery, whose beat depends neither on whether it can print, nor on a broker when it stops."""

    @property
    def Beat(self) -> Any:  # noqa: N802  (Celery's name)
        standard_streams.install()  # it prints before it sends any signal
        return farewell.ends_in_time(super().Beat)


app = Application(
    "booking_platform",
    amqp=DiscreetAmqp,
    control="booking_platform.messaging.celery_consumer:PlatformControl",
)
app.config_from_object("django.conf:settings", namespace="CELERY")
# Celery's Django fixup closes the database connection around every task unless it finds this
# key, under exactly this name: 112 events/s against 484 with kept connections.
app.conf["CELERY_DB_REUSE_MAX"] = 2**31
app.conf.task_routes = (topology.route,)
app.conf.task_queues = broker.TaskQueues()
app.conf.worker_consumer = "booking_platform.messaging.celery_consumer:PlatformConsumer"
app.steps["consumer"].add(EventConsumers)
app.conf.beat_scheduler = "booking_platform.messaging.beat:Scheduler"
app.steps["worker"].add(metric_files.MetricsFolder)
app.steps["worker"].add("booking_platform.operations.worker_page:WorkerPage")

signals.celeryd_init.connect(standard_streams.install)
signals.task_prerun.connect(bound.begin_task)
signals.task_postrun.connect(bound.end_task)


@signals.celeryd_init.connect
def _name_worker(sender: str, instance: Any = None, **_: Any) -> None:
    """Name a worker that has no ``-n`` after its process: a second one on this host has another name."""
    name = sender
    if instance is not None and sender == nodenames.default_nodename(None):
        name = f"{nodenames.NODENAME_DEFAULT}-{os.getpid()}@{sender.partition('@')[2]}"
        instance.hostname = name
    redaction.remember_node(name)  # in log lines it looks like an address


@signals.worker_process_init.connect  # of a pool that forks, and of one that does all by itself
@signals.worker_ready.connect  # of threads; the main process of one that forks commits nothing
def _work_beside_tasks(**_: Any) -> None:
    """Allow the processes of a worker to publish what they announce, and to clean up, in threads of their own."""
    from booking_platform.messaging.relaying import RELAY
    from booking_platform.messaging.retention import CLEANER

    RELAY.enable()
    CLEANER.enable()


@signals.worker_process_shutdown.connect  # a pool process ends without what other processes do at exit
def _flush_spans(**_: Any) -> None:
    from booking_platform.messaging import tracing

    tracing.flush()


@signals.import_modules.connect(sender=app)
def _derive_beat(**_: Any) -> None:
    """Derive beat's entries from what the apps have registered: Django is set up by now."""
    from booking_platform.messaging import heartbeats, relaying, sweeps

    entries = {
        "relay": relaying.beat_entry(),
        **sweeps.beat_entries(),
        **heartbeats.beat_entries(),
    }
    app.conf.beat_schedule = app.conf.beat_schedule | entries


# Of each lost connection, about a setting that is as it is on purpose: groups commit, repeats are known.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Stop Celery from configuring logging: a receiver on this signal is enough."""


@signals.task_failure.connect
def _count_failure(sender: Any, **_: Any) -> None:
    from booking_platform.messaging import metrics  # whose numbers are not prometheus_client's own

    safely(metrics.TASK_FAILURES.labels(sender.name).inc)


@signals.task_prerun.connect
def _drop_broken_connections(**_: Any) -> None:
    """Reopen the kept connection where a database restart broke it."""
    from django.db import close_old_connections

    close_old_connections()
