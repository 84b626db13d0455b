from __future__ import annotations

import pytest

from sexton.errors import UsageError
from sexton.supervise.variables import expand, quote

OWN = {"http": 4001, "admin": 4002}
OTHERS = {("db", None): 5001, ("db", "repl-2"): 5002}


def put(text: str, own: dict[str, int] | None = None) -> str:
    return expand(text, own=OWN if own is None else own, number=3, port_of=lambda app, port: OTHERS[app, port])


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${port}", "4001"),
        ("${port.admin}", "4002"),
        ("a${instance}b${instance}", "a3b3"),
        ("127.0.0.1:${app.db.port}/x", "127.0.0.1:5001/x"),
        ("${app.db.port.repl-2}", "5002"),
        ("$$", "$"),
        ("$${port}", "${port}"),
        ("$$$${port}", "$${port}"),
        ("$$${port}", "$4001"),
        ("$HOME and $", "$HOME and $"),
        ("$1 $(x) {port} }", "$1 $(x) {port} }"),
    ],
)
def test_what_it_means(text: str, meaning: str) -> None:
    assert put(text) == meaning


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${HOME}", r"\$\{HOME\}: expected \$\{port\}.*\$\$\{HOME\} is not touched"),
        ("${}", "expected"),
        ("${port.}", "expected"),
        ("${Port}", "expected"),
        ("${app.db}", "expected"),
        ("${app.db.ports}", "expected"),
        ("${port", "has no }"),
        ("${port.nope}", "the app has no such port, but http, admin"),
    ],
)
def test_what_it_cannot_mean(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        put(text)


def test_without_ports() -> None:
    with pytest.raises(UsageError, match="has no ports"):
        put("${port}", {})
    with pytest.raises(UsageError, match="has no ports"):
        put("${port.http}", {})


def test_what_others_say_is_passed_on() -> None:
    def port_of(app: str, port: str | None) -> int:
        raise UsageError(f"no {app} {port}")

    with pytest.raises(UsageError, match="no x None"):
        expand("${app.x.port}", own={}, number=0, port_of=port_of)


@pytest.mark.parametrize("text", ["$", "$$", "${port}", "a$b${", "plain", "$${x}$"])
def test_a_quoted_text_is_itself(text: str) -> None:
    assert put(quote(text)) == text
