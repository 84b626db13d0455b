"""The options, the environment and the exit codes: the same as the peer's for the same words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compat.twins import Case, Twins
from tests.support.running import Place

# One case a line: the variables, then the words. Lines that begin with # say what comes.
SAME = """
# tini: no command, bad options, good options
tini
tini --
docker-init
tini-static
tini -x
tini -x true
tini -vx true
tini --foo
tini --version true
tini --vers
tini -- --version
tini -p
tini -e
tini -
tini -h extra -x
tini --version
docker-init --version
tini-static --version
docker-init -- true
docker-init -- sh -c 'exit 7'
tini-static -s -- sh -c 'exit 7'
tini true
tini -- false
tini -s true
tini -ss true
tini -sg true
tini -g true
tini -w true
tini -sw true
tini -sgw -- sh -c 'exit 9'
tini -s -- echo one 'two three' ''
tini -s -- echo -n -- -x
tini -s -- env -u PATH /bin/echo --version
# tini: how much it says
tini -v true
tini -vv true
tini -vvv true
tini -vvvv true
tini -v -v true
tini -svvv -- sh -c 'exit 3'
tini -s -vvv -- sh -c 'kill -9 $$'
tini -s -vvv -- sh -c 'kill -15 $$'
TINI_VERBOSITY=0 tini true
TINI_VERBOSITY=1 tini true
TINI_VERBOSITY=2 tini -s true
TINI_VERBOSITY=3 tini -s true
TINI_VERBOSITY=4 tini -s true
TINI_VERBOSITY=9 tini -s true
TINI_VERBOSITY=-1 tini -s true
TINI_VERBOSITY= tini true
TINI_VERBOSITY=x tini true
TINI_VERBOSITY=2x tini -s true
TINI_VERBOSITY=' 3' tini -s true
TINI_VERBOSITY=+3 tini -s true
TINI_VERBOSITY=0 tini -vvv true
TINI_VERBOSITY=2 tini -svvv true
TINI_VERBOSITY=0 tini -e 300 true
TINI_VERBOSITY=0 tini nope
# tini: the environment
TINI_SUBREAPER= tini true
TINI_SUBREAPER=1 tini true
TINI_SUBREAPER=0 tini true
TINI_SUBREAPER=false tini -vvv true
TINI_KILL_PROCESS_GROUP= tini -s true
TINI_KILL_PROCESS_GROUP=0 tini -s true
TINI_SUBREAPER= tini -s -- sh -c 'echo $TINI_SUBREAPER.'
# tini: -e
tini -se 0 true
tini -se 1 true
tini -se 1 false
tini -s -e1 false
tini -s -e 1 -e 2 -e 3 -- sh -c 'exit 3'
tini -s -e 143 -- sh -c 'kill -15 $$'
tini -s -e 137 -- sh -c 'kill -9 $$'
tini -s -e 255 -- sh -c 'exit 255'
tini -s -e 256 true
tini -s -e -1 true
tini -s -e -0 false
tini -s -e x true
tini -s -e 1x true
tini -s -e '' false
tini -s -e ' 1' false
tini -s -e '1 ' false
tini -s -e ' ' false
tini -s -e +1 false
tini -s -e 01 false
tini -s -e 0x1 false
tini -s -e 99999999999999999999 true
tini -s -e 4294967297 false
tini -e
tini -e 3
# tini: -p
tini -s -p SIGKILL true
tini -s -pSIGTERM true
tini -s -p SIGSYS true
tini -s -p TERM true
tini -s -p sigterm true
tini -s -p SIGterm true
tini -s -p 15 true
tini -s -p SIG true
tini -s -p SIG15 true
tini -s -p '' true
tini -s -p SIGSTOP true
tini -s -p SIGIO true
tini -s -p SIGPOLL true
tini -s -p SIGPWR true
tini -s -p SIGSTKFLT true
tini -s -p SIGIOT true
tini -s -p SIGCLD true
tini -s -p SIGRTMIN true
tini -s -p SIGnone true
tini -s -p SIGnope true
# tini: what cannot be executed
tini -s nope
tini -s /no/such/file
tini -s /etc/passwd
tini -s /etc
tini -s /etc/passwd/x
tini -s ''
tini -s ./nope
tini -e 127 nope
tini -e 127 -e 126 -s /etc/passwd
tini -e 1 -s /no/such/file

# dumb-init
dumb-init
dumb-init --
dumb-init -c
dumb-init -x
dumb-init -x true
dumb-init --yolo true
dumb-init --yolo=1 true
dumb-init --ver true
dumb-init --v true
dumb-init --verb true
dumb-init --version=1
dumb-init --help=x
dumb-init --single true
dumb-init --s true
dumb-init --single-childs true
dumb-init --rew 15:2 true
dumb-init --rew=15:2 true
dumb-init --r=x true
dumb-init --rewrite
dumb-init --rewrite=
dumb-init --= true
dumb-init -r
dumb-init -V
dumb-init -V -x
dumb-init --version
dumb-init --versi
dumb-init -cV
dumb-init -v -V
dumb-init true
dumb-init -- false
dumb-init -c true
dumb-init -c -- sh -c 'exit 7'
dumb-init sh -c 'exit 7'
dumb-init echo -c --verbose -- -x
dumb-init -- -c
dumb-init - true
dumb-init -v true
dumb-init -vc true
dumb-init --verbose --single-child -- sh -c 'exit 3'
dumb-init -v -- sh -c 'kill -9 $$'
dumb-init -v -- sh -c 'kill -15 $$'
DUMB_INIT_DEBUG=1 dumb-init true
DUMB_INIT_DEBUG=1 dumb-init -c true
DUMB_INIT_DEBUG=1 DUMB_INIT_SETSID=0 dumb-init true
DUMB_INIT_DEBUG=0 dumb-init true
DUMB_INIT_DEBUG=11 dumb-init true
DUMB_INIT_DEBUG= dumb-init true
DUMB_INIT_DEBUG=true dumb-init true
DUMB_INIT_DEBUG=0 dumb-init -v true
DUMB_INIT_SETSID=0 dumb-init -v true
DUMB_INIT_SETSID=1 dumb-init -v true
DUMB_INIT_SETSID= dumb-init -v true
DUMB_INIT_SETSID=00 dumb-init -v true
DUMB_INIT_SETSID=1 dumb-init -vc true
DUMB_INIT_DEBUG=1 dumb-init
DUMB_INIT_DEBUG=1 dumb-init sh -c 'echo $DUMB_INIT_DEBUG'
# dumb-init: -r
dumb-init -r 15:2 true
dumb-init -v -r 15:2 true
dumb-init -v -r 15:0 true
dumb-init -v -c -r 15:0 true
dumb-init -v -r 15:2 -r 15:3 true
dumb-init -r 15:2x true
dumb-init -r '15:2 ' true
dumb-init -r ' 15: 2' true
dumb-init -v -r '15: 2' true
dumb-init -r '15 :2' true
dumb-init -r +15:+2 true
dumb-init -r 15:-0 true
dumb-init -r 015:002 true
dumb-init -r 0:1 true
dumb-init -r 1:0 true
dumb-init -r 31:31 true
dumb-init -r 1:32 true
dumb-init -r 32:1 true
dumb-init -r -1:1 true
dumb-init -r 1:-1 true
dumb-init -r 15 true
dumb-init -r 15: true
dumb-init -r :15 true
dumb-init -r 15::2 true
dumb-init -r 15,2 true
dumb-init -r TERM:INT true
dumb-init -r SIGTERM:2 true
dumb-init -r 15:INT true
dumb-init -r '' true
dumb-init -r 99999999999:1 true
dumb-init -r 15:2 -r 0 true
dumb-init -r15:2 true
dumb-init -vr15:2 true
dumb-init -r 9:15 true
dumb-init -v -r 17:15 true
# dumb-init: what cannot be executed
dumb-init nope
dumb-init /no/such/file
dumb-init -c /no/such/file
dumb-init /etc/passwd
dumb-init /etc
dumb-init ''
DUMB_INIT_SETSID=0 dumb-init -- nope

# catatonit
catatonit
catatonit --
catatonit -g
catatonit -x
catatonit -x true
catatonit --nope
catatonit --version=1
catatonit -V
catatonit -gV
catatonit --version
catatonit --ver
catatonit --v
catatonit true
catatonit -- false
catatonit -- sh -c 'exit 7'
catatonit -g -- sh -c 'exit 7'
catatonit -gg true
catatonit -- echo -g -P
catatonit - true
catatonit -- sh -c 'kill -9 $$'
catatonit nope
catatonit -- /no/such/file
catatonit -- /etc/passwd
catatonit -- /etc
catatonit -- ''
CATATONIT_LOG=1 catatonit true
CATATONIT_LOG= catatonit true
CATATONIT_LOG=1 catatonit -V
CATATONIT_LOG=1 catatonit -x
"""

# The same once more as PID 1, where nobody is warned and nobody else reaps.
AS_PID1 = """
tini
tini true
tini -s true
tini -svvv true
tini -vvv -- sh -c 'exit 3'
tini -g -- sh -c 'kill -15 $$'
tini -e 143 -- sh -c 'kill -15 $$'
tini nope
tini /etc/passwd
docker-init -- sh -c 'exit 7'
docker-init --version
tini -v -- sh -c '(exit 1 & exit 2) & wait; exit 5'
dumb-init true
dumb-init -v true
dumb-init -vc -- sh -c 'exit 3'
dumb-init -- sh -c 'kill -15 $$'
dumb-init nope
catatonit true
catatonit -- sh -c 'exit 7'
catatonit -g -- sh -c 'kill -15 $$'
catatonit nope
"""

SUPERSET = "GNU getopt takes options from behind the command; here the first word that is no option ends them"
STARTED = "tini and dumb-init tell of the fork even where the exec fails; here nothing was started"
DEBUGGING = "what catatonit's developers traced, its end of children for one, is not told"

DIFFERENT: dict[str, tuple[str, dict[str, Any]]] = {
    "tini -s sh -c 'exit 7'": (SUPERSET, {"code": 7, "out": "", "err": ""}),
    "tini -s echo -v": (SUPERSET, {"code": 0, "out": "-v\n", "err": ""}),
    "tini -s echo -- -x": (SUPERSET, {"code": 0, "out": "-- -x\n"}),
    "catatonit sh -c 'exit 7'": (SUPERSET, {"code": 7, "out": "", "err": ""}),
    "catatonit echo -V": (SUPERSET, {"code": 0, "out": "-V\n"}),
    "tini -svv nope": (
        STARTED,
        {"code": 127, "out": "", "err": "[FATAL tini (PID)] exec nope failed: No such file or directory\n"},
    ),
    "CATATONIT_DEBUG=1 catatonit true": (DEBUGGING, {"code": 0, "out": ""}),
    "CATATONIT_DEBUG= catatonit -- sh -c 'exit 3'": (DEBUGGING, {"code": 3, "out": ""}),
}


def cases(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", cases(SAME))
def test_same_as_the_peer(twins: Twins, line: str) -> None:
    twins.assert_same(Case(line))


@pytest.mark.parametrize("line", cases(AS_PID1))
def test_same_as_the_peer_as_pid_1(twins: Twins, line: str) -> None:
    twins.assert_same(Case(line, Place.PID1))


@pytest.mark.parametrize("line", DIFFERENT)
def test_deliberately_different(twins: Twins, line: str) -> None:
    _, wanted = DIFFERENT[line]
    twins.assert_differs(Case(line), **wanted)


@pytest.mark.parametrize("program", ["tini -s --", "dumb-init", "dumb-init -c", "catatonit --"])
def test_every_exit_code_is_passed_on(twins: Twins, program: str) -> None:
    for code in (0, 1, 2, 32, 64, 125, 126, 127, 128, 129, 143, 254, 255):
        assert twins.assert_same(Case(f"{program} sh -c 'exit {code}'")).code == code


@pytest.mark.parametrize("program", ["tini -s --", "dumb-init", "dumb-init -c", "catatonit --"])
def test_every_deadly_signal_is_told_as_128_plus_n(twins: Twins, program: str) -> None:
    for sig in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 24, 26, 27, 31, 34, 50, 64):
        assert twins.assert_same(Case(f"{program} monster 2 die {sig}")).code == 128 + sig


@pytest.mark.parametrize("code", range(0, 256, 17))
def test_tini_reports_the_expected_code_as_0_and_no_other(twins: Twins, code: int) -> None:
    assert twins.assert_same(Case(f"tini -s -e {code} -- sh -c 'exit {code}'")).code == 0
    others = " ".join(f"-e {other}" for other in range(256) if other != code)
    assert twins.assert_same(Case(f"tini -s {others} -- sh -c 'exit {code}'")).code == code
