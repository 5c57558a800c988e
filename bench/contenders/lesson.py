"""The consumer of lesson 5.5 (Node.js, amqplib, Sequelize), in ``bench/lesson/``: one process, and two.

It has a table of tours of its own, since it writes only the lesson's columns. It stores neither events nor
reservations, takes one message at a time, and gives an event up after three lost races: what is lost is
counted, and must be all that is missing.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.contenders.contender import Contender, Ground, Program
from bench.database import number
from bench.workloads import Load

FOLDER = Path(__file__).parents[1] / "lesson"

TABLE = """
DROP TABLE IF EXISTS lesson_tours;
CREATE TABLE lesson_tours (
    id integer PRIMARY KEY,
    name varchar(255) NOT NULL,
    description text,
    price numeric(10, 2) NOT NULL,
    available_seats integer NOT NULL,
    optimistic_lock_version integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
INSERT INTO lesson_tours
    SELECT id, name, description, price, available_seats, 0, now(), now() FROM tours;
"""


class Lesson(Contender):
    name = "lesson"
    queue = "bench-lesson"
    share = 0.15
    keeps_ledger = False
    quorum = False
    count = 1

    def prepare(self, ground: Ground) -> None:
        super().prepare(ground)
        ground.connection.execute(TABLE)
        self._given_up(ground).write_bytes(b"")

    def processes(self, ground: Ground) -> Sequence[Program]:
        env = {
            "RABBITMQ_URL": ground.rabbitmq_url,
            "DATABASE_URL": ground.database_url,
            "QUEUE": self.queue,
            "GIVEN_UP": str(self._given_up(ground)),
        }
        command = (shutil.which("node") or "node", str(FOLDER / "consumer.js"))
        logs = [ground.folder / f"{self.name}-{each}.log" for each in range(self.count)]
        return [Program(*command, log_file=log, env=env) for log in logs]

    def changed(self, ground: Ground, load: Load) -> int:
        query = (
            "SELECT (SELECT sum(available_seats) FROM tours)"
            " - (SELECT sum(available_seats) FROM lesson_tours)"
        )
        return number(ground.connection, query) + self.lost(ground)

    def lost(self, ground: Ground) -> int:
        return self._given_up(ground).stat().st_size

    def _given_up(self, ground: Ground) -> Path:
        """Return the file that has a byte for each event which was given up."""
        return ground.folder / "given-up"


class TwoProcesses(Lesson):
    name = "lesson-2"
    count = 2
