"""What supervisord, systemd, Compose, pm2 and others call a thing, and what it is called in sexton.toml: for hints."""

from __future__ import annotations

from sexton.supervise.values import Choice, Table, Wrong, shown

_POLICIES = {
    "always": "always",
    "unless-stopped": "always",
    "any": "always",
    "true": "always",
    "yes": "always",
    "on-failure": "on-failure",
    "on_failure": "on-failure",
    "unexpected": "on-failure",
    "never": "never",
    "no": "never",
    "none": "never",
    "false": "never",
}

_HERE = {
    # when it is started again
    "autorestart": 'restart = { policy = "always" }, "on-failure" (supervisord: unexpected) or "never"',
    "Restart": 'restart = { policy = "always" }, "on-failure" or "never"',
    "restart_policy": 'restart = { policy = "always" }, "on-failure" or "never"',
    "availability": 'restart = { policy = "always" }, "on-failure" or "never"',
    "RestartSec": "restart = { backoff = ... }",
    "restart_delay": "restart = { backoff = ... }",
    "startretries": "restart = { limit = ... }",
    "max_restarts": "restart = { limit = ... }",
    "startsecs": "restart = { stable = ... }",
    "min_uptime": "restart = { stable = ... }",
    # what it is, and with what it runs
    "ExecStart": "command",
    "cmd": "command",
    "entrypoint": "command",
    "script": "command",
    "args": "command, a list with the arguments in it",
    "WorkingDirectory": "cwd",
    "working_dir": "cwd",
    "directory": "cwd",
    "Environment": "env",
    "environment": "env",
    "EnvironmentFile": "env_file",
    "ulimits": "rlimits",
    "numprocs": "instances",
    "numprocesses": "instances",
    "replicas": "instances",
    "scale": "instances",
    "mem_limit": "limits = { memory = ... }",
    "max_memory_restart": "limits = { memory = ... }",
    "pids_limit": "limits = { processes = ... }",
    "stdout_logfile": "log = { directory = ... }",
    # what comes before it, and how it is known to be well
    "Requires": "after",
    "depends_on": "after",
    "priority": "after",
    "healthcheck": "ready, and live to restart it when it is unwell",
    "readiness_probe": "ready",
    "liveness_probe": "live",
    # how it is stopped
    "ExecStop": "stop = { command = ... }",
    "KillSignal": "stop = { signal = ... }",
    "stopsignal": "stop = { signal = ... }",
    "stop_signal": "stop = { signal = ... }",
    "TimeoutStopSec": "stop = { grace = ... }",
    "stopwaitsecs": "stop = { grace = ... }",
    "stop_grace_period": "stop = { grace = ... }",
    "kill_timeout": "stop = { grace = ... }",
}

KEYS = {name: f"there is no such key: here it is {here}" for name, here in _HERE.items()}
"""Keys of an app elsewhere, and what to say of them."""


def _policy(value: object) -> tuple[str, str]:
    """What others' word for a policy is here, and the number of restarts that Compose has behind it; or nothing."""
    if not isinstance(value, str | bool):
        return "", ""
    word, _, limit = str(value).lower().partition(":")
    return _POLICIES.get(word, ""), limit if limit.isdecimal() else ""


class Policy(Choice):
    """The policy of restarts."""

    def wrong(self, value: object) -> Wrong:
        """With others' word for it translated."""
        word, _ = _policy(value)
        if not word:
            return super().wrong(value)
        return Wrong(f'{shown(value)}: expected {self.expected} (here it is "{word}")')


class Restarts(Table):
    """The table of restarts, which others have a word for."""

    def wrong(self, value: object) -> Wrong:
        """With others' word for it translated."""
        word, limit = _policy(value)
        if not word:
            return super().wrong(value)
        more = f", limit = {limit}" if limit else ""
        return Wrong(f'{shown(value)}: expected a table: restart = {{ policy = "{word}"{more} }}')
