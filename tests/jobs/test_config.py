"""What a scheduler sees of a job: flags, a config file, one JSON line, exit codes."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from botocore.exceptions import NoCredentialsError

from jobs.__main__ import main, verbs
from jobs.config import BAD_INPUT, DONE, GATE_FAILED, INTERNAL, STOPPED, JsonReport, run_job

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to do it.

    Args:
        tools: to take; None: those at hand.
        seed: of chance.
    """

    tools: Sequence[str] | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Do a task.

    Args:
        what: the task, in a word
            or two.
        how_often: how often.
        quickly: without care.
        only: names to take.
        manner: the rest.
    """

    what: str
    how_often: int = 1
    quickly: bool = False
    only: Sequence[str] = ()
    manner: Manner = Manner()


def _task(config: TaskConfig) -> JsonReport:
    match config.what:
        case "gate":
            return JsonReport({"failed": True}, exit_code=GATE_FAILED, failures=["3 of 4 are bad"])
        case "bad":
            raise ValueError("'bad' is no task; choose another")
        case "away":
            raise ConnectionError("the store does not answer")
        case "nobody":
            raise NoCredentialsError
        case "bug":
            raise KeyError("ours")
        case "stop":
            os.kill(os.getpid(), signal.SIGTERM)
    return JsonReport(
        {"how_often": config.how_often, "quickly": config.quickly, "only": list(config.only), "manner": asdict(config.manner)}
    )


def _run(*argv: str) -> int:
    return run_job(TaskConfig, _task, argv, positional=("what",))


@pytest.mark.parametrize(
    ("what", "code"),
    [("well", DONE), ("gate", GATE_FAILED), ("bad", BAD_INPUT), ("away", STOPPED), ("bug", INTERNAL), ("stop", STOPPED)],
)
def test_exit_codes_tell_a_scheduler_what_to_do(what: str, code: int) -> None:
    assert _run(what) == code


def test_what_failed_is_told_to_people_too(capsys: Capture) -> None:
    assert _run("gate") == GATE_FAILED
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["error: 3 of 4 are bad"] and json.loads(captured.out)["failed"] is True


def test_whoever_has_no_credentials_is_told_what_to_set(capsys: Capture) -> None:
    assert _run("nobody") == BAD_INPUT
    assert "set AWS_ACCESS_KEY_ID" in capsys.readouterr().err


def test_bad_flags_end_with_two_and_name_the_flag(capsys: Capture) -> None:
    assert _run("well", "--how-oft", "often") == BAD_INPUT
    assert _run("well", "--how-often", "often") == BAD_INPUT
    assert "--how-often" in capsys.readouterr().err


def test_the_last_line_is_the_report_and_flags_win_over_the_file(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("how_often: 3\nquickly: true\nonly: [a, b]\n")
    report = tmp_path / "out" / "report.json"
    report.parent.mkdir()
    assert _run("well", "--config", str(config), "--how-often", "5", "--report", str(report)) == DONE
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == json.loads(report.read_text())
    assert said.pop("job") == "test_config", "the file that the config is in"
    assert said == {"how_often": 5, "quickly": True, "only": ["a", "b"], "manner": {"tools": None, "seed": 0}}


@pytest.mark.parametrize(
    ("flags", "tools"),
    [
        ([], None),
        (["--manner.tools", "saw"], ["saw"]),
        (["--manner.tools", "saw", "file", "--manner.seed", "3"], ["saw", "file"]),
        (["--manner.tools"], []),
        (["--config", "config.yaml"], ["axe"]),
        (["--config", "config.yaml", "--manner.tools", "saw"], ["saw"]),
    ],
)
def test_a_list_in_a_section_takes_several_words_as_one_outside_does(
    flags: list[str],
    tools: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("manner:\n  tools: [axe]\n")
    assert _run("well", *flags) == DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["manner"]["tools"] == tools


@pytest.mark.parametrize("verb", verbs())
def test_help_names_the_verb(verb: str, capsys: Capture) -> None:
    assert importlib.import_module(f"jobs.{verb}").main(["--help"]) == DONE
    assert capsys.readouterr().out.startswith(f"usage: bindery {verb} ")


def test_help_lists_every_verb_with_what_it_does(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bindery", "--help"])
    assert main() == DONE
    about = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:])
    assert about["embed"] == "Embed a corpus into a table" and sorted(about) == verbs()
    monkeypatch.setattr("sys.argv", ["bindery", "embde"])
    assert main() == BAD_INPUT
    told = capsys.readouterr()
    assert "no verb 'embde'" in told.err and "  embed " in told.err and not told.out


def test_help_tells_what_the_docstring_tells(capsys: Capture) -> None:
    assert _run("--help") == DONE
    told = " ".join(capsys.readouterr().out.split())
    assert "the task, in a word or two" in told and "--how-often" in told and "Do a task." in told


def test_nothing_of_rays_comes_after_the_report(tmp_path: Path) -> None:
    """What several workers say, Ray tells once and, when it ends, that others said it as well."""
    (tmp_path / "own.py").write_text(
        """
import sys, time
from dataclasses import dataclass

import ray

from jobs.config import JsonReport, run_job
from pipelines.cluster import start_ray


@dataclass(frozen=True, kw_only=True)
class Config:
    '''Workers speak.'''


def job(_):
    start_ray()
    speak = ray.remote(num_cpus=0.25)(lambda: print("said by several") or time.sleep(2))
    ray.get([speak.remote() for _ in range(3)])
    return JsonReport({"done": True})


sys.exit(run_job(Config, job, None))
"""
    )
    command = [sys.executable, str(tmp_path / "own.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "CI": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == DONE and "repeated" in done.stdout, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["done"]
