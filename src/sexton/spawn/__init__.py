"""Process trees for Python programs: what is started is contained, and when it is stopped nothing of it is left."""

from subprocess import DEVNULL, PIPE, STDOUT

from sexton.spawn._errors import CalledProcessError, CompletedProcess, TimeoutExpired
from sexton.spawn._owner import Owner, Swept
from sexton.spawn._processes import Holder, Process
from sexton.spawn._receipt import Entry, Receipt
from sexton.spawn._run import check_call, check_output, run
from sexton.spawn._start import Options, Settings
from sexton.spawn._tree import Tree

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Entry",
    "Holder",
    "Options",
    "Owner",
    "Process",
    "Receipt",
    "Settings",
    "Swept",
    "TimeoutExpired",
    "Tree",
    "check_call",
    "check_output",
    "run",
]
