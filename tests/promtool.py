"""Prometheus's promtool for tests: found, or taken out of Debian's package without installing a server."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


@cache
def promtool() -> str | None:
    """Return the path of promtool, or None where it can't be had."""
    found = shutil.which("promtool")
    if found or not (shutil.which("apt-get") and shutil.which("dpkg")):
        return found
    folder = Path(mkdtemp(prefix="bp-promtool-"))
    if not _download(folder) and os.geteuid() == 0:
        _run(["apt-get", "-q", "update"], folder)
        _download(folder)
    for package in folder.glob("prometheus_*.deb"):
        _run(["dpkg", "-x", str(package), str(folder)], folder)
    binary = folder / "usr/bin/promtool"
    return str(binary) if binary.exists() else None


def _download(folder: Path) -> bool:
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    return _run(["apt-get", "-q", *options, "download", "prometheus"], folder)


def _run(command: list[str], folder: Path) -> bool:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, timeout=300)
    return done.returncode == 0
