"""The suite on other versions: ``make matrix``, for root on Linux.

Each release of Debian brings Python, PostgreSQL, RabbitMQ and PgBouncer of its time. ``debootstrap``
installs it once into a folder of the cache (remove that folder to have it made anew); the locked
requirements are installed there with its own Python. A run copies the checkout into a temporary folder
and runs ``tests/run`` in the release: in namespaces of its own, so that its servers have all ports for
themselves, and its processes and mounts are gone when it ends, whatever ends it.

    python -m tests.matrix ARGUMENTS OF PYTEST …       RELEASES="trixie forky" names others
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent
RELEASES = "trixie forky"  # `make test` has run on the release of this machine
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES = "ca-certificates,iproute2,pgbouncer,postgresql,python3-venv,rabbitmq-server,tzdata"
SCRIPTS = Path("/usr/share/debootstrap/scripts")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # with that of a proxy, where there is one

NAMESPACES = ("--mount", "--pid", "--ipc", "--fork", "--kill-child")
PASSED_ON = re.compile(r"(?i)(https?|no)_proxy|PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|PROXY)|TERM")

ENTER = """
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/dev/shm"
mount --bind "$FOLDER/tmp" "$ROOT/tmp"
mount --bind "$FOLDER/checkout" "$ROOT/srv"
mount --bind /etc/resolv.conf "$ROOT/etc/resolv.conf"
test ! -e "$CERTIFICATES" || mount --bind "$CERTIFICATES" "$ROOT$CERTIFICATES"
exec chroot "$ROOT" sh -euc "$0" sh "$@"
"""
INSTALL = """
test ! -e "/opt/tests/$1" || exit 0
rm -rf /opt/tests
python3 -m venv /opt/tests
pip install --quiet --disable-pip-version-check --require-hashes -r /srv/requirements-dev.txt
touch "/opt/tests/$1"
"""
# The shell stays, as the parent of what a killed process leaves: it takes note of the deaths.
TEST = """
ip link set lo up
cd /srv
python -u -m tests.servers tests/run "$@" || exit
"""
VERSIONS = """
python3 -V
dpkg-query -W -f '${Package} ${Version}\\n' pgbouncer rabbitmq-server
/usr/lib/postgresql/*/bin/postgres --version
"""

COUNTS = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in \d[\d.]*s", re.MULTILINE)
SHOWN = re.compile(r"\d+ (?:passed|failed|errors?)\b")


class Row(NamedTuple):
    """What is said of a release at the end."""

    release: str
    versions: list[str]
    counts: list[str]  # on the servers; on SQLite and the embedded broker
    good: bool


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "booking-platform" / "matrix"


def obstacle() -> str:
    """Return why nothing can run here, in a sentence; empty if it can."""
    if sys.platform != "linux":
        return "make matrix needs Linux, since it runs releases of Debian in namespaces."
    if os.geteuid() != 0:
        return "make matrix needs root, since it mounts and changes its root: try sudo make matrix."
    for program, package in {
        "debootstrap": "debootstrap", "unshare": "util-linux", "setpriv": "util-linux", "git": "git"
    }.items():  # fmt: skip
        if not shutil.which(program):
            return f"make matrix needs {program}: install the package {package}."
    return ""


def namespaces(*more: str) -> list[str]:
    """Return the prefix of a command whose processes and mounts end with it, and it with us."""
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, *more]


def follow(command: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command that ``namespaces`` begins; show what it writes, and return status and text."""
    written = []
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                written.append(line)
        finally:  # the first process of a namespace takes all others with it
            for first in psutil.Process(process.pid).children():
                first.kill()
    return process.returncode, "".join(written)


def environment(root: Path, folder: Path) -> dict[str, str]:
    """Return what the processes in a release see of this one's environment."""
    passed = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    return passed | {
        "ROOT": str(root),
        "FOLDER": str(folder),
        "CERTIFICATES": CERTIFICATES,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/opt/tests/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        "CI": "true",  # both servers must be there
        "WITHOUT_NODE": "true",  # what the releases differ in is nothing to programs in Node.js
    }


def enter(
    root: Path, folder: Path, script: str, *arguments: str, alone: bool = False
) -> tuple[int, str]:
    """Run a shell script in a release; ``alone`` has a network of its own, with nobody in it."""
    command = [*namespaces(*["--net"] * alone), "sh", "-euc", ENTER, script, *arguments]
    return follow(command, environment(root, folder))


@contextmanager
def installed(release: str) -> Iterator[Path]:
    """Return the folder of a release, for this run alone; install the release where it is new."""
    root = cache() / release
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            begun = root.with_suffix(".begun")
            shutil.rmtree(begun, ignore_errors=True)
            known = SCRIPTS / (release if (SCRIPTS / release).exists() else "sid")
            options = ["--variant=minbase", f"--include={PACKAGES}"]
            bootstrap = ["debootstrap", *options, release, str(begun), MIRROR, str(known)]
            status, _ = follow([*namespaces("--mount-proc"), *bootstrap], dict(os.environ))
            if status:
                raise SystemExit(f"debootstrap could not install {release} from {MIRROR}.")
            begun.rename(root)
        yield root


def copy_checkout(folder: Path) -> None:
    """Copy the checkout, as git knows it, into a folder: what is edited meanwhile is not tested."""
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    for path in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / path).is_file():  # it may be deleted, and not committed yet
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / path, folder / path)


@contextmanager
def temporary() -> Iterator[Path]:
    """Open a temporary folder that every user may read."""
    with tempfile.TemporaryDirectory(prefix="bp-matrix-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        yield folder


def tested(release: str, source: Path, arguments: Sequence[str]) -> Row:
    """Run the tests on a copy of the source in a release."""
    print(f"== {release}", flush=True)
    lock = hashlib.sha256((source / "requirements-dev.txt").read_bytes()).hexdigest()
    with installed(release) as root, temporary() as folder:
        shutil.copytree(source, folder / "checkout")
        found = versions(root)
        status, written = enter(root, folder, INSTALL, lock)
        if status == 0:
            status, written = enter(root, folder, TEST, *arguments, alone=True)
        return Row(release, found, counts(written), status == 0)


def versions(root: Path) -> list[str]:
    """Return the versions of Python, PgBouncer, RabbitMQ and PostgreSQL in a release."""
    command = ["chroot", str(root), "sh", "-euc", VERSIONS]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r"^\D*(\d+(?:\.\d+)+)", said, re.MULTILINE)


def counts(written: str) -> list[str]:
    """Return what each run of pytest has counted, from what it wrote."""
    return [", ".join(SHOWN.findall(each)) or each for each in COUNTS.findall(written)]


def table(rows: Sequence[Row]) -> str:
    head = ("release", "Python", "PgBouncer", "RabbitMQ", "PostgreSQL", "", "servers; embedded")
    lines = [head] + [
        (row.release, *row.versions, "passed" if row.good else "FAILED", "; ".join(row.counts))
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Run the tests in each release in turn; return 0 if all have passed in all of them."""
    if why := obstacle():
        raise SystemExit(why)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    releases = os.environ.get("RELEASES", RELEASES).split()
    with temporary() as folder:
        copy_checkout(folder / "checkout")
        rows = [tested(release, folder / "checkout", arguments) for release in releases]
    print(f"\n{table(rows)}")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
