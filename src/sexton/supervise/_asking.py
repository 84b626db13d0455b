"""One question to an instance, by http, tcp or a command: no answer, or a bad one, raises Bad."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sexton import aio
from sexton.errors import LeftoversError, SextonError
from sexton.spawn import DEVNULL
from sexton.supervise.survivors import Guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

    from sexton.spawn import Tree
    from sexton.supervise.probes import Context

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: (.*))?\r?\n?")
BODY = 1 << 14  # bytes of an answer that are read
LAST = 1 << 12  # bytes of a command's output that are kept
SHOWN = 300  # characters of it that are shown
COURTESY = 0.5  # seconds in which a server may finish its answer
GRACE = 1.0  # seconds that a command has when its time is over, and its output when it has ended


class Bad(Exception):
    """No answer, or a bad one."""


# --- tcp, and what http is spoken over ---


async def tcp(address: str | int, seconds: float) -> int:
    """Connect to "HOST:PORT", a port of this machine, or "unix:PATH"; gives the port (0: none). Raises Bad."""
    text = str(address)
    async with _in_time(f"tcp {text}", seconds):
        if text.startswith("unix:"):
            streams, port = await asyncio.open_unix_connection(text.removeprefix("unix:")), 0
        else:
            host, _, name = text.rpartition(":")
            port = _port(name, text)
            streams = await _connect(host.strip("[]") or "localhost", port)
        streams[1].transport.abort() if port else streams[1].close()
    return port


def _port(name: str, text: str) -> int:
    if not name.isdecimal() or not 0 < int(name) < 65536:
        raise Bad(f"tcp {text}: expected HOST:PORT, or a port")
    return int(name)


async def _connect(host: str, port: int, tls: SSLContext | None = None) -> Streams:
    """localhost is both of its addresses: many a server listens on one of them only."""
    if host != "localhost":
        return await asyncio.open_connection(host, port, ssl=tls)
    try:
        return await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("::1", port, ssl=tls)
        raise


@contextlib.asynccontextmanager
async def _in_time(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Bad(f"{what}: no answer within {seconds:.3g} s") from None
    except (OSError, ValueError) as error:
        raise Bad(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error)


# --- http ---


async def http(url: str, seconds: float) -> int:
    """GET it; 2xx and 3xx are good, and a 3xx is not followed. Gives the port (0: none). Raises Bad.

    http and https (the certificate is not verified, as kubelet has it: it is ourselves whom we ask), and
    http+unix://%2Frun%2Fapp.sock/path.
    """
    parts = urlsplit(url)
    async with _in_time(f"GET {url}", seconds):
        port = 0
        if parts.scheme == "http+unix":
            reader, writer = await asyncio.open_unix_connection(unquote(parts.netloc))
            host = "localhost"
        elif parts.scheme in {"http", "https"} and parts.hostname:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host = parts.netloc.rpartition("@")[2]
            reader, writer = await _connect(parts.hostname, port, _trusting() if parts.scheme == "https" else None)
        else:
            raise Bad(f"GET {url}: expected http://HOST[:PORT]/PATH, https:// or http+unix://%2FSOCKET/PATH")
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            head = (
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sexton\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode())
            code, reason = await _status(reader)
            body = await _body(reader)
        finally:
            writer.close()
    if not 200 <= code < 400:
        said = f": {body}" if body else ""
        raise Bad(f"GET {url}: {code} {reason}".rstrip() + said)
    return port


def _trusting() -> SSLContext:
    import ssl  # some megabytes, and of little use to most

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _status(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The status that is final: code and reason; and past the headers."""
    while True:
        line = await _line(reader)
        found = _STATUS.fullmatch(line)
        if not found:
            raise ValueError("no answer in HTTP/1" if line else "it hung up without an answer")
        while (await _line(reader)).strip():
            pass
        if not found[1].startswith(b"1"):
            return int(found[1]), (found[2] or b"").strip().decode(errors="replace")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise ValueError("a line of its answer is longer than 64 KiB") from None


async def _body(reader: asyncio.StreamReader) -> str:
    """The beginning of what follows; a server that may finish its answer has no broken pipe to complain of."""
    data = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(COURTESY):
            while len(data) < BODY and (more := await reader.read(BODY)):
                data += more
    return _shown(data[:SHOWN])


def _shown(data: bytes) -> str:
    """The last line of it that has anything to say."""
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return "".join(letter if letter.isprintable() else " " for letter in lines[-1][-SHOWN:]) if lines else ""


# --- a command ---


def _pipe(said: str) -> tuple[int, int]:
    try:
        reader, writer = os.pipe()
    except OSError as error:
        raise Bad(f"{said}: {error.strerror}") from None
    os.set_blocking(reader, False)
    return reader, writer


async def command(words: tuple[str, ...], context: Context, seconds: float) -> None:
    """Run it in a contained tree, as the instance's user, where and with what the instance runs. Raises Bad."""
    said = " ".join(words)[:80]
    reader, writer = _pipe(said)
    tail = bytearray()

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            if data := os.read(reader, 1 << 16):
                tail.extend(data)
                del tail[:-LAST]
            else:
                loop.remove_reader(reader)

    loop = asyncio.get_running_loop()
    try:
        try:
            inner = _start(words, context, writer)
        except OSError as error:
            raise Bad(f"{said}: {error.strerror}") from None
        finally:
            os.close(writer)
        loop.add_reader(reader, read)
        tree = aio.Tree(inner)
        over = False
        try:
            async with asyncio.timeout(seconds):
                code = await tree.wait()
            over = True
            inner.check_start()
        except TimeoutError:
            over = True
            stuck = await _stopped(tree)
            read()
            raise Bad(f"{said}: no end within {seconds:.3g} s{stuck}{_last(tail)}") from None
        except (OSError, SextonError) as error:
            raise Bad(f"{said}: {getattr(error, 'strerror', None) or error}") from None
        finally:
            if not over:
                with contextlib.suppress(LeftoversError):
                    await tree.kill()
        read()
    finally:
        loop.remove_reader(reader)
        os.close(reader)
    if code:
        how = f"exit status {code}" if code > 0 else f"ended by signal {-code}"
        raise Bad(f"{said}: {how}{_last(tail)}")


async def _stopped(tree: aio.Tree) -> str:
    """Gives what is left of it even so."""
    try:
        await tree.stop()
    except LeftoversError as error:
        return f"; {error}"
    return ""


def _start(words: tuple[str, ...], context: Context, output: int) -> Tree:
    app = context.app
    return Guarded.unawaited(
        words,
        {
            "stdin": DEVNULL,
            "stdout": output,
            "stderr": output,
            "cwd": context.cwd,
            "env": dict(context.environment),
            "login": app.user,
            "umask": -1 if app.umask is None else app.umask,
            "process_group": 0,
            "grace": GRACE,
        },
    )


def _last(output: bytearray) -> str:
    text = _shown(bytes(output))
    return f"; it printed last: {text}" if text else ""
