"""Towers as ONNX files. In: a tower and features to trace it with; or a file. Out: a file; or a tower that onnxruntime runs.

A file takes the tower's features by name with a free batch axis, and gives `vectors` (B, D), not normalised. Weights of a
gigabyte and more lie beside it, in a file of the same name with ".data" behind it.
"""

from __future__ import annotations

import inspect
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import torch
from torch import nn

from encoders.cache import cache_folder, local_copy
from encoders.errors import SpaceError

if TYPE_CHECKING:
    import onnxruntime

SUFFIX, DATA_SUFFIX = ".onnx", ".data"
OUTPUT = "vectors"
EXTERNAL_BYTES = 1 << 30  # of weights: a protobuf file ends at twice that
TRACED_BATCH = 2  # with 1, the batch axis would be taken for a constant


class OnnxTower(nn.Module):
    """A tower in a file, run by onnxruntime: on a GPU if its build can, else on as many CPU threads as torch has.

    Pickles as the name of its file. It has no parameters: it cannot be trained, converted or saved.

    Args:
        uri: of the file, local or remote.
        features: the names that `forward` takes.
    """

    def __init__(self, uri: str, features: tuple[str, ...]) -> None:
        super().__init__()
        self.uri, self.features = uri, features
        self._session: onnxruntime.InferenceSession | None = None

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The file, opened at first use.

        Raises:
            SpaceError: there is no onnxruntime, no such file, or it is none that takes these features in batches of any size.
        """
        if self._session is None:
            self._session = _opened(self.uri)
            if (found := {one.name for one in self._session.get_inputs()}) != set(self.features):
                raise SpaceError(f"{self.uri} takes {sorted(found)}, not {sorted(self.features)}; export the space again")
            if fixed := [one.shape[0] for one in self._session.get_inputs() if isinstance(one.shape[0], int)]:
                raise SpaceError(
                    f"{self.uri} takes batches of {fixed[0]} only: its tower looks at one item after the other, which ONNX "
                    "cannot say; use the space that it was exported from"
                )
        return self._session

    def forward(self, **features: torch.Tensor) -> torch.Tensor:
        """Features, batched -> float32 (B, D) on the CPU, not normalised."""
        [vectors] = self.session.run([OUTPUT], {name: values.cpu().numpy() for name, values in features.items()})
        return torch.from_numpy(vectors)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}


def _opened(uri: str) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf
    except ImportError as error:
        raise SpaceError(f"{uri} needs onnxruntime, which is not installed: pip install 'bindery[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    known = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in known]
    try:
        with _at_hand(uri) as path:
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except FileNotFoundError as error:
        raise SpaceError(f"the tower {uri} is not there; export the space again, or mend its space.json") from error
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
        raise SpaceError(f"{uri} is not a readable ONNX file: {error}; export the space again") from error


@contextmanager
def _at_hand(uri: str) -> Iterator[Path]:
    """The file as a local one, its weights beside it."""
    path = local_copy(uri)
    filesystem, name = fsspec.core.url_to_fs(uri)
    if str(path) == name or not filesystem.exists(f"{name}{DATA_SUFFIX}"):
        if not path.exists():
            raise FileNotFoundError(path)
        yield path
        return
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:  # copies bear other names: link them under their own
        beside = Path(folder) / Path(name).name
        os.link(path, beside)
        os.link(local_copy(f"{uri}{DATA_SUFFIX}"), f"{beside}{DATA_SUFFIX}")
        yield beside


def _with_names(tower: nn.Module, features: list[str]) -> nn.Module:
    """A tower that takes its features by their names, where its own `forward` only passes on what it gets: **features."""
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(tower.forward).parameters.values()):
        return tower

    def forward(self: Any, **given: torch.Tensor) -> Any:
        return self.tower(**given)

    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *features)]
    forward.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    around = type(type(tower).__name__, (nn.Module,), {"forward": forward})()
    around.tower = tower
    return around.eval()  # type: ignore[no-any-return]


def check_exporter() -> None:
    """Raise SpaceError if there is nothing to write ONNX files with."""
    try:
        import onnxscript  # noqa: F401 - torch.onnx wants it, and says so late
    except ImportError as error:
        raise SpaceError("ONNX needs onnx and onnxscript, which are not installed: pip install 'bindery[onnx]'") from error


def write_onnx(tower: nn.Module, features: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a tower as an ONNX file.

    Args:
        tower: in evaluation mode, on the CPU.
        features: real ones of TRACED_BATCH media, batched; the number of media is free in the file.
        path: of the file, below a local folder that is there; large weights go to `path`.data.

    Raises:
        SpaceError: there is no exporter, or it cannot follow what the tower does.
    """
    check_exporter()
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        try:
            program = torch.onnx.export(
                _with_names(tower, list(features)),
                kwargs=dict(features),
                output_names=[OUTPUT],
                dynamo=True,
                dynamic_shapes={name: {0: batch} for name in features},
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise SpaceError(f"torch cannot write {type(tower).__name__} as ONNX: {str(error).splitlines()[0]}") from error
    assert program is not None
    size = sum(tensor.numel() * tensor.element_size() for tensor in tower.state_dict().values())
    program.save(path, external_data=size >= EXTERNAL_BYTES)
