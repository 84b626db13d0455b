"""The pure parts of inject: filters, frames, code and stacks."""

from __future__ import annotations

import re
import struct

import pytest

from sexton.doctor.inject_code import find_gadgets, is_stack, parse_maps
from sexton.doctor.inject_frame import (
    ERESTART_RESTARTBLOCK,
    ERESTARTSYS,
    X8664,
    AArch64,
    Gadgets,
    Plan,
    Thread,
    Unsupported,
)
from sexton.doctor.inject_seccomp import allows, verdict

GADGETS = Gadgets((0x7000, 0x8000), 0x9000)
WORD = (1 << 64) - 1


def line(code: int, yes: int, no: int, k: int) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050001


@pytest.mark.parametrize(
    ("number", "machine", "good"), [(61, 0xC000003E, True), (62, 0xC000003E, False), (61, 1, False)]
)
def test_a_filter_as_engines_write_them(number: int, machine: int, good: bool) -> None:
    program = (
        line(0x20, 0, 0, 4)  # the machine
        + line(0x15, 1, 0, 0xC000003E)
        + line(0x06, 0, 0, KILL)
        + line(0x20, 0, 0, 0)  # the number
        + line(0x35, 0, 1, 62)  # at least 62
        + line(0x06, 0, 0, ERRNO)
        + line(0x06, 0, 0, ALLOW)
    )
    assert allows(program, number, machine) == good


def test_every_kind_of_instruction() -> None:
    program = (
        line(0x00, 0, 0, 6)  # A = 6
        + line(0x02, 0, 0, 3)  # M[3] = A
        + line(0x61, 0, 0, 3)  # X = M[3]
        + line(0x24, 0, 0, 7)  # A *= 7
        + line(0x0C, 0, 0, 0)  # A += X: 48
        + line(0x34, 0, 0, 0)  # A /= 0: 0
        + line(0x87, 0, 0, 0)  # A = X
        + line(0x84, 0, 0, 0)  # A = -A
        + line(0x54, 0, 0, 0xFF)  # A &= 255
        + line(0x07, 0, 0, 0)  # X = A
        + line(0x80, 0, 0, 0)  # A = the size of the data
        + line(0x1C, 0, 0, 0)  # A -= X
        + line(0x05, 0, 0, 1)
        + line(0x06, 0, 0, KILL)
        + line(0x16, 0, 0, 0)  # return A
    )
    assert verdict(program, 61, 0) == (64 - (-6 & 0xFF)) & 0xFFFFFFFF


def test_no_program_allows_nothing() -> None:
    assert not allows(b"", 61, 0)


def x86(**words: int) -> bytes:
    order = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss".split()
    values = {"orig_rax": WORD, "cs": 0x33, "ss": 0x2B, "rsp": 0x10_0000, "rip": 0x5000, **words}
    return struct.pack("<27Q", *(values.get(name, 0) for name in order), *(0,) * 6)


def xstate(size: int, features: int) -> bytes:
    area = bytearray(size)
    struct.pack_into("<Q", area, 464, features)
    struct.pack_into("<Q", area, 512, features)
    return bytes(area)


@pytest.mark.parametrize(
    ("rax", "resumes"),
    [
        (-ERESTARTSYS, (35, 0x4FFE)),  # the call again
        (-ERESTART_RESTARTBLOCK, (219, 0x4FFE)),  # restart_syscall
        (-4, (-4, 0x5000)),  # EINTR is for the program
        (12, (12, 0x5000)),
    ],
)
def test_a_system_call_goes_on_as_the_kernel_would_have_it(rax: int, resumes: tuple[int, int]) -> None:
    thread = Thread(x86(rax=rax & WORD, orig_rax=35), xstate(832, 7), mask=5)
    plan = X8664().plan(thread, 1234, GADGETS)
    own = struct.unpack("<27Q", plan.own)
    assert (own[10], own[16], own[15]) == (resumes[0] & WORD, resumes[1], WORD)


def test_an_x86_frame() -> None:
    thread = Thread(x86(rdi=77, rbx=78), xstate(832, 7), mask=5, resume_at=None)
    plan = X8664().plan(thread, 1234, GADGETS)
    detour = struct.unpack("<27Q", plan.detour)
    assert detour[16] == GADGETS.calls[0]
    assert detour[19] == plan.address
    assert (detour[10], detour[14], detour[12]) == (61, 1234, 0x40000001)
    assert plan.address + len(plan.frame) <= 0x10_0000 - 128  # the red zone is left alone
    assert struct.unpack_from("<Q", plan.frame)[0] == GADGETS.restorer
    (state_at,) = struct.unpack_from("<Q", plan.frame, 8 + 40 + 23 * 8)
    assert state_at % 64 == 0
    state = plan.frame[state_at - plan.address :]
    magic, extended, features, size = struct.unpack_from("<IIQI", state, 464)
    assert (magic, extended, features, size) == (0x46505853, 836, 7, 832)
    assert struct.unpack_from("<I", state, size)[0] == 0x46505845


def test_a_machine_with_amx_and_a_thread_without() -> None:
    """The size must be no more than that thread's own: the second magic goes into a hole of the layout."""
    plan = X8664().plan(Thread(x86(), xstate(11008, 0x2E7), mask=0), 1, GADGETS)
    (state_at,) = struct.unpack_from("<Q", plan.frame, 8 + 40 + 23 * 8)
    state = plan.frame[state_at - plan.address :]
    assert struct.unpack_from("<I", state, 480)[0] == 1024
    assert struct.unpack_from("<I", state, 1024)[0] == 0x46505845
    assert len(plan.frame) < X8664.room


def test_inside_a_restartable_sequence() -> None:
    thread = Thread(x86(), xstate(832, 7), 0, resume_at=0x6660)
    assert struct.unpack("<27Q", X8664().plan(thread, 1, GADGETS).own)[16] == 0x6660


@pytest.mark.parametrize(
    ("registers", "why"),
    [(bytes(68), "32-bit program"), (x86(cs=0x23), "32-bit code"), (x86(orig_rax=1 << 30 | 35), "x32")],
)
def test_other_abis_are_refused(registers: bytes, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        X8664().plan(Thread(registers, xstate(832, 7), 0), 1, GADGETS)


def test_an_arm64_frame() -> None:
    registers = struct.pack("<34Q", *range(100, 131), 0x20_0000, 0x7000, 0x6000_0000)
    vector = bytes(range(256)) * 2 + struct.pack("<II", 0x11, 0x22) + bytes(8)
    plan = AArch64().plan(Thread(registers, vector, mask=9), 1234, GADGETS)
    detour = struct.unpack("<34Q", plan.detour)
    assert detour[32] == 0x8000  # not where it stands: the kernel would restart a call there
    assert detour[30] == GADGETS.restorer
    assert (detour[8], detour[0], detour[2]) == (260, 1234, 0x40000001)
    assert detour[31] == plan.address == 0x20_0000 - len(plan.frame)
    assert plan.address % 16 == 0
    context = plan.frame[128:]
    assert struct.unpack_from("<Q", context, 40)[0] == 9  # the mask
    assert struct.unpack_from("<34Q", context, 176 + 8) == struct.unpack("<34Q", registers)
    assert struct.unpack_from("<IIII", context, 176 + 288) == (0x46508001, 528, 0x11, 0x22)
    assert context[176 + 288 + 16 :][:512] == vector[:512]
    assert struct.unpack_from("<II", context, 176 + 288 + 528) == (0, 0)  # the end of the records
    assert plan.own == registers


SVC, RET = b"\x01\0\0\xd4", b"\xc0\x03\x5f\xd6"


@pytest.mark.parametrize(
    ("call", "words", "code", "sleeps"),
    [
        (101, {}, SVC, True),  # nanosleep
        (115, {1: 0}, SVC, True),  # clock_nanosleep for a time
        (115, {1: 1}, SVC, False),  # and until a time
        (98, {3: 0x7000}, SVC, True),  # futex with a limit
        (98, {3: 0}, SVC, False),
        (128, {}, SVC, True),  # restart_syscall: it was stopped before
        (63, {}, SVC, False),  # read
        (101, {}, RET, False),  # not about to make that call
    ],
)
def test_an_arm64_sleep_is_left_first(call: int, words: dict[int, int], code: bytes, sleeps: bool) -> None:
    values = {8: call, **words}
    registers = struct.pack("<34Q", *(values.get(at, 7) for at in range(34)))
    assert AArch64().sleeps(registers, code) == sleeps


def test_an_arm64_call_that_is_left_out() -> None:
    registers = struct.pack("<34Q", *range(100, 132), 0x7004, 0)
    own, ended, number, content = AArch64().skip(registers)
    assert struct.unpack("<34Q", own) == (*range(100, 132), 0x7000, 0)  # once more into the call
    assert struct.unpack("<34Q", ended) == (WORD - 3, *range(101, 132), 0x7004, 0)
    assert (number, content) == (0x404, b"\xff\xff\xff\xff")


def arm(more: dict[int, bytes]) -> Plan:
    registers = struct.pack("<34Q", *range(31), 0x20_0000, 0x7000, 0x6000_0C00)
    return AArch64().plan(Thread(registers, bytes(528), 0, more=more), 1234, GADGETS)


def sve(length: int, in_use: int = 1) -> bytes:
    """A user_sve_header and registers that differ from byte to byte."""
    registers = bytes(at * 7 & 0xFF for at in range(34 * length + length // 8)) if in_use else b""
    return struct.pack("<IIHHHH", 16 + len(registers), 9000, length, 256, in_use, 0) + registers


def test_an_arm64_frame_with_wide_vectors() -> None:
    plan = arm({0x405: sve(64)})
    record = plan.frame[128 + 176 + 288 + 528 :]
    magic, size, length = struct.unpack_from("<IIH", record)
    assert (magic, size, length) == (0x53564501, 16 + 2184 + 8, 64)
    assert record[16 : 16 + 2184] == sve(64)[16:]
    assert struct.unpack_from("<II", record, size) == (0, 0)  # the end of the records
    assert plan.lost == (0x405, sve(64))
    assert struct.unpack("<34Q", plan.detour)[33] == 0x6000_0000  # no guarded page takes it for a jump
    assert struct.unpack("<34Q", plan.own)[33] == 0x6000_0C00


def test_an_arm64_thread_that_does_not_use_them() -> None:
    plan = arm({0x405: sve(64, in_use=0), 0x40B: sve(64, in_use=0), 0x410: bytes(24)})
    assert plan == arm({})
    assert plan.lost is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({0x405: sve(128)}, "SVE registers of 128 bytes do not fit"),
        ({0x405: sve(16, in_use=0), 0x40B: sve(16)}, "streaming mode"),
        ({0x410: struct.pack("<Q", 1)}, "shadow stack"),
    ],
)
def test_an_arm64_thread_that_cannot_be_led_back(more: dict[int, bytes], why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        arm(more)


MAPS = b"""\
00400000-00401000 r-xp 00000000 fe:00 1 /bin/app
00600000-00601000 rw-p 00000000 fe:00 1 /bin/app with (deleted) name
01000000-01021000 rw-p 00000000 00:00 0 [heap]
c000000000-c000400000 rw-p 00000000 00:00 0 [anon: Go: heap]
c000400000-c004000000 ---p 00000000 00:00 0
7f0000000000-7f0000001000 ---p 00000000 00:00 0
7f0000001000-7f0000801000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
7ffc00100000-7ffc00102000 r-xp 00000000 00:00 0 [vdso]
"""


@pytest.mark.parametrize(
    ("pointer", "good"),
    [
        (0x7FFC00020000, True),  # the first thread's
        (0x7FFC00000800, False),  # its very end
        (0x7F0000800000, True),  # one of pthread_create
        (0x7F0000001800, False),
        (0xC000002000, False),  # a goroutine's: its neighbours live
        (0x01010000, False),
        (0x5, False),
    ],
)
def test_stacks(pointer: int, good: bool) -> None:
    assert is_stack(parse_maps(MAPS), pointer, 4096) == good


def test_code_is_found_across_mappings() -> None:
    content = {
        0x400000: b"\x90" * 100 + b"\x0f\x05\xc3" + b"\x90" * 50,
        0x7FFC00100000: b"\x0f\x05\xc3\xb8\x0f\0\0\0\x0f\x05",
    }

    def read(size: int, address: int) -> bytes:
        return content.get(address, b"")[:size]

    gadgets = find_gadgets(parse_maps(MAPS), read, X8664())
    assert gadgets == Gadgets((0x7FFC00100000, 0x400064), 0x7FFC00100003)
    assert re.fullmatch(X8664.restorer_code, b"\xb8\x0f\0\0\0\x0f\x05")


def test_a_program_without_such_code() -> None:
    with pytest.raises(Unsupported, match="no code in it"):
        find_gadgets(parse_maps(MAPS), lambda size, _: bytes(size), X8664())
