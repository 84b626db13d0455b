"""What the control API can be asked: one table, which its routes and its OpenAPI document are made from."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from sexton import __version__
from sexton.supervise import asked, models

Parameter = tuple[str, Literal["path", "query", "header"], type, str]

TARGET: Parameter = ("target", "path", str, "an app, an instance (web.1), several with commas between them, or all")
FOLLOW: Parameter = ("follow", "query", bool, "stay, and stream what comes as server-sent events")


class Operation(NamedTuple):
    """A method and a path, what it takes, and what it answers: JSON of a type, or text of another media type."""

    name: str
    method: Literal["get", "post"]
    path: str
    summary: str
    answer: Any
    body: type[msgspec.Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    status: int = 200
    stream: bool = False


OPERATIONS = (
    Operation("status", "get", "/v1/status", "Every app and instance, and its state.", models.Status),
    Operation("ports", "get", "/v1/ports", "The ports of each instance.", dict[str, dict[str, int]]),
    Operation(
        "events", "get", "/v1/events", "What has happened.", tuple[models.Event, ...], stream=True,
        parameters=(
            ("since", "query", int, "only those with a greater number"),
            ("n", "query", int, "so many of the last ones; all if it is not said"),
            FOLLOW,
            ("Last-Event-ID", "header", str, "EPOCH-NUMBER: go on after that one"),
        ),
    ),
    Operation(
        "logs", "get", "/v1/logs", "What the instances wrote.", tuple[models.Line, ...], stream=True,
        parameters=(
            ("target", "query", str, TARGET[3]),
            ("n", "query", int, "so many of the last lines; 100 if it is not said"),
            FOLLOW,
            ("Last-Event-ID", "header", str, "the time of a line: go on after it"),
        ),
    ),
    Operation("metrics", "get", "/metrics", "For Prometheus.", "text/plain"),
    Operation("openapi", "get", "/v1/openapi.json", "This document.", dict[str, Any]),
    Operation(
        "start", "post", "/v1/apps/{target}/start", "Start, and what they wait for; answers when they are up.",
        models.Done, parameters=(TARGET,),
    ),
    Operation(
        "stop", "post", "/v1/apps/{target}/stop", "Stop; answers when nothing of them is left.",
        models.Done, parameters=(TARGET,),
    ),
    Operation(
        "restart", "post", "/v1/apps/{target}/restart", "Restart one after the other, each when the last is ready.",
        models.Done, parameters=(TARGET,),
    ),
    Operation(
        "signal", "post", "/v1/apps/{target}/signal", "Send a signal.", models.Done, asked.Signal, (TARGET,)
    ),
    Operation(
        "scale", "post", "/v1/apps/{app}/scale", "Change how many instances there are.", models.Done, asked.Scale,
        (("app", "path", str, "an app"),),
    ),
    Operation("reload", "post", "/v1/reload", "Apply what the file says now, and only the difference.", models.Changes),
    Operation(
        "down", "post", "/v1/down", "Begin to stop everything; asked again, it hurries.", models.Done, asked.Down,
        status=202,
    ),
)  # fmt: skip


def document() -> dict[str, Any]:
    """The API by OpenAPI 3.1."""
    types = [models.Problem, *(kind for one in OPERATIONS for kind in _types(one))]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one, of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sexton",
            "version": __version__,
            "description": "On the unix socket api.sock in the state directory, for the same user; "
            "on TCP, if [api] asks for it, with the header Authorization: Bearer TOKEN.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _types(one: Operation) -> list[Any]:
    own = [] if isinstance(one.answer, str) else [one.answer]
    return [*own, *([one.body] if one.body else []), *(kind for _, _, kind, _ in one.parameters)]


def _operation(one: Operation, of: dict[str, Any]) -> dict[str, Any]:
    if isinstance(one.answer, str):
        content: dict[str, Any] = {one.answer: {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": of[repr(one.answer)]}}
    if one.stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    problem = {"application/json": {"schema": of[repr(models.Problem)]}}
    said: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "responses": {
            str(one.status): {"description": "done", "content": content},
            "default": {"description": "what is wrong, and what to do", "content": problem},
        },
    }
    if one.parameters:
        said["parameters"] = [
            {"name": name, "in": where, "required": where == "path", "description": text, "schema": of[repr(kind)]}
            for name, where, kind, text in one.parameters
        ]
    if one.body:
        needed = any(field.required for field in msgspec.structs.fields(one.body))
        said["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": of[repr(one.body)]}},
        }
    return said
