"""FastStream with SQLAlchemy and asyncpg: two processes, as there are two in the platform's pool."""

from collections.abc import Sequence

from bench.contenders.contender import Contender, Ground
from booking_platform.development.processes import PythonProcess

MODULE = "bench.contenders.faststream_app"
PROCESSES = 2


class FastStream(Contender):
    name = "faststream"
    queue = "bench-faststream"
    share = 0.15
    workloads = ("spread", "hot", "mix")

    def processes(self, ground: Ground) -> Sequence[PythonProcess]:
        env = {"RABBITMQ_URL": ground.rabbitmq_url, "DATABASE_URL": ground.database_url}
        log = ground.folder / f"{self.name}.log"
        return [PythonProcess("-m", MODULE, log_file=log, env=env) for _ in range(PROCESSES)]
