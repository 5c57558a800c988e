"""A relay before PostgreSQL that changes what goes through, as something between might."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Meddler:
    """Relays one connection after the other, and puts other bytes for some, as many as these."""

    def __init__(self, database_url: str, instead_of: bytes, put: bytes) -> None:
        assert len(instead_of) == len(put)  # messages say their length
        self._change = (instead_of, put)
        self._target = urlsplit(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        at = f"{self._target.username}:{self._target.password or ''}@127.0.0.1"
        port = self._listener.getsockname()[1]
        self.url = self._target._replace(netloc=f"{at}:{port}").geturl()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Meddler":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                address = (self._target.hostname or "127.0.0.1", self._target.port or 5432)
                server = socket.create_connection(address)
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data.replace(*self._change))
            sink.shutdown(socket.SHUT_WR)
