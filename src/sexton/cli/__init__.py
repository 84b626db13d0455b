"""The command `sexton`: one file a subcommand, each imported when it is called and not before."""

from __future__ import annotations

import sys

from sexton._binary import become

# The name of a subcommand, and the module that holds a click command of that name.
COMMANDS = {
    "init": "sexton.cli.init",
    "run": "sexton.cli.run",
    "sweep": "sexton.cli.sweep",
    "check": "sexton.cli.check",
    "reap": "sexton.cli.reap",
    "ps": "sexton.cli.ps",
    "tree": "sexton.cli.tree",
    "doctor": "sexton.cli.doctor",
    "up": "sexton.cli.up",
    "down": "sexton.cli.down",
    "status": "sexton.cli.status",
    "start": "sexton.cli.start",
    "stop": "sexton.cli.stop",
    "restart": "sexton.cli.restart",
    "signal": "sexton.cli.signal",
    "scale": "sexton.cli.scale",
    "reload": "sexton.cli.reload",
    "ports": "sexton.cli.ports",
    "logs": "sexton.cli.logs",
    "events": "sexton.cli.events",
    "import": "sexton.cli.import_",
    "schema": "sexton.cli.schema",
}


def main() -> None:
    """The entry point. `sexton init` becomes the native program before anything else is imported."""
    try:
        if sys.argv[1:2] == ["init"]:
            become(sys.argv[2:])
        from sexton.cli._group import sexton

        sexton(prog_name="sexton")
    except Exception as error:
        from sexton.errors import SextonError

        if not isinstance(error, SextonError):
            raise
        print(f"sexton: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
