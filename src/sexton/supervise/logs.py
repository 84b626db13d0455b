"""What the instances write: from FIFOs of their own into files, without a loss when we are killed in between.

An instance writes into two FIFOs, run/INSTANCE.out and .err. What it has written is looked at by tee(2), goes into the
file, and is taken out of the FIFO only then: a supervisor that is killed at any moment has lost nothing, its successor
at worst writes some lines again. The beginning of a line whose end does not come is moved by one splice(2) to
run/INSTANCE.out.part, so that the FIFO is empty and wakes nobody. A torn line at the end of a file was not taken out
of the FIFO yet, so the successor drops it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from sexton._linux import tee
from sexton.supervise import logfile
from sexton.supervise.config import Log
from sexton.supervise.logfile import LogFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sexton.supervise import models

Name = Literal["out", "err"]
STREAMS: tuple[Name, Name] = ("out", "err")
PIPE = 1 << 16  # bytes that a pipe holds
WIDE = 1 << 19  # bytes that it holds for one who writes much, who can go on while we write what was there
WIDENED = 32  # FIFOs that get so much; a user may have 64 MiB of pipes, by default
CHUNK = 1 << 17  # bytes that are looked at at once
LONGEST = 1 << 16  # bytes; a line that is longer is cut into several
FEW = 1 << 13  # bytes
BURST = 0.001  # seconds; who writes few bytes again within them is looked at after as many
TURNS = 4  # chunks of one FIFO before others have their turn
FLUSH = 64  # chunks that an end waits for; more than a pipe can hold
RECENT = 1 << 15  # bytes of an instance's last output that are remembered with their times, or twice as many


class Recent(NamedTuple):
    """Some lines that came together."""

    time: float
    stream: Name
    data: bytes


class Stream:
    """One of the two outputs of an instance."""

    def __init__(self, run: Path, instance: str, name: Name) -> None:
        self.name = name
        self.path = run / f"{instance}.{name}"
        self.part = run / f"{instance}.{name}.part"
        self.begun = b""  # of a line: what is in `part`
        self.wide = False  # it can hold much
        self.count = 0  # bytes that were there at the last look
        self.few = False  # they were few, and came soon after others
        self.looked = 0.0  # when it was looked at last, in the loop's time
        self.pause: asyncio.TimerHandle | None = None
        self.seen = 0  # bytes of an unfinished line that were in the FIFO at the last look
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.path, 0o600)
        # For both, so that there is never an end of it, which would wake us for ever.
        self.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(self.fd).st_mode):
            os.close(self.fd)
            raise OSError(f"{self.path}: it is no FIFO; take it away")
        with contextlib.suppress(OSError):
            self.begun = self.part.read_bytes()

    def forget_part(self) -> None:
        """What was begun is in the file now."""
        if self.begun:
            self.begun = b""
            with contextlib.suppress(OSError):
                os.truncate(self.part, 0)

    def close(self, *, remove: bool) -> None:
        """Look no more."""
        os.close(self.fd)
        if remove:
            for path in (self.path, self.part):
                path.unlink(missing_ok=True)


class Output:
    """What is known of one instance."""

    def __init__(self, file: LogFile, streams: dict[Name, Stream]) -> None:
        self.file = file
        self.streams = streams
        self.recent: deque[Recent] = deque()
        self.size = 0  # bytes in `recent`
        self.dropping = 0  # lines, since the file could not be written

    def remember(self, piece: Recent) -> None:
        """Forget as much at the other end."""
        if len(piece.data) > RECENT:
            self.recent.clear()
            self.size = 0
            data = piece.data
            piece = piece._replace(data=data[data.find(b"\n", len(data) - RECENT - 1, -1) + 1 :])
        self.recent.append(piece)
        self.size += len(piece.data)
        while self.size > 2 * RECENT:
            self.size -= len(self.recent.popleft().data)


class Capture:
    """The output of all instances. `directory`: the state directory, with run/ and logs/ in it.

    lost      lines that could not be written, by instance
    complain  is called with an instance and a text when its output cannot be written, and when it can again
    """

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.directory = directory
        self.lost: dict[str, int] = {}
        self.complain: Callable[[str, str], None] = lambda _instance, _text: None
        self._loop = loop
        self._run = directory / "run"
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._outputs: dict[str, Output] = {}
        self._listeners: list[tuple[str | None, Callable[[models.Line], None]]] = []
        self._widened = 0
        self._look_in, self._look_out = os.pipe()  # where tee puts what we look at; empty between two looks
        _widen(self._look_out, CHUNK)
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        # An instance that nobody adopts takes its FIFOs with it; what it has said is to be read even so.
        self._kept = {path.name: self._keep(path) for path in self._run.iterdir() if path.suffix in {".out", ".err"}}

    @staticmethod
    def _keep(path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1

    # --- beginning and ending ---

    def open(self, instance: str, log: Log, uid: int | None) -> tuple[int, int]:
        """What an instance is to have as stdout and stderr, of that user (None: ours); the caller closes them.

        Raises OSError.
        """
        output = self._output(instance, log, "seal")
        self.flush(instance)
        fds: list[int] = []
        try:
            for name in STREAMS:
                # Not by the path: what is put there instead is none of ours.
                fd = os.open(f"/proc/self/fd/{output.streams[name].fd}", os.O_RDWR | os.O_CLOEXEC)
                fds.append(fd)
                wanted = os.geteuid() if uid is None else uid
                if os.fstat(fd).st_uid != wanted:
                    os.fchown(fd, wanted, -1)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds[0], fds[1]

    def resume(self, instance: str, log: Log) -> None:
        """Go on with an instance that runs already. Raises OSError."""
        self._output(instance, log, "drop")

    def _output(self, instance: str, log: Log, torn: Literal["drop", "seal"]) -> Output:
        output = self._outputs.get(instance)
        if output is None:
            fresh = not any(f"{instance}.{name}" in self._kept for name in STREAMS)
            file = LogFile(logfile.path_of(self.directory, instance, log), log, torn if fresh else "drop")
            streams: dict[Name, Stream] = {}
            try:
                for name in STREAMS:
                    streams[name] = Stream(self._run, instance, name)
            except OSError:
                for stream in streams.values():
                    stream.close(remove=False)
                file.close()
                raise
            output = self._outputs[instance] = Output(file, streams)
            for name in STREAMS:
                self._listen(instance, streams[name])
                if (kept := self._kept.pop(f"{instance}.{name}", -1)) >= 0:
                    os.close(kept)
        elif output.file.log != log:
            output.file.close()
            output.file = LogFile(logfile.path_of(self.directory, instance, log), log, "seal")
        return output

    def flush(self, instance: str) -> None:
        """Take all that is there now, unfinished lines too."""
        output = self._outputs.get(instance)
        if output is None:
            return
        for stream in output.streams.values():
            for _ in range(FLUSH):
                if not self._take(instance, output, stream, unfinished=True):
                    break
            if begun := stream.begun:
                self._write(instance, output, stream, begun + b"\n")
                stream.forget_part()
                self._tell(instance, stream, begun + b"\n")

    def close(self, instance: str) -> None:
        """Take all that is there now, and no more after that."""
        if instance not in self._outputs:
            return
        self.flush(instance)
        output = self._outputs.pop(instance)
        for stream in output.streams.values():
            self._ignore(stream)
            stream.close(remove=True)
        output.file.close()

    def leave(self) -> None:
        """Look no more at any of them, and leave all as it is for the next supervisor."""
        for output in self._outputs.values():
            for stream in output.streams.values():
                self._ignore(stream)
                stream.close(remove=False)
            output.file.close()
        self._outputs.clear()
        for fd in (self._look_in, self._look_out, self._nowhere, *self._kept.values()):
            if fd >= 0:
                os.close(fd)
        self._kept.clear()
        self._look_in = self._look_out = self._nowhere = -1

    def left(self) -> set[str]:
        """The instances of an earlier supervisor of which there is output, and that were neither opened nor resumed."""
        return {name.rpartition(".")[0] for name in self._kept}

    # --- reading ---

    def _look(self, instance: str, stream: Stream) -> None:
        output = self._outputs[instance]
        for _ in range(TURNS):
            if not self._take(instance, output, stream):
                break
        now = self._loop.time()
        few = stream.count < FEW and now - stream.looked < BURST
        if few and stream.few:
            # It writes line after line: they cost both of us less when some have come together.
            self._loop.remove_reader(stream.fd)
            stream.pause = self._loop.call_later(BURST, self._listen, instance, stream)
        stream.few, stream.looked = few, now

    def _listen(self, instance: str, stream: Stream) -> None:
        self._loop.add_reader(stream.fd, self._look, instance, stream)

    def _ignore(self, stream: Stream) -> None:
        self._loop.remove_reader(stream.fd)
        if stream.pause:
            stream.pause.cancel()

    def _take(self, instance: str, output: Output, stream: Stream, *, unfinished: bool = False) -> bool:
        """Take one chunk; says whether there may be another one now."""
        try:
            count = tee(stream.fd, self._look_out, CHUNK)
        except BlockingIOError:
            return False
        data = os.read(self._look_in, count)
        stream.count = count
        cut, whole = self._cut(stream, data, unfinished)
        if not cut:
            return False
        stream.seen = count - cut
        if stream.begun:
            whole = stream.begun + whole
        self._write(instance, output, stream, whole)
        stream.forget_part()
        if count > PIPE // 2 and not stream.wide:
            stream.wide = True
            if self._widened < WIDENED:
                self._widened += 1
                _widen(stream.fd, WIDE)
        while cut:
            cut -= os.splice(stream.fd, self._nowhere, cut)
        if self._listeners:
            self._tell(instance, stream, whole)
        return unfinished or count == CHUNK

    def _cut(self, stream: Stream, data: bytes, unfinished: bool) -> tuple[int, bytes]:
        """How much of what is there is to be taken now, and the lines that it makes."""
        count = len(data)
        if cut := data.rfind(b"\n") + 1:
            return cut, data if cut == count else data[:cut]
        if unfinished:
            return count, data + b"\n"
        if len(stream.begun) + count >= LONGEST:
            cut = LONGEST - len(stream.begun)
            return cut, data[:cut] + b"\n"
        if count != stream.seen:
            stream.seen = count  # its end is perhaps being written; we are called again at once
            return 0, b""
        if not self._put_aside(stream, data):
            return count, data + b"\n"  # there is no room for it
        return 0, b""

    def _put_aside(self, stream: Stream, data: bytes) -> bool:
        """Move the beginning of a line out of the FIFO, as a whole: no moment has it twice, or not at all."""
        done = 0
        try:
            fd = os.open(stream.part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while done < len(data):
                    done += os.splice(stream.fd, fd, len(data) - done, offset_dst=len(stream.begun) + done)
            finally:
                os.close(fd)
        except OSError:
            pass
        stream.begun += data[:done]
        stream.seen = len(data) - done
        return done > 0

    def _write(self, instance: str, output: Output, stream: Stream, data: bytes) -> None:
        now = time.time()
        file = output.file
        if file.log.format == "json":
            lost = file.write(logfile.encode(logfile.split(data, instance, stream.name, now)))
        else:
            lost = file.write(data)
        if lost or output.dropping:
            self._mind_loss(instance, output, lost)
        output.remember(Recent(now, stream.name, data))

    def _tell(self, instance: str, stream: Stream, data: bytes) -> None:
        callbacks = [callback for wanted, callback in self._listeners if wanted in {None, instance}]
        if callbacks:
            for line in logfile.split(data, instance, stream.name, time.time()):
                for callback in callbacks:
                    callback(line)

    def _mind_loss(self, instance: str, output: Output, lost: int) -> None:
        file = output.file
        if lost:
            if not output.dropping:
                said = file.error.strerror if file.error else "?"
                self.complain(instance, f"its output is being dropped: {file.path}: {said}")
            output.dropping += lost
            self.lost[instance] = self.lost.get(instance, 0) + lost
        else:
            self.complain(instance, f"its output is written again; {output.dropping} lines were dropped")
            output.dropping = 0

    # --- who wants to know ---

    def listen(self, callback: Callable[[models.Line], None], instance: str | None = None) -> Callable[[], None]:
        """Call it with each line from now on, or with those of one instance; gives what ends that."""
        listener = (instance, callback)
        self._listeners.append(listener)

        def leave() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return leave

    def tail(self, instances: Iterable[str], count: int) -> list[models.Line]:
        """The last `count` lines of all these together, in the order of their times.

        What is older than we are has no time in a text file (0), so nobody knows what of it came last: of the room that
        the others leave each instance has its share.
        """
        timed: list[models.Line] = []
        untimed: list[list[models.Line]] = []
        for instance in instances:
            lines = self._tail(instance, count)
            timed += [line for line in lines if line.time]
            untimed.append([line for line in lines if not line.time])
        timed.sort(key=lambda line: line.time)
        return [*_shares(untimed, count - len(timed)), *(timed[-count:] if count else ())]

    def _tail(self, instance: str, count: int) -> list[models.Line]:
        output = self._outputs.get(instance)
        recent: list[models.Line] = []
        if output:
            for piece in output.recent:
                recent += logfile.split(piece.data, instance, piece.stream, piece.time)
        if len(recent) >= count:
            return recent[-count:] if count else []
        path = output.file.path if output else logfile.path_of(self.directory, instance, Log())
        older = logfile.tail(path, instance, count)
        return [*older[: len(older) - len(recent)], *recent] if len(older) > len(recent) else recent


def _shares(logs: list[list[models.Line]], room: int) -> Iterator[models.Line]:
    """The last lines of each, so many in all: those that have fewer than their share leave the rest to the others."""
    last = [0] * len(logs)
    for done, place in enumerate(sorted(range(len(logs)), key=lambda place: len(logs[place]))):
        last[place] = min(len(logs[place]), max(room, 0) // (len(logs) - done))
        room -= last[place]
    for lines, number in zip(logs, last, strict=True):
        yield from lines[len(lines) - number :]


def _widen(fd: int, size: int) -> None:
    """Let a pipe hold more, where that is allowed. Source: F_SETPIPE_SZ in fcntl(2)."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
