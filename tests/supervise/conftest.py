"""What the tests of the supervisor share: the guard under test, and the look whether a test left anybody."""

from __future__ import annotations

from tests.spawn.conftest import guard, nobody_left

__all__ = ["guard", "nobody_left"]
