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


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """Living orphans that still hold the terminal, pipe or file of whoever started them, or npm's
    environment.
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
    process = known.process
    script = known.environ.get("npm_lifecycle_event")
    ancestors = evidence.at.ancestors(process.pid)
    parent = evidence.facts(process.ppid)
    if script and parent is not None and parent.runtime in {"", "init", "python", "go", "java"}:
        above = [evidence.facts(one.pid) for one in ancestors]
        if not any(one and one.runtime == "node" for one in above) and (parent.init or parent.runtime == "init"):
            said = f"npm_lifecycle_event={script}"
            return (Fact(f"/proc/{process.pid}/environ", said, "npm started it, and no npm is above it"),)
    told = adopted(process, evidence.at)
    if not told or process.sid in evidence.at or process.ppid not in evidence.at:
        return None
    held = [target for target in known.stdio[1:] if not target.startswith(_DETACHED) and target]
    if not held:
        return None
    return (
        Fact(f"/proc/{process.pid}/stat", f"session {process.sid}", told),
        Fact(f"/proc/{process.pid}/fd/1", held[0], "a daemon by the book would have let go of it"),
    )


RULE = Rule(
    number=18,
    id="leftovers",
    title="Leftovers hold memory",
    cause="Stopping a program by its pid alone (npm, a start script, an agent's installer) leaves its"
    " children running:"
    " they go to PID 1, keep their memory, ports and connections, and no heap profile of the program"
    " shows them.",
    reads=(
        "/proc/PID/stat: a session whose leader has ended, rss",
        "/proc/PID/fd: stdout is still a pipe, file or terminal of whoever started it",
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
