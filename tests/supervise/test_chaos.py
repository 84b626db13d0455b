"""Some seconds of chaos; `python -m tests.supervise.chaos` is ten minutes of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 20


@pytest.mark.timeout(300)
def test_chaos(sexton_init: Path) -> None:
    seed = random.randrange(1 << 32)
    done = subprocess.run(
        [sys.executable, "-m", "tests.supervise.chaos", "--seconds", str(SECONDS), "--seed", str(seed)],
        cwd=ROOT,
        env={**os.environ, "SEXTON_INIT": str(sexton_init)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "kill supervisor" in done.stdout
