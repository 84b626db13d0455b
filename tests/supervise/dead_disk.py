"""A file system whose program does not answer: who asks it is in state D, and survives SIGKILL until it is let go."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path

from tests.support.lines import DEADLINE

_libc = ctypes.CDLL(None, use_errno=True)
INIT, LOOKUP = 26, 1  # opcodes, of linux/fuse.h
MNT_DETACH = 2


class DeadDisk:
    """Mounted at `path`; root alone can do that."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"dead", os.fsencode(path), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        number = self._request(INIT)
        os.write(self._device, struct.pack("<IiQ IIII HHIIHH 32x", 80, 0, number, 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0))

    def _request(self, wanted: int) -> int:
        """Wait for such a request; its number."""
        while True:
            assert select.select([self._device], [], [], DEADLINE)[0], "nobody asks"
            opcode, number = struct.unpack_from("<4xIQ", os.read(self._device, 1 << 18))
            if opcode == wanted:
                return int(number)

    def asked(self) -> None:
        """Wait until somebody asks for a file: from now on SIGKILL does not end it."""
        self._request(LOOKUP)

    def let_go(self) -> None:
        """Answer everybody that the disk has gone."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1

    def close(self) -> None:
        self.let_go()
        _libc.umount2(os.fsencode(self.path), MNT_DETACH)
