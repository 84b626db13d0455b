"""The same care where the container may do little: read-only, without capabilities, as nobody, in a user namespace."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.containers.family import MONSTER, Starter, in_images
from tests.containers.podman import Podman, environ
from tests.support.monsters import double_forked, join, setsid_daemon
from tests.support.processes import status

pytestmark = in_images

TERM = signal.SIGTERM

READ_ONLY = ["--read-only", "--read-only-tmpfs=false"]
NO_CAPABILITIES = ["--cap-drop=all", "--security-opt=no-new-privileges"]
NOBODY = ["--user=65534:65534"]
USER_NAMESPACE = ["--uidmap=0:100000:65536", "--gidmap=0:100000:65536"]
FEW_PIDS = ["--pids-limit=16", "--memory=64m"]

HARDENED = {
    "read-only": READ_ONLY,
    "no-capabilities": NO_CAPABILITIES,
    "nobody": NOBODY,
    "user-namespace": USER_NAMESPACE,
    "few-pids": FEW_PIDS,
    "all": [*READ_ONLY, *NO_CAPABILITIES, *NOBODY, *USER_NAMESPACE, *FEW_PIDS],
}


def look_after_everybody(start: Starter, options: list[str]) -> None:
    """Orphans are reaped, a stop reaches each once, the stubborn are killed, the exit code is the command's."""
    family = start(
        "times 3 fork fork exit 0",
        "times 2 as daemon " + double_forked(),
        "times 2 as daemon " + setsid_daemon(),
        "as stubborn " + double_forked("stubborn"),
        "as command polite",
        options=["--env=SEXTON_GRACE=1", *options],
    )
    family.await_note("ready", 6)
    family.await_events("reaped", 3)  # the middles of the double forks are the command's
    assert not [each for each in family.container.zombies() if each.ppid == 1]
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM) == {"command": 1, "daemon": 4, "stubborn": 1}
    assert len(ending.of("killed")) == 1


@pytest.mark.parametrize("options", HARDENED.values(), ids=HARDENED)
def test_everybody_is_looked_after(start: Starter, options: list[str]) -> None:
    look_after_everybody(start, options)


def test_what_it_may_is_what_the_container_may(start: Starter) -> None:
    """The command starts with exactly the privileges that the engine gave to PID 1."""
    family = start("polite", options=[*NO_CAPABILITIES, *NOBODY])
    family.await_note("ready")
    init, command = (status(each.pid, family.container.proc) for each in family.container.processes())
    for key in ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
        assert command[key] == init[key]
    assert command["Uid"].split() == ["65534"] * 4
    assert int(command["CapBnd"], 16) == 0


def test_user_drops_privileges(start: Starter) -> None:
    """The image has no passwd: numbers do."""
    family = start("polite", options=["--env=SEXTON_USER=1000:1001"])
    family.await_note("ready")
    command = family.container.processes()[1].pid
    seen = status(command, family.container.proc)
    assert (seen["Uid"].split(), seen["Gid"].split(), seen["Groups"]) == (["1000"] * 4, ["1001"] * 4, "1001")
    assert environ(command, family.container.proc)["HOME"] == "/"


def test_what_it_may_not_signal_is_said_and_does_not_hold_it_up(start: Starter) -> None:
    """PID 1 is nobody, a guest from `podman exec` is root: only PID 1's own end can end it, so PID 1 ends."""
    family = start("as command polite", options=[*NOBODY, "--env=SEXTON_GRACE=1"])
    family.await_note("ready")
    ended = family.container.exec(MONSTER, "/log", *join("as guest polite"), options=["--detach", "--user=0"])
    assert ended.code == 0, ended.err
    family.await_note("ready")
    ending = family.stop(seconds=10)
    assert ending.code == 0  # 137 would be the engine's
    assert ending.got(TERM) == {"command": 1}
    assert "may not" in ending.said
    assert "(monster)" in ending.said


def test_without_proc(start: Starter, sexton_init: Path) -> None:
    """Nothing can be looked up: it still reaps, forwards, and as PID 1 stops everybody."""
    options = ["--cap-add=sys_admin", f"--volume={sexton_init}:/sbin/sexton-init:ro", "--env=SEXTON_GRACE=1"]
    before = ["sh", "-c", 'umount -l /proc && exec sexton-init -- "$@"', "sh"]
    family = start(
        "times 3 fork fork exit 0",
        "times 3 as daemon " + double_forked(),
        "as stubborn " + double_forked("stubborn"),
        "as command polite",
        options=options,
        before=before,
        by_engine=False,
    )
    family.await_note("ready", 5)
    family.await_events("reaped", 3)
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM) == {"command": 1, "daemon": 3, "stubborn": 1}


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_with_descriptors_closed_or_full(start: Starter, sexton_init: Path, closing: str) -> None:
    options = [f"--volume={sexton_init}:/sbin/sexton-init:ro", "--env=SEXTON_VERBOSE=3", "--env=SEXTON_GRACE=1"]
    family = start(
        "times 3 fork fork exit 0",
        "as stubborn " + double_forked("stubborn"),
        "as command polite",
        options=options,
        before=["sh", "-c", f'exec sexton-init -- "$@" {closing}', "sh"],
        by_engine=False,
    )
    family.await_note("ready", 2)
    family.await_events("reaped", 3)
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM) == {"command": 1, "stubborn": 1}
    assert len(ending.of("killed")) == 1


@pytest.fixture
def rootless(sexton_init: Path, rootfs: Path) -> Iterator[Starter]:
    """Families in containers of a user who is not root, in that user's own podman."""
    user = 12345
    with Podman(user=user) as theirs, ExitStack() as stack:
        folder = theirs.home / "fifos"
        folder.mkdir()
        init = theirs.home / "sexton-init"
        shutil.copy(sexton_init, init)
        for each in (folder, init):
            os.chown(each, user, user)
            each.chmod(0o755)
        image = theirs.image("little", rootfs)
        yield Starter(theirs, init, image, folder, stack)


@pytest.mark.usefixtures("podman")  # root's: who is not root can be no other user either
def test_rootless(rootless: Starter) -> None:
    look_after_everybody(rootless, [])


@pytest.mark.usefixtures("podman")
def test_rootless_hardened(rootless: Starter) -> None:
    look_after_everybody(rootless, [*READ_ONLY, *NO_CAPABILITIES, "--user=1000:1000"])
