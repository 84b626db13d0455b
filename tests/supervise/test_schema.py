"""The schema lets pass what the loader takes, and stops what is wrong in a single value."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from sexton.supervise import config
from sexton.supervise.schema import schema
from tests.supervise.test_load import FULL
from tests.support.lines import DEADLINE


def checked(text: str) -> list[Any]:
    return list(Draft202012Validator(schema()).iter_errors(tomllib.loads(text)))


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_a_full_file_passes() -> None:
    assert checked(FULL) == []


@pytest.mark.parametrize(
    "key",
    [
        "zzz = 1",
        "shell = 'yes'",
        "instances = true",
        "instances = -1",
        "env = { A = true }",
        "env = { 'A=B' = '' }",
        "umask = 27",
        "umask = '8'",
        "rlimits = { nofiles = 1 }",
        "ports = { x = 0 }",
        "ports = { X = 1 }",
        "ports = { x = 'any' }",
        "limits.memory = '512 MiBs'",
        "restart.backoff = '1x'",
        "restart.backoff = '90'",
        "restart.backoff = 2e9",
        "restart.limit = 'none'",
        "restart = 'always'",
        "stop.scope = 'all'",
        "ready = { http = '/health' }",
        "ready = { tcp = 1, failures = 1 }",
        "ready = { tcp = 1, timeout = 0 }",
        "live = { log = 'x' }",
        "after = 'b'",
        "after = { b = 'up' }",
    ],
)
def test_it_stops_what_is_wrong_in_a_value(key: str) -> None:
    assert checked(f"[apps.a]\ncommand = 'a'\n{key}\n")
    assert not checked("[apps.a]\ncommand = 'a'\n")


def test_each_field_of_each_struct_can_be_written() -> None:
    keys = schema()["properties"]
    app = keys["apps"]["additionalProperties"]["properties"]
    tables: dict[type[msgspec.Struct], tuple[dict[str, Any], set[str]]] = {
        config.Config: (keys, {"path", "directory"}),
        config.Api: (keys["api"]["properties"], set()),
        config.App: (app, {"name"}),
        config.Restart: (app["restart"]["properties"], set()),
        config.Stop: (app["stop"]["properties"], set()),
        config.Orphans: (app["orphans"]["properties"], set()),
        config.Limits: (app["limits"]["properties"], set()),
        config.Log: (app["log"]["properties"], set()),
        config.Probe: (app["ready"]["properties"] | app["live"]["properties"], set()),
    }
    for struct, (known, ours) in tables.items():
        names = {field.name for field in msgspec.structs.fields(struct)}
        assert names - set(known) == ours, struct
        assert set(known) - names <= {"defaults", "env_file", "shell"}, struct


def test_the_defaults_it_tells_are_those_of_the_structs() -> None:
    app = schema()["properties"]["apps"]["additionalProperties"]["properties"]
    assert app["restart"]["properties"]["backoff"]["default"] == config.Restart().backoff
    assert app["stop"]["properties"]["scope"]["default"] == config.Stop().scope
    assert "default" not in app["limits"]["properties"]["memory"]


def test_the_command_prints_it() -> None:
    words = [sys.executable, "-m", "sexton", "schema"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert json.loads(done.stdout) == schema()
