"""Where a training tells how it goes while it goes. In: points of the learning curve. Out: TensorBoard and MLflow, stderr.

TensorBoard's events and MLflow's runs go side by side into one local folder, `tensorboard/` and `mlruns/`; on a cluster that is
a folder of the worker of rank 0, so name one that all nodes share.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from encoders.training.loop import Training

TELL_EVERY_S = 10.0


def check_logs(logs: str) -> None:
    """Refuse what cannot be logged to, before anything is trained.

    Raises:
        ValueError: a URI, a folder that MLflow does not read, or the packages are not installed.
    """
    if "://" in logs:
        raise ValueError(f"--recipe.logs {logs}: TensorBoard and MLflow write to a local folder; name one")
    if logs and "artifacts" in Path(logs).absolute().parts:
        raise ValueError(f"--recipe.logs {logs}: MLflow finds no run below a folder named `artifacts`; name another one")
    if logs:
        try:
            import mlflow  # noqa: F401 - here: they take seconds to import, and are an extra
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise ValueError(f"logs need {error.name}: pip install 'bindery[bind]'") from error


class Logs:
    """A run of TensorBoard and of MLflow; with no folder, nothing.

    Args:
        folder: local.
        name: of the run; the same name goes on with the same run.
        settings: what MLflow lists as parameters.
    """

    def __init__(self, folder: str, name: str, settings: Mapping[str, Any]) -> None:
        self._board: Any = None
        if not folder:
            return
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # the store without a server or a database
        import mlflow
        from torch.utils.tensorboard import SummaryWriter

        path = Path(folder).absolute()
        self._board = SummaryWriter(str(path / "tensorboard" / name))
        self._mlflow = mlflow.MlflowClient(tracking_uri=(path / "mlruns").as_uri())
        experiment = self._mlflow.get_experiment_by_name("bindery")
        where = experiment.experiment_id if experiment else self._mlflow.create_experiment("bindery")
        begun = self._mlflow.search_runs([where], f"attributes.run_name = '{name}'")
        self._run = (begun[0] if begun else self._mlflow.create_run(where, run_name=name)).info.run_id
        for key, value in settings.items():
            self._mlflow.log_param(self._run, key, str(value)[:500])

    def write(self, entry: Mapping[str, Any]) -> None:
        """One point of the learning curve."""
        if self._board is None:
            return
        for key, value in entry.items():
            if isinstance(value, float):
                self._board.add_scalar(key, value, entry["step"])
                self._mlflow.log_metric(self._run, key.replace("@", "_at_"), value, step=entry["step"])

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._board is not None:
            self._board.close()
            self._mlflow.set_terminated(self._run, "FAILED" if kind else "FINISHED")


class Pace:
    """Tells on stderr how far a training is, how fast, and how long it will take: after each epoch, and every 10 s."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: tuple[float, int] | None = None  # seconds and step of the first point
        self._told_s = time.monotonic()

    def tell(self, training: Training, entry: Mapping[str, Any]) -> None:
        """A point of the learning curve has come."""
        now_s = time.monotonic()
        self._since = self._since or (now_s, training.step)
        if "epoch_loss" not in entry and now_s - self._told_s < TELL_EVERY_S:
            return
        self._told_s = now_s
        seconds, steps = now_s - self._since[0], training.step - self._since[1]
        rate = f", {steps * training.recipe.batch_size / seconds:,.0f} pairs/s" if steps else ""
        left = f", {_clock((training.steps - training.step) * seconds / steps)} left" if steps else ""
        recall = f", recall {entry['recall']:.3f}" if "recall" in entry else ""
        epoch = f"epoch {entry['epoch']:.4g} of {training.recipe.epochs}"
        sys.stderr.write(f"{self._what}: {epoch}, loss {entry.get('epoch_loss', entry['loss']):.3f}{recall}{rate}{left}\n")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
