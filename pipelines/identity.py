"""Names that never change: one spelling of a URI, and ids made from it. In: URIs as written. Out: canonical URIs, ids."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
_SIGNED = ("s3", "gs")  # object stores whose only query parameters are signatures


def _signature(parameter: str) -> bool:
    """Whether a query parameter belongs to a signed URL and must never be stored."""
    name = parameter.partition("=")[0].lower()
    return name.startswith(("x-amz-", "x-goog-")) or name in _SIGNATURE_NAMES


_SIGNATURE_NAMES = frozenset(
    {"awsaccesskeyid", "signature", "expires", "googleaccessid", "sig", "se", "sp", "sv", "sr", "st", "spr"}
)


def canonical_uri(uri: str, base: str | None = None) -> str:
    """The one spelling under which a source is known.

    Local paths become absolute without a scheme; s3a:// and gcs:// become s3:// and gs://; user info and the parameters of
    signed URLs are stripped and so never stored; a relative URI is resolved against `base`, a directory.
    """
    if "://" not in uri:
        if base is None or Path(uri).is_absolute():
            return str(Path(uri).absolute().resolve())
        if "://" not in base:
            return str((Path(base) / uri).absolute().resolve())
        return canonical_uri(f"{base.rstrip('/')}/{uri.removeprefix('./')}")
    parts = urlsplit(uri)
    scheme = _SCHEMES.get(parts.scheme.lower(), parts.scheme.lower())
    if scheme == "file":
        return str(Path(parts.path).resolve())
    if scheme in _SIGNED:  # '?' and '#' are ordinary characters of an object's key unless a signature follows
        rest = uri.partition("://")[2]
        key, mark, query = rest.partition("?")
        return f"{scheme}://{key if mark and any(_signature(p) for p in query.split('&')) else rest}"
    host = parts.netloc.rpartition("@")[2].lower()
    query = "&".join(p for p in parts.query.split("&") if p and not _signature(p))
    return urlunsplit((scheme, host, parts.path, query, parts.fragment))


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
