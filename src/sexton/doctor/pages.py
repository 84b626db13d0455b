"""The documentation of the rules, made from them: `python -m sexton.doctor.pages docs/doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.doctor.rules import ORDER

if TYPE_CHECKING:
    from sexton.doctor.model import Cure, Rule

_NAMES = {"sexton": "sexton", "host": "the host", "docker": "Docker", "compose": "Compose", "kubernetes": "Kubernetes"}
_NAMES |= {"podman": "podman", "systemd": "systemd", "python": "Python", "node": "Node", "go": "Go", "java": "Java"}
_NAMES |= {"shell": "a shell script"}
_MADE = "<!-- Made from the rule by `python -m sexton.doctor.pages docs/doctor`. -->"


def pages() -> dict[str, str]:
    """The text of each page by its file name."""
    by_number = sorted(ORDER, key=lambda rule: rule.number)
    found = {f"{rule.id}.md": page(rule) for rule in by_number}
    rows = [f"| {rule.number} | [{rule.id}]({rule.id}.md) | {rule.title} |" for rule in by_number]
    found["rules.md"] = "\n".join(
        (
            "# The causes that sexton doctor knows",
            "",
            _MADE,
            "",
            "Rules 1 to 16 are asked of every zombie or of the machine; a zombie is explained by the first that claims",
            "it, in the order: " + ", ".join(rule.id for rule in ORDER) + ".",
            "",
            "| | rule | what is wrong |",
            "|---|---|---|",
            *rows,
            "",
        )
    )
    return found


def page(rule: Rule) -> str:
    """The page of one rule."""
    lines = [f"# {rule.title}", "", _MADE, "", f"Rule `{rule.id}`, number {rule.number}.", "", rule.cause, ""]
    lines += ["## Read from", "", *(f"- {one}" for one in rule.reads), ""]
    lines += ["## Cures", ""]
    for cure in rule.cures:
        lines += _cure(cure)
    if rule.seen_in:
        lines += ["## Seen in", "", *(f"- {one}" for one in rule.seen_in), ""]
    return "\n".join(lines)


def _cure(cure: Cure) -> list[str]:
    text = cure.commands.replace("{pid}", "PID").replace("{container}", "CONTAINER").replace("{victim}", "ZOMBIE")
    text = text.replace("{where}", "CGROUP")
    risk = cure.risk.replace(". {name}", ". The process").replace("{name}", "the process")
    risk = risk[0].upper() + risk[1:]
    return [f"### {_NAMES[cure.place]}: {cure.what}", "", "```", text, "```", "", f"Risk: {risk}", ""]


def main() -> None:
    """Write every page into the directory that is named."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
