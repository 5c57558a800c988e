"""A Celery task for each event: with Celery's defaults, and with kept database connections."""

import json
from collections.abc import Sequence
from uuid import uuid4

from bench.broker import Outgoing
from bench.contenders.contender import Contender, Ground, message
from bench.workloads import Load
from booking_platform.contract.examples import Json
from booking_platform.development.processes import CeleryProcess

MODULE, QUEUE, TASK = "bench.contenders.celery_task", "bench-per-event", "bench.booking_created"


class CeleryTask(Contender):
    name = "celery"
    queue = QUEUE
    share = 0.04
    quorum = False
    keep = ""

    def outgoing(self, load: Load, event: Json) -> Outgoing:
        """Return Celery's task message, protocol 2.

        https://docs.celeryq.dev/en/stable/internals/protocol.html
        """
        task_id = str(uuid4())
        headers = {
            "lang": "py",
            "task": TASK,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": "",
            "kwargsrepr": "",
        }
        content = json.dumps([[event], {}, {}]).encode()
        sent = message(content, application_headers=headers, correlation_id=task_id)
        return Outgoing("", QUEUE, sent)

    def processes(self, ground: Ground) -> Sequence[CeleryProcess]:
        env = {"KEEP_CONNECTIONS": self.keep, "CELERY_BROKER_URL": ground.rabbitmq_url}
        log = ground.folder / f"{self.name}.log"
        return [CeleryProcess(log, "worker", "-c", "2", app=MODULE, env=env)]


class KeptConnections(CeleryTask):
    name = "celery-kept"
    share = 0.06
    keep = "1"
