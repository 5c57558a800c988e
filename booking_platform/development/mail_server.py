"""A mail server on 127.0.0.1 that counts what it gets, and fails when it is told to.

For tests and the demo. What it accepts stays in memory.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

# What may happen at a step instead of its answer, besides any line that is given as one.
CLOSE = "close"  # the connection is broken
SILENCE = "silence"  # nothing comes, for as long as the client waits
DRIP = "drip"  # an answer of which a byte comes now and then, and never the last
FLOOD = "flood"  # an answer without end, as fast as it can be read
HOLD = "hold"  # the right answer, but not before ``release``

CONNECT, EHLO, HELO, MAIL, RCPT, DATA, MESSAGE, QUIT = STEPS = (
    "connect",
    "EHLO",
    "HELO",
    "MAIL",
    "RCPT",
    "DATA",
    "message",
    "QUIT",
)

DRIP_SECONDS = 0.05


@dataclass
class Fault:
    step: str
    answer: str
    to: str  # only for this recipient, from RCPT on; "": for all
    left: int  # how often; below 0: always


@dataclass
class MailServer:
    """What came, and what is to go wrong."""

    port: int = 0
    messages: list[tuple[str, bytes]] = field(default_factory=list)  # accepted: recipient, bytes
    encrypted: list[bool] = field(default_factory=list)  # by message
    seen: list[str] = field(default_factory=list)  # the steps that clients got to, in order
    names: list[str] = field(default_factory=list)  # that clients said they have
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def fail(self, step: str, answer: str, *, to: str = "", times: int = -1) -> None:
        """Answer a step with a line of your own, or with one of the faults above."""
        assert step in STEPS
        with self.lock:
            self.faults.append(Fault(step, answer, to, times))

    def release(self) -> None:
        """Release what is held."""
        self.released.set()

    def mend(self) -> None:
        with self.lock:
            self.faults.clear()

    def received(self, recipient: str = "") -> list[EmailMessage]:
        """Return the accepted messages, of one recipient or of all."""
        with self.lock:
            found = [raw for to, raw in self.messages if recipient in ("", to)]
        return [message_from_bytes(raw, policy=default) for raw in found]

    def fault(self, step: str, recipient: str = "") -> str:
        """Return what goes wrong at this step now; empty if nothing does."""
        with self.lock:
            self.seen.append(step)
            for fault in self.faults:
                if fault.step == step and fault.left and fault.to in ("", recipient):
                    fault.left -= 1
                    return fault.answer
        return ""


class _Connection(SMTP):
    """One client's connection: aiosmtpd's, but for the faults."""

    def __init__(self, server: MailServer, **options: Any) -> None:
        super().__init__(self, hostname="mail.example", **options)
        self._faults = server

    async def _suffers(self, step: str, recipient: str = "") -> bool:
        """Do what goes wrong at a step, and return whether anything did."""
        fault = self._faults.fault(step, recipient)
        writer: Any = self._writer
        transport: Any = self.transport
        with suppress(ConnectionError):
            if not fault:
                return False
            if fault == HOLD:
                await asyncio.to_thread(self._faults.released.wait)
                return False
            if fault == CLOSE:
                transport.close()
            elif fault == SILENCE:
                await asyncio.Event().wait()
            elif fault == DRIP:
                while not transport.is_closing():
                    writer.write(b"2")
                    await asyncio.sleep(DRIP_SECONDS)
            elif fault == FLOOD:
                while not transport.is_closing():
                    writer.write(b"250-x\r\n" * 1000)
                    await writer.drain()
            else:
                await self.push(fault.encode("latin-1"))
                if fault.startswith("421") or step == CONNECT:
                    transport.close()
        return True

    async def _handle_client(self) -> None:
        transport: Any = self.transport
        try:
            if not await self._suffers(CONNECT):
                await super()._handle_client()
        finally:
            transport.abort()

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        self._faults.names.append(hostname)
        if not await self._suffers(EHLO):
            await super().smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802
        if not await self._suffers(HELO):
            await super().smtp_HELO(hostname)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        if not await self._suffers(MAIL):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        recipient = (arg or "").partition("<")[2].partition(">")[0]
        if not await self._suffers(RCPT, recipient):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        if not await self._suffers(DATA, self._recipient()):
            await super().smtp_DATA(arg)

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        if not await self._suffers(QUIT):
            await super().smtp_QUIT(arg)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        recipient = self._recipient()
        content = envelope.content
        assert isinstance(content, bytes)
        fault = next((one for one in self._faults.faults if one.step == MESSAGE and one.left), None)
        refused = fault is not None and fault.to in ("", recipient) and fault.answer[0] in "45"
        if not refused:
            # What answers nothing may have taken it all the same: so it does here.
            with self._faults.lock:
                self._faults.messages.append((recipient, content))
                self._faults.encrypted.append(session.ssl is not None)
        if await self._suffers(MESSAGE, recipient):
            # aiosmtpd sends what this gives: the connection is gone, or the answer was sent.
            return ""
        return "250 OK"

    def _recipient(self) -> str:
        envelope: Any = self.envelope
        return envelope.rcpt_tos[0] if envelope and envelope.rcpt_tos else ""

    async def push(self, status: Any) -> None:
        if status:
            await super().push(status)


@contextmanager
def running(**options: Any) -> Iterator[MailServer]:
    """Run a mail server for as long as a block runs; ``options`` are aiosmtpd's."""
    server = MailServer()
    loop = asyncio.new_event_loop()
    ssl_context = options.pop("ssl_context", None)
    listening = loop.run_until_complete(
        loop.create_server(
            lambda: _Connection(server, loop=loop, **options), "127.0.0.1", 0, ssl=ssl_context
        )
    )
    server.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release()
        asyncio.run_coroutine_threadsafe(_end(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(listening: asyncio.Server) -> None:
    """End all conversations."""
    listening.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # in which their connections are closed
