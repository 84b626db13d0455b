"""A private PID namespace with the command as its PID 1, and an event loop around it.

A `Space` lives in a process of its own, which leaves its namespaces for new ones and is the outer parent of all in
it, as a container engine is. It gives PID 1 orphans by forking twice, and hears of everything by descriptors:
pidfds, pipes, and SIGCHLD for what it traces. Nothing here looks on an interval; every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sexton import _linux, proc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NULL_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_PTRACE_LISTEN = 0x4208
_TAIL = 4096  # of the command's output, for the message when it does not start


class Setting(NamedTuple):
    """What is tried: argv, the root directory for it ("" for this one), and whether it gets a terminal."""

    command: Sequence[str]
    rootfs: str = ""
    terminal: bool = False


class CannotStart(Exception):
    """There is no such namespace or no such command; the message says which."""


class Space:
    """PID 1 and what is around it. `ended` is its wait status when it has ended, `ended_at` the time then."""

    def __init__(self, setting: Setting) -> None:
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.ended: int | None = None
        self.ended_at = 0.0
        self.tail = b""
        self.traced: dict[int, str] = {}  # pid -> name, of those that are watched for signals
        self.process_of: dict[int, int] = {}  # a traced thread -> its process
        self.heard: dict[int, set[int]] = {}  # a traced process -> the signals that it got
        self.statuses: dict[int, int] = {}
        self.noisy = False
        _enter_namespaces()
        self._listen_to_children()
        self.terminal = -1
        output, self.pid = self._start(setting)
        self.watch(output, lambda: self._take_output(output))

    # --- the event loop ---

    def watch(self, fd: int, handler: Callable[[], None], events: int = select.POLLIN) -> None:
        """Call the handler whenever that descriptor has something."""
        self.handlers[fd] = handler
        self.poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Watch it no more, and close it."""
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)
            os.close(fd)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Handle events until `done` or for so long; whether it was done."""
        end = time.monotonic() + seconds
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                return False
            for fd, _ in self.poll.poll(left * 1000):
                if fd in self.handlers:
                    self.handlers[fd]()
        return True

    def _listen_to_children(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.watch(reading, lambda: self._take_children(reading))

    def _take_children(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)
        options = os.WEXITED | os.WSTOPPED | os.WNOHANG | _linux.WALL
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, options)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_code == os.CLD_TRAPPED:
                self._take_stop(found.si_pid, found.si_status)
            elif found.si_code in {os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED}:
                status = found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status
                self.statuses[found.si_pid] = status
                if found.si_pid == self.pid:
                    self.ended, self.ended_at = status, time.monotonic()

    def _take_stop(self, tid: int, status: int) -> None:
        event, signum = status >> 8, status & 0xFF
        with contextlib.suppress(ProcessLookupError):
            if event == _linux.PTRACE_EVENT_STOP:
                request = _linux.PTRACE_CONT if signum == signal.SIGTRAP else _PTRACE_LISTEN
                _linux.ptrace_resume(request, tid)
                return
            self.heard[self.process_of[tid]].add(signum)
            _linux.ptrace_resume(_linux.PTRACE_CONT, tid, signum)

    def _take_output(self, fd: int) -> None:
        try:
            block = os.read(fd, 65536)
        except OSError:  # EIO: the last one who had the terminal open has gone
            block = b""
        self.noisy = True
        self.tail = (self.tail + block)[-_TAIL:]
        if not block:
            self.forget(fd)

    # --- who is in it ---

    def _start(self, setting: Setting) -> tuple[int, int]:
        failing, failed = os.pipe2(os.O_CLOEXEC)
        if setting.terminal:
            reading, writing = os.openpty()
            self.terminal = reading
        else:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            raise CannotStart(f"no process can be made in a new PID namespace: {error.strerror}") from error
        if pid == 0:
            _become(setting, writing, failed)
        os.close(writing)
        os.close(failed)
        with open(failing, "rb") as words:
            why = words.read()
        if why:
            raise CannotStart(why.decode(errors="replace"))
        return reading, pid

    def members(self) -> list[proc.Process]:
        """The living processes below PID 1, the oldest first."""
        at = proc.snapshot()
        found = [one for one in at.descendants(self.pid) if not one.zombie]
        return sorted(found, key=lambda one: (one.start, one.pid))

    def ticks(self) -> int:
        """The processor time that PID 1 and all below it have used, in clock ticks."""
        return sum(_ticks(pid) for pid in (self.pid, *(one.pid for one in self.members())))

    def runs(self) -> bool:
        """Whether PID 1 or one below it wants a processor, or waits for a disk."""
        own = proc.stat(self.pid)
        return any(one.state in "RD" for one in (own, *self.members()) if isinstance(one, proc.Process))

    def settle(self, quiet: float, most: float) -> bool:
        """Until there is neither output nor work for `quiet` seconds, or PID 1 ended; False after `most` seconds."""
        end = time.monotonic() + most
        while self.ended is None:
            before, self.noisy = self.ticks(), False
            if self.wait(lambda: self.ended is not None, quiet):
                return True
            worked = self.ticks() - before
            # Who has not got a processor yet has not worked either, and is not at rest.
            if not self.noisy and not self.runs() and worked <= quiet * os.sysconf("SC_CLK_TCK") * 0.05:
                return True
            if time.monotonic() > end:
                return False
        return True

    def send(self, pid: int, signum: int) -> None:
        """Signal a process that cannot be another one yet: PID 1 and what is below it live as long as we look."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signum)
            finally:
                os.close(fd)

    def trace(self, processes: Sequence[proc.Process]) -> None:
        """From now on, know of each signal that these get, and of how they end."""
        for process in processes:
            found = proc.threads(process.pid)
            for tid in () if isinstance(found, proc.Missing) else found:
                with contextlib.suppress(OSError):
                    self.process_of[tid] = process.pid
                    self.traced[process.pid] = process.name
                    self.heard.setdefault(process.pid, set())
                    _linux.ptrace_seize(tid)

    def adopt(self, count: int, life: Callable[[], None], name: str) -> None:
        """Give PID 1 so many orphans of that name, each of which lives the given life and ends."""
        parent = os.fork()
        if parent == 0:
            with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as comm:
                comm.write(name)
            _plain_signals()
            for _ in range(count):
                if os.fork() == 0:
                    os.setsid()
                    life()
                    os._exit(0)
            os._exit(0)
        os.waitpid(parent, 0)

    def orphans(self, name: str) -> list[int]:
        """The children of PID 1 of that name, zombies too."""
        found = map(proc.stat, proc.children(self.pid))
        return [one.pid for one in found if isinstance(one, proc.Process) and one.comm == name]

    def close(self) -> None:
        """End it, and all that is in it."""
        if self.ended is None:
            os.kill(self.pid, signal.SIGKILL)  # our own child, not waited for: the number is still its own
            self.wait(lambda: self.ended is not None, 30.0)


def _ticks(pid: int) -> int:
    found = proc.read(f"{proc.PROC}/{pid}/stat")
    if isinstance(found, proc.Missing):
        return 0
    words = found.rpartition(b")")[2].split()
    return int(words[11]) + int(words[12])


def _enter_namespaces() -> None:
    """A new PID namespace for the children to come; in a user namespace where that is what it takes."""
    uid, gid = os.geteuid(), os.getegid()
    with contextlib.suppress(PermissionError):
        _linux.unshare(_linux.CLONE_NEWPID)
        return
    try:
        _linux.unshare(_linux.CLONE_NEWUSER | _linux.CLONE_NEWPID)
    except OSError as error:
        why = "neither privilege nor user namespaces to make a PID namespace with"
        raise CannotStart(f"{why}: {error.strerror}") from error
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _plain_signals() -> None:
    for signum in _NULL_SIGNALS:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(signum, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _become(setting: Setting, output: int, failed: int) -> NoReturn:
    """In the child that is PID 1: its mounts, its session, its descriptors, and the command."""
    why = "?"
    try:
        _linux.set_pdeathsig(signal.SIGKILL)
        why = "its file systems"
        _mount(setting.rootfs)
        why = setting.command[0]
        os.setsid()
        _descriptors(setting, output)
        _plain_signals()
        os.execvp(setting.command[0], list(setting.command))
    except OSError as error:
        os.write(failed, f"{why}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _descriptors(setting: Setting, output: int) -> None:
    if setting.terminal:
        import fcntl
        import termios

        fcntl.ioctl(output, termios.TIOCSCTTY, 0)
        os.dup2(output, 0)
    else:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _mount(rootfs: str) -> None:
    _linux.unshare(_linux.CLONE_NEWNS)  # for PID 1 alone: sexton keeps its view of /proc
    _linux.mount("none", "/", "", _linux.MS_REC | _linux.MS_PRIVATE)
    flags = _linux.MS_NOSUID | _linux.MS_NODEV | _linux.MS_NOEXEC
    if rootfs:
        _linux.mount(rootfs, rootfs, "", _linux.MS_BIND | _linux.MS_REC)
        if os.path.isdir(f"{rootfs}/dev"):
            _linux.mount("/dev", f"{rootfs}/dev", "", _linux.MS_BIND | _linux.MS_REC)
    if os.path.isdir(f"{rootfs}/proc"):
        # In a container /proc is partly covered, and the kernel refuses an uncovered one: go on with that one.
        with contextlib.suppress(PermissionError):
            _linux.mount("proc", f"{rootfs}/proc", "proc", flags)
    if rootfs:
        os.chdir(rootfs)
        _linux.pivot_root(".", ".")
        _linux.unmount(".", _linux.MNT_DETACH)
        os.chdir("/")
