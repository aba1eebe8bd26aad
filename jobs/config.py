"""How every job starts and ends. In: argv, a typed config class, a function. Out: progress, one JSON report, an exit code.

Exit codes: 0 done; 1 done but a gate failed; 2 bad arguments or input, nothing started; 3 stopped by infrastructure or by a
signal after a clean stop: run the same command again; 4 internal error.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import json
import logging
import signal
import sys
import warnings
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, get_type_hints

import fsspec
from botocore.exceptions import NoCredentialsError
from jsonargparse import ArgumentParser, Namespace

from pipelines.forecast import rounded
from pipelines.log import LogFormat, log_lines, say
from pipelines.storage import INFRASTRUCTURE_ERRORS, NO_CREDENTIALS, filesystem

# Lance and LanceDB warn of every fork; here each is followed by exec at once, which is safe.
_FORK_WARNINGS = "lance is not fork-safe|lancedb fork support is experimental"
DONE, GATE_FAILED, BAD_INPUT, STOPPED, INTERNAL = range(5)

Config = TypeVar("Config")


class Report(Protocol):
    """What a job returns."""

    @property
    def exit_code(self) -> int:
        """DONE or GATE_FAILED."""

    @property
    def failures(self) -> Sequence[str]:
        """What failed, in words, that no line has told yet."""

    def to_json(self) -> str:
        """One line of JSON."""


@dataclass(frozen=True)
class JsonReport:
    """A report that is just its values."""

    values: Mapping[str, Any]
    exit_code: int = DONE
    failures: Sequence[str] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.values)


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A config of a job that can be asked beforehand; its settings inherit from this.

    Args:
        dry_run: only check everything, and say what would be done and, where a sample can tell, what it takes.
    """

    dry_run: bool = False


def planned(job: str, values: Mapping[str, Any]) -> JsonReport:
    """The report of a dry run.

    Args:
        job: its verb.
        values: what would be done; `seconds` and `bottleneck`, where they are known, are told to people, too.
    """
    took = f", about {values['seconds']:,.0f} s" if values.get("seconds") is not None else ""
    limit = f"; {values['bottleneck']}" if values.get("bottleneck") else ""
    say(f"dry run of {job}: nothing was done{took}{limit}", stage="plan")
    return JsonReport({"dry_run": True, **rounded(values)})


class StopRequestedError(KeyboardInterrupt):
    """SIGTERM arrived, which is to be taken as Ctrl-C is: whatever holds something lets it go on the way out."""


def run_job(
    config_class: type[Config], job: Callable[[Config], Report], argv: Sequence[str] | None, positional: Sequence[str] = ()
) -> int:
    """Parse, run, report.

    Args:
        config_class: a dataclass; its docstring's `Args` are the help, its fields without default are required.
        job: config -> report.
        argv: without the program's name; None for the process's own.
        positional: fields given without a flag.

    Returns:
        The exit code.
    """
    parser = _parser(config_class, positional)
    try:
        arguments = parser.parse_args(None if argv is None else list(argv))
    except SystemExit as stop:  # argparse has printed what is wrong
        return BAD_INPUT if stop.code else DONE
    warnings.filterwarnings("ignore", _FORK_WARNINGS)
    own = argv is None  # the process is the job's, and ends with it
    with log_lines(arguments.log_format):
        code = _run(config_class, job, parser, arguments, own)
    if own:
        atexit.register(gc.freeze)  # no garbage is looked for among all that was imported
    return code


def _run(
    config_class: type[Config], job: Callable[[Config], Report], parser: ArgumentParser, arguments: Namespace, own: bool
) -> int:
    """The job with its arguments -> the exit code."""
    try:
        arguments = parser.instantiate(arguments)
        config = config_class(**{f.name: arguments[f.name] for f in fields(config_class)})  # type: ignore[arg-type]
        if arguments.report:
            _write(arguments.report, "")  # a place that cannot be written to is found out before the work, not after
        with _sigterm_raises():
            report = job(config)
            if own:
                _end_ray()
        for failure in report.failures:
            say(failure, logging.ERROR, stage="report", exit_code=report.exit_code)
        told = json.dumps({"job": _verb(config_class), **json.loads(report.to_json())})
        with suppress(BrokenPipeError):  # `| head` has read enough
            print(told, flush=True)
        if arguments.report:
            _write(arguments.report, told + "\n")
    except ValueError as error:
        return _failed(error, BAD_INPUT)
    except (KeyboardInterrupt, SystemExit):  # SystemExit: Ray's own SIGTERM handler, while Ray is starting
        say("stopped on request; run the same command again to go on", logging.WARNING, exit_code=STOPPED)
        return STOPPED
    except NoCredentialsError as error:
        return _failed(error, BAD_INPUT, f" of the store; {NO_CREDENTIALS}")
    except INFRASTRUCTURE_ERRORS as error:
        return _failed(error, STOPPED)
    except Exception:  # noqa: BLE001 - the process ends here: say so with the scheduler's code for "our bug"
        say("this is a bug of ours", logging.ERROR, traceback=True, exit_code=INTERNAL)
        return INTERNAL
    return report.exit_code


def _end_ray() -> None:
    """End Ray before the report is told, which is the last line on stdout: Ray ends with what several workers have said."""
    if "pipelines.cluster" in sys.modules:  # else nothing was started, and importing it would take longer than a search
        from pipelines.cluster import end_ray

        end_ray()


def refuse_to_overwrite(out: str) -> None:
    """Raise ValueError if a space is there already: somebody may be reading it."""
    store, path = filesystem(out)
    if store.exists(f"{path}/space.json"):
        raise ValueError(f"{out} already holds a space; choose another --out, or remove it first")


def _parser(config_class: type[Any], positional: Sequence[str]) -> ArgumentParser:
    """Flags with dashes, one a field; a bool is a bare flag, a list takes several words. A YAML file has the fields' names.

    A field that is a dataclass is a section of the file. Its own fields are flags too, `--section.field`, left out of the help:
    the flags that one needs are not to be lost among those that one rarely does.
    """
    parser = ArgumentParser(
        prog=f"bindery {_verb(config_class)}", allow_abbrev=False, description=(config_class.__doc__ or "").partition("\n")[0]
    )
    types = get_type_hints(config_class)
    for field in sorted(fields(config_class), key=lambda field: field.name == "dry_run"):  # beside what all jobs have
        optional = field.default is not MISSING
        options: dict[str, Any] = {"help": _help(config_class, field.name), **({"default": field.default} if optional else {})}
        if field.name in positional:
            if optional:
                options["nargs"] = "?"
            parser.add_argument(field.name, type=types[field.name], **options)
        elif types[field.name] is bool:
            parser.add_argument(_flag(field.name), action="store_true", help=_help(config_class, field.name))
        elif is_dataclass(types[field.name]):
            parser.add_argument(_flag(field.name), type=types[field.name], default=field.default)
            _settle_inside(parser, field.name, _help(config_class, field.name))
        elif types[field.name] == Sequence[str]:
            parser.add_argument(_flag(field.name), type=str, nargs="+", **options)
        else:
            parser.add_argument(_flag(field.name), type=types[field.name], required=not optional, **options)
    parser.add_argument("--config", action="config", help="a YAML file with the same names; flags win over it")
    parser.add_argument("--log-format", type=LogFormat, default="text", help="text for people, or json: a line an object")
    parser.add_argument("--report", type=str | None, default=None, help="also write the JSON report to this path or URI")
    return parser


def _verb(config_class: type[Any]) -> str:
    """What the job is called: the name of the file that its config is in."""
    module = config_class.__module__
    return module.rpartition(".")[2] if module != "__main__" else Path(sys.argv[0]).stem


def _settle_inside(parser: ArgumentParser, section: str, about: str) -> None:
    """A section's own flags: out of the help, and a list takes several words (or none, an empty list) as it does outside."""
    for action in parser._actions:
        if action.dest == section:
            action.help = f"{about} A section of the config file; --{section}.FIELD sets one of its fields"
        elif action.dest.startswith(f"{section}."):
            action.help = SUPPRESS
            if getattr(action, "_typehint", None) in (Sequence[str], Sequence[str] | None):
                action.nargs, action._typehint = "*", str  # type: ignore[attr-defined] # what it does with nargs and type=str


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(config_class: type[Any], name: str) -> str:
    """What the docstring's `Args` say of a field, its own or an inherited one's, its continuation lines included."""
    found: list[str] = []
    for line in "\n".join(inspect.getdoc(one) or "" for one in config_class.__mro__).splitlines():
        if line.strip().startswith(f"{name}:") and not found:
            found.append(line.partition(":")[2].strip())
        elif found and line.startswith(" " * 8):
            found.append(line.strip())
        elif found:
            break
    return " ".join(found)


def _write(uri: str, text: str) -> None:
    with fsspec.open(uri, "w") as file:
        file.write(text)


def _failed(error: Exception, code: int, advice: str = "") -> int:
    say(f"{error}{advice}", logging.ERROR, error_type=type(error).__name__, exit_code=code)
    return code


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Make SIGTERM an exception, as SIGINT is, so that leases are given back and staged work is committed."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise StopRequestedError

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
