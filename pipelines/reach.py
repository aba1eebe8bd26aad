"""What a corpus may name. In: a URI out of a manifest or list, which somebody else may have written. Out: its store, or no.

A manifest is data. Whoever writes one must not make the workers read for him what only they can reach: the metadata service of
a cloud (169.254.169.254 hands out credentials), what listens on loopback (Ray's own dashboard), hosts of the private network,
files of the workers' disks. A name is judged by the addresses that are then connected to, and every redirect anew.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import fsspec
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from encoders.errors import MediaError
from pipelines.identity import is_local
from pipelines.storage import store

SCHEMES = ("s3", "gs", "http", "https")  # besides the corpus' own
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedError(MediaError):
    """A source lies where this corpus may not read from; nothing was sent there."""


@dataclass(frozen=True)
class Reach:
    """Where the sources of one corpus may lie.

    Attributes:
        hosts: the only hosts that http(s) URLs may name (names, addresses or globs: `*.example.org`), whatever their addresses;
            none: every host whose addresses are public.
        home: the corpus itself, as the operator gave it: its own scheme, and its own host, are always allowed.
    """

    hosts: tuple[str, ...] = ()
    home: str = ""

    @classmethod
    def from_json(cls, text: str) -> Reach:
        """What `to_json` wrote."""
        hosts, home = json.loads(text)
        return cls(tuple(hosts), home)

    def to_json(self) -> str:
        """For another process."""
        return json.dumps([self.hosts, self.home])

    def refusal(self, uri: str) -> str | None:
        """Why a canonical URI may not be read, as far as it can be told without asking anybody; None if it may."""
        if is_local(uri):
            if is_local(self.home):
                return None
            return f"a corpus in a store may not name files of this machine, as {uri[:200]!r} is; copy them to the store"
        scheme = uri.partition("://")[0]
        if scheme not in SCHEMES and scheme != self.home.partition("://")[0]:
            return f"{scheme}:// may not be named by a corpus; use {', '.join(f'{s}://' for s in SCHEMES)}"
        return self.host_refusal(urlsplit(uri).hostname or "") if scheme in ("http", "https") else None

    def host_refusal(self, host: str) -> str | None:
        """Why a host may not be asked, by its name; None if it may, or if only its addresses will tell."""
        if self.is_listed(host):
            return None
        if self.hosts:
            return f"host {host!r} is not among --allow-hosts {' '.join(self.hosts)}"
        return _private(host, host) if _address(host) else None

    def is_listed(self, host: str) -> bool:
        """Whether the operator has named this host."""
        own = self.home.startswith(("http://", "https://")) and host == urlsplit(self.home).hostname
        return own or any(fnmatchcase(host.lower(), pattern.lower()) for pattern in self.hosts)

    def store(self, uri: str) -> Any:
        """The fsspec filesystem of a URI that may be read, without a cache of listings.

        Raises:
            RefusedError: it may not be.
        """
        reason = self.refusal(uri)
        if reason:
            raise RefusedError(reason)
        if uri.startswith(("http://", "https://")):
            return fsspec.filesystem("http", use_listings_cache=False, get_client=self._session)
        return store(uri)

    async def _session(self, **options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=_Resolver(self))
        return aiohttp.ClientSession(connector=connector, middlewares=(self._each_hop,), **options)

    async def _each_hop(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Before a request, and before each that a redirect asks for."""
        reason = self.host_refusal(request.url.host or "")
        if reason:
            raise RefusedError(reason)
        return await handler(request)


PUBLIC = Reach()


class _Resolver(ThreadedResolver):
    """Addresses of names, unless one of them is private: what is judged here is what is connected to."""

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if not self._reach.is_listed(host):
            for one in found:
                if reason := _private(host, one["host"]):
                    raise RefusedError(reason)
        return found


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _private(host: str, address: str) -> str | None:
    """Why an address may not be asked; None if it is a public one, also when it only wraps an IPv4 address."""
    ip = _address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour
        ip = wrapped or (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip)
    if ip is not None and ip.is_global and not ip.is_multicast:
        return None
    shown = f"{host} ({address})" if host != address else host
    return f"{shown} is no public address; a corpus may name it if --allow-hosts does"
