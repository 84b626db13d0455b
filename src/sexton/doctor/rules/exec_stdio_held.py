"""Row 4: the shim of a container runtime does not reap an exec'd process whose stdio a sibling still
holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a shim, or of a parent outside, that are not the PID 1 of their container."""
    for zombie in zombies:
        brief = evidence.briefs.get(zombie.pid)
        shim = evidence.facts(zombie.ppid)
        if (zombie.ppid != 0 and (shim is None or shim.runtime != "shim")) or (brief and brief.ns_pid == 1):
            continue
        family = [known for known in evidence.people.values() if _same_session(known, zombie)]
        holders = [known for known in family if shim is not None and known.pipes & shim.pipes]
        named = ", ".join(known.process.name for known in holders or family)
        who = shim.process.name if shim else "a container runtime outside of this PID namespace"
        facts = [Fact(f"/proc/{zombie.pid}/stat", f"ppid {zombie.ppid}", f"its parent is {who}")]
        for known in holders:
            pipe = min(known.pipes & shim.pipes) if shim else ""
            facts.append(Fact(f"/proc/{known.process.pid}/fd", pipe, "the same pipe as the shim reads its output from"))
        if not holders:
            facts += [Fact(f"/proc/{k.process.pid}/stat", f"session {zombie.sid}", "of the same exec") for k in family]
        yield finding(
            RULE.id,
            shim,
            (zombie,),
            what=f"{zombie.name} was exec'd into a container and has ended; {who} waits for the end of"
            " its output"
            + (
                f", which {named} holds open"
                if holders
                else f"; of the same exec there still is {named}"
                if named
                else ""
            ),
            remedy=(
                f"End {named}, which holds the exec's stdio. " if named else "Find the process that holds its stdio. "
            )
            + "Never kill a shim: its container would be lost to the engine.",
            facts=facts,
            confidence="certain" if holders else "likely" if family else "possible",
        )


def _same_session(known: Facts, zombie: Process) -> bool:
    return known.process.sid == zombie.sid and known.process.pid != zombie.pid and not known.process.zombie


RULE = Rule(
    number=4,
    id="exec-stdio-held",
    title="An exec'd process waits for the end of its output",
    cause="The shim (containerd-shim, conmon) reports an exec as ended when the process has ended and"
    " its stdout and"
    " stderr are closed. A background process that the exec started holds them open, so the shim does"
    " not finish,"
    " and the exec'd process stays its zombie.",
    reads=(
        "/proc/ZOMBIE/stat: ppid is a shim (0 from inside of the container), session",
        "/proc/SIBLING/fd: a pipe that the shim has too",
    ),
    cures=(
        Cure(
            "host",
            "Find who holds the output, then end that process",
            "# every process that has a pipe of the shim open\n"
            "ls -l /proc/{pid}/fd | grep -o 'pipe:[^ ]*' | sort -u > pipes\n"
            "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -F -f pipes\n"
            "kill HOLDER",
            "HOLDER ends. Never kill the shim itself: the engine loses the container.",
        ),
        Cure(
            "shell",
            "Close the output of what goes to the background",
            "docker exec CONTAINER sh -c 'daemon </dev/null >/dev/null 2>&1 &'",
            "The daemon's output goes nowhere; give it a file of its own if it matters.",
        ),
        Cure(
            "kubernetes",
            "Close the output of what a probe or hook sends to the background",
            'command: ["sh", "-c", "daemon </dev/null >/dev/null 2>&1 &"]',
            "The daemon's output goes nowhere.",
        ),
    ),
    seen_in=("containerd #4594 and #7717", "moby #47583", "kubernetes #57756"),
    examine=examine,
)
