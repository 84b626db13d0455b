"""Figures of seeing and explaining: `python -m bench.proc`."""
