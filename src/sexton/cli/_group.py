"""The click group behind `sexton`: it finds its subcommands in a dict and imports one when it is asked
for.
"""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword

import click

from sexton import __version__
from sexton.cli import COMMANDS


class LazyGroup(click.Group):
    """A group whose subcommands are the modules of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, in the order of the dict."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name])
        command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; of a name that there is not it says which one was perhaps meant."""
        if args[0] not in COMMANDS:
            from difflib import get_close_matches

            if close := get_close_matches(args[0], COMMANDS, n=1):
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {close[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; Ctrl-C ends it as it ends any program, with 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def sexton() -> None:
    """Look after processes on Linux: reap zombies, adopt orphans, stop whole trees."""
