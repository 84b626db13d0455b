"""What is written is what is read."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sexton.supervise.importers._toml import document

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_is_read(table: dict[str, Any]) -> None:
    assert tomllib.loads(document(table)) == table


def test_it_reads_well() -> None:
    app = {"command": ["a", 'b "c"'], "stop": {"grace": 2.0, "signal": "INT"}, "env": {"LONG": "x" * 200}}
    assert document({"name": "n", "apps": {"web": app}}) == (
        'name = "n"\n\n[apps.web]\ncommand = ["a", \'b "c"\']\nstop = { grace = 2, signal = "INT" }\n'
        f'\n[apps.web.env]\nLONG = "{"x" * 200}"\n'
    )
