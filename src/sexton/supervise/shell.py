"""What in a command is meant for a shell: where none runs it, its words would get to the program as they are.

Only what is certain: a * or a ? may be meant for the program itself, and in quotes everything is.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_AMONG = re.compile(r"&&|(?<!\$)\$\(|(?<!\$)\$[A-Z_][A-Z0-9_]*|`")  # anywhere in a word
_ALONE = re.compile(r"\|\|?|\|&|;|&")
_REDIRECTION = re.compile(r"\d*[<>]+&?\d*|&>+")  # at the beginning of a word
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_BUILTINS = {"cd", "exec", "export", "source", "ulimit", "umask"}


def meant_for(command: str) -> str | None:
    """The first thing in a command that only a shell would understand."""
    words = _QUOTED.sub(lambda found: "\1" * len(found[0]), command).split()
    for place, word in enumerate(words):
        found = _ALONE.fullmatch(word) or _REDIRECTION.match(word) or _AMONG.search(word)
        if found:
            return found[0]
        if place == 0 and (word in _BUILTINS or _ASSIGNMENT.match(word)):
            return word.rstrip("\1")
        if word.endswith(";") and place + 1 < len(words):
            return ";"
    return None
