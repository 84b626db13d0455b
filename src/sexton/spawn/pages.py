"""The reference of the library, made from its docstrings: `python -m sexton.spawn.pages docs/reference`."""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MADE = "<!-- Made from the docstrings by `python -m sexton.spawn.pages docs/reference`. -->"
_SOURCE = Path(__file__).parents[1]
_Node = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# page: its title, and what is on it: the file, the names (* for all), and where they are imported from
_PAGES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "tree": (
        "Tree",
        [("spawn/_tree.py", "Tree", "sexton"), ("spawn/_start.py", "Options Settings", "sexton.spawn")],
    ),
    "run": (
        "run, check_call, check_output",
        [
            ("spawn/_run.py", "run check_call check_output", "sexton"),
            ("spawn/_errors.py", "CompletedProcess CalledProcessError TimeoutExpired", "sexton"),
        ],
    ),
    "receipt": (
        "Receipts and processes",
        [
            ("spawn/_receipt.py", "Receipt Entry", "sexton.spawn"),
            ("spawn/_processes.py", "Process Holder", "sexton.spawn"),
        ],
    ),
    "owner": ("Owner", [("spawn/_owner.py", "Owner", "sexton"), ("spawn/_owner.py", "Swept", "sexton.spawn")]),
    "aio": ("asyncio and trio", [("spawn/aio.py", "Tree run check_call check_output", "sexton.aio")]),
    "reaper": ("The reaper", [("reaper.py", "Reaper Buried", "sexton.reaper")]),
    "events": ("Events", [("events.py", "*", "sexton.events")]),
    "errors": ("Errors", [("errors.py", "*", "sexton.errors")]),
    "pytest": ("The pytest plugin", [("spawn/pytest_plugin.py", "tree LeakWarning", "sexton.spawn.pytest_plugin")]),
}
# What Tree, its asynchronous twin and the command line have for each other.
_INNER = {
    *(
        "unawaited",
        "check_start",
        "wait_start",
        "until_over",
        "watched",
        "listen",
        "begun",
        "over",
        "ended",
        "ending",
        "seen",
        "since",
    ),
    *("order_unheard", "forked", "mind_forks"),
}
# What a page says first: the docstring of the module, where it is for those who use it.
_WITH_MODULE = {"aio", "reaper", "events", "errors"}


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    found = {f"{name}.md": _page(name, *what) for name, what in _PAGES.items()}
    rows = [f"| [{title}]({name}.md) | {_names(what)} |" for name, (title, what) in _PAGES.items()]
    head = ["# Reference", "", _MADE, "", "| | |", "|---|---|"]
    found["README.md"] = "\n".join([*head, *rows, ""])
    return found


def _names(sources: list[tuple[str, str, str]]) -> str:
    each = [where if names == "*" else f"{where}.{name}" for _, names, where in sources for name in names.split()]
    return ", ".join(f"`{name}`" for name in each)


def _page(name: str, title: str, sources: list[tuple[str, str, str]]) -> str:
    lines = [f"# {title}", "", _MADE, ""]
    if name in _WITH_MODULE:
        lines += _text(ast.parse((_SOURCE / sources[0][0]).read_text(encoding="utf-8")))
    for file, wanted, where in sources:
        for node in _public(ast.parse((_SOURCE / file).read_text(encoding="utf-8"))):
            if wanted == "*" or node.name in wanted.split():
                lines += _thing(node, where)
    return "\n".join(lines)


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[_Node]:
    """What is defined there and has a docstring, without what is private."""
    for node in tree.body:
        if (
            isinstance(node, _Node)
            and not node.name.startswith("_")
            and node.name not in _INNER
            and ast.get_docstring(node)
        ):
            yield node


def _thing(node: _Node, where: str) -> list[str]:
    if not isinstance(node, ast.ClassDef):
        return [f"## {where}.{node.name}", "", *_signature(node), *_text(node)]
    bases = ", ".join(name for base in node.bases if not (name := ast.unparse(base)).startswith("_"))
    lines = [f"## {where}.{node.name}", "", f"`class {node.name}({bases})`" if bases else f"`class {node.name}`", ""]
    lines += _text(node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            lines += _signature(each, node.name)
    fields = [_code(each) for each in node.body if isinstance(each, ast.AnnAssign) and not _hidden(each)]
    if fields:
        lines += ["```python", *fields, "```", ""]
    for method in _public(node):
        lines += [f"### {node.name}.{method.name}", "", *_signature(method), *_text(method)]
    return lines


def _hidden(field: ast.AnnAssign) -> bool:
    return ast.unparse(field.target).startswith("_") or "ClassVar" in ast.unparse(field.annotation)


def _signature(node: _Node, name: str = "") -> list[str]:
    """How it is called; nothing for what is only read."""
    if isinstance(node, ast.ClassDef):
        return []
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    gives = f" -> {ast.unparse(node.returns)}" if node.returns and not name else ""
    if "property" in marks:
        return ["```python", f"{node.name}:{gives.removeprefix(' ->')}", "```", ""]
    before = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    words = _arguments(node.args)
    line = f"{before}{name or node.name}({', '.join(words)}){gives}"
    if len(line) > 110:
        line = "\n".join([f"{before}{name or node.name}(", *(f"    {word}," for word in words), f"){gives}"])
    return ["```python", line.replace("_start.", ""), "```", ""]


def _arguments(of: ast.arguments) -> list[str]:
    """Each argument, without self and cls, as it is written in Python."""
    first = 1 if of.args and of.args[0].arg in {"self", "cls"} else 0
    missing = len(of.args) - len(of.defaults)
    found = [_argument(each, of.defaults[i - missing] if i >= missing else None) for i, each in enumerate(of.args)][
        first:
    ]
    if of.vararg:
        found.append(f"*{_argument(of.vararg, None)}")
    elif of.kwonlyargs:
        found.append("*")
    found += [_argument(each, default) for each, default in zip(of.kwonlyargs, of.kw_defaults, strict=True)]
    if of.kwarg:
        found.append(f"**{_argument(of.kwarg, None)}")
    return found


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return _code(argument) + (f" = {_code(default)}" if default else "")


def _code(node: ast.AST) -> str:
    """As a formatter has it."""
    return ast.unparse(node).replace("'", '"')


def _text(node: _Node | ast.Module) -> list[str]:
    """A docstring in Markdown: what is laid out in columns or indented stays as it is."""
    found = []
    for part in (ast.get_docstring(node) or "").split("\n\n"):
        laid_out = any(line.startswith(" ") or "   " in line.strip() for line in part.splitlines())
        lines = textwrap.dedent(part).splitlines()
        found += ["```text", *lines, "```", ""] if laid_out else [*(line.replace("<", "\\<") for line in lines), ""]
    return found


def main() -> None:
    """Write every page into the directory that is named."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
