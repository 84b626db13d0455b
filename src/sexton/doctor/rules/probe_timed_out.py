"""Row 3: what a timed-out health check or exec left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.remedies import CLEAR_NOW, USE_AN_INIT
from sexton.doctor.rules._tools import by_parent, counted, finding, parentage
from sexton.proc import adopted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# Names in their first 14 bytes. As a list, with one name a line, it would be the longest part of this rule.
_NAMES = "sh bash dash ash curl wget timeout nc grep cat test ping pgrep pidof healthcheck healthcheck.sh redis-cli"
_MORE = "pg_isready psql mysqladmin mongosh mongo rabbitmqctl rabbitmq-diagn grpc_health_pr kafka-topics"
PROBES = frozenset(name[:14] for name in (*_NAMES.split(), *_MORE.split()))


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Adopted zombies of PID 1 with the name of a probe, from a session whose leader has been killed."""
    for parent, group in by_parent(evidence, zombies):
        if not parent.init or parent.runtime == "init" or parent.cannot_run:
            continue
        probes = [z for z in group if z.comm[:14] in PROBES and z.sid not in evidence.at and adopted(z, evidence.at)]
        if not probes:
            continue
        yield finding(
            RULE.id,
            parent,
            probes,
            what=f"A health check or exec was killed from the top: {counted(probes)} came to"
            f" {parent.process.name}, which does not reap",
            remedy="Put an init in front, and give the check an inner timeout shorter than the probe's.",
            facts=(
                parentage(parent, probes),
                Fact(f"/proc/{probes[0].pid}/stat", probes[0].comm, "the name of what health checks run"),
                Fact(
                    f"/proc/{probes[0].pid}/stat",
                    f"session {probes[0].sid}",
                    "its leader, the check, has ended",
                ),
            ),
            confidence="likely",
        )


_INNER = Cure(
    "kubernetes",
    "Let the check end itself before the kubelet kills its top process",
    "livenessProbe:\n"
    "  timeoutSeconds: 5\n"
    "  exec:\n"
    '    command: ["timeout", "-k", "1", "3", "curl", "-fsS", "localhost:8080/health"]',
    "None: a check that takes longer failed before too. An httpGet or grpc probe starts no process at all.",
)

RULE = Rule(
    number=3,
    id="probe-timed-out",
    title="A health check was killed, and only its top process",
    cause="When an exec probe or a `docker exec` times out, only the process that was exec'd is killed."
    " What it had"
    " started goes to PID 1 of the container as an orphan, ends, and stays a zombie if PID 1 does not reap.",
    reads=(
        "/proc/ZOMBIE/stat: name, ppid, and a session whose leader has ended",
        "/proc/PID/status: NSpid ends in 1",
    ),
    cures=(
        _INNER,
        Cure(
            "docker",
            "Let the check end itself before the engine kills its top process",
            "# Dockerfile\nHEALTHCHECK --timeout=5s CMD timeout -k 1 3 curl -fsS localhost:8080/health",
            "None: a check that takes longer failed before too.",
        ),
        Cure(
            "compose",
            "Let the check end itself before the engine kills its top process",
            "services:\n"
            "  SERVICE:\n"
            "    healthcheck:\n"
            '      test: ["CMD", "timeout", "-k", "1", "3", "curl", "-fsS", "localhost:8080/health"]\n'
            "      timeout: 5s",
            "None: a check that takes longer failed before too.",
        ),
        CLEAR_NOW,
        *USE_AN_INIT,
    ),
    seen_in=("kubernetes #81042, #110070, #124226",),
    examine=examine,
)
