"""A TCP proxy whose connections can freeze, as when a cable is pulled."""

import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards connections to a server, until they are frozen: open at both ends, and silent."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._frozen: set[int] = set()
        self._sockets: list[socket.socket] = []
        self._count = 0
        self._closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closed = True
        for each in (self._listener, *self._sockets):
            each.close()

    def freeze(self) -> None:
        """Forward nothing more on the connections that are open; new ones work."""
        self._frozen |= set(range(self._count))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            self._sockets.append(server)
            if self._closed:  # meanwhile
                client.close()
                server.close()
                return
            for ends in ((client, server), (server, client)):
                arguments = (self._count, *ends)
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()
            self._count += 1

    def _forward(self, number: int, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if number in self._frozen:
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
