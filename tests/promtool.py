"""Prometheus's promtool for tests: found, or taken out of Debian's package without installing a server."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

KEPT = Path(sys.prefix, "bin", "promtool")  # with the environment's own programs


def promtool() -> str | None:
    """Return the path of promtool, or None where it can't be had."""
    found = shutil.which("promtool")
    if found or not (shutil.which("apt-get") and shutil.which("dpkg")):
        return found
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes come here at once
        if not KEPT.exists():
            with TemporaryDirectory(prefix="bp-promtool-") as folder:
                _extract(Path(folder))
    return str(KEPT) if KEPT.exists() else None


def _extract(folder: Path) -> None:
    if not _download(folder) and os.geteuid() == 0:
        _run(["apt-get", "-q", "update"], folder)
        _download(folder)
    for package in folder.glob("prometheus_*.deb"):
        _run(["dpkg", "-x", str(package), str(folder)], folder)
    if (binary := folder / "usr/bin/promtool").exists():
        shutil.copy(binary, KEPT)


def _download(folder: Path) -> bool:
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    return _run(["apt-get", "-q", *options, "download", "prometheus"], folder)


def _run(command: list[str], folder: Path) -> bool:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, timeout=300)
    return done.returncode == 0
