"""PostgreSQL and RabbitMQ for tests, demos and benchmarks: found, or started from binaries.

``python -m tests.servers COMMAND …`` runs a command with ``TEST_DATABASE_URL`` and
``TEST_RABBITMQ_URL`` set to servers that it may use freely: those that the environment names
(``DATABASE_URL``, ``RABBITMQ_URL``), else those on localhost's standard ports, else private ones,
started from installed binaries or, for root on Debian, from its packages. What can't be had stays
unset. Whatever was started or created is gone afterwards.

After ``--forgetful`` a private PostgreSQL waits for no disk: good for tests, and not for measuring.
"""

import atexit
import fcntl
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

from tests.rabbitmqctl import control_broker as control_broker  # noqa: PLC0414  # to be had here too
from tests.rabbitmqctl import rabbitmqctl as rabbitmqctl  # noqa: PLC0414
from tests.rabbitmqctl import remove_virtual_hosts

POSTGRES_PORT, RABBITMQ_PORT = 5432, 5672
# Lost is what was committed only if the machine fails, and not if the server is killed.
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
START_SECONDS = 180  # beside the other processes of a parallel run
PATIENCE = 120  # seconds for what is expected: a loaded machine is slow, and not wrong


def free_port() -> int:
    """Return a port that is free, and none that Linux gives to a client before a server takes it."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], object], *, seconds: float = PATIENCE, what: str) -> None:
    """Wait for a condition, with a deadline.

    Raises:
        TimeoutError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def _unprivileged() -> list[str]:
    """Return the prefix that runs a command as a user that PostgreSQL accepts: not root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class PostgreSQL:
    """A private server that a test may stop, kill and start again."""

    def __init__(self, **settings: str) -> None:
        self._settings = {"listen_addresses": "127.0.0.1"} | settings
        [self._bin, *_] = sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True) or [
            str(Path(shutil.which("postgres") or "").parent)
        ]
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="bp-postgresql-"))
        if os.geteuid() == 0:
            postgres = pwd.getpwnam("postgres")
            os.chown(self._folder, postgres.pw_uid, postgres.pw_gid)
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command = [f"{self._bin}/postgres", "-D", self._data, "-p", self.port, "-k", self._folder]
        options = [part for name in self._settings.items() for part in ("-c", "=".join(name))]
        self._server = subprocess.Popen(
            [*_unprivileged(), *map(str, command), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._ready, seconds=START_SECONDS, what="PostgreSQL answers")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions first, SIGQUIT crashes it."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait()
            self._server = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> bool:
        command = [f"{self._bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: object) -> None:
        command = [*_unprivileged(), f"{self._bin}/{program}", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)


class RabbitMQ:
    """A private broker: alone, or one more node of the cluster of another."""

    def __init__(self, cluster_of: "RabbitMQ | None" = None) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="bp-rabbitmq-"))
        self.node = f"bp-{os.getpid()}-{self.port}@localhost"
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text("A" * 20)
        cookie.chmod(0o400)
        configuration = f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
        if cluster_of is not None:
            configuration += (
                "cluster_formation.peer_discovery_backend = classic_config\n"
                f"cluster_formation.classic_config.nodes.1 = {cluster_of.node}\n"
                f"cluster_formation.classic_config.nodes.2 = {self.node}\n"
            )
        (self._folder / "rabbitmq.conf").write_text(configuration)
        (self._folder / "enabled_plugins").write_text("[].\n")
        self._environment = os.environ | {
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_DIST_PORT": str(free_port()),
        }
        self._server = subprocess.Popen(
            [_rabbitmq_program("rabbitmq-server")],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: listens(self.port), seconds=START_SECONDS, what="RabbitMQ answers")

    def kill(self) -> None:
        """End the server as a power failure would."""
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def control_command(self) -> list[str]:
        """The command that controls this broker; what it is to do follows."""
        home = f"HOME={self._folder}"  # where the broker keeps its cookie
        return ["env", home, _rabbitmq_program("rabbitmqctl"), "-q", "-n", self.node]

    def control(self, *arguments: str) -> None:
        """Run ``rabbitmqctl`` on this broker."""
        command = [*self.control_command, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=START_SECONDS)

    def remove(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGTERM)
        self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _rabbitmq_program(name: str) -> str:
    direct = f"/usr/lib/rabbitmq/bin/{name}"  # Debian's wrapper in PATH changes the user
    return direct if os.path.exists(direct) else name


def remove_databases(url: str, prefix: str) -> None:
    """Drop the databases whose names begin so, whoever is connected."""
    import psycopg

    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    with psycopg.connect(url, autocommit=True) as server:
        for [name] in server.execute(query, [prefix]).fetchall():
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _install(package: str, binaries: str) -> bool:
    """Return whether the binaries are there; install Debian's package first where that may be."""
    if glob(binaries):
        return True
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    with open(tempfile.gettempdir() + "/booking-platform-apt", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of a parallel run want it, too
        return bool(glob(binaries)) or _apt_get(package, binaries)


def _apt_get(package: str, binaries: str) -> bool:
    print(f"Installing Debian's {package} …", file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
        subprocess.run(["apt-get", "-q", *command], env=environment, check=False, stdout=sys.stderr)
    return bool(glob(binaries))


def can_start_rabbitmq() -> bool:
    return bool(shutil.which(_rabbitmq_program("rabbitmq-server")))


def can_start_postgresql() -> bool:
    return bool(glob("/usr/lib/postgresql/*/bin/initdb") or shutil.which("initdb"))


def database_url(cleanup: ExitStack, **settings: str) -> str | None:
    """Return the URL of a PostgreSQL server on which databases may be created.

    One that is started for it has these settings.
    """
    if (named := os.environ.get("DATABASE_URL", "")).startswith("postgres"):
        return named
    standard = f"postgres://postgres@127.0.0.1:{POSTGRES_PORT}/postgres"
    if listens(POSTGRES_PORT) and _accepts(standard):
        return standard
    if _install("postgresql", "/usr/lib/postgresql/*/bin/initdb"):
        server = PostgreSQL(**settings)
        cleanup.callback(server.remove)
        return server.url()
    return None


def _accepts(url: str) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=3) as connection:
        row = connection.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")
        return row.fetchone() == (True,)
    return False


def rabbitmq_url(cleanup: ExitStack) -> str | None:
    """Return the URL of a RabbitMQ virtual host of our own, or the one that the environment names."""
    if (named := os.environ.get("RABBITMQ_URL", "")).startswith("amqp"):
        return named
    if listens(RABBITMQ_PORT):
        vhost = f"booking-test-{os.getpid()}"
        if control_broker("add_vhost", vhost):
            cleanup.callback(remove_virtual_hosts, vhost)  # with those of a parallel run
            if control_broker("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*"):
                return f"amqp://guest:guest@127.0.0.1:{RABBITMQ_PORT}/{vhost}"
    if _install("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server"):
        broker = RabbitMQ()
        cleanup.callback(broker.remove)
        os.environ["TEST_RABBITMQCTL"] = shlex.join(broker.control_command)
        return broker.url
    return None


def main(command: list[str]) -> int:
    """Run a command with servers at hand; return its exit status."""
    settings = FORGETFUL if command[0] == "--forgetful" else {}
    command = command[bool(settings) :]
    with ExitStack() as cleanup:
        atexit.register(cleanup.close)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        found = {
            "TEST_DATABASE_URL": database_url(cleanup, **settings),
            "TEST_RABBITMQ_URL": rabbitmq_url(cleanup),
        }
        for name, url in found.items():
            if url is None:
                print(f"No server for {name}: the tests that need it are left out.")
            else:
                parts = urlsplit(url)
                print(f"{name}: {parts.scheme} at {parts.hostname}:{parts.port}{parts.path}")
        environment = os.environ | {name: url for name, url in found.items() if url}
        environment["TEST_RUN"] = str(os.getpid())
        if url := found["TEST_DATABASE_URL"]:
            cleanup.callback(remove_databases, url, f"test_booking_{os.getpid()}_")
        return run(command, environment)


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command and return its exit status; where this process is told to end, so is the command."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
