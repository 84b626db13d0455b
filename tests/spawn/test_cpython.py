"""The parts of CPython's own test_subprocess that apply, run against sexton: the interpreter's installed copy.

`subprocess.run`, `check_call` and `check_output` are sexton's while they run: the one-word change, made for a whole
program.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.lines import DEADLINE

PROGRAM = """
import subprocess, sys, unittest
import sexton
subprocess.run, subprocess.check_call, subprocess.check_output = sexton.run, sexton.check_call, sexton.check_output
from test import test_subprocess
names = [name for case in (test_subprocess.RunFuncTestCase, test_subprocess.ProcessTestCase)
         for name in unittest.defaultTestLoader.loadTestsFromTestCase(case)
         for name in [name.id()]
         if case is test_subprocess.RunFuncTestCase or "check_call" in name or "check_output" in name]
result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromNames(names))
sys.exit(not result.wasSuccessful() or result.testsRun < 30)
"""


@pytest.mark.timeout(4 * DEADLINE)
def test_the_parts_of_cpython_that_apply() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=3 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
