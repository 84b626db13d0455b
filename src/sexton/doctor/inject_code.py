"""Finds what the detour needs in a culprit: code to borrow, and stack that is dead below its pointer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sexton.doctor.inject_frame import Gadgets, Machine, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHUNK = 1 << 20
_OVERLAP = 16  # the longest code looked for, less one byte, and then some
_ENOUGH = 1 << 28
# Where the code is, in nearly every program; the rest of the mappings come after.
_LIKELY = re.compile(r"/(ld-[^/]*|libc[.-][^/]*|libpthread[^/]*)$|^\[vdso\]$")
_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)")


class Mapping(NamedTuple):
    """One line of a `maps` file."""

    start: int
    end: int
    access: str
    path: str


def parse_maps(data: bytes) -> list[Mapping]:
    """A `maps` file, in the order of addresses. proc_pid_maps(5)."""
    found = []
    for line in data.splitlines():
        match = _LINE.match(line)
        if match:
            start, end, access, path = match.groups()
            found.append(Mapping(int(start, 16), int(end, 16), access.decode(), path.decode(errors="replace")))
    return found


def find_gadgets(maps: Sequence[Mapping], read: Callable[[int, int], bytes], machine: Machine) -> Gadgets:
    """Two ways to call the kernel and one signal restorer, in the executable mappings; `read(size, address)`.

    Raises `Unsupported` where the program has no such code, as one that was linked without any signal
    handler.
    """
    calls: list[int] = []
    restorer = 0
    left = _ENOUGH
    for mapping in sorted(maps, key=lambda one: not _LIKELY.search(one.path)):
        if "r-x" not in mapping.access or mapping.path == "[vsyscall]":
            continue
        for at in range(mapping.start, mapping.end, _CHUNK):
            code = read(min(_CHUNK + _OVERLAP, mapping.end - at), at)
            calls += [at + match.start() for match in re.finditer(machine.call_code, code)]
            match = re.search(machine.restorer_code, code)
            restorer = restorer or (at + match.start() if match else 0)
            left -= len(code)
            if len(calls) > 1 and restorer:
                return Gadgets((calls[0], calls[-1]), restorer)
            if left < 0:
                break
    raise Unsupported("there is no code in it to call wait4 with and come back")


def is_stack(maps: Sequence[Mapping], pointer: int, room: int) -> bool:
    """Whether `room` bytes below the pointer are dead memory of a thread's stack for sure.

    It is in the first thread's stack, or in a mapping that lies on a guard as pthread_create(3) makes it.
    Not so the small stacks of goroutines and other coroutines, which are neighbours on a heap.
    """
    below: Mapping | None = None
    for mapping in maps:
        if mapping.start <= pointer < mapping.end:
            guarded = below is not None and below.access == "---p" and below.end == mapping.start
            known = mapping.path == "[stack]" or (guarded and mapping.path.startswith(("[anon", "[stack:", "")))
            anonymous = not mapping.path.startswith("/")
            return known and anonymous and mapping.access[:2] == "rw" and pointer - room >= mapping.start
        below = mapping
    return False
