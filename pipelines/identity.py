"""Names that never change: one spelling of a URI, and ids made from it. In: URIs as written. Out: canonical URIs, ids.

A name says what was written, never what the disk happens to hold: symbolic links are not followed, so that a link to a
content-addressed blob keeps its own name and extension, and re-pointing it changes a version and not an id.
"""

from __future__ import annotations

import hashlib
import os.path
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CANONICAL_KEY = re.compile(r"(?:s3|gs)://[^/?@]+/[^?]*[^/?]")  # what canonical_uri would leave as it is
_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_SIGNED_STORES = ("s3", "gs")  # object stores whose only query parameters are signatures
_PORTS = {"http": "80", "https": "443"}
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_KEPT_IN_PATHS = "/%:@!$&'()*+,;=~"  # what a path of a URL holds as it is (RFC 3986)
_QUERY_IN_TEXT = re.compile(r"""(https?://[^\s'"?]+)\?[^\s'"]*""", re.IGNORECASE)
_PASSWORD_IN_TEXT = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'"]*:[^\s/@'"]*@""")
_SIGNATURE_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-ms-")
# By what shows that a URL is signed: the parameters that belong to the signature. Alone, `st` or `expires` may say anything.
_SIGNATURE_PARAMETERS = {
    "sig": {
        "sig",
        "se",
        "sp",
        "sv",
        "sr",
        "st",
        "spr",
        "sip",
        "ss",
        "srt",
        "ske",
        "skoid",
        "sks",
        "skt",
        "sktid",
        "skv",
    },  # Azure
    "signature": {"signature", "expires", "policy", "awsaccesskeyid", "googleaccessid", "key-pair-id", "ossaccesskeyid"},
    "access_token": {"access_token"},
}


def canonical_uri(uri: str, base: str | None = None) -> str:
    """The one spelling under which a source is known; canonical of a canonical URI is itself.

    Local paths become absolute, without a scheme and without following symbolic links; `file://` is percent-decoded; s3a://
    and gcs:// become s3:// and gs://; a relative URI, with its `.` and `..`, is resolved against `base`, a directory.
    In keys of object stores every character counts (`%`, `..`, `#`, and `?` unless a signature follows); in http(s) URLs
    the host's case, default ports, dot segments and needless percent-encoding do not. Passwords, the user of an http(s)
    URL and the parameters of signatures are dropped, so that they are never stored.

    Raises:
        ValueError: it is no URI, or names no bucket or host.
    """
    if _CANONICAL_KEY.fullmatch(uri):
        return uri
    scheme_match = _SCHEME.match(uri)
    if scheme_match is None:
        if base is None or "://" not in base or (uri.startswith("/") and not base.startswith("http")):
            return os.path.abspath(os.path.join(base or "", uri))  # noqa: PTH100, PTH118 - ten times a Path's speed
        root, path = _split_root(base)
        return canonical_uri(root + _without_dots(uri if uri.startswith("/") else f"{path.rstrip('/')}/{uri}"))
    scheme = scheme_match[1].lower()
    scheme = _SCHEMES.get(scheme, scheme)
    rest = uri[scheme_match.end() :]
    if scheme in (*_SIGNED_STORES, *_PORTS) and not rest.partition("/")[0].partition("?")[0]:
        raise ValueError(f"no {'host' if scheme in _PORTS else 'bucket'} follows {scheme}://; write one")
    if scheme == "file":
        return os.path.abspath("/" + unquote(rest.partition("/")[2]))  # noqa: PTH100
    if scheme in _PORTS:
        return _canonical_url(scheme, uri)
    if scheme in _SIGNED_STORES:
        rest = _without_signature(rest)
    authority, slash, key = rest.partition("/")
    user, at, host = authority.rpartition("@")
    user = "" if scheme in _SIGNED_STORES else user.partition(":")[0] + at
    return f"{scheme}://{user}{host}{slash}{key}".rstrip("/")


def is_local(uri: str) -> bool:
    """Whether a canonical URI is a path of this machine."""
    return _SCHEME.match(uri) is None


def without_signatures(text: str) -> str:
    """A message with passwords and the queries of http(s) URLs in it cut off, which may be signatures."""
    return _PASSWORD_IN_TEXT.sub(r"\1", _QUERY_IN_TEXT.sub(r"\1", text))


def _canonical_url(scheme: str, url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(f":{_PORTS[scheme]}")
    path = _without_dots(parts.path) if "/." in parts.path else parts.path
    parameters = [p for p in parts.query.split("&") if p]
    query = "&".join(p for p in parameters if p not in _signature(parameters))
    return urlunsplit((scheme, host, _quoted(path) or "/", query, parts.fragment))


def _quoted(path: str) -> str:
    """The path with each character percent-encoded only where it must be."""

    def normal(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if _UNRESERVED.fullmatch(character) else match[0].upper()

    return quote(re.sub("%([0-9A-Fa-f]{2})", normal, re.sub("%(?![0-9A-Fa-f]{2})", "%25", path)), safe=_KEPT_IN_PATHS)


def _without_dots(path: str) -> str:
    """An absolute path of a URL with `.` and `..` resolved (RFC 3986 section 5.2.4); empty segments stay."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join([*kept, ""] if segments and segments[-1] in (".", "..") else kept)


def _split_root(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` -> `s3://bucket`, `/a/b`."""
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority}", slash + path


def _without_signature(key: str) -> str:
    """An object's key without the query of a presigned URL; a `?` that starts none is part of the key."""
    path, mark, query = key.partition("?")
    return path if mark and _signature(query.split("&")) else key


def _signature(parameters: list[str]) -> set[str]:
    """Those query parameters that belong to a signature."""
    names = {p: p.partition("=")[0].lower() for p in parameters}
    present = set(names.values())
    signed = {n for mark, group in _SIGNATURE_PARAMETERS.items() if mark in present for n in group}
    return {p for p, name in names.items() if name in signed or name.startswith(_SIGNATURE_PREFIXES)}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def source_id(uri: str, modality: str) -> str:
    """The id of one object seen as one modality: 32 hex digits over the canonical URI and the modality."""
    return _digest(uri, modality)


def item_id(uri: str, modality: str, segment: str = "") -> str:
    """The id of what gets one vector: a whole source, or its segment `start_ms-end_ms`."""
    return _digest(uri, modality, segment)


def recipe(encoder_fingerprint: str, segment: str) -> str:
    """How a source was embedded: its encoder and the segment settings ("whole", or windows). 32 hex digits."""
    return _digest(encoder_fingerprint, segment)
