"""The sandbox's HTTP side: Stripe's API under ``/v1``, the control under ``/_sandbox``."""

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog

from booking_platform.development.stripe_sandbox.account import Record
from booking_platform.development.stripe_sandbox.api import Answer, Dropped, Exchange
from booking_platform.development.stripe_sandbox.control import control
from booking_platform.development.stripe_sandbox.sandbox import Sandbox
from booking_platform.development.stripe_sandbox.webhooks import API_VERSION

log = structlog.get_logger(__name__)

ADDRESS = "127.0.0.1"  # and no other: anyone who reaches it may do as they like
NOTICE_SECONDS = 0.05  # how long the server may take to notice that it is told to stop
STOP_SECONDS = 5


@contextmanager
def running(
    port: int = 0,
    webhook_url: str = "",
    webhook_secret: str = "",
    latency: float = 0.0,
    webhook_version: str = API_VERSION,
) -> Iterator[Sandbox]:
    """Run a sandbox on 127.0.0.1 for as long as a block runs; port 0 takes a free one.

    Webhooks are those of an API version: before 2024-10-28 ``charge.refund.updated`` is what tells
    of a refund's changes. Each answer waits for ``latency`` seconds, with the key in flight as it is while Stripe works.

    Raises:
        OSError: the port is in use.
        ValueError: an argument can't be used.
    """
    with closing(
        Sandbox(
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            webhook_version=webhook_version,
            latency=latency,
        )
    ) as sandbox:
        server = Server(port, sandbox)
        sandbox.url = f"http://{ADDRESS}:{server.server_port}"
        thread = threading.Thread(
            target=server.serve_forever, args=(NOTICE_SECONDS,), daemon=True, name="stripe-sandbox"
        )
        thread.start()
        try:
            yield sandbox
        finally:
            sandbox.account.end()
            server.stop()
            thread.join()


class Server(ThreadingHTTPServer):
    """One thread a connection; ``stop`` ends them all."""

    daemon_threads = True
    request_queue_size = 256  # clients that connect at once

    def __init__(self, port: int, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._connections: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__((ADDRESS, port), Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which may ask a DNS server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def stop(self) -> None:
        """Take no more connections, and end those that are there."""
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):  # the client was first
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, STOP_SECONDS)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._connections.discard(request)
            super().shutdown_request(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away; anything else is a bug of the sandbox."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            log.error("The Stripe sandbox failed", exc_info=error)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, writes the answer, or closes the connection without one."""

    server: Server
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith("/_sandbox"):
            status, said = control(self.server.sandbox, self.command, path, body)
            headers = {"Content-Type": "application/json"}
            self._write(Answer(status, json.dumps(said).encode(), headers))
        else:
            key = self.headers.get("Idempotency-Key")
            self._answer(Record(self.command, path, url.query, key, body))

    do_POST = do_DELETE = do_GET  # noqa: N815  (names of http.server)

    def log_message(self, *args: Any) -> None:
        """Keep a terminal clean: requests are kept in ``sandbox.requests``."""

    def _answer(self, record: Record) -> None:
        """Answer a request to Stripe's API, unless a fault drops it or the client gave up."""
        account = self.server.sandbox.account
        exchange = Exchange(account, record, self.headers.get("Authorization"))
        try:
            answer = exchange.answer()
        except Dropped:
            self.close_connection = True
            return
        if self._left():
            self.close_connection = True
            return
        exchange.sent(answer.status)  # first: whoever has the answer may look at once
        if not self._write(answer):
            exchange.sent(None)

    def _left(self) -> bool:
        """Return whether the client gave up: clients send nothing while they wait."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def _write(self, answer: Answer) -> bool:
        """Write an answer, and return whether the client was there."""
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            whole = len(answer.body)
            self.wfile.write(answer.body[: whole // 2 if answer.truncated else whole])
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True
            return False
        self.close_connection = self.close_connection or answer.truncated
        return True
