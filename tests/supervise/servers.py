"""Real programs that listen on a port: a C one, Node's, Python's."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sexton.supervise.ports import Ports
from tests.support.lines import DEADLINE, Lines

NODE = """
require("http").createServer((request, answer) => answer.end("hello\\n"))
  .listen({ port: +process.env.PORT, host: process.env.HOST || undefined }, () => console.log("listening"))
"""
PYTHON = """
import http.server, os, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in os.environ["HOST"] else socket.AF_INET
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello\\n")
    def log_message(self, *words): pass
server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
print("listening", flush=True)
server.serve_forever()
"""
ASYNCIO = """
import asyncio, os
async def main():
    async def serve(reader, writer):
        writer.write(b"hello\\n"); writer.close()
    server = await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"]))
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


HELD = Ports()
COUNT = itertools.count()


def free_port() -> int:
    """One that nobody gets by chance before it is listened on: other tests run beside this one."""
    return HELD.take(f"test.{next(COUNT)}", "port", "auto")


def build(folder: Path) -> Path:
    """The program of listens.c."""
    program = folder / "listens"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, Path(__file__).with_suffix("").parent / "listens.c"],
        check=True,
    )
    return program


def command(kind: str, program: Path, host: str, port: int) -> list[str]:
    """How such a server is started: "node", "python", "asyncio", "c", "c reuseaddr", "c reuseport" ..."""
    match kind.split():
        case ["node"]:
            return ["env", f"HOST={host}", f"PORT={port}", "node", "-e", NODE]
        case ["python"]:
            return ["env", f"HOST={host}", f"PORT={port}", sys.executable, "-S", "-c", PYTHON]
        case ["asyncio"]:
            return ["env", f"HOST={host}", f"PORT={port}", sys.executable, "-S", "-c", ASYNCIO]
        case ["c", *options]:
            return [str(program), host, str(port), *options]
    raise AssertionError(kind)


class Server(contextlib.AbstractContextManager["Server"]):
    """A program that listens, or has said by its exit code why it does not."""

    def __init__(self, words: Sequence[str]) -> None:
        reader, writer = os.pipe()
        self.child = subprocess.Popen(words, stdout=writer, stderr=subprocess.DEVNULL)
        os.close(writer)
        self.lines = Lines(reader, str(words))
        self.pid = self.child.pid
        self.listens = self.lines.line() == "listening"
        if not self.listens:
            self.child.wait(DEADLINE)

    def end(self) -> None:
        self.child.kill()
        self.child.wait(DEADLINE)
        self.lines.close()

    def __exit__(self, *_: object) -> None:
        self.end()


def ask(host: str, port: int) -> bytes:
    """What a server says, by HTTP or at once."""
    with socket.create_connection((host, port), DEADLINE) as talk:
        with contextlib.suppress(ConnectionError):  # one that says it at once may have closed
            talk.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = b""
        with contextlib.suppress(ConnectionError):
            while data := talk.recv(4096):
                said += data
    return said
