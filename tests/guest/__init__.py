"""Tests that need another machine, or another kernel, than ours: one is emulated, by hand (`python -m tests.guest`)."""
