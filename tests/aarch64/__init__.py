"""The tests of inject on a machine of the other kind, emulated as a whole. By hand: `python -m tests.aarch64`."""
