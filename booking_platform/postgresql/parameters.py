"""The parameters that each session with PostgreSQL has, whoever stands between.

A start-up parameter is no place for them: PgBouncer refuses ``options`` or, told to, ignores it.
Statements reach the server through any pooler.
"""

import re
from collections.abc import Iterator, Mapping

from psycopg import sql

# A frozen process must not hold up the others: its locks, its statements and its open
# transaction all end by themselves, in milliseconds.
LIMITS = {
    "lock_timeout": "10000",
    "statement_timeout": "30000",
    "idle_in_transaction_session_timeout": "30000",
}

# Those of the contexts `backend` and `superuser-backend` in pg_settings: no statement can set them.
_ONLY_AT_START = {
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "log_connections",
    "log_disconnections",
    "post_auth_delay",
}


def from_options(options: str) -> tuple[dict[str, str], str]:
    """Return the parameters that libpq's ``options`` set, and the rest of ``options``.

    ``-c name=value``, ``-cname=value`` and ``--name=value`` are parameters, with words and
    backslashes as PostgreSQL reads them. The rest can only be sent when a connection starts.
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS
    """
    parameters: dict[str, str] = {}
    rest: list[str] = []
    for assignment, words in _assignments(options):
        name, is_one, value = re.sub(r"\\(.)", r"\1", assignment, flags=re.DOTALL).partition("=")
        name = name.replace("-", "_").lower()
        if is_one and name not in _ONLY_AT_START:
            parameters[name] = value
        else:
            rest.append(words)
    return parameters, " ".join(rest)


def _assignments(options: str) -> Iterator[tuple[str, str]]:
    """Yield each assignment of ``options``, empty for what is none, and the words that it is of."""
    words = iter(re.findall(r"(?:\\.|[^\s\\])+", options, flags=re.DOTALL))
    for word in words:
        if word == "-c":
            following = next(words, "")
            yield following, f"{word} {following}"
        elif word.startswith(("-c", "--")):
            yield word[2:], word
        else:
            yield "", word


def begin(parameters: Mapping[str, str], *, isolation_level: str = "") -> sql.Composable:
    """Return the one message that begins a transaction with these parameters."""
    start = f"BEGIN ISOLATION LEVEL {isolation_level}" if isolation_level else "BEGIN"
    return sql.SQL("; ").join([sql.SQL(start), *_set_locally(parameters)])


def set_locally(parameters: Mapping[str, str]) -> sql.Composable:
    """Return the message that gives the transaction under way these parameters."""
    return sql.SQL("; ").join(_set_locally(parameters))


def _set_locally(parameters: Mapping[str, str]) -> Iterator[sql.Composable]:
    # SET takes 10 µs less than set_config, but it takes a list, as search_path is, for one name.
    for name, value in parameters.items():
        statement = "SET LOCAL {} = {}" if value.isdigit() else "SELECT set_config({}, {}, true)"
        named = sql.Identifier(name) if value.isdigit() else sql.Literal(name)
        yield sql.SQL(statement).format(named, sql.Literal(value))


def set_for_session(parameters: Mapping[str, str]) -> sql.Composable:
    """Return the statement that gives the session these parameters."""
    each = (
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in parameters.items()
    )
    return sql.SQL("SELECT ") + sql.SQL(", ").join(each)


def ask(parameters: Mapping[str, str]) -> sql.Composable:
    """Return the statement that asks, within a transaction, what the server made of the parameters.

    It has a row for each: the server process, the name, the value in effect, and the value as it
    was to be, both in the server's own spelling.
    """
    wanted = (
        sql.SQL("({}, {})").format(sql.Literal(name), sql.Literal(value))
        for name, value in parameters.items()
    )
    return sql.SQL(
        "SELECT pg_backend_pid(), name, current_setting(name), set_config(name, value, true) "
        "FROM (VALUES {}) AS wanted (name, value)"
    ).format(sql.SQL(", ").join(wanted))
