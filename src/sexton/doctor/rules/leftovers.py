"""Beyond the sixteen rows: what goes on after its family has gone, with the memory that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import finding
from sexton.proc import adopted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# Where a daemon by the book puts its standard descriptors; whoever has others was cut off from somebody.
_DETACHED = ("/dev/null", "socket:")
# What npm and its kind are called by the kernel; Node's first thread has that name since version 22.
_NODES = ("node", "npm", "npx", "yarn", "pnpm", "bun", "MainThread")


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """Living orphans that still hold the terminal, pipe or file of whoever started them, or npm's environment;
    below PID 1 and below a subreaper.
    """
    for known in evidence.people.values():
        process = known.process
        if process.zombie or process.kernel or process.pid not in evidence.scope or known.init:
            continue
        why = _why(evidence, known)
        if why is None:
            continue
        family = (process, *(p for p in evidence.at.descendants(process.pid) if not p.zombie))
        memory = sum(member.rss for member in family)
        parent = evidence.at.parent(process)
        with_it = f" with {len(family) - 1} descendants" if len(family) > 1 else ""
        yield finding(
            RULE.id,
            known,
            family,
            what=f"{process.name}{with_it} goes on although who started it has ended; it holds"
            f" {memory >> 20} MiB" + (f" and is now a child of {parent.name}" if parent else ""),
            remedy="If nobody wants it, end it, and start such trees through a guard that takes them with it.",
            facts=(
                *why,
                Fact(f"/proc/{process.pid}/stat", f"rss {memory} bytes", "of it and its descendants"),
            ),
            confidence="likely",
            severity="hazard",
        )


def _why(evidence: Evidence, known: Facts) -> tuple[Fact, ...] | None:
    """What shows that somebody is missing above it; None where nothing does."""
    process = known.process
    parent = evidence.facts(process.ppid)
    if parent is None or known.runtime == "shim":  # a shim is let go on purpose
        return None
    told = adopted(process, evidence.at)
    if not told and not _adopts(evidence, parent):
        return None
    script = known.environ.get("npm_lifecycle_event")
    # npm gives this to what it starts, and has it not itself; who starts a guard or a shim from a script has it too.
    if script and "npm_lifecycle_event" not in parent.environ and not _node_above(evidence, known):
        said = f"npm_lifecycle_event={script}"
        return (Fact(f"/proc/{process.pid}/environ", said, "npm started it, and no npm is above it"),)
    whose = Fact(f"/proc/{process.pid}/stat", f"session {process.sid}", told)
    if known.severed >= 0 and (told or process.sid == process.pid):
        if not told:
            name = parent.process.name
            whose = Fact(f"/proc/{process.pid}/stat", f"ppid {process.ppid}", f"{name} is given orphans")
        place, target = f"/proc/{process.pid}/fd/{known.severed}", known.stdio[known.severed]
        gone = "its terminal was hung up" if target.startswith("/dev/") else "who read this has ended"
        return (whose, Fact(place, target, gone))
    if not told or process.sid in evidence.at:
        return None
    held = [target for target in known.stdio[1:] if not target.startswith(_DETACHED) and target]
    if not held:
        return None
    return whose, Fact(f"/proc/{process.pid}/fd/1", held[0], "a daemon by the book would have let go of it")


def _adopts(evidence: Evidence, parent: Facts) -> bool:
    """Whether orphans come to it: PID 1, an init or a shim by its name, or by a child that it did not fork."""
    if parent.init or parent.runtime in {"init", "shim"}:
        return True
    return any(adopted(child, evidence.at) for child in evidence.at.children(parent.process.pid))


def _node_above(evidence: Evidence, known: Facts) -> bool:
    """Whether npm may be above it, by what Node and npm call themselves, or by their program."""
    for one in evidence.at.ancestors(known.process.pid):
        facts = evidence.facts(one.pid)
        if one.comm.startswith(_NODES) or (facts is not None and facts.runtime == "node"):
            return True
    return False


RULE = Rule(
    number=18,
    id="leftovers",
    title="Leftovers hold memory",
    cause="Stopping a program by its pid alone (npm, a start script, an agent's installer) leaves its"
    " children running: they go to PID 1 or to a subreaper (a guard, a user's systemd, a container's shim), keep their"
    " memory, ports and connections, and no heap profile of the program shows them.",
    reads=(
        "/proc/PID/stat: a session whose leader has ended, rss",
        "/proc/PID/fd: stdout is still a pipe, file or terminal of whoever started it",
        "/proc/PID/fd/1 and 2: nobody reads this pipe any more, or the terminal was hung up",
        "/proc/PID/environ: npm_lifecycle_event without an npm above",
    ),
    cures=(
        Cure(
            "host",
            "End it and its descendants",
            "kill -TERM {pid}",
            "If somebody left it running on purpose (nohup), that work is lost.",
        ),
        Cure(
            "shell",
            "Start the tree behind a guard: when the guard is stopped, all of it goes",
            "sexton-init -- npm run start &\nguard=$!\n# later: kill -TERM $guard; wait $guard",
            "None known.",
        ),
        Cure(
            "node",
            "Start the tree behind a guard",
            "const guard = spawn('sexton-init', ['--', 'npm', 'run', 'start']);\n// later: guard.kill('SIGTERM')",
            "None known.",
        ),
        Cure(
            "python",
            "Start the tree behind a guard",
            "guard = subprocess.Popen(['sexton-init', '--', 'npm', 'run', 'start'])\n# later:"
            " guard.terminate(); guard.wait()",
            "None known.",
        ),
        Cure(
            "systemd",
            "Make it a unit of its own, which is stopped as a whole",
            "systemd-run --unit=app npm run start\n# later: systemctl stop app",
            "None known.",
        ),
    ),
    seen_in=("a hosting platform that killed npm alone", "a Go service that grew by 7 GB in 72 hours"),
    examine=examine,
)
