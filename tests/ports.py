"""Ports of this machine that nobody listens on. In: how many. Out: their numbers."""

from __future__ import annotations

import socket


def free_ports(count: int) -> list[int]:
    """All different, as they are held together; whoever asks next may be given one of them again, so use them at once."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
