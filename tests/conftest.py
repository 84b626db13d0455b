"""Options and fixtures of every test.

--sexton-init PATH   the binary under test; given twice, each test of it runs twice (default: build/sexton-init)
--no-skips           a skipped test is a failed one: for a machine that has everything, as CI's
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import pytest

CHECKOUT = Path(__file__).parent.parent
RELEASE = CHECKOUT / "build" / "sexton-init"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sexton-init", action="append", type=Path, metavar="PATH", help=f"default: {RELEASE}")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of the binary runs on each binary, but for those that say why only the first will do."""
    if "sexton_init" not in metafunc.fixturenames:
        return
    paths: list[Path] = metafunc.config.getoption("--sexton-init") or [RELEASE]
    release_only = metafunc.definition.get_closest_marker("release_only")
    if release_only:
        assert release_only.args, "release_only wants a reason"
        paths = paths[:1]
    if len(paths) > 1 or paths != [RELEASE]:
        metafunc.parametrize("sexton_init", paths, ids=[path.name for path in paths], indirect=True, scope="session")


@pytest.fixture(scope="session")
def sexton_init(request: pytest.FixtureRequest) -> Path:
    """The sexton-init under test."""
    path = cast(Path, getattr(request, "param", RELEASE)).absolute()
    assert path.is_file(), f"{path} is not there: run `make build`"
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With --no-skips, what was skipped has failed, for the same reason."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"--no-skips: {reason}"
    return report
