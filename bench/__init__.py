"""Benchmarks: sexton beside its peers, in one run."""
