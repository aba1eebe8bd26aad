"""Where a training tells how it goes: TensorBoard and MLflow side by side in a local folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.training_logs import Logs, Pace, check_logs


def test_a_training_that_goes_on_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for step in (1, 2):
        with Logs(str(tmp_path), "abc", {"epochs": 2, "loss": "infonce"}) as logs:
            logs.write({"step": step, "loss": 1.0 / step, "there_R@1": 0.5})
    (losses,) = (tmp_path / "mlruns").rglob("metrics/loss")
    assert [line.split()[1:] for line in losses.read_text().splitlines()] == [["1.0", "1"], ["0.5", "2"]]
    assert list((tmp_path / "mlruns").rglob("params/epochs")) and list((tmp_path / "tensorboard" / "abc").glob("events*"))


def test_logs_go_to_local_folders_only_and_nowhere_when_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write to a local folder"):
        check_logs("s3://bucket/logs")
    with pytest.raises(ValueError, match="below a folder named `artifacts`"):
        check_logs(str(tmp_path / "artifacts" / "logs"))
    check_logs("")
    with Logs("", "abc", {}) as logs:
        logs.write({"step": 1, "loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_an_epoch_is_told_with_the_mean_loss_of_its_steps_and_steps_between_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    pace = Pace("binding")
    training: Any = SimpleNamespace(step=5, steps=10, recipe=SimpleNamespace(epochs=2, batch_size=32))
    pace.tell(training, {"epoch": 0.5, "loss": 9.0})
    pace.tell(training, {"epoch": 1.0, "loss": 9.0, "epoch_loss": 1.25, "recall": 0.5})
    told = capsys.readouterr().err
    assert told == "binding: epoch 1 of 2, loss 1.250, recall 0.500\n"
