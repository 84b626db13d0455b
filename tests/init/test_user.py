"""--user: groups, gid, uid, HOME, in that order, verified; the init itself keeps what it has, and can still signal."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import pytest

from tests.init.family import Mode, Starter
from tests.support.processes import status

pytestmark = pytest.mark.usefixtures("root")

SHOW = ["sh", "-c", 'id -u; id -g; id -G; echo "$HOME"']


def test_by_name_with_its_groups_and_home(start: Starter, placed: Mode) -> None:
    entry = pwd.getpwnam("daemon")
    groups = os.getgrouplist("daemon", entry.pw_gid)
    end = start(placed, "--user daemon", command=SHOW).end()
    uid, gid, listed, home = end.out.splitlines()
    assert (int(uid), int(gid), home) == (entry.pw_uid, entry.pw_gid, entry.pw_dir)
    assert {int(group) for group in listed.split()} == set(groups)


@pytest.mark.parametrize(
    ("spec", "uid", "gid"),
    [
        ("65534", 65534, 65534),
        ("12345:23456", 12345, 23456),
        ("nobody:daemon", 65534, 1),
        ("nobody:1", 65534, 1),
        ("1:nogroup", 1, 65534),
        ("0:12345", 0, 12345),
    ],
)
def test_by_name_or_number(start: Starter, placed: Mode, spec: str, uid: int, gid: int) -> None:
    out = start(placed, f"--user {spec}", command=SHOW).end().out.splitlines()
    assert (int(out[0]), int(out[1])) == (uid, gid)
    assert str(gid) in out[2].split()


@pytest.mark.parametrize("spec", ["root", "0", "root:root", "0:0"])
def test_all_three_forms(start: Starter, spec: str) -> None:
    for words, env in (([f"--user={spec}"], {}), (["--user", spec], {}), ([], {"SEXTON_USER": spec})):
        assert start.plain(*words, "sh", "-c", "exit 7", env=env).wait().code == 7


def test_a_number_without_an_entry(start: Starter) -> None:
    """As docker does it: uid without passwd entry means group 0 there; nothing may be kept of ours, though."""
    result = start.plain("--user", "12345", *SHOW).wait()
    if result.code == 125:
        assert "12345" in result.err
        assert "GROUP" in result.err or "group" in result.err
    else:
        out = result.out.splitlines()
        assert out[0] == "12345"
        assert out[3] == "/"


def test_the_user_id_alone(start: Starter, placed: Mode) -> None:
    before = ["setpriv", "--groups", "4,5,6"]
    out = start(placed, "--user +12345", command=SHOW, before=before).end().out.splitlines()
    assert (out[0], out[1], out[2].split(), out[3]) == ("12345", "0", ["0", "4", "5", "6"], os.environ["HOME"])
    for wrong in ("+", "+daemon", "+1:1", "+-1"):
        result = start.plain("--user", wrong, *SHOW).wait()
        assert result.code == 125
        assert wrong in result.err


def test_an_explicit_group_is_the_only_one(start: Starter) -> None:
    out = start.plain("--user", "daemon:12345", *SHOW).wait().out.splitlines()
    assert out[2].split() == ["12345"]


def test_our_supplementary_groups_are_dropped(start: Starter) -> None:
    before = ["setpriv", "--groups", "4,5,6"]
    assert start.plain("--user", "65534:65534", *SHOW, before=before).wait().out.splitlines()[2] == "65534"


@pytest.fixture
def many_groups(tmp_path: Path) -> Path:
    """A group file in which `daemon` is in 40 groups, and in which every kind of odd line occurs."""
    lines = [f"g{n}:x:{5000 + n}:root,daemon,nobody" for n in range(40)]
    odd = [
        "",
        "#comment",
        "short:x",
        "long:x:70000:" + ",".join(f"user{n}" for n in range(2000)) + ",daemon",
        "daemons:x:71000:daemons,xdaemon",
    ]
    path = tmp_path / "group"
    path.write_text("\n".join([*odd, *lines, "last:x:72000:daemon"]))
    return path


def test_many_supplementary_groups_and_odd_lines(start: Starter, placed: Mode, many_groups: Path) -> None:
    mount = ["unshare", "--mount", "sh", "-c", f'mount --bind {many_groups} /etc/group && exec "$@"', "sh"]
    out = start(placed, "--user daemon", command=SHOW, before=mount).end().out.splitlines()
    assert {int(group) for group in out[2].split()} == {1, 70000, 72000, *range(5000, 5040)}


def test_all_four_ids_change_and_no_capability_stays(start: Starter, placed: Mode) -> None:
    """Root cannot come back: real, effective, saved and file-system ids, and no capability in any used set."""
    out = start(placed, "--user 65534:65533", command=["cat", "/proc/self/status"]).end().out
    fields = dict(line.split(":", 1) for line in out.splitlines())
    assert fields["Uid"].split() == ["65534"] * 4
    assert fields["Gid"].split() == ["65533"] * 4
    assert fields["Groups"].split() == ["65533"]
    for capabilities in ("CapEff", "CapPrm", "CapAmb"):
        assert int(fields[capabilities], 16) == 0


def test_the_command_cannot_become_root_again(start: Starter) -> None:
    script = "import os\ntry:\n os.setuid(0)\nexcept PermissionError:\n raise SystemExit(7)"
    import sys

    assert start.plain("--user", "65534:65534", sys.executable, "-S", "-c", script).wait().code in (7, 126)


def test_home_is_set_where_there_was_none(start: Starter) -> None:
    result = start.plain("--user", "daemon", "/usr/bin/env", before=["env", "-i", "A=1"]).wait()
    assert sorted(result.out.splitlines()) == ["A=1", f"HOME={pwd.getpwnam('daemon').pw_dir}"]


def test_home_is_replaced_and_nothing_else(start: Starter) -> None:
    before = ["env", "-i", "A=1", "HOME=/root", "B=2", "XHOME=3", "HOMES=4"]
    result = start.plain("--user", "daemon", "/usr/bin/env", before=before).wait()
    home = pwd.getpwnam("daemon").pw_dir
    assert result.out.splitlines() == ["A=1", f"HOME={home}", "B=2", "XHOME=3", "HOMES=4"]


def test_path_is_searched_as_that_user(start: Starter, tmp_path: Path) -> None:
    """What root may execute and COMMAND's user may not is 126."""
    program = tmp_path / "roots-only"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o700)
    assert start.plain("--user", "65534:65534", str(program)).wait().code == 126


@pytest.mark.parametrize("spec", ["no-such-user-here", "daemon:no-such-group-here", "65534:65534"])
def test_what_cannot_be_done_is_125_and_starts_nothing(start: Starter, anyones_init: Path, spec: str) -> None:
    """Unknown names; and an init without the right to change its user."""
    before = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]
    start.init = anyones_init
    result = start.plain("--user", spec, "echo", "started", before=before).wait()
    assert result.code == 125
    assert result.out == ""
    assert "user" in result.err


def test_to_be_who_one_is_already_needs_no_right(start: Starter, anyones_init: Path) -> None:
    """An image that says SEXTON_USER=65534:65534 also runs where the engine has started it as that user."""
    start.init = anyones_init
    before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    result = start.plain("--user", "65534:65534", "sh", "-c", "exit 7", before=before).wait()
    assert result.code in (7, 125), result
    if result.code == 125:
        assert "user" in result.err


def test_the_init_can_still_signal_and_stop(start: Starter, placed: Mode) -> None:
    family = start(placed, "--user 65534:65534 --grace 0.2", "fork setsid stubborn", "await 1", "polite")
    family.await_note("ready", 2)
    assert status(family.run.init.pid)["Uid"].split() == ["0"] * 4
    assert status(family.run.command.pid)["Uid"].split() == ["65534"] * 4
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert end.left == []
    assert set(end.got(signal.SIGTERM).values()) == {1}


def test_a_missing_passwd_file(start: Starter, tmp_path: Path) -> None:
    """A scratch image has none: numbers do."""
    mount = ["unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path} /etc && exec "$@"', "sh"]
    ok = start.plain("--user", "1:1", "/bin/sh", "-c", "exit 7", before=mount).wait()
    assert ok.code == 7, ok
    unknown = start.plain("--user", "daemon", "/bin/sh", "-c", "exit 7", before=mount).wait()
    assert unknown.code == 125
    assert "daemon" in unknown.err
