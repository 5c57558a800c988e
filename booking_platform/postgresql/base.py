"""The backend itself, under the name by which Django looks for it.

Every transaction begins with the limits of its own, in the message that begins it. So they hold
behind a pooler in transaction mode as well, where what a session is told belongs to nobody. Nothing
else is left in the session there: no prepared statement, no cursor, no role.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog
from django.db import Error
from django.db.backends.postgresql import base
from django.db.backends.utils import debug_transaction
from psycopg.pq import TransactionStatus

from booking_platform.postgresql import arrays, parameters

log = structlog.get_logger(__name__)

_IN_NO_TRANSACTION = "25001"  # what CREATE INDEX CONCURRENTLY, VACUUM and CREATE DATABASE ask for


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection whose transactions and statements are bounded, whoever stands between.

    ``OPTIONS["parameters"]`` names the parameters. They are set for the session, where the session
    is ours alone, and in the message that begins each transaction. Behind a pooler, a statement
    outside transactions has one of its own.
    """

    pooled = False  # whether a pooler stands between; known once connected

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin_message = self._set_message = b""

    # --- Connecting --------------------------------------------------------------------------

    @property
    def _parameters(self) -> Mapping[str, str]:
        options = self.settings_dict["OPTIONS"]
        named: Mapping[str, str] = options.get("parameters", parameters.LIMITS)
        role = options.get("assume_role")
        return {**named, "role": role} if role else named

    def get_connection_params(self) -> dict[str, Any]:
        known = super().get_connection_params()
        known.pop("parameters", None)
        return known

    def init_connection_state(self) -> None:
        """Prepare a new connection; drop the connection where that fails, rather than use it so."""
        try:
            self._meet()
            arrays.register(self.connection)
            super().init_connection_state()
        except BaseException:
            self.connection.close()
            self.connection = None
            raise

    def _meet(self) -> None:
        """Find out who stands between, and hold the parameters against what the server says."""
        level = self.connection.isolation_level
        begin = parameters.begin(
            self._parameters, isolation_level=level.name.replace("_", " ") if level else ""
        )
        self._begin_message = begin.as_bytes(self.connection)
        self._set_message = parameters.set_locally(self._parameters).as_bytes(self.connection)
        question = parameters.ask(self._parameters).as_bytes(self.connection)
        answers = self._converse(b"; ".join((self._begin_message, question, b"COMMIT")))
        # PgBouncer and its like answer for many servers, under a process number of their own.
        self._share(pooled=answers[0][0] != self.connection.info.backend_pid)
        for _, name, in_effect, wanted in answers:
            if in_effect != wanted:
                log.error(
                    "The database, or what stands before it, does not keep a parameter that each "
                    "transaction sets: it may wait or run for longer than it should",
                    parameter=name,
                    wanted=wanted,
                    in_effect=in_effect,
                )

    def _share(self, *, pooled: bool) -> None:
        """Leave nothing in a session that others have next; set up one that is ours alone."""
        self.pooled = pooled
        self.execute_wrappers = [each for each in self.execute_wrappers if each != self._bounded]
        if pooled:
            self.connection.prepare_threshold = None
            self.execute_wrappers.insert(0, self._bounded)
        else:
            self._converse(parameters.set_for_session(self._parameters).as_bytes(self.connection))

    def _converse(self, message: bytes) -> list[tuple[Any, ...]]:
        """Send statements in one message; return the rows of the one that has any."""
        with self._refusals(), self.connection.cursor() as cursor:
            cursor.execute(message, prepare=False)
            rows: list[tuple[Any, ...]] = []
            for result in cursor.results():
                rows = result.fetchall() if result.description else rows
            return rows

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise what refuses the parameters as an operational error: no statement is to blame."""
        try:
            yield
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise psycopg.OperationalError(
                f"The database refuses the parameters of its sessions: {error}"
            ) from error

    def _configure_role(self, connection: Any) -> bool:
        """Assume the role for the session, unless others have the session next."""
        assumes: Callable[[Any], bool] = super()._configure_role  # type: ignore[misc]  # no stub has it
        return not self.pooled and assumes(connection)

    # --- Transactions ------------------------------------------------------------------------

    def _start_transaction_under_autocommit(self) -> None:
        """Begin a transaction with its limits, in one round trip, as psycopg's own BEGIN takes.

        Django calls this for ``atomic``. For psycopg the connection stays in autocommit mode, in
        which it begins no transaction itself, and ends the one that there is.
        """
        with debug_transaction(self, "BEGIN"), self.wrap_database_errors:
            self._begin()

    def _begin(self) -> None:
        try:
            with self._refusals():
                self.connection.execute(self._begin_message, prepare=False)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        with suppress(psycopg.Error):
            self.connection.rollback()

    def _bounded(
        self, execute: Callable[..., Any], statement: Any, params: Any, many: bool, context: Any
    ) -> Any:
        """Execute a statement; outside transactions, in one of its own, which has limits."""
        if self.connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return execute(statement, params, many, context)
        if not self.connection.autocommit:  # psycopg begins, and whoever turned it off ends
            with self.wrap_database_errors, self._refusals():
                self.connection.execute(self._set_message, prepare=False)
            return execute(statement, params, many, context)
        with self.wrap_database_errors:
            self._begin()
        try:
            result = execute(statement, params, many, context)
        except BaseException as error:
            self._abandon()
            if isinstance(error, Error) and _state(error) == _IN_NO_TRANSACTION:
                return execute(statement, params, many, context)
            raise
        with self.wrap_database_errors:
            self.connection.commit()
        return result

    # --- Cursors -----------------------------------------------------------------------------

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        if name:  # Django asks psycopg, which is in autocommit mode always
            cursor._withhold = self.autocommit
        return cursor

    def chunked_cursor(self) -> Any:
        """Return a cursor on the server, where it lasts: not behind a pooler outside transactions."""
        self.ensure_connection()
        return self.cursor() if self.pooled and self.autocommit else super().chunked_cursor()


def _state(error: Error) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
