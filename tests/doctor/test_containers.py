"""A real container of podman and runc, looked at from the host."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sexton import proc
from sexton.cli._names import ask
from tests.containers.podman import Podman
from tests.doctor.scene import SEXTON
from tests.doctor.test_command import sexton
from tests.support.lines import DEADLINE
from tests.support.processes import kill


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Podman, str]]:
    """podman, and an image with busybox in it."""
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "dev", "proc", "sys", "tmp", "run", "etc"):
        (root / name).mkdir()
    root.chmod(0o755)
    shutil.copy("/bin/busybox", root / "bin")
    for name in ("sh", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    with Podman() as podman:
        yield podman, podman.image("doctor", Path(root))


def inside(container: str) -> dict[int, proc.Process]:
    """The processes of a container, as the host sees them."""
    at = proc.snapshot()
    return {pid: at.processes[pid] for pid, one in proc.containers(at).items() if one.id == container}


def doctor(container: str) -> dict[str, Any]:
    """What `sexton doctor --json` says of it."""
    done = sexton("doctor", "--json", "--container", container[:12])
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_a_container_whose_pid_1_does_not_reap_then_frozen_then_cured(podman: tuple[Podman, str]) -> None:
    engine, image = podman
    container = engine.do("run", "-d", image, "sleep", "1000")
    try:
        (first,) = inside(container)
        engine.do("exec", container, "sh", "-c", "(sleep 1001 >/dev/null 2>&1 &)")
        until = time.monotonic() + DEADLINE
        while not (orphans := [p.pid for p in inside(container).values() if (p.ppid, p.comm) == (first, "sleep")]):
            assert time.monotonic() < until, "the orphan did not come to PID 1"
        kill(orphans[0])

        found = {finding["rule"]: finding for finding in doctor(container)["findings"]}
        assert set(found) == {"pid1-does-not-reap", "slow-stop"}
        finding = found["pid1-does-not-reap"]
        assert finding["container"] == {"id": container, "engine": "podman", "pod": ""}
        assert [victim["pid"] for victim in finding["victims"]] == orphans
        assert {cure["place"] for cure in finding["cures"][:3]} == {"sexton", "podman"}
        assert f"podman restart {container[:12]}" in [cure["commands"] for cure in finding["cures"]]
        text = sexton("doctor", "--container", container[:12]).stdout
        assert f" ({container[:12]})" in text.partition("\n")[0]  # behind the name that podman gave it
        assert "kubectl" not in text

        tree = json.loads(sexton("tree", "--json", container[:12]).stdout)
        assert [root["pid"] for root in tree["roots"]] == [first]
        assert tree["size"] == 2
        listed = json.loads(sexton("ps", "--json", "--zombies", "--container", container[:12]).stdout)
        assert [process["culprit"] for process in listed["processes"]] == [first]

        engine.do("pause", container)
        try:
            frozen = doctor(container)["findings"][0]
            assert (frozen["rule"], frozen["culprit"]["pid"]) == ("parent-cannot-run", first)
            assert f"podman unpause {container[:12]}" in [cure["commands"] for cure in frozen["cures"]]
        finally:
            engine.do("unpause", container)

        cured = sexton("reap", "--container", container[:12], "--yes")
        assert (cured.returncode, cured.stderr) == (0, ""), cured
        assert set(inside(container)) == {first}
    finally:
        engine.do("rm", "-f", "-t", "0", container)


def test_a_container_by_its_name(podman: tuple[Podman, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conmon tells the name, wherever the storage is; where nothing does, the engine is asked."""
    engine, image = podman
    container = engine.do("run", "-d", "--name=shop.web", image, "sleep", "1000")
    try:
        (first,) = inside(container)
        assert sexton("ps", "--pid", str(first)).stdout.splitlines()[0].split()[6] == "CONTAINER"
        assert "  shop.web  " in sexton("ps", "--pid", str(first)).stdout
        assert "CONTAINER" not in sexton("ps", "--container", "shop.web").stdout  # all of it is in that one
        [process] = json.loads(sexton("ps", "--json", "--container", "shop.web").stdout)["processes"]
        assert (process["pid"], process["container"]["name"]) == (first, "shop.web")
        assert f"sleep[{first}]" in sexton("tree", "shop.web").stdout
        told = sexton("doctor", "--container", "shop.web")
        assert told.returncode == 1  # sleep as PID 1 does not hear SIGTERM
        assert f"slow-stop (certain)  in podman shop.web ({container[:12]})" in told.stdout
        assert sexton("reap", "--container", "shop.web").stdout == "No zombies.\n"
        assert f"shop.web ({container[:12]})" in sexton("ps", "--container", "shop").stderr

        box = proc.Container(container, "podman", "")
        assert ask("shop.web", {box}) == ""  # the podman of the machine has its own storage
        there = shutil.which("podman")
        assert there
        words = [there if word == "podman" else word for word in engine.words()]
        asked = tmp_path / "podman"
        asked.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        asked.chmod(0o755)
        with monkeypatch.context() as patch:
            for name, value in engine.environment.items():
                patch.setenv(name, value)
            patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            assert ask("shop.web", {box}) == container
            assert ask("shop.web", {box._replace(id="f" * 64)}) == ""
            assert ask("shop.web", {box._replace(engine="")}) == container
            assert ask("shop.web", {box._replace(engine="docker")}) == ""  # podman is not asked
            assert ask("--help", {box}) == ""
    finally:
        engine.do("rm", "-f", "-t", "0", container)


def test_a_container_is_kept_by_its_name(podman: tuple[Podman, str]) -> None:
    """`reap --keep NAME`: what the container's PID 1 does not bury is buried, until told to stop."""
    engine, image = podman
    container = engine.do("run", "-d", "--name=kept", image, "sleep", "1000")
    try:
        (first,) = inside(container)
        argv = [sys.executable, "-I", "-u", "-c", SEXTON, "reap", "--keep", "kept"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as keeper:
            assert keeper.stdout is not None
            assert keeper.stderr is not None
            assert f"keeping sleep[{first}]" in keeper.stderr.readline()
            engine.do("exec", container, "sh", "-c", "(sleep 0.01 >/dev/null 2>&1 &)")
            assert select.select([keeper.stdout], [], [], DEADLINE)[0]
            assert "reaped" in keeper.stdout.readline()
            keeper.send_signal(signal.SIGTERM)
            assert keeper.wait(DEADLINE) == 0
            assert "told to stop: 1 zombie reaped" in keeper.stderr.read()
        assert set(inside(container)) == {first}
    finally:
        engine.do("rm", "-f", "-t", "0", container)
