"""Where a corpus is. In: a URI as written. Out: its store and path, what is there, and its errors in plain words."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pipelines.corpus.corpus import CorpusError
from pipelines.identity import canonical_uri, is_local, without_signatures
from pipelines.storage import NO_CREDENTIALS, store

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound")
_NO_ANSWER = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError")


@dataclass(frozen=True)
class Place:
    """One URI of a corpus.

    Attributes:
        uri: canonical, without a slash at its end.
        read_uri: the same where it can be read: with its signature, if it has one.
    """

    uri: str
    read_uri: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """The place of a URI as written.

        Raises:
            CorpusError: it is no URI.
        """
        try:
            canonical = canonical_uri(uri)
        except ValueError as error:
            raise CorpusError(f"{without_signatures(uri)[:200]!r} is no place to read from: {error}") from error
        return cls(canonical.rstrip("/") or "/", uri if canonical.startswith(("http://", "https://")) else canonical)

    @cached_property
    def fs(self) -> Any:
        """Its fsspec filesystem."""
        with reading(self.read_uri):
            return store(self.read_uri)

    @cached_property
    def path(self) -> str:
        """Its path within `fs`."""
        return self.read_uri if "://" not in self.read_uri else str(self.fs._strip_protocol(self.read_uri))

    @cached_property
    def kind(self) -> Literal["file", "folder", "nothing"]:
        """What is there. An object store has no empty folders, so that one is nothing; patterns are nothing too."""
        if self.scheme == "http" and self.read_uri.endswith("/"):
            return "folder"
        with reading(self.read_uri):
            try:
                return "file" if self.fs.info(self.path)["type"] == "file" else "folder"
            except FileNotFoundError:
                return "nothing"

    @property
    def scheme(self) -> str:
        """`file`, `s3`, `gs`, ...; `http` stands for https too."""
        return "file" if is_local(self.uri) else self.uri.partition("://")[0].replace("https", "http")

    @property
    def name(self) -> str:
        """Its last component."""
        return self.uri.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension of its name, in lower case: `.parquet`."""
        name = self.name.partition("?")[0] if self.scheme == "http" else self.name
        return os.path.splitext(name)[1].lower()  # noqa: PTH122

    @property
    def folder(self) -> str:
        """The URI of what it lies in."""
        return self.uri.rpartition("/")[0] or "/"

    def child(self, name: str) -> Place:
        """A place right below."""
        uri = f"{self.uri.rstrip('/')}/{name}"
        return Place(uri, uri)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn what stores say about a place into a CorpusError; what only time can heal stays, or becomes, an OSError."""
    shown = canonical_uri(uri)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(f"nothing is at {shown} ({_brief(error)}); check the spelling and the bucket") from error
    except PermissionError as error:
        raise CorpusError(
            f"no permission to read {shown} ({_brief(error)}); check AWS_* or GOOGLE_* in the environment and the bucket's "
            "policy, or the file's mode, or leave it out with --exclude"
        ) from error
    except ImportError as error:
        raise CorpusError(
            f"cannot read {shown}: {_brief(error)}; install that package (for gs://: the extra 'bindery[gcs]')"
        ) from error
    except CorpusError:
        raise
    except ValueError as error:
        if "rotocol not known" in str(error):
            raise CorpusError(f"cannot read {shown}: {_brief(error)}; use a local path, s3://, gs:// or http(s)://") from error
        raise
    except Exception as error:
        if type(error).__name__ in _NO_CREDENTIALS:
            raise CorpusError(f"no credentials to read {shown}; {NO_CREDENTIALS}") from error
        if type(error).__name__ in _NO_ANSWER:
            raise ConnectionError(f"{shown} does not answer: {_brief(error)}") from error
        raise


def _brief(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
