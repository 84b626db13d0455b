"""A podman of one's own: temporary storage, its own settings, no network, and nothing left when it is closed or dies.

Every podman, conmon and container runs in a PID and a mount namespace whose PID 1 lives as long as a pipe from us is
open. So a crash of the test run takes all of them with it, and the system's podman never hears of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.lines import DEADLINE, DeadlineError
from tests.support.processes import Stat, children, stat

Word = str | os.PathLike[str]

# The events are what tells `podman logs --follow` of the end.
SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
events_logfile_path = "{home}/events.log"
infra_image = "localhost/pause"
"""
# Lives until its stdin ends, and reaps the conmons, which podman orphans on purpose.
KEEPER = ["bash", "-c", "echo ready; read -r _"]


class PodmanError(AssertionError):
    """A podman command failed that should not have."""


class WantsRootError(PodmanError):
    """A podman of one's own, with mounts and namespaces around it, is root's to make."""


@dataclass(frozen=True)
class Ended:
    """How a podman command ended: its exit code, its output as text."""

    code: int
    out: str
    err: str


class Podman:
    """podman on temporary storage; use it with `with`. Wants root.

    `user`: run rootless as this uid and gid, with the subordinate ids 200000 to 265535; nothing in /etc is changed,
    the namespace gets copies of passwd, group, subuid and subgid of its own.
    """

    def __init__(self, *, user: int | None = None) -> None:
        if os.geteuid() != 0:
            raise WantsRootError("these containers want root: run it with sudo")
        self.user = user
        self.home = Path(tempfile.mkdtemp(prefix="sexton-podman-", dir="/tmp"))  # podman wants paths of 50 characters
        (self.home / "containers.conf").write_text(SETTINGS.format(home=self.home))
        if user is not None:
            self._make_account(user)
        self._unshare = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", *self._keeper()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._unshare.stdout
        assert self._unshare.stdout.readline() == b"ready\n", "the namespace for podman could not be made"
        self.keeper = children(self._unshare.pid)[0]

    # --- commands ---

    def words(self, *args: Word) -> list[str]:
        """The whole command line of one podman command, to be started from anywhere."""
        inside = ["nsenter", "--target", str(self.keeper), "--pid", "--mount", f"--wdns={self.home}", "--"]
        if self.user is not None:
            inside += ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--"]
        where = [f"--{name}={self.home / name}" for name in ("root", "runroot", "tmpdir")]
        return [*inside, "podman", *where, *(os.fspath(arg) for arg in args)]

    @property
    def environment(self) -> dict[str, str]:
        """What podman has to be started with."""
        env = {key: os.environ[key] for key in ("PATH", "LANG", "TERM") if key in os.environ}
        conf = self.home / "containers.conf"
        return env | {
            "HOME": str(self.home),
            "CONTAINERS_CONF": str(conf),
            "TMPDIR": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
        }

    def popen(self, *args: Word, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a podman command with its output in pipes."""
        return subprocess.Popen(
            self.words(*args), env=self.environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def call(self, *args: Word, stdin: int | IO[bytes] = subprocess.DEVNULL) -> Ended:
        """Run a podman command to its end, whatever it is."""
        done = subprocess.run(
            self.words(*args), env=self.environment, stdin=stdin, capture_output=True, timeout=2 * DEADLINE, check=False
        )
        return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def do(self, *args: Word) -> str:
        """Run a podman command that must succeed; gives its stdout without the newline at the end."""
        ended = self.call(*args)
        if ended.code != 0:
            raise PodmanError(f"podman {' '.join(map(str, args))} ended with {ended.code}: {ended.err}")
        return ended.out.rstrip("\n")

    # --- images and containers ---

    def image(self, name: str, folder: Path, *changes: str) -> str:
        """Make the image localhost/NAME of everything in `folder`; changes: Dockerfile lines as ENTRYPOINT ["/x"]."""
        archive = self.home / f"{name}.tar"
        subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
        options = [f"--change={change}" for change in changes]
        self.do("import", *options, archive, f"localhost/{name}")
        archive.unlink()
        return f"localhost/{name}"

    def start(self, *args: Word) -> Container:
        """`podman run -d` with these options, image (or --rootfs) and command."""
        return Container(self, self.do("run", "--detach", *args))

    def inspect(self, container_id: str) -> dict[str, Any]:
        """What `podman inspect` says of one container."""
        found: dict[str, Any] = json.loads(self.do("container", "inspect", container_id))[0]
        return found

    # --- the end ---

    def close(self) -> None:
        """Remove every container by its id, then end the namespace and the storage."""
        for pod in self.call("pod", "ls", "--quiet", "--no-trunc").out.split():
            self.call("pod", "rm", "--force", "--time=0", pod)
        for container in self.call("ps", "--all", "--quiet", "--no-trunc").out.split():
            self.call("rm", "--force", "--time=0", container)
        assert self._unshare.stdin
        assert self._unshare.stdout
        self._unshare.stdin.close()  # ends the keeper, and the kernel ends whatever it kept
        self._unshare.wait(DEADLINE)
        self._unshare.stdout.close()
        shutil.rmtree(self.home)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- rootless ---

    def _make_account(self, user: int) -> None:
        etc = self.home / "etc"
        etc.mkdir()
        for name, line in {
            "passwd": f"sexton-test:x:{user}:{user}::{self.home}:/bin/sh",
            "group": f"sexton-test:x:{user}:",
            "subuid": "sexton-test:200000:65536",
            "subgid": "sexton-test:200000:65536",
        }.items():
            known = Path("/etc", name)
            (etc / name).write_text((known.read_text() if known.exists() else "") + line + "\n")
        self.home.chmod(0o755)
        os.chown(self.home, user, user)

    def _keeper(self) -> list[str]:
        """The namespace's own mounts, then the keeper. Root's podman and runc keep a few things in fixed places."""
        binds = [] if self.user is None else ["passwd", "group", "subuid", "subgid"]
        mounts = [f"mount -t tmpfs tmpfs {place}" for place in ("/run", "/var/lib", "/var/tmp")]
        mounts += [f"mount --bind {self.home}/etc/{name} /etc/{name}" for name in binds]
        return ["sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh", *KEEPER]


class Container:
    """One container, by its id."""

    def __init__(self, podman: Podman, container_id: str) -> None:
        self.podman = podman
        self.id = container_id

    def state(self) -> dict[str, Any]:
        """The State part of `podman inspect`."""
        found: dict[str, Any] = self.podman.inspect(self.id)["State"]
        return found

    @property
    def proc(self) -> Path:
        """The /proc that the container itself sees, read from out here; PID 1 in it is the container's."""
        pid = self.state()["Pid"]
        assert pid, f"container {self.id} does not run: {self.logs()}"
        return Path(f"/proc/{self.podman.keeper}/root/proc/{pid}/root/proc")

    def processes(self) -> list[Stat]:
        """Every process of the container's PID namespace, zombies too."""
        return processes(self.proc)

    def zombies(self) -> list[Stat]:
        """Those that are dead and not reaped."""
        return [each for each in self.processes() if each.state == "Z"]

    def exec(self, *command: Word, options: Sequence[str] = ()) -> Ended:
        """`podman exec` to its end."""
        return self.podman.call("exec", *options, self.id, *command)

    def stop(self, seconds: int = 20) -> None:
        """`podman stop`: SIGTERM for PID 1, and after `seconds` the engine's SIGKILL."""
        self.podman.do("stop", f"--time={seconds}", self.id)

    def kill(self, signal: str) -> None:
        """`podman kill -s`: a signal for PID 1."""
        self.podman.do("kill", "--signal", signal, self.id)

    def wait(self) -> int:
        """Wait for the container's end: its exit code."""
        return int(self.podman.do("wait", "--interval=20ms", self.id))

    def logs(self) -> str:
        """Its stdout and stderr so far."""
        ended = self.podman.call("logs", self.id)
        return ended.out + ended.err

    def remove(self) -> None:
        """`podman rm`, running or not."""
        # The engine's own clean-up after a container's end may be at it too, and who comes second is refused.
        words = ("rm", "--force", "--ignore", "--time=0", self.id)
        eventually(lambda: self.podman.call(*words).code == 0, f"container {self.id} can be removed")


def processes(proc: Path) -> list[Stat]:
    """Every process under this /proc, zombies too, in the order of their pids."""
    found: list[Stat] = []
    for entry in sorted(proc.glob("[0-9]*"), key=lambda entry: int(entry.name)):
        try:
            found.append(stat(int(entry.name), proc))
        except (FileNotFoundError, ProcessLookupError):
            continue  # reaped while we looked
    return found


def environ(pid: int, proc: Path) -> Mapping[str, str]:
    """The environment that a process was started with."""
    pairs = (proc / str(pid) / "environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def eventually(true: Callable[[], object], what: str) -> None:
    """Wait until something is true that the kernel has no event for: a zombie's burial, seen from afar."""
    until = time.monotonic() + DEADLINE
    while not true():
        if time.monotonic() > until:
            raise DeadlineError(f"still not so after {DEADLINE} s: {what}")
        time.sleep(0.005)  # not a wait for some time to pass: the condition is asked, and the deadline fails
