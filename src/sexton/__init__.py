"""sexton: the caretaker of processes on Linux."""

__version__ = "0.1.0"
