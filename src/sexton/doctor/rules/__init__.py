"""The causes, one file each, in the order in which they are asked: what explains more than its like comes
first.
"""

from sexton.doctor.model import Rule
from sexton.doctor.rules import (
    exec_inherited,
    exec_stdio_held,
    exit_signal,
    leader_exited,
    leftovers,
    namespace_stuck,
    never_waits,
    parent_cannot_run,
    pid1_does_not_reap,
    pid1_waits_for_its_own,
    pid_headroom,
    probe_timed_out,
    sigchld_ignored,
    sigchld_lost,
    slow_stop,
    statuses_stolen,
    traced,
    uninterruptible,
)

# A zombie is explained by the first rule that claims it.
ORDER: tuple[Rule, ...] = (
    leader_exited.RULE,
    traced.RULE,
    namespace_stuck.RULE,
    parent_cannot_run.RULE,
    exec_stdio_held.RULE,
    exit_signal.RULE,
    sigchld_ignored.RULE,
    exec_inherited.RULE,
    probe_timed_out.RULE,
    pid1_waits_for_its_own.RULE,
    pid1_does_not_reap.RULE,
    sigchld_lost.RULE,
    never_waits.RULE,
    uninterruptible.RULE,
    pid_headroom.RULE,
    statuses_stolen.RULE,
    slow_stop.RULE,
    leftovers.RULE,
)

BY_ID = {rule.id: rule for rule in ORDER}

__all__ = ["BY_ID", "ORDER"]
