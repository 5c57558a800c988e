"""PgBouncer for tests, before a PostgreSQL server of theirs."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.servers import START_SECONDS, _install, _unprivileged, free_port, listens, wait_until

BINARY = "/usr/sbin/pgbouncer"


def can_start_pgbouncer() -> bool:
    """Return whether PgBouncer is there; install Debian's package where that may be."""
    return bool(shutil.which("pgbouncer")) or _install("pgbouncer", BINARY)


class PgBouncer:
    """A private PgBouncer before the server of a URL."""

    def __init__(self, database_url: str, *, mode: str, **settings: object) -> None:
        self._database = urlsplit(database_url)
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="bp-pgbouncer-"))
        self.log_file = self._folder / "log"
        self._write(mode, settings)
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, query: str = "") -> str:
        """Return the URL of the same database, by way of this PgBouncer."""
        user = self._database.username or "postgres"
        return f"postgres://{user}@127.0.0.1:{self.port}{self._database.path}?{query}"

    def start(self) -> None:
        binary = shutil.which("pgbouncer") or BINARY
        self._server = subprocess.Popen(
            [*_unprivileged(), binary, str(self._folder / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: listens(self.port), seconds=START_SECONDS, what="PgBouncer answers")

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, mode: str, settings: dict[str, object]) -> None:
        host, port = self._database.hostname or "127.0.0.1", self._database.port or 5432
        user, password = self._database.username or "postgres", self._database.password or ""
        users = self._folder / "users"
        users.write_text(f'"{user}" "{unquote(password)}"\n')
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            "logfile": self.log_file,
            "pool_mode": mode,
        } | settings
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        if os.geteuid() == 0:
            postgres = pwd.getpwnam("postgres")
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, postgres.pw_uid, postgres.pw_gid)
