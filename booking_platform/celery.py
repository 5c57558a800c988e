"""The Celery application: ``celery -A booking_platform worker|beat``."""

import os
from typing import Any

from celery import Celery, signals
from celery.app.amqp import AMQP
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.utils.url import maybe_sanitize_url

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")

from booking_platform import redaction, servers
from booking_platform.messaging import broker, lenient_amqp
from booking_platform.messaging.worker import EventConsumers

lenient_amqp.install()
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


app = Celery("booking_platform", amqp=DiscreetAmqp)
app.config_from_object("django.conf:settings", namespace="CELERY")
# Celery's Django fixup closes the database connection around every task unless it finds this
# key, under exactly this name: 112 events/s against 484 with kept connections.
app.conf["CELERY_DB_REUSE_MAX"] = 2**31
app.conf.task_routes = (broker.route,)
app.conf.task_queues = broker.TaskQueues()
app.steps["consumer"].add(EventConsumers)


@signals.import_modules.connect(sender=app)
def _derive_beat(**_: Any) -> None:
    """Derive beat's entries from what the apps have registered: Django is set up by now."""
    from booking_platform.messaging import leases

    app.conf.beat_schedule = app.conf.beat_schedule | leases.beat_entries()


@signals.celeryd_init.connect
def _know_our_name(sender: str, **_: Any) -> None:
    """Keep the name of this worker in its log lines, where it looks like an address."""
    redaction.remember_node(sender)


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Stop Celery from configuring logging: a receiver on this signal is enough."""


@signals.task_prerun.connect
def _drop_broken_connections(**_: Any) -> None:
    """Reopen the kept connection where a database restart broke it."""
    from django.db import close_old_connections

    close_old_connections()
