"""The sandbox's HTTP side: Stripe's API under ``/v1``, the control under ``/_sandbox``."""

import json
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import structlog

from payments.sandbox.api import Answer, Record
from payments.sandbox.control import control

if TYPE_CHECKING:
    from payments.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

ADDRESS = "127.0.0.1"  # and no other: anyone who reaches it may do as they like
NOTICE_SECONDS = 0.05  # how long the server may take to notice that it is told to stop
STOP_SECONDS = 5


class Server(ThreadingHTTPServer):
    """One thread a connection; ``stop`` ends them all."""

    daemon_threads = True
    request_queue_size = 256  # clients that connect at once

    def __init__(self, port: int, sandbox: "Sandbox") -> None:
        self.sandbox = sandbox
        self._connections: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__((ADDRESS, port), Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which may ask a DNS server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def serve(self) -> None:
        self.serve_forever(NOTICE_SECONDS)

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
        """Say nothing of clients that went away; anything else is a bug of the sandbox."""
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
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *args: Any) -> None:
        """Keep a terminal clean: requests are kept in ``sandbox.requests``."""

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith("/_sandbox"):
            status, said = control(self.server.sandbox, self.command, path, body)
            headers = {"Content-Type": "application/json"}
            self._write(Answer(status, json.dumps(said).encode(), headers))
            return
        key = self.headers.get("Idempotency-Key")
        record = Record(self.command, path, url.query, key, body)
        authorization = self.headers.get("Authorization")
        answer, api = self.server.sandbox.answer(record, authorization)
        if answer is None or self._left():
            self.close_connection = True
            return
        api.answered(record, answer.status)  # first: whoever has the answer may look at once
        if not self._write(answer):
            api.answered(record, None)

    def _left(self) -> bool:
        """Tell whether the client gave up: it sends nothing while it waits for an answer."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def _write(self, answer: Answer) -> bool:
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(
                answer.body[: len(answer.body) // 2] if answer.truncated else answer.body
            )
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True
            return False
        self.close_connection = self.close_connection or answer.truncated
        return True
