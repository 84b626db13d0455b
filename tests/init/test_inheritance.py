"""COMMAND gets the mask, dispositions, cwd, environment and descriptors that sexton-init was started with."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.init.family import PID1, Mode, Starter
from tests.support import monsters
from tests.support.lines import Pipe
from tests.support.processes import children, descriptors, stat, status
from tests.support.running import Place, Running
from tests.support.running import start as run

SIGNAL_FIELDS = ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"]
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
VOLATILE = {
    "Pid", "Tgid", "Ngid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid", "TracerPid",
    "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "Cpus_allowed", "Mems_allowed", "SigQ",
    "FDSize",  # what the kernel has room for by now: of this program, where it was forked from it
}  # fmt: skip


def status_fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {k: v.strip() for k, _, v in pairs if k not in VOLATILE and not k.startswith(("Vm", "Rss", "Hugetlb"))}


MASKS = [
    [],
    ["block 10", "block 36", "disregard 12", "disregard 2"],
    ["block 32", "block 33", "block 34", "block 64"],
    ["block 17", "block 15"],
    ["disregard 17"],
    ["disregard 1", "disregard 13", "disregard 20", "disregard 21", "disregard 22"],
    [f"block {n}" for n in range(1, 65)],
    [f"disregard {n}" for n in range(1, 65) if n not in (7, 8, 9, 11, 19, 32, 33)],
]


@pytest.mark.parametrize("before", MASKS, ids=[f"{len(mask)}-{mask[:1]}" for mask in MASKS])
def test_mask_and_dispositions(start: Starter, placed: Mode, before: list[str]) -> None:
    same_status(start, placed, before)


@pytest.mark.release_only("the sanitizers handle these three themselves")
def test_ignored_faults(start: Starter, placed: Mode) -> None:
    same_status(start, placed, ["disregard 7", "disregard 8", "disregard 11"])


def same_status(start: Starter, placed: Mode, before: list[str]) -> None:
    """The whole of /proc/self/status with sexton-init is that without it, but for pids, memory and counters."""
    words = ["MONSTER", "LOG", *monsters.join(*before, "exec")]
    command = ["cat", "/proc/self/status"]
    with_us = start(placed, "", command=command, before=words, report=False).end()
    bare = start(placed, "", command=command, before=words, without_us=True).end()
    assert status_fields(with_us.out) == status_fields(bare.out)
    assert set(SIGNAL_FIELDS) <= set(status_fields(bare.out))


def test_an_ignored_sigchld_steals_no_status(start: Starter, placed: Mode) -> None:
    """Inherited SIG_IGN for SIGCHLD makes the kernel reap by itself: COMMAND gets it back, we must not have it."""
    words = ["MONSTER", "LOG", *monsters.join("disregard 17", "exec")]
    end = start(placed, "", "times 5 daemon exit 9", "exit 33", before=words).end()
    assert end.code == 33


def test_working_directory(start: Starter, tmp_path: Path) -> None:
    result = start.plain("pwd", "-P", before=["env", "--chdir", tmp_path]).wait()
    assert result.out == f"{tmp_path.resolve()}\n"


def test_the_init_itself_keeps_no_directory_busy(start: Starter, tmp_path: Path) -> None:
    family = start(PID1, "", "plain", before=["env", "--chdir", tmp_path])
    family.await_note("ready")
    family.send(signal.SIGCONT)
    family.await_event("signalled")  # so it has come to its loop
    assert os.readlink(f"/proc/{family.run.command.pid}/cwd") == str(tmp_path)
    assert os.readlink(f"/proc/{family.run.init.pid}/cwd") == "/"


def test_a_relative_command_is_found_from_the_working_directory(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "here"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert start.plain("./here", before=["env", "--chdir", tmp_path]).wait().code == 7


def test_environment_in_its_order(start: Starter) -> None:
    environment = {"B": "2", "A": "1", "EMPTY": "", "WITH": "x=y", "LANG": "C"}
    result = start.plain("env", "-0", before=["env", "-i", *[f"{k}={v}" for k, v in environment.items()]]).wait()
    assert result.out.split("\0")[:-1] == [f"{key}={value}" for key, value in environment.items()]


@pytest.mark.parametrize(
    ("listen", "who"),
    [("0", "command"), ("$$", "command"), ("1", "1"), ("00", "00"), ("", ""), ("x", "x"), ("0x", "0x")],
)
def test_sockets_that_are_passed_are_for_the_command(start: Starter, listen: str, who: str) -> None:
    """LISTEN_PID that names us (the shell's pid is ours after its exec), or nobody, names COMMAND; no other changes."""
    before = ["env", "LISTEN_FDS=1", "sh", "-c", f'export LISTEN_PID={listen}; exec "$@"', "sh"]
    ask = 'case $LISTEN_PID in $$) echo command;; *) echo "$LISTEN_PID";; esac; env | grep -c ^LISTEN_'
    result = start.plain("sh", "-c", ask, before=before).wait()
    assert (result.code, result.out) == (0, f"{who}\n2\n")


def test_sockets_that_are_passed_are_for_the_command_in_its_own_namespace_too(start: Starter) -> None:
    """Who starts it knows the pid of the process outside."""
    before = ["env", "LISTEN_FDS=1", "sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh"]
    ask = 'test "$LISTEN_PID" = $$ && echo mine'
    assert start.plain("--contain", "pidns", "sh", "-c", ask, before=before).wait().out == "mine\n"


def test_sockets_that_are_passed_are_for_the_command_in_a_container_too(start: Starter) -> None:
    """Whoever starts a container's first process knows its pid: 1, which is ours."""
    ask = 'test "$LISTEN_PID" = $$ && echo mine'
    running = start.plain("sh", "-c", ask, before=["env", "LISTEN_PID=1", *NAMESPACE])
    assert running.wait().out == "mine\n"


def test_an_empty_environment(start: Starter) -> None:
    result = start.plain("/usr/bin/env", before=["env", "-i"]).wait()
    assert (result.code, result.out) == (0, "")


def test_arguments_as_they_are(start: Starter) -> None:
    words = ["", " ", "a b", "\n", "*", "--", "-x", "$HOME", "\udcff", "x" * 50_000]
    result = start.plain("printf", "%s\\0", *words).wait()
    assert result.out.split("\0")[:-1] == [
        word.encode(errors="surrogateescape").decode(errors="replace") for word in words
    ]


def test_umask_limits_niceness_and_oom_score(start: Starter) -> None:
    command = ["sh", "-c", "umask; ulimit -a; nice; cat /proc/self/oom_score_adj /proc/self/coredump_filter"]
    before = ["env", "nice", "-n", "3", "sh", "-c", 'umask 027; ulimit -n 77; ulimit -c 0; exec "$@"', "sh"]
    with_us = start.plain(*command, before=before).wait()
    with run([*before, *command], place=Place.HERE) as bare:
        assert bare.wait() == with_us


def test_standard_input_is_the_commands_alone(start: Starter) -> None:
    running = start.plain("cat", stdin=subprocess.PIPE)
    running.tell(b"hello\n")
    assert running.popen.stdin
    running.popen.stdin.close()
    assert running.wait().out == "hello\n"


def numbers(running: Running) -> dict[int, str]:
    """What `ls` sees open in itself, less the folder that it reads."""
    listed = dict(line.split(" ", 1) for line in running.wait().out.splitlines())
    return {int(number): target for number, target in listed.items() if not target.startswith("/proc/")}


LIST = ["sh", "-c", 'cd /proc/self/fd; for n in *; do echo "$n $(readlink /proc/$$/fd/$n)"; done']


def test_descriptors(start: Starter, tmp_path: Path) -> None:
    """The same numbers leading to the same files, high ones too, and none of ours among them."""
    (tmp_path / "file").write_text("hello\n")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    high = fcntl.fcntl(fd, fcntl.F_DUPFD, 200)
    try:
        with_us = start.plain(*LIST, fds=[fd, high])
        with run(LIST, place=Place.HERE, fds=[fd, high]) as bare:
            expected = numbers(bare)
        found = numbers(with_us)
    finally:
        os.close(fd)
        os.close(high)
    assert found.keys() == expected.keys()
    assert found[fd] == found[high] == str(tmp_path / "file")


def test_the_events_descriptor_is_not_the_commands(start: Starter, placed: Mode) -> None:
    """It is ours: a leftover that held it open would keep its reader waiting."""
    family = start(placed, "--grace 0", "plain")
    family.await_note("ready")
    open_here = descriptors(family.run.command.pid)
    assert len([target for target in open_here.values() if target.startswith("pipe:")]) == 3, "stdout, stderr, the log"
    family.send(signal.SIGTERM)
    family.end()


def test_what_the_command_closes_is_closed(start: Starter) -> None:
    """We keep no copy of COMMAND's descriptors: when it closes a pipe, the reader sees the end."""
    pipe = Pipe("a pipe of COMMAND's")
    try:
        script = f"exec {pipe.write_fd}>&-; read line"
        running = start.plain("bash", "-c", script, pipes=[pipe], stdin=subprocess.PIPE)
        assert pipe.rest() == []
        running.tell()
        assert running.wait().code == 0
    finally:
        pipe.close()


def test_a_standard_output_that_the_command_closes_is_closed(start: Starter) -> None:
    """As some servers do to say that they are ready."""
    running = start.plain("sh", "-c", "exec >&-; read line", stdin=subprocess.PIPE)
    assert running.out
    assert running.out.rest() == []
    running.tell()
    assert running.wait().code == 0


def test_open_files_keep_their_flags(start: Starter) -> None:
    """Reporting must not make a shared pipe non-blocking: the flag is of the open file, so COMMAND would see it."""
    pipe = Pipe("stderr")
    try:
        running = start.plain("--verbose", "--verbose", "--verbose", "true", stderr=pipe.write_fd)
        assert running.wait().code == 0
        assert not fcntl.fcntl(pipe.write_fd, fcntl.F_GETFL) & os.O_NONBLOCK
    finally:
        pipe.close()


def test_a_process_group_of_its_own_in_our_session(start: Starter, placed: Mode) -> None:
    family = start(placed, "--grace 0", "plain")
    family.await_note("ready")
    init, command = stat(family.run.init.pid), stat(family.run.command.pid)
    assert command.pgrp == command.pid != init.pgrp
    assert command.session == init.session
    assert command.ppid == init.pid
    family.send(signal.SIGTERM)
    family.end()


def test_a_session_leader_may_start_it(start: Starter) -> None:
    assert start.plain("sh", "-c", "exit 7", before=["setsid", "--wait"]).wait().code == 7


def test_the_command_is_no_subreaper(start: Starter, placed: Mode) -> None:
    """Its orphans come to us, not to it."""
    family = start(placed, "--grace 0", "fork fork plain", "await 1", "plain")
    family.await_note("ready", 2)
    orphan = [pid for pid in children(family.run.init.pid) if pid != family.run.command.pid]
    assert len(orphan) == 1
    assert status(orphan[0])["Name"] == "monster"
    family.send(signal.SIGTERM)
    family.end()
