"""Shared test helpers: real processes, private PID namespaces, pseudo-terminals and the monsters.

`processes` reads /proc and waits for deaths; `running` starts a command as PID 1 or beside one;
`lines` waits for what a descriptor says; `terminal` is a shell with job control on a pty;
`monsters` builds and speaks monster.c.
"""
