"""The command line and the SEXTON_ variables: each option both ways, and what a bad value is answered with."""

from __future__ import annotations

import signal

import pytest

from tests.init.family import PID1, Mode, Starter

SIGNAL_OPTIONS = ["stop-signal", "pdeathsig"]
SECONDS_OPTIONS = ["drain", "grace", "stop-timeout", "timeout", "lease"]
BAD_SIGNALS = ["", "NOSUCH", "SIG", "0", "65", "-1", "TERM ", "RTMIN+99", "RTMIN-1", "RTMAX+1", "15x", "0x0f"]
BAD_SECONDS = ["", "x", "-1", "1s", "1 ", "nan", "inf", "1.2.3", ".", "99999999999999999999"]
BAD: dict[str, list[str]] = {
    "signal": ["", "all", "Group", "groups", "group,tree", "1"],
    "map": ["", "TERM", "=", "TERM=", "=INT", "TERM=NOSUCH", "NOSUCH=TERM", "TERM:INT", "TERM=INT=HUP", "none=TERM"],
    "on-exit": ["", "kill", "Stop", "stopp"],
    "ok": ["", "-1", "256", "x", "1x", "1.0", "+1"],
    "user": ["", ":", "no-such-user-here", "root:no-such-group-here", ":root", "0:", "-1", "4294967295"],
    "events": ["", "-1", "999", "/no/such/folder/events", "1x"],
    "owner-fd": ["", "-1", "999", "x", "0x1"],
    "on-owner-lost": ["", "die", "Stop"],
    "contain": ["", "vm", "cgroups"],
    **dict.fromkeys(SIGNAL_OPTIONS, BAD_SIGNALS),
    **dict.fromkeys(SECONDS_OPTIONS, BAD_SECONDS),
}
BAD_PAIRS = [(name, value) for name, values in BAD.items() for value in values]
BAD_VARIABLES = [
    *BAD_PAIRS,
    *[("map", value) for value in ["TERM=INT,", ",TERM=INT", "TERM=INT,,HUP=INT", "TERM=INT HUP=INT"]],
    *[("ok", value) for value in ["1,", "1,256"]],
    *[("verbose", value) for value in ["", "4", "-1", "x", "yes"]],
    *[("quiet", value) for value in ["", "2", "x", "yes"]],
    *[("pause", value) for value in ["", "2", "x", "true"]],
]
EXPECTED_WORDS = {
    "signal": ["child", "group", "tree"],
    "on-exit": ["stop", "wait", "leave"],
    "ok": ["0", "255"],
    "on-owner-lost": ["stop", "keep", "lease", "hold"],
    "contain": ["subreaper", "pidns", "cgroup"],
}


def variable(option: str) -> str:
    return "SEXTON_" + option.upper().replace("-", "_")


def refusal(start: Starter, words: list[str], env: dict[str, str] | None = None) -> str:
    """Runs it with a COMMAND that would show itself; gives the one line of the refusal."""
    result = start.plain(*words, "sh", "-c", "echo COMMAND was started", env=env).wait()
    assert result.code == 125, result
    assert result.out == "", "COMMAND was started, or the error went to stdout"
    assert result.err.startswith("sexton-init: ")
    return result.err


@pytest.mark.parametrize(("option", "value"), BAD_PAIRS, ids=map(repr, BAD_PAIRS))
@pytest.mark.parametrize("form", ["--opt value", "--opt=value"])
def test_a_bad_value_names_the_option_and_the_value(start: Starter, form: str, option: str, value: str) -> None:
    words = [f"--{option}={value}"] if "=value" in form else [f"--{option}", value]
    message = refusal(start, words)
    assert f"--{option}" in message
    assert value in message
    assert any(word in message for word in EXPECTED_WORDS.get(option, [""])), "what was expected"


@pytest.mark.parametrize(("option", "value"), BAD_VARIABLES, ids=map(repr, BAD_VARIABLES))
def test_a_bad_value_names_the_variable_and_the_value(start: Starter, option: str, value: str) -> None:
    message = refusal(start, [], {variable(option): value})
    assert variable(option) in message
    assert value in message
    assert all(word in message for word in EXPECTED_WORDS.get(option, [])), "what was expected"


@pytest.mark.parametrize("option", [*BAD, "map"])
def test_an_option_without_its_value_is_refused(start: Starter, option: str) -> None:
    result = start.plain(f"--{option}").wait()
    assert result.code == 125
    assert f"--{option}" in result.err


@pytest.mark.parametrize("word", ["--nonsense", "-x", "--signals", "--grac=5", "--sig", "-", "--=5", "--gracee=5"])
def test_an_unknown_option_is_refused_by_name(start: Starter, word: str) -> None:
    if word == "-":
        assert start.plain("-").wait().code == 127, "a lone dash is a COMMAND"
        return
    assert word.split("=", maxsplit=1)[0] in refusal(start, [word])


@pytest.mark.parametrize("word", ["--quiet=1", "--verbose=2", "--version=1", "--help=x", "--pause=0"])
def test_an_option_without_value_refuses_one(start: Starter, word: str) -> None:
    assert word.split("=", maxsplit=1)[0] in refusal(start, [word])


@pytest.mark.parametrize("words", [[], ["--"], ["--grace", "5"], ["--verbose", "--"]])
def test_a_missing_command_is_refused(start: Starter, words: list[str]) -> None:
    result = start.plain(*words).wait()
    assert result.code == 125
    assert "COMMAND" in result.err


def test_a_command_with_pause_is_refused(start: Starter) -> None:
    assert "--pause" in refusal(start, ["--pause"])


def test_options_end_at_the_first_non_option(start: Starter) -> None:
    assert start.plain("echo", "--version", "--nonsense", "--", "x").wait().out == "--version --nonsense -- x\n"
    assert start.plain("--grace", "1", "--", "echo", "--", "-x").wait().out == "-- -x\n"


def test_two_dashes_end_the_options(start: Starter) -> None:
    result = start.plain("--", "--version").wait()
    assert result.code == 127
    assert "--version" in result.err


def test_version(start: Starter) -> None:
    from sexton import __version__

    result = start.plain("--version").wait()
    assert (result.code, result.out, result.err) == (0, f"sexton-init {__version__}\n", "")


def test_help_names_every_option_and_variable(start: Starter) -> None:
    result = start.plain("--help").wait()
    assert (result.code, result.err) == (0, "")
    owned = {"owner-fd", "on-owner-lost", "contain", "lease"}  # for a library; sexton-init(1) has them
    for option in [*(BAD.keys() - owned), "verbose", "quiet", "version", "help", "pause"]:
        assert f"--{option}" in result.out
    assert "SEXTON_" in result.out


GOOD = [
    ("signal", "child"),
    ("signal", "group"),
    ("signal", "tree"),
    ("map", "TERM=INT"),
    ("map", "sigterm=SIGINT"),
    ("map", "15=2"),
    ("map", "RTMIN+3=TERM"),
    ("map", "TERM=RTMIN+3"),
    ("map", "HUP=none"),
    ("drain", "0"),
    ("on-exit", "stop"),
    ("on-exit", "wait"),
    ("on-exit", "leave"),
    ("stop-signal", "SIGQUIT"),
    ("stop-signal", "RTMAX-1"),
    ("grace", "0"),
    ("grace", "0.25"),
    ("grace", "86400"),
    ("stop-timeout", "1.5"),
    ("timeout", "60"),
    ("ok", "143"),
    ("pdeathsig", "TERM"),
    ("pdeathsig", "9"),
    ("events", "2"),
    ("lease", "60"),
    ("on-owner-lost", "keep"),
    ("contain", "subreaper"),
]


@pytest.mark.parametrize(("option", "value"), GOOD, ids=map("=".join, GOOD))
def test_a_good_value_is_taken_in_all_three_forms(start: Starter, option: str, value: str) -> None:
    for words, env in (
        ([f"--{option}", value], None),
        ([f"--{option}={value}"], None),
        ([], {variable(option): value}),
    ):
        result = start.plain(*words, "sh", "-c", "exit 7", env=env).wait()
        assert result.code == 7, result


@pytest.mark.parametrize(("name", "value"), [("VERBOSE", str(n)) for n in range(4)] + [("QUIET", "0"), ("QUIET", "1")])
def test_verbose_and_quiet_by_variable(start: Starter, name: str, value: str) -> None:
    assert start.plain("sh", "-c", "exit 7", env={f"SEXTON_{name}": value}).wait().code == 7


def test_verbose_says_more_each_time_and_quiet_nothing(start: Starter) -> None:
    lengths = [len(start.plain(*["--verbose"] * n, "true").wait().err) for n in range(4)]
    assert lengths[0] == 0
    assert lengths == sorted(lengths)
    assert lengths[3] > lengths[0]
    by_variable = [len(start.plain("true", env={"SEXTON_VERBOSE": str(n)}).wait().err) for n in range(4)]
    assert [bool(n) for n in by_variable] == [bool(n) for n in lengths]


@pytest.mark.parametrize("how", ["option", "variable"])
def test_quiet_says_nothing_but_why_it_could_not_start(start: Starter, how: str) -> None:
    words, env = (["--quiet"], {}) if how == "option" else ([], {"SEXTON_QUIET": "1"})
    loud = start.plain("--timeout", "0.05", "sleep", "600").wait()
    assert (loud.code, loud.err != "") == (124, True)
    quiet = start.plain(*words, "--timeout", "0.05", "sleep", "600", env=env).wait()
    assert (quiet.code, quiet.err) == (124, "")
    assert "/no/such/program" in start.plain(*words, "/no/such/program", env=env).wait().err


def test_the_command_line_wins_over_the_variables(start: Starter, placed: Mode) -> None:
    """Both ways round: TERM as the variable's INT, or as the command line's USR1."""
    env = {"SEXTON_MAP": f"TERM={signal.SIGUSR2}", "SEXTON_OK": "9", "SEXTON_SIGNAL": "tree"}
    family = start(placed, "--map TERM=INT --signal child", "polite", env=env)
    family.await_note("ready")
    family.send(signal.SIGTERM)
    end = family.end()
    assert list(end.got(signal.SIGINT).values()) == [1]
    assert not end.got(signal.SIGUSR2)
    assert [event["scope"] for event in end.of("signalled")] == ["child"]


def test_the_command_line_wins_over_a_bad_variable_not(start: Starter) -> None:
    """A bad value of either is an error: the variable is somebody's mistake, also where it would not matter."""
    assert "SEXTON_GRACE" in refusal(start, ["--grace", "5"], {"SEXTON_GRACE": "soon"})


def test_the_last_of_a_repeated_option_wins(start: Starter) -> None:
    family = start(PID1, "--signal tree --signal child", "polite")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    assert [event["scope"] for event in family.end().of("signalled")] == ["child"]


def test_variables_of_lists_are_separated_by_commas(start: Starter) -> None:
    family = start(PID1, "", "stubborn", env={"SEXTON_MAP": "USR1=USR2,HUP=RTMIN+3,WINCH=none", "SEXTON_OK": "3,137"})
    family.await_note("ready")
    for sig in (signal.SIGWINCH, signal.SIGUSR1, signal.SIGHUP):
        family.send(sig)
    notes = family.await_note("got", 2)
    assert sorted(note.signal for note in notes) == [signal.SIGUSR2, signal.SIGRTMIN + 3]
    family.run.command.send(signal.SIGKILL)
    assert family.end().code == 0


def test_our_variables_are_taken_out_of_the_commands_environment(start: Starter, placed: Mode) -> None:
    ours = {
        "SEXTON_SIGNAL": "tree",
        "SEXTON_MAP": "HUP=none",
        "SEXTON_DRAIN": "0",
        "SEXTON_ON_EXIT": "stop",
        "SEXTON_STOP_SIGNAL": "TERM",
        "SEXTON_GRACE": "1",
        "SEXTON_STOP_TIMEOUT": "9",
        "SEXTON_TIMEOUT": "60",
        "SEXTON_OK": "143",
        "SEXTON_USER": "0:0",
        "SEXTON_PDEATHSIG": "TERM",
        "SEXTON_EVENTS": "2",
        "SEXTON_VERBOSE": "0",
        "SEXTON_QUIET": "0",
        "SEXTON_PAUSE": "0",
        "SEXTON_ON_OWNER_LOST": "keep",
        "SEXTON_CONTAIN": "subreaper",
        "SEXTON_LEASE": "60",
    }
    others = {"SEXTON": "kept", "SEXTONS_GRACE": "kept", "GRACE": "kept", "EMPTY": "", "MY_SEXTON_GRACE": "kept"}
    bare = start(placed, "--user 0:0", command=["env"], report=False).end()
    full = start(placed, "", command=["env"], env=ours | others, report=False).end()
    assert full.code == 0
    added = set(full.out.splitlines()) - set(bare.out.splitlines())
    assert added == {f"{key}={value}" for key, value in others.items()}
    assert set(bare.out.splitlines()) <= set(full.out.splitlines())


def test_an_unknown_variable_of_ours_is_no_error(start: Starter) -> None:
    """SEXTON_BINARY or the like may belong to the Python side: only its own are taken away."""
    result = start.plain("env", env={"SEXTON_BINARY": "/x", "SEXTON_NONSENSE": "1"}).wait()
    assert result.code == 0
    assert "SEXTON_NONSENSE=1" in result.out


@pytest.mark.parametrize(("left", "right"), [("--verbose", "--quiet"), ("--quiet", "--verbose")])
def test_verbose_and_quiet_together_start_the_command(start: Starter, left: str, right: str) -> None:
    assert start.plain(left, right, "sh", "-c", "exit 7").wait().code == 7


@pytest.mark.parametrize("name", ["", "-", "-sexton-init", "x" * 300, "/", "a/"])
def test_whatever_name_it_is_started_under(start: Starter, name: str) -> None:
    """Only the names of the programs that it stands in for mean something."""
    words = ["bash", "-c", 'exec -a "$0" "$@"', name]
    assert start.plain("sh", "-c", "exit 7", before=words).wait().code == 7
    assert start.plain("--nonsense", before=words).wait().code == 125
