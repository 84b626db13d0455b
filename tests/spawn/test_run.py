"""run, check_call, check_output: subprocess' faces, bounded by the life of the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

import sexton
from sexton.errors import SextonError
from tests.spawn.troop import Troop, await_reader
from tests.support.lines import DEADLINE
from tests.support.monsters import double_forked

SAME: list[tuple[Any, dict[str, Any]]] = [
    (["true"], {}),
    (["false"], {}),
    ("exit 3", {"shell": True}),
    ("kill -9 $$", {"shell": True}),
    ("echo out; echo err >&2", {"shell": True, "capture_output": True}),
    ("echo out; echo err >&2", {"shell": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}),
    ("echo out; echo err >&2", {"shell": True, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}),
    (["cat"], {"input": b"x" * 300_000, "stdout": subprocess.PIPE}),
    (["cat"], {"input": "é\n", "stdout": subprocess.PIPE, "text": True}),
    (["cat"], {"input": "", "capture_output": True, "text": True}),
    (["cat"], {"input": bytearray(b"12"), "capture_output": True}),
    (["cat"], {"stdin": subprocess.DEVNULL, "capture_output": True}),
    (["true"], {"input": b"nobody reads this" * 10_000}),
    (["printf", "a\r\nb\rc\n"], {"capture_output": True, "text": True}),
    (["printf", "a\r\nb"], {"capture_output": True, "encoding": "utf-16", "errors": "ignore"}),
    (["sh", "-c", "exec >&-; exec 2>&-; exit 4"], {"capture_output": True}),
    ("exec >&-; cat >&2", {"shell": True, "input": b"late", "capture_output": True}),
    (["head", "-c", "1000000", "/dev/zero"], {"capture_output": True, "timeout": 60}),
]


@pytest.mark.parametrize(("args", "settings"), SAME)
def test_the_result_is_that_of_subprocess(args: Any, settings: dict[str, Any]) -> None:
    theirs = subprocess.run(args, **settings)  # noqa: PLW1510 - as sexton.run is called
    ours = sexton.run(args, **settings)
    assert vars(theirs) | {"receipt": ours.receipt} == vars(ours)
    assert isinstance(ours, subprocess.CompletedProcess)
    assert ours.receipt
    assert ours.receipt.empty
    assert repr(ours) == repr(theirs)


def test_the_exceptions_are_caught_by_existing_clauses() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        sexton.run(["sh", "-c", "echo x; exit 3"], check=True, capture_output=True)
    assert isinstance(failed.value, SextonError)
    assert (failed.value.returncode, failed.value.output, failed.value.stderr) == (3, b"x\n", b"")
    assert str(failed.value) == str(subprocess.CalledProcessError(3, failed.value.cmd))
    with pytest.raises(subprocess.CalledProcessError):
        sexton.run(["false"]).check_returncode()
    with pytest.raises(sexton.CalledProcessError):
        sexton.check_call(["false"])
    with pytest.raises(sexton.CalledProcessError) as failed:
        sexton.check_output(["sh", "-c", "echo x; exit 3"])
    assert failed.value.output == b"x\n"
    assert sexton.check_call(["true"]) == 0
    assert sexton.check_output(["cat"], input=b"in") == b"in"
    assert sexton.check_output(["cat"], input=None, text=True) == ""


def test_what_does_not_go_together() -> None:
    for settings in ({"input": b"", "stdin": 0}, {"capture_output": True, "stdout": 1}):
        wrong: Any = settings
        with pytest.raises(ValueError, match="may not"):
            sexton.run(["true"], **wrong)
    for name in ("stdout", "check"):
        with pytest.raises(ValueError, match=name):
            sexton.check_output(["true"], **{name: 1})


def test_a_timeout_is_kept_whoever_holds_the_pipes(troop: Troop) -> None:
    words = troop.words(double_forked("stubborn"), "await 1", "polite")
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        sexton.run(["sh", "-c", 'echo partial; exec "$@"', "sh", *words], **troop.handed,
                   capture_output=True, timeout=0.5, grace=0.2, text=True)  # fmt: skip
    assert time.monotonic() - began < DEADLINE
    expired = caught.value
    assert isinstance(expired, sexton.TimeoutExpired)
    assert (expired.stdout, expired.stderr) == (b"partial\n", b"")
    [daemon] = {note.pid for note in troop.end() if note.word == "ready"} - {expired.holders[0].pid}
    assert {holder.pid for holder in expired.holders} >= {daemon}
    for holder in expired.holders:
        assert holder.streams == ("stderr", "stdout")
        assert holder.cmdline[0] == str(troop.monster)
        assert str(holder) in str(expired)
    assert expired.receipt
    assert expired.receipt.empty
    assert -9 in {entry.code for entry in expired.receipt.entries if entry.pid == daemon}


def test_leftovers_of_an_ended_command_do_not_hold_the_result(troop: Troop) -> None:
    """subprocess.run waits here for a daemon that never ends."""
    words = troop.words(double_forked(), "await 1", "exit 2")
    done = sexton.run(words, **troop.handed, capture_output=True, timeout=DEADLINE)
    assert done.returncode == 2
    assert done.receipt
    assert [entry.code for entry in done.receipt.leftovers] == [0]
    troop.end()


def test_a_command_that_ended_in_time_has_not_expired(troop: Troop) -> None:
    words = troop.words(double_forked("stubborn"), "await 1", "exit 2")
    done = sexton.run(words, **troop.handed, capture_output=True, timeout=2, grace=3)
    assert done.returncode == 2
    troop.end()


def test_a_stranger_that_holds_a_pipe_is_not_waited_for() -> None:
    """It is handed the pipe over a socket, so it is no process of the tree."""
    import socket

    ours, theirs = socket.socketpair()
    code = "import socket, sys; socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [1]); print('out')"
    done = sexton.run(
        [sys.executable, "-c", code, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=sexton.PIPE,
        timeout=DEADLINE,
    )
    assert done.stdout == b"out\n"
    _, held, _, _ = socket.recv_fds(ours, 10, 1)
    os.close(held[0])
    ours.close()
    theirs.close()


def test_an_interrupt_ends_the_tree(troop: Troop) -> None:
    code = """
import sys, sexton
try:
    sexton.run(sys.argv[2:], pass_fds=[int(sys.argv[1])], grace=0.5)
except KeyboardInterrupt:
    sys.exit(7)
"""
    import signal

    words = [sys.executable, "-c", code, str(troop.log.write_fd), *troop.words(double_forked("stubborn"), "polite")]
    with subprocess.Popen(words, **troop.handed) as program:
        troop.ready(2)
        await_reader(program.pid)  # before, a start would be given up: without its own Ctrl-C
        program.send_signal(signal.SIGINT)
        assert program.wait(DEADLINE) == 7
    assert {note.signal for note in troop.end() if note.word == "got"} == {signal.SIGINT, signal.SIGTERM}


def test_the_receipt_of_a_thousand_orphans_is_whole() -> None:
    """As many as would not fit into the socket: they are read while the command runs."""
    done = sexton.run(["sh", "-c", "for n in $(seq 1000); do (true &); done; exit 3"])
    assert done.returncode == 3
    assert done.receipt
    assert done.receipt.lines_lost == 0
    assert sum(entry.adopted for entry in done.receipt.entries) == 1000
