"""podman run -t: the container's terminal belongs to the command, and job control works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.containers.family import Starter, in_images
from tests.support.terminal import CTRL_C, CTRL_Z, Terminal

pytestmark = in_images


@pytest.fixture
def shell(start: Starter) -> Iterator[Terminal]:
    """busybox sh as the command of `podman run -it --init`; with a prompt of its own."""
    with ExitStack() as stack:
        words = start.podman.words("run", "--rm", "-it", *start.with_init(), "--env=PS1=> ", start.image, "sh")
        terminal = stack.enter_context(Terminal(words, env=start.podman.environment))
        terminal.expect("> ")
        yield terminal


def test_the_shell_has_job_control(shell: Terminal) -> None:
    assert "job control turned off" not in shell.seen
    shell.keys("sh -c 'echo up $((6 * 7)); exec sleep 1000'\n")
    shell.expect("up 42")
    shell.keys(CTRL_Z)
    shell.expect("Stopped")
    shell.expect("> ")
    shell.keys("bg\n")
    shell.expect(r"\[1\] .*sleep 1000")
    shell.expect("> ")
    shell.keys("fg\n")
    shell.expect("sleep 1000")
    shell.keys(CTRL_C)
    shell.expect("> ")
    shell.keys("echo code $?; exit 5\n")
    shell.expect("code 130")
    assert shell.wait() == 5


def test_what_a_shell_leaves_in_the_background_is_stopped(shell: Terminal) -> None:
    shell.keys("(trap 'echo told; exit' TERM; echo up $((6 * 7)); while :; do sleep 0.1; done) &\n")
    shell.expect("up 42")
    shell.keys("exit 6\n")
    shell.expect("told\r")
    assert shell.wait() == 6


def test_interrupts_are_the_commands_alone(start: Starter) -> None:
    """Ctrl-C goes to the terminal's foreground, which sexton-init is not in: the third does not make it kill."""
    trap = "n=$((n + 1)); echo interrupt $n; [ $n -lt 4 ] || exit 9"
    command = f"trap '{trap}' INT; echo ready; while :; do sleep 0.1; done"
    words = start.podman.words("run", "--rm", "-it", *start.with_init(), start.image, "sh", "-c", command)
    with Terminal(words, env=start.podman.environment) as terminal:
        terminal.expect("ready")
        for number in range(1, 5):
            terminal.keys(CTRL_C)
            terminal.expect(f"interrupt {number}")
        assert terminal.wait() == 9


def test_without_a_terminal_stdin_is_the_commands(start: Starter) -> None:
    with start.podman.home.joinpath("containers.conf").open("rb") as text:
        ended = start.podman.call("run", "--rm", "-i", *start.with_init(), start.image, "cat", stdin=text)
        text.seek(0)
        assert (ended.code, ended.out.encode()) == (0, text.read())
