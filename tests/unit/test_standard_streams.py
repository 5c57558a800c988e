"""What a worker prints where nothing can be written."""

import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from booking_platform import standard_streams
from booking_platform.standard_streams import Descriptor, Dropping
from tests.telemetry import full_pipe


@pytest.fixture
def full() -> Iterator[int]:
    """A descriptor of a disk that is full."""
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


class TestWhatCanNotBeWritten:
    def test_it_is_dropped(self, full: int) -> None:
        stream = standard_streams.text(Dropping(full))
        print("lost" * 10_000, "\ud800", file=stream, flush=True)
        stream.flush()
        assert (stream.fileno(), stream.isatty()) == (full, False)

    def test_negative_control_an_ordinary_stream_raises(self, full: int) -> None:
        stream = io.FileIO(full, "w", closefd=False)
        with pytest.raises(OSError, match="No space left"):
            stream.write(b"lost")

    def test_what_can_be_written_is(self) -> None:
        reader, writer = os.pipe()
        print("said “so”", file=standard_streams.text(Dropping(writer), "ascii"), flush=True)
        os.close(writer)
        with os.fdopen(reader) as said:
            assert said.read() == "said \\u201cso\\u201d\n"


class TestAnotherStream:
    def test_a_log_that_is_rotated_is_followed(self, tmp_path: Path) -> None:
        with (tmp_path / "log").open("wb") as log, (tmp_path / "new").open("wb") as new:
            descriptor = Descriptor(log.fileno())
            descriptor.write(b"before")
            os.dup2(new.fileno(), log.fileno())
            descriptor.write(b"after")
        assert (tmp_path / "log").read_bytes() == b"before"
        assert (tmp_path / "new").read_bytes() == b"after"

    def test_a_file_that_gets_its_number_is_left_alone(self, tmp_path: Path) -> None:
        with (tmp_path / "log").open("wb") as log, (tmp_path / "data").open("wb") as data:
            descriptor = Descriptor(log.fileno())
            os.dup2(data.fileno(), descriptor._fd)  # somebody closed all, and opened a file
            number = descriptor._fd
            descriptor.write(b"a line")
            assert os.path.samestat(os.fstat(number), os.fstat(data.fileno()))
            os.close(number)
        assert (tmp_path / "log").read_bytes() == b"a line"
        assert (tmp_path / "data").read_bytes() == b""


class TestAReaderWhoDoesNotRead:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        """A pipe that is full."""
        with full_pipe() as ends:
            yield ends

    def test_it_is_waited_for_once(self, pipe: tuple[int, int]) -> None:
        reader, writer = pipe
        descriptor = Descriptor(writer, patience=0.2)
        begun = time.monotonic()
        for _ in range(200):
            with pytest.raises(BlockingIOError):
                descriptor.write(b"lost")
        assert 0.2 <= time.monotonic() - begun < 20  # and not 40
        os.read(reader, 100_000)
        assert descriptor.write(b"read") == 4
        assert os.read(reader, 100_000) == b"read"

    def test_one_who_is_slow_gets_it_all(self, pipe: tuple[int, int]) -> None:
        reader, writer = pipe
        long = b"y" * 1_000_000
        got = bytearray()

        def read() -> None:
            while not got.endswith(b"yy\n"):
                got.extend(os.read(reader, 5000))

        thread = threading.Thread(target=read)
        thread.start()
        Descriptor(writer, patience=30).write(long + b"\n")
        thread.join(30)
        assert got.count(b"y") == len(long)

    def test_others_find_the_pipe_as_it_was(self, pipe: tuple[int, int]) -> None:
        Descriptor(pipe[1])
        assert os.get_blocking(pipe[1])


def without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process that was started without any; not in a fixture, after which pytest sets its own."""
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, None)


class TestInstallation:
    def test_a_stream_that_is_missing_is_there_afterwards(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_streams(monkeypatch)
        standard_streams.install()
        assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
        assert sys.stderr is sys.__stderr__

    def test_a_stream_that_somebody_has_replaced_is_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_streams(monkeypatch)
        theirs = io.StringIO()
        monkeypatch.setattr(sys, "stdout", theirs)
        standard_streams.install(sender="a signal's")
        assert sys.stdout is theirs
