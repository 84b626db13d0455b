"""Row 14: a process in state D, which no signal reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.evidence import Facts
from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# What the functions that the kernel sleeps in belong to, the first that is found in wchan or stack counts.
_WAITS_FOR = (
    (("vfork", "kernel_clone"), "its vfork child, which has neither exec'd nor ended"),
    (("nfs", "rpc_wait"), "an NFS server"),
    (("cifs", "smb2"), "an SMB server"),
    (("fuse",), "the program behind a FUSE file system"),
    (("jbd2", "ext4", "xfs", "btrfs", "io_schedule", "blk_", "folio_wait", "submit_bio"), "storage"),
    (("coredump",), "a core dump to be written"),
    (("mem_cgroup_handle_over_high", "mem_cgroup_oom"), "memory of its cgroup"),
)


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """Processes that were in state D at both looks."""
    for process in evidence.stuck:
        known = evidence.facts(process.pid) or Facts(process)
        if known.frozen:
            continue  # to this kernel a frozen process is in D too; that is its cgroup's doing
        where = " ".join((known.wchan, *known.stack))
        waits_for = next((what for words, what in _WAITS_FOR if any(word in where for word in words)), "")
        facts = [Fact(f"/proc/{process.pid}/stat", "state D", "at both of two looks")]
        if known.wchan:
            facts.append(Fact(f"/proc/{process.pid}/wchan", known.wchan, "the kernel function that it sleeps in"))
        if known.stack:
            facts.append(
                Fact(f"/proc/{process.pid}/stack", " < ".join(map(_function, known.stack[:4])), "who called it")
            )
        yield finding(
            RULE.id,
            known,
            (),
            what=f"{process.name} is in an uninterruptible sleep"
            + (f": it waits for {waits_for}" if waits_for else f" in {known.wchan}" if known.wchan else ""),
            remedy="No signal ends it before that wait does: mend what it waits for. Do not read its"
            " cmdline, ps may hang.",
            facts=facts,
            confidence="certain" if waits_for else "likely",
        )


def _function(line: str) -> str:
    return line.removeprefix("[<0>] ").partition("+")[0]


RULE = Rule(
    number=14,
    id="uninterruptible",
    title="A process hangs in the kernel",
    cause="In state D a process waits for something that the kernel does not let be interrupted: a disk,"
    " a file server, a"
    " FUSE program, a vfork child. SIGKILL waits too. If it is a parent, its zombies stay; if it is a"
    " member of a"
    " container, that does not stop.",
    reads=("/proc/PID/stat: state D", "/proc/PID/wchan", "/proc/PID/stack (CAP_SYS_ADMIN)"),
    cures=(
        Cure(
            "host",
            "See what it waits for",
            "cat /proc/{pid}/wchan /proc/{pid}/stack; dmesg | tail -50",
            "None. Do not use ps -f or lsof: they may hang on it.",
        ),
        Cure(
            "host",
            "A file server that is gone: let the mount give up",
            "umount -f MOUNTPOINT || umount -l MOUNTPOINT",
            "Data that was not written yet is lost.",
        ),
        Cure(
            "host",
            "A FUSE program that hangs: abort its connection",
            "echo 1 > /sys/fs/fuse/connections/NUMBER/abort",
            "Everything that uses that file system gets errors.",
        ),
        Cure(
            "kubernetes",
            "Take the load off the node, then restart it: nothing less ends a wait for a dead device",
            "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
            "All pods of the node move.",
        ),
    ),
    seen_in=(),
    examine=examine,
)
