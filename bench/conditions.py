"""Under what conditions figures came about: machine, servers, versions, and what else it had to do."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.broker import channel
from bench.contenders.contender import Ground

LIBRARIES = (
    "Django", "celery", "kombu", "amqp", "psycopg", "msgspec",
    "faststream", "aio-pika", "SQLAlchemy", "asyncpg",
)  # fmt: skip
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
LESSON = Path(__file__).with_name("lesson") / "package-lock.json"

Conditions = dict[str, Any]


def found(ground: Ground) -> Conditions:
    """Return the conditions at the beginning."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "describe", "--always", "--dirty"),
        "cores": os.cpu_count(),
        "cpu": _first("/proc/cpuinfo", "model name"),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "PostgreSQL": _shown(ground, "server_version"),
        **{f"PostgreSQL {name}": _shown(ground, name) for name in SETTINGS},
        "RabbitMQ": _rabbitmq(ground),
        "Python": platform.python_version(),
        "Node.js": _said("node", "--version"),
        **{name: version(name) for name in LIBRARIES},
        **_of_the_lesson(),
        "load at the beginning": [round(each, 2) for each in os.getloadavg()],
    }


def ended() -> Conditions:
    """Return what is known of them at the end."""
    return {
        "load at the end": [round(each, 2) for each in os.getloadavg()],
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _shown(ground: Ground, name: str) -> str:
    row = ground.connection.execute(f"SHOW {name}").fetchone()
    return str(row[0]) if row else ""


def _rabbitmq(ground: Ground) -> str:
    with channel(ground.rabbitmq_url) as opened:
        return str(opened.connection.server_properties["version"])


def _of_the_lesson() -> Conditions:
    packages = json.loads(LESSON.read_text())["packages"]
    names = ("amqplib", "sequelize", "pg")
    return {name: packages[f"node_modules/{name}"]["version"] for name in names}


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return "not there"
    return done.stdout.strip()


def _first(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
