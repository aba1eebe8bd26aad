"""Every file below a place. In: a place. Out: files as they are found, with size and version; nothing is held but one folder.

Hidden files and folders (their name starts with "." or "_"), Lance tables and what is no regular file are counted as skipped,
a folder once. Local folders are read in order of their names, symbolic links to folders are followed except in circles.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.corpus.globs import Filter
from pipelines.corpus.place import Place, reading
from pipelines.corpus.s3_keys import list_keys
from pipelines.corpus.versions import size_and_mtime, version_of


class File(NamedTuple):
    """A file, by its path relative to the place that was listed; `version` is None where the listing does not tell."""

    path: str
    size_bytes: int | None
    version: str | None
    problem: str | None = None


def list_files(place: Place, wanted: Filter, skipped: Counter[str]) -> Iterator[File]:
    """Every file below `place`, unless it or a folder on the way is hidden; the filter prunes folders only.

    Raises:
        CorpusError: a folder may not be read.
        OSError: the store stopped answering.
    """
    lister = {"file": _list_local, "s3": _list_s3}.get(place.scheme, _list_any)
    with reading(place.read_uri):
        yield from lister(place, wanted, skipped)


def _closed(path: str, name: str, wanted: Filter, skipped: Counter[str]) -> bool:
    """Whether a folder is not entered; it counts once."""
    if name[:1] in (".", "_"):
        skipped["hidden"] += 1
    elif name.endswith(".lance"):
        skipped[".lance"] += 1
    elif not wanted.enters(path):
        skipped["excluded"] += 1
    else:
        return False
    return True


def _list_local(place: Place, wanted: Filter, skipped: Counter[str]) -> Iterator[File]:
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]  # folders, with the inodes of what they lie in
    while waiting:
        relative, above = waiting.pop()
        folder = os.path.join(place.path, relative)  # noqa: PTH118 - strings: a Path costs more than the call to the system
        try:
            about, opened = os.stat(folder), os.scandir(folder)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            if relative:  # removed since the folder that it was in was read
                continue
            raise
        if (about.st_dev, about.st_ino) in above:
            opened.close()
            skipped["symlink loop"] += 1
            continue
        files: list[str] = []
        folders: list[str] = []
        with reading(folder), opened as entries:
            for entry in entries:
                path = f"{relative}{entry.name}"
                if _is_folder(entry):
                    if not _closed(path, entry.name, wanted, skipped):
                        folders.append(f"{path}/")
                elif entry.name[0] in "._":
                    skipped["hidden"] += 1
                else:
                    files.append(path)
        files.sort()
        yield from filter(None, (_local_file(place.path, path, skipped) for path in files))
        here = (*above, (about.st_dev, about.st_ino))
        waiting += [(path, here) for path in sorted(folders, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:  # a symbolic link to itself
        return False


def _local_file(root: str, path: str, skipped: Counter[str]) -> File | None:
    try:
        about = os.stat(f"{root}/{path}")  # noqa: PTH116
    except PermissionError:
        raise
    except OSError:
        return File(_readable(path), None, None, "not found: a broken symbolic link, or removed since it was listed")
    if not stat.S_ISREG(about.st_mode):
        skipped["not a regular file"] += 1
        return None
    if not path.isascii() and _readable(path) != path:
        return File(_readable(path), about.st_size, None, "its name is not valid UTF-8; rename it")
    return File(path, about.st_size, size_and_mtime(about.st_size, about.st_mtime_ns))


def _readable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _list_s3(place: Place, wanted: Filter, skipped: Counter[str]) -> Iterator[File]:
    bucket, _, root = place.path.partition("/")
    prefix = f"{root}/" if root else ""
    folder, closed = "", False  # the last folder, and whether it is passed over
    closed_at = "\0"  # the folder that closed it
    for answer in list_keys(place.fs, bucket, prefix):
        path = answer["Key"][len(prefix) :]
        parent, slash, name = path.rpartition("/")
        if parent + slash != folder:
            folder = parent + slash
            if not folder.startswith(closed_at):
                closed_at = _closed_ancestor(parent, wanted, skipped) if parent else "\0"
            closed = folder.startswith(closed_at)
        if closed or not name:  # a key that ends in a slash stands for a folder
            continue
        if name[0] in "._":
            skipped["hidden"] += 1
        else:
            yield File(path, answer["Size"], version_of(answer))


def _closed_ancestor(folder: str, wanted: Filter, skipped: Counter[str]) -> str:
    """The outermost folder of a path that is not entered, with a slash at its end; a string no path starts with if none."""
    path = ""
    for name in folder.split("/"):
        path += name
        if _closed(path, name, wanted, skipped):
            return f"{path}/"
        path += "/"
    return "\0"


def _list_any(place: Place, wanted: Filter, skipped: Counter[str]) -> Iterator[File]:
    """Folder by folder, through what every fsspec store can do."""
    root = place.path.rstrip("/") + "/"
    for _, folders, files in place.fs.walk(place.path, detail=True, on_error="raise"):
        for name in sorted(folders):
            if _closed(folders[name]["name"].rstrip("/").removeprefix(root), name, wanted, skipped):
                del folders[name]
        for name in sorted(files):
            if name[:1] in (".", "_"):
                skipped["hidden"] += 1
            elif name:
                about = files[name]
                yield File(about["name"].removeprefix(root), about.get("size"), version_of(about))
