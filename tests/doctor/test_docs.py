"""The Python in the documents runs, and the commands in them exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from sexton.cli._group import sexton
from tests.doctor.scene import SOURCE
from tests.support.lines import DEADLINE

CHECKOUT = Path(__file__).parent.parent.parent
PAGE = (CHECKOUT / "docs" / "doctor" / "README.md").read_text()


def test_the_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    program = f"import sys; sys.path.insert(0, {SOURCE!r})\n{code}"
    argv = [sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_are_there() -> None:
    lines = re.findall(r"^    .*?(sexton (?:ps|tree|doctor).*?)(?:#.*|\|.*)?$", PAGE, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        _, command, *words = shlex.split(line)
        done = CliRunner().invoke(sexton, [command, *words, "--help"])
        assert done.exit_code == 0, done.output


def test_the_manual_pages_name_every_option() -> None:
    for name in ("ps", "tree", "doctor"):
        page = (CHECKOUT / "man" / f"sexton-{name}.1").read_text().replace("\\", "")
        command = sexton.get_command(None, name)  # type: ignore[arg-type]  # the group asks nothing of a context
        assert command is not None
        options = {option for one in command.params for option in one.opts if option.startswith("--")}
        assert {option for option in options if f"Fl {option[1:]}" not in page} == set()
