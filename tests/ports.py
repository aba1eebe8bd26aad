"""Ports of this machine that nobody listens on. In: how many. Out: their numbers."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

BELOW = range(20_000, 32_000)  # the ports that the kernel hands out by itself: Ray's processes would take one meanwhile


def free_ports(count: int) -> list[int]:
    """All different, and free a moment ago."""
    found: list[int] = []
    for port in random.sample(BELOW, len(BELOW)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} ports are free")
