"""What a program has after `import sexton`, and by which names it is told of errors."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import sexton
from tests.support.lines import DEADLINE


def fresh(code: str) -> str:
    """What an interpreter prints that has imported nothing else."""
    words = [sys.executable, "-c", f"import sys; before = set(sys.modules); import sexton\n{code}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.strip()


def test_importing_it_imports_nothing_else() -> None:
    assert fresh("print(*set(sys.modules) - before - {'__future__'})") == "sexton"


@pytest.mark.parametrize("name", ["aio.Tree", "errors.UsageError", "events.Status", "reaper.Reaper", "spawn.Holder"])
def test_modules_are_imported_when_they_are_asked_for(name: str) -> None:
    module = name.split(".", maxsplit=1)[0]
    assert fresh(f"print({module!r} in dir(sexton), sexton.{name}.__name__)") == f"True {name.split('.')[1]}"


def test_what_there_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'sexton' has no attribute 'repaer'"):
        _ = sexton.repaer


def test_errors_have_the_names_they_are_imported_by() -> None:
    with pytest.raises(sexton.TimeoutExpired) as late:
        sexton.run(["sleep", "100"], timeout=0)
    with pytest.raises(sexton.CalledProcessError) as failed:
        sexton.check_call(["false"])
    for error in (late.value, failed.value):
        kind = type(error)
        assert f"{kind.__module__}.{kind.__qualname__}" in {"sexton.TimeoutExpired", "sexton.CalledProcessError"}
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert again.receipt == error.receipt
