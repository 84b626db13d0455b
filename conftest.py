"""Options and fixtures of every test, and of every replay.

--sexton-init PATH   the binary under test; given twice, each test of it runs twice (default: build/sexton-init)
--no-skips           a skipped test is a failed one: for a machine that has everything, as CI's
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import pytest

RELEASE = Path(__file__).parent / "build" / "sexton-init"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sexton-init", action="append", type=Path, metavar="PATH", help=f"default: {RELEASE}")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of the binary runs on each binary."""
    paths: list[Path] = metafunc.config.getoption("--sexton-init") or [RELEASE]
    if "sexton_init" in metafunc.fixturenames and paths != [RELEASE]:
        metafunc.parametrize("sexton_init", paths, ids=[path.name for path in paths], indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """But for those that say why the sanitizer build will not do."""
    out = {item for item in items if _is_release_only(item) and _binary(item).name.endswith("-asan")}
    config.hook.pytest_deselected(items=list(out))
    items[:] = [item for item in items if item not in out]


def _is_release_only(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("release_only")
    assert marker is None or marker.args, f"{item.nodeid}: release_only wants a reason"
    return marker is not None


def _binary(item: pytest.Item) -> Path:
    """The binary that the test is to run on."""
    callspec = getattr(item, "callspec", None)
    return cast(Path, callspec.params.get("sexton_init", RELEASE)) if callspec else RELEASE


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
