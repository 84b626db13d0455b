"""The bytes of /proc files to values: pure functions. What is not of the file's form raises ValueError, and
nothing else.
"""

from __future__ import annotations

import os

from sexton.proc._model import Brief, Membership, Mount, Process, Status, Syscall

PAGE = os.sysconf("SC_PAGE_SIZE")
_new = tuple.__new__


def text(data: bytes) -> str:
    """Bytes of a process's own choosing; what is no UTF-8 becomes surrogates, on any locale."""
    return data.decode("utf-8", "surrogateescape")


def stat(data: bytes) -> Process:
    """A `stat` file. The name may hold parentheses, spaces and newlines, so it ends at the last `) `."""
    # Written for speed: a machine with 10,000 processes reads 10,000 of them at once.
    pid, _, rest = data.decode("utf-8", "surrogateescape").partition(" (")
    comm, found, rest = rest.rpartition(") ")
    if not found:
        raise ValueError(f"no name in a stat file: {data[:80]!r}")
    field = rest.split(" ", 36)
    if len(field) < 36:
        raise ValueError(f"a stat file of {len(field) + 2} fields")
    value = (
        int(pid),
        int(field[1]),
        int(field[2]),
        int(field[3]),
        field[0],
        comm,
        int(field[17]),
        int(field[19]),
        int(field[6]),
        int(field[35]),
        int(field[21]) * PAGE,
    )
    return _new(Process, value)


def status(data: bytes) -> Status:
    """A `status` file; fields that an older kernel does not have get the value that says "nothing"."""
    fields = dict(line.split(b":\t", 1) for line in data.split(b"\n") if b":\t" in line)
    try:
        pid = int(fields[b"Pid"])
        uids, gids = _ints(fields[b"Uid"]), _ints(fields[b"Gid"])
        return Status(
            pid=pid,
            tgid=int(fields[b"Tgid"]),
            ppid=int(fields[b"PPid"]),
            tracer=int(fields[b"TracerPid"]),
            uid=uids[0],
            euid=uids[1],
            gid=gids[0],
            egid=gids[1],
            ns_pids=_ints(fields.get(b"NSpid", b"")) or (pid,),
            ns_pgids=_ints(fields.get(b"NSpgid", b"")),
            ns_sids=_ints(fields.get(b"NSsid", b"")),
            pending=int(fields[b"SigPnd"], 16),
            shared_pending=int(fields[b"ShdPnd"], 16),
            blocked=int(fields[b"SigBlk"], 16),
            ignored=int(fields[b"SigIgn"], 16),
            caught=int(fields[b"SigCgt"], 16),
            cap_effective=int(fields.get(b"CapEff", b"0"), 16),
            no_new_privs=int(fields.get(b"NoNewPrivs", b"0")) != 0,
            seccomp=int(fields.get(b"Seccomp", b"0")),
            threads=int(fields[b"Threads"]),
            rss=_kilobytes(fields.get(b"VmRSS", b"0 kB")),
            swap=_kilobytes(fields.get(b"VmSwap", b"0 kB")),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"no {error} in a status file") from None


def brief(data: bytes) -> Brief:
    """The part of a `status` file that is asked of every process, without the cost of the rest."""
    return Brief(
        uid=int(_field(data, b"\nUid:\t").partition(b"\t")[0]),
        tracer=int(_field(data, b"\nTracerPid:\t")),
        ns_pid=int((_field(data, b"\nNSpid:\t") or _field(data, b"\nPid:\t")).rpartition(b"\t")[2]),
        ignored=int(_field(data, b"\nSigIgn:\t") or b"0", 16),
        caught=int(_field(data, b"\nSigCgt:\t") or b"0", 16),
    )


def _field(data: bytes, name: bytes) -> bytes:
    at = data.find(name)
    if at < 0:
        return b""
    return data[at + len(name) : data.find(b"\n", at + 1)]


def strings(data: bytes) -> tuple[str, ...]:
    """A `cmdline` or `environ` file: strings that end in NUL; a process that overwrote them may have left no
    NUL at the end.
    """
    parts = data.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return tuple(map(text, parts))


def environ(data: bytes) -> dict[str, str]:
    """An `environ` file; of a name that is there twice the first counts, as for getenv(3)."""
    found: dict[str, str] = {}
    for entry in strings(data):
        name, equals, value = entry.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def syscall(data: bytes) -> Syscall:
    """A thread's `syscall`: `running`, or number, six arguments, stack pointer and program counter.
    proc_pid_syscall(5).
    """
    words = data.split()
    if words == [b"running"]:
        return Syscall(-2, (), 0, 0)
    numbers = [int(word, 0) for word in words]
    if len(numbers) == 3 and numbers[0] == -1:
        return Syscall(-1, (), numbers[1], numbers[2])
    if len(numbers) != 9:
        raise ValueError(f"a syscall file of {len(numbers)} fields")
    return Syscall(numbers[0], tuple(numbers[1:7]), numbers[7], numbers[8])


def cgroups(data: bytes) -> tuple[Membership, ...]:
    """The lines of a `cgroup` file, version 1 and 2."""
    found = []
    for line in data.split(b"\n"):
        if not line:
            continue
        parts = line.split(b":", 2)
        if len(parts) != 3:
            raise ValueError(f"a cgroup file has the line {line!r}")
        controllers = tuple(text(name) for name in parts[1].split(b",") if name)
        found.append(Membership(int(parts[0]), controllers, text(parts[2])))
    return tuple(found)


def limits(data: bytes) -> dict[str, tuple[int | None, int | None]]:
    """A `limits` file by the names that it uses ("Max processes"); None is unlimited. proc_pid_limits(5)."""
    lines = data.decode("ascii", "replace").split("\n")
    soft_at, hard_at = lines[0].find("Soft Limit"), lines[0].find("Hard Limit")
    if soft_at < 0 or hard_at < soft_at:
        raise ValueError("a limits file without its heading")
    found = {}
    for line in lines[1:]:
        if line.strip():
            soft, hard = line[soft_at:hard_at].strip(), line[hard_at:].strip().split(" ")[0]
            found[line[:soft_at].strip()] = (_limit(soft), _limit(hard))
    return found


def mounts(data: bytes) -> tuple[Mount, ...]:
    """A `mountinfo` file; `options` are those of the mount and of the file system together."""
    found = []
    for line in data.split(b"\n"):
        if not line:
            continue
        before, dash, after = line.partition(b" - ")
        head, tail = before.split(b" "), after.split(b" ")
        if not dash or len(head) < 6 or len(tail) < 3:
            raise ValueError(f"a mountinfo file has the line {line!r}")
        options = text(head[5]).split(",") + text(tail[2]).split(",")
        found.append(Mount(_octal(head[3]), _octal(head[4]), text(tail[0]), _octal(tail[1]), tuple(options)))
    return tuple(found)


def pairs(data: bytes) -> dict[str, int]:
    """A file of `key value` lines, as pids.events is."""
    found = {}
    for line in data.split(b"\n"):
        if line:
            key, _, value = line.partition(b" ")
            found[text(key)] = int(value)
    return found


def pid_list(data: bytes) -> tuple[int, ...]:
    """A `children` or cgroup.procs file: pids between white space."""
    return _ints(data)


def _ints(data: bytes) -> tuple[int, ...]:
    return tuple(map(int, data.split()))


def _kilobytes(data: bytes) -> int:
    return int(data.split()[0]) * 1024


def _limit(word: str) -> int | None:
    return None if word == "unlimited" else int(word)


def _octal(data: bytes) -> str:
    """Mount points have blanks, tabs, newlines and backslashes as three octal digits after a backslash."""
    first, *rest = data.split(b"\\")
    out = first
    for part in rest:
        digits = part[:3]
        if len(digits) < 3 or not digits.isdigit() or b"8" in digits or b"9" in digits or digits > b"377":
            out += b"\\" + part
        else:
            out += bytes((int(digits, 8),)) + part[3:]
    return text(out)
