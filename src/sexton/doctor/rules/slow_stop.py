"""Row 16: a stop takes the whole grace time, since PID 1 does not hear SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.evidence import HOST_NAMESPACE
from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.remedies import USE_AN_INIT
from sexton.doctor.rules._tools import TERM, finding, mask
from sexton.proc import PF_EXITING, has

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """PIDs 1 of containers that neither handle SIGTERM nor take it with sigwait or a signalfd."""
    for known in evidence.people.values():
        status, pid = known.status, known.process.pid
        if status is None or not known.init or known.namespace in {0, HOST_NAMESPACE} or pid not in evidence.scope:
            continue
        if has(status.caught, TERM) or has(status.blocked, TERM) or known.process.flags & PF_EXITING:
            continue
        # In sigwait the kernel shows the signals that are waited for as not blocked; an init knows what it
        # does.
        if known.process.zombie or known.sigwait or known.runtime == "init":
            continue
        yield finding(
            RULE.id,
            known,
            (),
            what=f"{known.process.name} is PID 1 of its namespace and has no handler for SIGTERM, which"
            " the kernel then"
            f" throws away: {_stop(known)} waits out its grace time and kills (exit code 137)",
            remedy="Put an init in front of it, or give it a handler for SIGTERM.",
            facts=(
                Fact(
                    f"/proc/{pid}/status",
                    f"NSpid {' '.join(map(str, status.ns_pids))}",
                    "PID 1: no default actions",
                ),
                mask(known, "SigCgt", TERM),
            ),
            severity="hazard",
        )


def _stop(known: Facts) -> str:
    if known.container is None:
        return "a stop of it"
    return "deleting the pod" if known.container.pod else f"{known.container.engine or 'container'} stop"


RULE = Rule(
    number=16,
    id="slow-stop",
    title="A stop takes the whole grace time",
    cause="The kernel does not deliver a signal to PID 1 of a namespace unless that has a handler for"
    " it. A PID 1 without"
    " one, a shell in front of the program among them, survives SIGTERM; after 10 s (Docker) or 30 s"
    " (Kubernetes) it is"
    " killed with everything in the container: exit code 137. A preStop hook uses up the same grace"
    " time; that is not"
    " seen from processes. That a handler is set does not prove that it ends the program (Node sets one"
    " all the same,"
    " bash runs a trap only after its foreground child): `sexton check -- COMMAND` tries.",
    reads=("/proc/PID/status: NSpid ends in 1, SigCgt and SigBlk without SIGTERM",),
    cures=(
        *USE_AN_INIT,
        Cure(
            "docker",
            "Let the program be PID 1, and not a shell in front of it",
            'CMD ["app", "argument"]      # and not: CMD app argument',
            "Variables in the command are no longer expanded.",
        ),
        Cure(
            "shell",
            "End the script with exec, or let it pass the signal on",
            "exec app\n# or, to stay in front:\napp & pid=$!\ntrap 'kill -TERM \"$pid\"' TERM\nwait"
            ' "$pid"; wait "$pid"',
            "exec gives the script's other children to app, which does not reap them: see exec-inherited.",
        ),
        Cure(
            "python",
            "Handle SIGTERM",
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))",
            "None known.",
        ),
        Cure(
            "node",
            "Handle SIGTERM",
            "process.on('SIGTERM', () => server.close(() => process.exit(143)))",
            "None known.",
        ),
        Cure(
            "go",
            "Handle SIGTERM",
            "ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)\ndefer stop()",
            "None known.",
        ),
        Cure(
            "java",
            "Java ends on SIGTERM by itself: let it be PID 1, and not a shell",
            "exec java -jar app.jar",
            "None known.",
        ),
        Cure(
            "kubernetes",
            "Leave time for the program after a preStop hook",
            "terminationGracePeriodSeconds: 60   # preStop and the program's own stop together",
            "A rollout takes longer.",
        ),
    ),
    seen_in=("docker-library/php #816 (an inherited STOPSIGNAL)", "kubernetes #57756 (sh -c CMD > log)"),
    examine=examine,
)
