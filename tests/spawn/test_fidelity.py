"""sexton.run in subprocess.run's place: what is tried here is what both do, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sexton
from sexton.errors import UsageError
from tests.support.processes import status

Run = Callable[..., subprocess.CompletedProcess[Any]]
IDS = ["sh", "-c", 'id -u; id -g; id -G; echo "$HOME"']
LEADS = "import os; me = os.getpid(); print(os.getsid(0) == me, os.getpgrp() == me, os.getpgrp() == os.getsid(0))"


def outcome(run: Run, args: Any, settings: dict[str, Any]) -> Any:
    """What came of it: the output, or the exception with what it names."""
    try:
        return run(args() if callable(args) else args, capture_output=True, **settings).stdout
    except (OSError, LookupError, TypeError, ValueError) as error:
        return type(error), getattr(error, "errno", None), getattr(error, "filename", None)


def both(args: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    theirs = outcome(subprocess.run, args, settings)
    return theirs, outcome(sexton.run, args, settings)


SAME: list[tuple[Any, dict[str, Any]]] = [
    (["x", "-c", "echo $0"], {"executable": "sh"}),
    (["x", "-c", "echo $0"], {"executable": b"sh"}),
    ("echo $0", {"executable": "bash", "shell": True}),
    (["x"], {"executable": "no-such-program"}),
    (["x"], {"executable": "/nonexistent"}),
    (["x"], {"executable": Path("/nonexistent")}),
    ("true", {"executable": "/nonexistent", "shell": True}),
    ("true", {"cwd": "/nonexistent"}),
    (lambda: (word for word in ("echo", "x")), {}),
    (lambda: (word for word in ("no-such-program", "x")), {}),
    ([Path("/nonexistent")], {}),
    (["true", "x" * 200_000], {}),
    (["true"], {"startupinfo": None, "creationflags": 0}),
    (["no-such-program"], {"timeout": 0}),
]


@pytest.mark.parametrize(("args", "settings"), SAME)
def test_what_is_executed_and_what_an_error_names(args: Any, settings: dict[str, Any]) -> None:
    theirs, ours = both(args, settings)
    assert ours == theirs


def test_a_generator_is_a_list_then() -> None:
    words: Any = (word for word in ("true", "x"))
    assert sexton.run(words).args == ["true", "x"]


PLACES: list[dict[str, Any]] = [
    {"start_new_session": True},
    {"preexec_fn": os.setsid},
    {"process_group": 0},
    {"preexec_fn": os.setpgrp},
    {"start_new_session": True, "process_group": None},
]


@pytest.mark.parametrize("settings", PLACES, ids=str)
def test_the_session_and_the_group_of_the_command(settings: dict[str, Any]) -> None:
    theirs, ours = both([sys.executable, "-c", LEADS], settings)
    assert ours == theirs


def test_a_session_in_a_namespace() -> None:
    done = sexton.run([sys.executable, "-c", LEADS], contain="pidns", start_new_session=True, stdout=sexton.PIPE)
    assert done.stdout == b"True True True\n"


def test_the_group_of_another() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) as leader:
        code = "import os, sys; print(os.getpgrp() == int(sys.argv[1]))"
        theirs, ours = both([sys.executable, "-c", code, str(leader.pid)], {"process_group": leader.pid})
        assert ours == theirs == b"True\n"


USERS: list[dict[str, Any]] = [
    {"user": "nobody"},
    {"user": 12345},
    {"user": "nobody", "group": 65534, "extra_groups": [1, 2, 3]},
    {"user": "nobody", "group": "daemon", "extra_groups": ["bin", 3]},
    {"user": 12345, "group": 23456},
    {"group": "daemon"},
    {"extra_groups": [1, 2]},
    {"user": 1, "extra_groups": []},
    {"user": 0},
    {"user": "no-such-user"},
    {"user": -5},
    {"user": 1.5},
    {"group": "no-such-group", "user": "nobody"},
]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: more than one user")
@pytest.mark.parametrize("settings", USERS, ids=str)
def test_who_runs_it(settings: dict[str, Any]) -> None:
    theirs, ours = both(IDS, settings)
    assert ours == theirs


def test_our_own_user() -> None:
    theirs, ours = both(IDS, {"user": os.getuid()})
    assert ours == theirs


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: more than one user")
def test_the_guard_stays_who_it_is() -> None:
    with sexton.Tree(["cat"], stdin=sexton.PIPE, user="nobody", group=65534, extra_groups=[]) as tree:
        assert status(tree.pid)["Uid"].split() == ["65534"] * 4
        assert status(tree.guard)["Uid"].split() == ["0"] * 4
        assert tree.kill().empty


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: more than one user")
def test_login_takes_the_groups_and_the_home_of_a_user() -> None:
    done = sexton.run(IDS, login="daemon", stdout=sexton.PIPE, text=True)
    assert done.stdout.split() == ["1", "1", "1", "/usr/sbin"]
    more: list[Any] = [{"user": 1}, {"group": 1}, {"extra_groups": []}]
    for wrong in more:
        with pytest.raises(UsageError, match="login"):
            sexton.run(["true"], login="daemon", **wrong)


def test_arguments_by_place() -> None:
    """In the order of Popen, which they are handed to."""
    runs: list[Any] = [subprocess.run, sexton.run]
    for run in runs:
        done = run(["x", "-c", "cat; echo $0"], -1, "/bin/sh", -3, -1, -2, None, True, False, "/", None, True)
        assert done.stdout == "x\n"
        with pytest.raises(TypeError):
            run(["true"], -1, bufsize=-1)
        with pytest.raises(TypeError):
            run(["true"], *[None] * 17)
    assert sexton.check_call(["x", "-c", "exit 0"], -1, "sh") == 0
    assert sexton.check_output(["x", "-c", "echo $0"], -1, "sh") == b"x\n"
    with pytest.raises(TypeError, match="stdout"):
        sexton.check_output(["true"], -1, None, None, -1)


def test_a_script_without_a_first_line_goes_to_the_shell(tmp_path: Path) -> None:
    """As execvp(3) has it, and not subprocess."""
    script = tmp_path / "script"
    script.write_text("echo by the shell\n")
    script.chmod(0o755)
    assert sexton.run([script], stdout=sexton.PIPE).stdout == b"by the shell\n"
