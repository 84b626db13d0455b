"""What is put into a culprit so that it calls wait4 once and then restores itself: pure functions of bytes.

A `Plan` is three things: bytes for the dead memory below the stack pointer, the registers to set (the
"detour"), and the registers that the culprit would have gone on with (the "own" ones). The detour makes the
culprit run

    syscall             wait4(pid, NULL, WNOHANG | __WALL, NULL)
    ret                 into the program's own signal restorer,
    rt_sigreturn        which takes every register, the floating point state and the signal mask from the
    bytes

with code that is in the culprit already. So once the registers are set nothing more is needed from outside:
a tracer that dies leaves a culprit that finds its own way back, as from a signal handler. Sources:
arch/*/kernel/signal.c.
"""

from __future__ import annotations

import platform
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

WNOHANG_WALL = 0x40000001
_BAD_STACK_FLAGS = 0x7F  # no such flags: rt_sigreturn then leaves the alternate signal stack as it is
_WORD = (1 << 64) - 1

# What an interrupted system call says to the kernel itself (include/linux/errno.h); a program never sees
# these.
ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516


class Unsupported(Exception):
    """The thread is in a state that the method does not cover; the message says which."""


class Gadgets(NamedTuple):
    """Addresses of code in the culprit: every "system call, return", and one signal restorer."""

    calls: tuple[int, ...]
    restorer: int


class Thread(NamedTuple):
    """A stopped thread: registers as ptrace gives them, signal mask, and where to resume it if not there.

    `more` has the register sets that the machine asks for besides, by number, where the processor has them.
    `timed`: its registers lead back into a system call with a time limit that it was taken out of.
    """

    registers: bytes
    vector: bytes
    mask: int
    resume_at: int | None = None
    more: Mapping[int, bytes] = {}
    timed: bool = False


class Plan(NamedTuple):
    """The bytes and where they go, the registers that lead through them, and the registers to go on with.

    `timed`: the detour by itself would end a system call early that has a time limit. `lost`: a register set that the
    call takes away and rt_sigreturn brings back; who leads the thread back in another way must set it.
    """

    address: int
    frame: bytes
    detour: bytes
    own: bytes
    timed: bool = False
    lost: tuple[int, bytes] | None = None


class Machine(Protocol):
    """What differs between processors. `call_code` and `restorer_code` are regular expressions over code."""

    call_code: bytes
    restorer_code: bytes
    vector_set: int
    more_sets: tuple[int, ...]
    room: int
    wait4: int
    rt_sigreturn: int
    audit: int
    calm: frozenset[int]

    def stack_pointer(self, registers: bytes) -> int:
        """The stack pointer."""

    def counter(self, registers: bytes) -> int:
        """The program counter."""

    def result(self, registers: bytes) -> int:
        """What a system call that has just returned gave, negative for an errno."""

    def sleeps(self, registers: bytes, code: bytes) -> bool:
        """Whether it must be taken out of a system call with a time limit first; `code` is what comes next."""

    def skip(self, registers: bytes) -> tuple[bytes, bytes, int, bytes]:
        """At the entry of that call: the registers that lead into it again; then what makes it end at once with EINTR,
        as registers, and as the number and content of another set.
        """

    def plan(self, thread: Thread, pid: int, gadgets: Gadgets) -> Plan:
        """The detour of that thread through wait4 for `pid`, a number of the culprit's own PID namespace."""

    def again(self, registers: bytes, plan: Plan, pid: int) -> Plan | None:
        """The same detour for another pid, where a thread has just made the call of the first; or None."""


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _call(gadgets: Gadgets, counter: int) -> int:
    """A gadget that is not where the thread stands: arm64 would take that for a system call to restart."""
    for address in gadgets.calls:
        if address != counter:
            return address
    raise Unsupported("its code has no second place to call the kernel from")


class X8664:
    """x86_64. The register set is `struct user_regs_struct`, the frame `struct rt_sigframe`."""

    call_code = rb"\x0f\x05\xc3"
    restorer_code = rb"(?:\x48\xc7\xc0|\xb8)\x0f\x00\x00\x00\x0f\x05"
    vector_set = 0x202  # NT_X86_XSTATE
    more_sets: tuple[int, ...] = ()
    room = 4096  # AVX-512 takes 3.2 KB in all
    wait4 = 61
    rt_sigreturn = 15
    audit = 0xC000003E
    # System calls that a stop does not make visible: they restart, or the wait goes on where it was.
    calm = frozenset(
        {
            0,  # read
            7,  # poll
            23,  # select
            34,  # pause
            35,  # nanosleep
            43,  # accept
            45,  # recvfrom
            47,  # recvmsg
            61,  # wait4
            130,  # rt_sigsuspend
            202,  # futex
            230,  # clock_nanosleep
            247,  # waitid
            270,  # pselect6
            271,  # ppoll
            288,  # accept4
        }
    )

    _SET = struct.Struct("<27Q")
    (_R15, _R14, _R13, _R12, _RBP, _RBX, _R11, _R10, _R9, _R8, _RAX, _RCX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP,
     _CS, _EFLAGS, _RSP, _SS, _FS_BASE, _GS_BASE, _DS, _ES, _FS, _GS) = range(27)  # fmt: skip
    _CONTEXT = (_R8, _R9, _R10, _R11, _R12, _R13, _R14, _R15, _RDI, _RSI, _RBP, _RBX, _RDX, _RAX, _RCX, _RSP,
                _RIP, _EFLAGS)  # fmt: skip
    _RED_ZONE = 128
    _RESTART_SYSCALL = 219
    _USER_CS = 0x33
    _X32 = 1 << 30
    _UCONTEXT = 304
    # uc_flags: there is an xstate, ss is in the context and to be restored as it is.
    _FLAGS = 1 | 2 | 4
    _MAGIC1, _MAGIC2 = 0x46505853, 0x46505845
    _SW_RESERVED, _SW_SIZE = 464, 48
    _AMX = 0b11 << 17
    _AMX_SIZE = 8192
    _MPX_HOLE = 1024

    def stack_pointer(self, registers: bytes) -> int:
        """`rsp`."""
        return int(self._words(registers)[self._RSP])

    def counter(self, registers: bytes) -> int:
        """`rip`."""
        return int(self._words(registers)[self._RIP])

    def result(self, registers: bytes) -> int:
        """`rax`."""
        return _signed(self._words(registers)[self._RAX])

    def _words(self, registers: bytes) -> list[int]:
        if len(registers) != self._SET.size:
            raise Unsupported("it is a 32-bit program")
        return list(self._SET.unpack(registers))

    def _own(self, thread: Thread) -> list[int]:
        """The registers that the kernel itself would have gone on with: arch_do_signal_or_restart()."""
        words = self._words(thread.registers)
        if words[self._CS] != self._USER_CS:
            raise Unsupported("it runs 32-bit code")
        if words[self._ORIG_RAX] != _WORD and words[self._ORIG_RAX] & self._X32:
            raise Unsupported("it is an x32 program")
        error = self._interrupted(thread)
        if error in {ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND}:
            words[self._RAX] = words[self._ORIG_RAX]
            words[self._RIP] -= 2
        elif error == ERESTART_RESTARTBLOCK:
            words[self._RAX] = self._RESTART_SYSCALL
            words[self._RIP] -= 2
        words[self._ORIG_RAX] = _WORD
        if thread.resume_at is not None:
            words[self._RIP] = thread.resume_at
        return words

    def sleeps(self, registers: bytes, code: bytes) -> bool:
        """Never: what its registers say of an interrupted call is enough to go on with it."""
        del registers, code
        return False

    def skip(self, registers: bytes) -> tuple[bytes, bytes, int, bytes]:
        """Never asked."""
        raise NotImplementedError

    def plan(self, thread: Thread, pid: int, gadgets: Gadgets) -> Plan:
        """The frame lies below the red zone: return address, ucontext, and the xstate at a multiple of 64."""
        own = self._own(thread)
        state = self._signal_xstate(thread.vector)
        state_at = (own[self._RSP] - self._RED_ZONE - len(state)) & ~63
        frame_at = (state_at - 8 - self._UCONTEXT) & ~15
        context = [own[at] for at in self._CONTEXT]
        frame = struct.pack("<Q QQ QII Q", gadgets.restorer, self._FLAGS, 0, 0, _BAD_STACK_FLAGS, 0, 0)
        frame += struct.pack("<18Q 4H 4Q Q 8Q", *context, own[self._CS], 0, 0, own[self._SS],
                             0, 0, thread.mask, 0, state_at, *(0,) * 8)  # fmt: skip
        frame += struct.pack("<Q", thread.mask)
        assert len(frame) == 8 + self._UCONTEXT
        frame = frame.ljust(state_at - frame_at, b"\0") + state

        detour = list(own)
        detour[self._RIP] = _call(gadgets, own[self._RIP])
        detour[self._RSP] = frame_at
        detour[self._RAX] = self.wait4
        detour[self._RDI], detour[self._RSI], detour[self._RDX], detour[self._R10] = pid, 0, WNOHANG_WALL, 0
        detour[self._EFLAGS] &= ~0x500  # no single step, and the direction flag as the ABI has it
        # Also where it was about to make the call that goes on with the rest of the time.
        timed = own[self._RAX] == self._RESTART_SYSCALL
        return Plan(frame_at, frame, self._SET.pack(*detour), self._SET.pack(*own), timed)

    def again(self, registers: bytes, plan: Plan, pid: int) -> Plan | None:
        """At the instruction after the call, with the frame on top of the stack."""
        words, detour = self._words(registers), self._words(plan.detour)
        if (words[self._RIP], words[self._RSP]) != (detour[self._RIP] + 2, plan.address):
            return None
        detour[self._RDI] = pid
        return plan._replace(detour=self._SET.pack(*detour))

    def _interrupted(self, thread: Thread) -> int:
        """What the system call that the stop interrupted says to the kernel, 0 for none."""
        words = self._words(thread.registers)
        return -_signed(words[self._RAX]) if words[self._ORIG_RAX] != _WORD else 0

    def _signal_xstate(self, vector: bytes) -> bytes:
        """The XSAVE area with the words around it that tell rt_sigreturn to take the whole of it."""
        (features,) = struct.unpack_from("<Q", vector, self._SW_RESERVED)
        size = len(vector)
        if size > self._AMX_SIZE and not features & self._AMX:
            # A machine with AMX and a thread without: the kernel wants a size no larger than that thread's,
            # which ptrace does not tell. Nothing reads the size but the search for the second magic number,
            # so this goes into the hole that MPX has left in Intel's layout.
            size, vector = self._MPX_HOLE, vector[: -self._AMX_SIZE]
        words = struct.pack("<IIQI28x", self._MAGIC1, size + 4, features, size)
        assert len(words) == self._SW_SIZE
        area = bytearray(vector)
        area[self._SW_RESERVED : self._SW_RESERVED + self._SW_SIZE] = words
        area[size : size + 4] = struct.pack("<I", self._MAGIC2)
        return bytes(area)


class AArch64:
    """aarch64. The register set is `struct user_pt_regs`; x30 leads from the system call to the restorer."""

    call_code = rb"\x01\x00\x00\xd4\xc0\x03\x5f\xd6"  # svc #0; ret
    restorer_code = rb"\x68\x11\x80\xd2\x01\x00\x00\xd4"  # mov x8, #139; svc #0
    vector_set = 2  # NT_PRFPREG
    more_sets: tuple[int, ...] = (0x405, 0x40B, 0x410)  # NT_ARM_SVE, NT_ARM_SSVE, NT_ARM_GCS
    room = 8192
    wait4 = 260
    rt_sigreturn = 139
    audit = 0xC00000B7
    calm = frozenset(
        {
            63,  # read
            72,  # pselect6
            95,  # waitid
            98,  # futex
            101,  # nanosleep
            115,  # clock_nanosleep
            133,  # rt_sigsuspend
            202,  # accept
            207,  # recvfrom
            212,  # recvmsg
            242,  # accept4
            260,  # wait4
        }
    )

    _SET = struct.Struct("<34Q")
    _X8, _X30, _SP, _PC, _PSTATE = 8, 30, 31, 32, 33
    _BRANCH_TYPE = 0xC00  # what a guarded page holds against whoever comes by a jump
    _INFO = 128
    _RESERVED = 4096
    _FPSIMD_MAGIC = 0x46508001
    _SVE_MAGIC = 0x53564501
    _SVE, _SSVE, _GCS = more_sets
    _SYSTEM_CALL = 0x404  # NT_ARM_SYSTEM_CALL
    _SVC = b"\x01\x00\x00\xd4"
    _EINTR = 4
    _FUTEX, _NANOSLEEP, _CLOCK_NANOSLEEP, _RESTART_SYSCALL = 98, 101, 115, 128
    _TIMER_ABSTIME = 1

    def stack_pointer(self, registers: bytes) -> int:
        """`sp`."""
        return int(self._words(registers)[self._SP])

    def counter(self, registers: bytes) -> int:
        """`pc`."""
        return int(self._words(registers)[self._PC])

    def result(self, registers: bytes) -> int:
        """`x0`."""
        return _signed(self._words(registers)[0])

    def _words(self, registers: bytes) -> list[int]:
        if len(registers) != self._SET.size:
            raise Unsupported("it is a 32-bit program")
        return list(self._SET.unpack(registers))

    def sleeps(self, registers: bytes, code: bytes) -> bool:
        """Before a stop the kernel has prepared the call to begin anew, and only when it lets go of the thread it makes
        that a restart with the rest of the time: not to be seen, and lost with other registers.
        """
        own = self._words(registers)
        call = own[self._X8]
        relative = (
            call in {self._NANOSLEEP, self._RESTART_SYSCALL}
            or (call == self._CLOCK_NANOSLEEP and not own[1] & self._TIMER_ABSTIME)
            or (call == self._FUTEX and own[3] != 0)
        )
        return relative and code == self._SVC

    def skip(self, registers: bytes) -> tuple[bytes, bytes, int, bytes]:
        """No such number of a call: it is left out."""
        own = self._words(registers)
        ended = list(own)
        own[self._PC] -= len(self._SVC)
        ended[0] = -self._EINTR & _WORD
        return self._SET.pack(*own), self._SET.pack(*ended), self._SYSTEM_CALL, struct.pack("<i", -1)

    def plan(self, thread: Thread, pid: int, gadgets: Gadgets) -> Plan:
        """A signal frame at the stack pointer; the kernel has prepared a restart before the stop."""
        own = self._words(thread.registers)
        counter = own[self._PC]
        if thread.resume_at is not None:
            own[self._PC] = thread.resume_at
        state = struct.unpack_from("<512sII", thread.vector)
        context = struct.pack("<QQ QIIQ Q 120x 8x", 0, 0, 0, _BAD_STACK_FLAGS, 0, 0, thread.mask)
        context += struct.pack("<Q 34Q 8x", 0, *own)
        context += struct.pack("<IIII 512s", self._FPSIMD_MAGIC, 528, state[1], state[2], state[0])
        wide = self._wide(thread.more)
        frame = (bytes(self._INFO) + context + wide).ljust(self._INFO + 176 + 288 + self._RESERVED, b"\0")
        frame_at = (own[self._SP] - len(frame)) & ~15

        detour = list(own)
        detour[self._PC] = _call(gadgets, counter)
        detour[self._SP] = frame_at
        detour[self._X30] = gadgets.restorer
        detour[self._X8] = self.wait4
        detour[0:4] = [pid, 0, WNOHANG_WALL, 0]
        detour[self._PSTATE] &= ~self._BRANCH_TYPE
        lost = (self._SVE, thread.more[self._SVE]) if wide else None
        return Plan(frame_at, frame, self._SET.pack(*detour), self._SET.pack(*own), thread.timed, lost)

    def _wide(self, more: Mapping[int, bytes]) -> bytes:
        """The record that brings the SVE registers back, of which a system call keeps the lowest 128 bits only.

        None where they are not in use, as for a thread that sleeps in a call. struct user_sve_header,
        struct sve_context.
        """
        if struct.unpack_from("<Q", more.get(self._GCS, bytes(8)))[0] & 1:
            raise Unsupported("it has a shadow stack, which would take the way back for an attack")
        if struct.unpack_from("<H", more.get(self._SSVE, bytes(16)), 12)[0] & 1:
            raise Unsupported("it is in streaming mode (SME), which a system call ends")
        state = more.get(self._SVE, bytes(16))
        length, in_use = struct.unpack_from("<8xH2xH", state)
        if not in_use & 1:
            return b""
        registers = state[16:][: 34 * length + length // 8]  # 32 vectors, 16 predicates and the FFR of an 8th each
        record = struct.pack("<IIH6x", self._SVE_MAGIC, (16 + len(registers) + 15) & ~15, length) + registers
        if 528 + len(record) + 32 > self._RESERVED:
            raise Unsupported(f"its SVE registers of {length} bytes do not fit into a signal frame")
        return record + bytes(-len(record) % 16)

    def again(self, registers: bytes, plan: Plan, pid: int) -> Plan | None:
        """At the instruction after the call, with the frame on top of the stack."""
        words, detour = self._words(registers), self._words(plan.detour)
        if (words[self._PC], words[self._SP]) != (detour[self._PC] + 4, plan.address):
            return None
        detour[0] = pid
        return plan._replace(detour=self._SET.pack(*detour))


def machine() -> Machine:
    """The processor that this program runs on; raises `Unsupported` for one that has no method here."""
    machines: dict[str, type[Machine]] = {"x86_64": X8664, "aarch64": AArch64}
    name = platform.machine()
    if name not in machines:
        raise Unsupported(f"inject knows x86_64 and aarch64, and this is {name}")
    return machines[name]()
