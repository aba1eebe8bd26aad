"""Many byte strings looked for at once. In: the strings, data in chunks. Out: which of them occur."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

_WINDOW = 8  # bytes
_HASH_BITS = 22
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - _HASH_BITS)


class ByteSearch:
    """Compares a string only where the hash of its last eight bytes occurs: tens of MB a second, be they thousands."""

    def __init__(self, strings: Collection[bytes]) -> None:
        self._short = [s for s in strings if len(s) < _WINDOW]
        self._by_end: dict[bytes, list[bytes]] = {}
        for string in strings:
            if len(string) >= _WINDOW:
                self._by_end.setdefault(string[-_WINDOW:], []).append(string)
        ends = np.frombuffer(b"".join(self._by_end), "<u8")
        self._hashes = np.zeros(1 << _HASH_BITS, bool)
        self._hashes[(ends * _ODD) >> _SHIFT] = True
        self._overlap = max((len(s) for s in strings), default=1) - 1

    def found_in(self, chunks: Iterable[bytes]) -> set[bytes]:
        """Those of the strings that occur in the data, across the ends of chunks too."""
        found: set[bytes] = set()
        tail = b""
        for chunk in chunks:
            data = tail + chunk
            found |= self._in(data)
            tail = data[max(0, len(data) - self._overlap) :] if self._overlap else b""
        return found

    def _in(self, data: bytes) -> set[bytes]:
        found = {s for s in self._short if s in data}
        for shift in range(_WINDOW):
            words = np.frombuffer(data, "<u8", count=max(0, len(data) - shift) // _WINDOW, offset=min(shift, len(data)))
            for place in np.flatnonzero(self._hashes[(words * _ODD) >> _SHIFT]):
                end = shift + (int(place) + 1) * _WINDOW
                for string in self._by_end.get(data[end - _WINDOW : end], ()):
                    if end >= len(string) and data[end - len(string) : end] == string:
                        found.add(string)
        return found
