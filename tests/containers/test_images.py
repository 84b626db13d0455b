"""sexton-init in the image, as the Dockerfile of any project has it: under its own name, and in place of the others."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.containers.family import Starter, in_images
from tests.containers.podman import Podman
from tests.support.monsters import double_forked, setsid_daemon

pytestmark = in_images

TERM, QUIT = signal.SIGTERM, signal.SIGQUIT


@dataclass(frozen=True)
class StandIn:
    """An image whose ENTRYPOINT is sexton-init at the path of one of the others; `missing`: its code for ENOENT."""

    path: str
    missing: int
    image: str = ""


STAND_INS = [
    StandIn("/sbin/tini", 127),
    StandIn("/usr/local/bin/tini-static", 127),
    StandIn("/sbin/docker-init", 127),
    StandIn("/usr/bin/dumb-init", 2),
    StandIn("/usr/bin/catatonit", 1),
]


def build(podman: Podman, context: Path, base: str, init: Path, lines: Sequence[str]) -> str:
    """`podman build` of `FROM base` and these lines, with the binary as sexton-init in the context; gives the image."""
    context.mkdir(exist_ok=True)
    shutil.copy(init, context / "sexton-init")
    (context / "Dockerfile").write_text("\n".join([f"FROM {base}", *lines]) + "\n")
    return podman.do("build", "--quiet", "--isolation=chroot", context)


@pytest.fixture(params=STAND_INS, ids=lambda each: os.path.basename(each.path))
def stand_in(request: pytest.FixtureRequest, podman: Podman, image: str, sexton_init: Path, tmp_path: Path) -> StandIn:
    """One of them, its image built."""
    plain: StandIn = request.param
    lines = [f"COPY sexton-init {plain.path}", f'ENTRYPOINT ["{plain.path}", "--"]']
    return replace(plain, image=build(podman, tmp_path / "context", image, sexton_init, lines))


@pytest.fixture
def own(podman: Podman, image: str, sexton_init: Path, tmp_path: Path) -> str:
    """An image as the README says: sexton-init is the ENTRYPOINT, with options, and the command is CMD."""
    lines = [
        "COPY sexton-init /usr/local/bin/",
        'ENTRYPOINT ["sexton-init", "--grace", "1", "--map", "INT=QUIT", "--"]',
        'CMD ["sh", "-c", "echo from the CMD"]',
    ]
    return build(podman, tmp_path / "context", image, sexton_init, lines)


def test_entrypoint(start: Starter, own: str) -> None:
    family = start(
        "times 3 fork fork exit 0",
        "times 3 as daemon " + double_forked(),
        "as stubborn " + setsid_daemon("stubborn"),
        "as command polite",
        image=own,
        by_engine=False,
    )
    family.await_note("ready", 5)
    family.await_events("reaped", 3)
    assert family.container.processes()[0].comm == "sexton-init"
    family.container.kill("INT")
    ending = family.end()
    assert ending.code == 0
    assert ending.got(QUIT) == {"command": 1}
    assert ending.got(TERM) == {"daemon": 3, "stubborn": 1}
    assert len(ending.of("killed")) == 1


def test_cmd(podman: Podman, own: str) -> None:
    assert podman.do("run", "--rm", own) == "from the CMD"


def test_the_engine_in_front_of_the_image(podman: Podman, own: str, sexton_init: Path) -> None:
    """--init and an ENTRYPOINT that is one too: the second is no PID 1, says nothing of it, and all is as before."""
    ended = podman.call("run", "--rm", "--init", f"--init-path={sexton_init}", own, "sh", "-c", "echo $PPID; exit 9")
    assert (ended.code, ended.err) == (9, "")
    assert int(ended.out) > 1


def test_a_build_runs_under_it(podman: Podman, image: str, sexton_init: Path, tmp_path: Path) -> None:
    """RUN steps too may leave processes behind, and a step ends when its init ends."""
    lines = [
        "COPY sexton-init /sbin/",
        'RUN ["sexton-init", "--", "sh", "-c", "sleep 1000 & echo built > /made"]',
        'CMD ["cat", "/made"]',
    ]
    built = build(podman, tmp_path / "context", image, sexton_init, lines)
    assert podman.do("run", "--rm", built) == "built"


def test_a_stand_in_reaps_and_forwards(start: Starter, stand_in: StandIn) -> None:
    family = start("times 3 fork fork exit 0", "as command polite", image=stand_in.image, by_engine=False)
    family.await_note("ready")
    family.await_events("reaped", 3)
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM) == {"command": 1}


@pytest.mark.parametrize(("statement", "code"), [("exit 7", 7), ("die 9", 137), ("die 15", 143)])
def test_a_stand_in_gives_the_exit_code(start: Starter, stand_in: StandIn, statement: str, code: int) -> None:
    assert start(statement, image=stand_in.image, by_engine=False).end().code == code


def test_a_stand_in_leaves_leftovers_alone(start: Starter, stand_in: StandIn) -> None:
    """As the program it stands in for does: the kernel ends the daemon, ungracefully."""
    family = start("as daemon " + double_forked(), "await 1", "exit 3", image=stand_in.image, by_engine=False)
    ending = family.end()
    assert ending.code == 3
    assert not ending.received(TERM)


def test_a_stand_in_stops_leftovers_when_asked(start: Starter, stand_in: StandIn) -> None:
    options = ["--env=SEXTON_ON_EXIT=stop", "--env=SEXTON_GRACE=1"]
    family = start(
        "times 3 as daemon " + double_forked(),
        "as stubborn " + setsid_daemon("stubborn"),
        "await 4",
        "exit 3",
        image=stand_in.image,
        by_engine=False,
        options=options,
    )
    ending = family.end()
    assert ending.code == 3
    assert ending.got(TERM) == {"daemon": 3, "stubborn": 1}
    assert len(ending.of("killed")) == 1


def test_a_command_that_is_missing(podman: Podman, stand_in: StandIn) -> None:
    """Each has an exit code of its own for it."""
    ended = podman.call("run", "--rm", stand_in.image, "/nowhere")
    assert ended.code == stand_in.missing
    assert "No such file or directory" in ended.err


def test_the_version_that_an_engine_asks_for(podman: Podman, stand_in: StandIn) -> None:
    """Docker and podman parse what their init says of its version, and know only tini's line."""
    ended = podman.call("run", "--rm", f"--entrypoint={stand_in.path}", stand_in.image, "--version")
    assert ended.code == 0
    if stand_in.path.endswith("dumb-init"):
        assert ended.err.startswith("dumb-init v")
    else:
        assert ended.out.startswith("tini version ")
