"""A /proc made of files: what the kernel here cannot be made to show, bytes and all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STATUS = """\
Name:\t{name}
Umask:\t0022
State:\t{state} (whatever)
Tgid:\t{pid}
Ngid:\t0
Pid:\t{pid}
PPid:\t{ppid}
TracerPid:\t{tracer}
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
Gid:\t{uid}\t{uid}\t{uid}\t{uid}
FDSize:\t256
Groups:\t
NStgid:\t{nspid}
NSpid:\t{nspid}
NSpgid:\t{nspid}
NSsid:\t{nspid}
Kthread:\t0
VmRSS:\t    {rss} kB
VmSwap:\t       0 kB
Threads:\t{threads}
SigQ:\t0/96365
SigPnd:\t0000000000000000
ShdPnd:\t0000000000000000
SigBlk:\t0000000000000000
SigIgn:\t{ignored:016x}
SigCgt:\t{caught:016x}
CapInh:\t0000000000000000
CapEff:\t000001fffeffffff
NoNewPrivs:\t0
Seccomp:\t0
Seccomp_filters:\t0
"""


class Tree:
    """A /proc root in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "uptime").write_text("1000.00 2000.00\n")
        (path / "loadavg").write_text("0.00 0.00 0.00 1/50 99\n")
        (path / "self").mkdir()
        (path / "self" / "mountinfo").write_text("22 27 0:21 / /proc rw,relatime - proc proc rw\n")
        (path / "sys" / "kernel").mkdir(parents=True)
        (path / "sys" / "kernel" / "threads-max").write_text("1000\n")
        (path / "sys" / "kernel" / "pid_max").write_text("32768\n")

    @property
    def root(self) -> str:
        return str(self.path)

    def add(
        self,
        pid: int,
        comm: bytes = b"prog",
        *,
        ppid: int = 0,
        state: str = "S",
        pgid: int | None = None,
        sid: int | None = None,
        threads: int = 1,
        start: int = 100,
        flags: int = 0x400000,
        exit_signal: int = 17,
        rss: int = 10,
        uid: int = 0,
        tracer: int = 0,
        nspid: str = "",
        ignored: int = 0,
        caught: int = 0,
        cgroup: str = "0::/\n",
        cmdline: bytes = b"",
        wchan: str = "0",
        files: dict[str, bytes] | None = None,
    ) -> Path:
        place = self.path / str(pid)
        (place / "task" / str(pid)).mkdir(parents=True)
        (place / "fd").mkdir()
        (place / "ns").mkdir()
        numbers = [ppid, pid if pgid is None else pgid, pid if sid is None else sid, 0, -1, flags]
        numbers += [0] * 7 + [0, 20, 0, threads, 0, start, 4096, rss]
        numbers += [0] * 13 + [exit_signal] + [0] * 14
        line = b"%d (%s) %s %s\n" % (pid, comm, state.encode(), " ".join(map(str, numbers)).encode())
        texts: dict[str, bytes] = {
            "stat": line,
            f"task/{pid}/stat": line,
            "status": STATUS.format(
                name="x",
                state=state,
                pid=pid,
                ppid=ppid,
                tracer=tracer,
                uid=uid,
                nspid=nspid or str(pid),
                rss=rss * 4,
                threads=threads,
                ignored=ignored,
                caught=caught,
            ).encode(),
            "cgroup": cgroup.encode(),
            "cmdline": cmdline,
            "wchan": wchan.encode(),
            **(files or {}),
        }
        for name, data in texts.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        os.symlink("pid:[4026531836]", place / "ns" / "pid")
        return place
