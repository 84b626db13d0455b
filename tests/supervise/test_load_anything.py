"""Whatever stands in a file: it loads, or it is told what is wrong with it, and nothing else happens."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sexton.errors import UsageError
from sexton.supervise import shape
from sexton.supervise.importers._toml import document
from sexton.supervise.load import parse
from sexton.supervise.values import Table

WORDS = st.sampled_from(
    [
        "a",
        "b",
        "auto",
        "1m30s",
        "1GiB",
        "${port}",
        "${app.b.port}",
        "$",
        "always",
        "ready",
        "unlimited",
        ":80",
        "unix:x",
    ]
)
SCALARS = (
    WORDS
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 100)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(WORDS, SCALARS, max_size=2)


def tables(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """With some of its keys, and with values that may be right."""
    keys = {
        key: VALUES | tables(one.kind) if isinstance(one.kind, Table) else VALUES for key, one in table.keys.items()
    }
    return st.lists(st.sampled_from(sorted(keys)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: keys[name] for name in names})
    )


APPS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "all", "A"]), tables(shape.APP).map(lambda app: {"command": "x", **app}), max_size=3
)
TOP = st.fixed_dictionaries(
    {"apps": APPS},
    optional={
        "defaults": tables(shape.DEFAULTS),
        "name": VALUES,
        "state": VALUES,
        "api": VALUES,
        "stop_timeout": VALUES,
    },
)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", "/run/s")


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
@given(TOP)
def test_tables_of_anything(top: dict[str, Any]) -> None:
    path = Path("/nowhere/sexton.toml")
    config, said = None, ""
    try:
        config = parse(document(top), path)
    except UsageError as error:
        said = str(error)
    event("it loads" if config else "it does not")
    assert all(line.startswith(f"{path}:") for line in said.split("\n") if not config), said
    if config:
        assert {app.name for app in config.order()} == set(config.apps)
        assert config == parse(document(top), path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60))
def test_texts_of_anything(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text, Path("/nowhere/sexton.toml"))
