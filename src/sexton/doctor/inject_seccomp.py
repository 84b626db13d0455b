"""Asks a seccomp filter about a system call, by running its program: classic BPF over `struct seccomp_data`.

Source: linux/seccomp.h, linux/filter.h, bpf(4). A filter that looks at more than the number and the machine
(at the arguments, the address) is asked with zeros there, and what it then says of wait4 is taken for its
answer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ACTION = 0xFFFF0000
_ALLOW, _LOG = 0x7FFF0000, 0x7FFC0000
_WORD = 0xFFFFFFFF
_ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x30: lambda a, b: a // b if b else 0,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << (b & 31),
    0x70: lambda a, b: a >> (b & 31),
    0x80: lambda a, _: -a,
    0xA0: lambda a, b: a ^ b,
}
_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: bool(a & b),
}


def allows(program: bytes, number: int, machine: int) -> bool:
    """Whether the filter (8 bytes an instruction) lets that system call of AUDIT_ARCH `machine` through."""
    return verdict(program, number, machine) & _ACTION in {_ALLOW, _LOG}


def verdict(program: bytes, number: int, machine: int) -> int:
    """What the filter returns, a SECCOMP_RET_* with its data; 0 (kill) for what is no valid program."""
    data = struct.pack("<iIQ6Q", number, machine, *(0,) * 7)
    code = list(struct.iter_unpack("<HBBI", program))
    at = a = x = 0
    memory = [0] * 16
    while at < len(code):  # jumps only go forward, so this ends
        operation, yes, no, k = code[at]
        at += 1
        kind = operation & 7
        if kind == 0x00:  # load A
            a = _load(operation & 0xE0, k, data, memory)
        elif kind == 0x01:  # load X
            x = _load(operation & 0xE0, k, data, memory)
        elif kind == 0x02:
            memory[k & 15] = a
        elif kind == 0x03:
            memory[k & 15] = x
        elif kind == 0x04:
            a = _ARITHMETIC[operation & 0xF0](a, x if operation & 0x08 else k) & _WORD
        elif kind == 0x05:
            jump = operation & 0xF0
            at += k if jump == 0 else yes if _JUMPS[jump](a, x if operation & 0x08 else k) else no
        elif kind == 0x06:
            return a if operation & 0x18 == 0x10 else k
        elif operation & 0x80:
            a = x
        else:
            x = a
    return 0


def _load(mode: int, k: int, data: bytes, memory: list[int]) -> int:
    if mode == 0x20 and k + 4 <= len(data):  # absolute
        return int(struct.unpack_from("<I", data, k)[0])
    if mode == 0x60:
        return memory[k & 15]
    if mode == 0x80:
        return len(data)
    return k
