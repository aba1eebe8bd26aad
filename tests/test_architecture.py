"""The house's laws, read from the syntax trees of its packages: imports run downhill, names say what things are.

A law is a function from a module's source to its offences, tried here on an offence of its own too: it can fail.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("encoders", "pipelines", "jobs")
UPHILL = {
    "encoders": ("pipelines", "jobs", "tests", "benchmarks", "ray", "lance", "lancedb", "pandas"),
    "pipelines": ("jobs", "tests", "benchmarks", "ray.train"),
    "jobs": ("tests", "benchmarks"),
}
SHAPELESS = {"util", "utils", "common", "core", "helper", "helpers", "misc"}
# Where any exception may be caught: the item boundary turns it into a reject, the process boundary into an exit code.
BROAD_CATCHES = {"pipelines": 1, "jobs/config.py": 1}
UNPICKLERS = {
    f"{module}.{name}" for module in ("pickle", "cloudpickle", "joblib", "dill") for name in ("load", "loads", "Unpickler")
}
# In two parts, so that this file does not name them.
REGISTRY_HOSTS = [
    host + domain
    for host, domain in (
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("registry", ".npmjs"),
        ("deb.debian", ".org"),
        ("conda.ana", "conda.org"),
        ("download.py", "torch.org"),
        ("proxy.go", "lang.org"),
        ("crates", ".io"),
    )
]


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """`encoders/towers/demo_image.py` -> `encoders.towers.demo_image`; a package's `__init__` is the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in python_files(*PACKAGES)}


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(), str(path))


def imports(module: ast.Module, importer: str = "") -> Iterator[str]:
    """Every dotted name that is imported anywhere in a module, lazily or for its types too; `from a import b` gives `a.b`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = importer.split(".")[: len(importer.split(".")) - node.level] if node.level else []
            yield from (".".join([*package, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Attribute) and dotted(node) == "ray.train":
            yield "ray.train"


def dotted(node: ast.expr) -> str:
    """`a.b.c` for a chain of attributes of a name, else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def uphill_imports(module: ast.Module, importer: str) -> list[str]:
    """The imports that a module of this name may not have."""
    forbidden = UPHILL[importer.partition(".")[0]]
    return [name for name in imports(module, importer) if any(f"{name}.".startswith(f"{top}.") for top in forbidden)]


def our_imports(module: ast.Module, importer: str) -> set[str]:
    """The modules of ours that a module imports: of `a.b.c` the longest part that is one, without the packages around it."""
    found = set()
    for name in imports(module, importer):
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        found.update(next(([prefix] for prefix in prefixes if prefix in MODULES), []))
    return found - {importer}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import cycle, first module repeated at its end; [] if there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for neighbour in sorted(graph.get(node, ())):
                if found := walk(neighbour, [*path, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def broad_catches(module: ast.Module) -> list[int]:
    """Lines of `except:`, `except Exception` and `except BaseException`, in tuples too, that do not raise again."""
    lines = []
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(name is None or dotted(name) in ("Exception", "BaseException") for name in caught)
            if broad and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
                lines.append(node.lineno)
    return lines


def undocumented(module: ast.Module) -> list[str]:
    """Public classes and functions of a module without a docstring; "" stands for the module itself."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    public = [node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return ["" for _ in range(not ast.get_docstring(module))] + [node.name for node in public if not ast.get_docstring(node)]


def unsafe_loads(module: ast.Module) -> list[int]:
    """Lines that could run code out of a file: unpicklers, `weights_only=False`, `allow_pickle=True` and the like."""
    switches = {"weights_only": False, "allow_pickle": True, "trust_remote_code": True}
    lines = []
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            unsafe = dotted(node) in UNPICKLERS
        elif isinstance(node, ast.ImportFrom):
            unsafe = any(f"{node.module}.{alias.name}" in UNPICKLERS for alias in node.names)
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            unsafe = node.arg in switches and node.value.value is switches[node.arg]
        else:
            continue
        lines += [node.lineno] if unsafe else []
    return lines


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downhill(name: str) -> None:
    assert uphill_imports(tree(MODULES[name]), name) == []


def test_modules_import_each_other_without_cycles() -> None:
    assert cycle({name: our_imports(tree(path), name) for name, path in MODULES.items()}) == []


def test_encoders_load_without_ray_lance_or_pandas() -> None:
    modules = [name for name in MODULES if name.startswith("encoders")]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {modules}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert {"ray", "lance", "lancedb", "pandas"} & set(loaded.stdout.split()) == set()


@pytest.mark.parametrize("job", ["delete", "optimize", "search"])
def test_a_job_that_embeds_nothing_loads_no_torch_until_it_needs_it(job: str) -> None:
    code = f"import sys, jobs.{job}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert {"torch", "ray"} & set(loaded.stdout.split()) == set()


def test_the_actor_that_writes_loads_no_torch() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, pipelines.writer; print(*sys.modules)"], capture_output=True, text=True
    )
    assert loaded.returncode == 0 and "ray" in loaded.stdout.split(), loaded.stderr
    assert "torch" not in loaded.stdout.split(), "200 MB in a process that never embeds, and a second of its start"


def test_no_file_is_named_after_nothing() -> None:
    assert [path for path in python_files(*PACKAGES, "tests", "benchmarks") if SHAPELESS & {path.stem, path.parent.name}] == []


def test_exceptions_are_caught_by_name_except_at_the_item_and_the_process_boundary() -> None:
    found = {str(path.relative_to(ROOT)): len(broad_catches(tree(path))) for path in MODULES.values()}
    for place, allowed in BROAD_CATCHES.items():
        inside = [path for path in found if f"{path}/".startswith(f"{place}/")]
        assert sum(found[path] for path in inside) <= allowed, {path: found[path] for path in inside if found[path]}
        for path in inside:
            found[path] = 0
    assert [path for path, count in found.items() if count] == []


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    assert undocumented(tree(MODULES[name])) == []


@pytest.mark.parametrize("path", python_files(*PACKAGES, "benchmarks"), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_loaded_can_run_code(path: Path) -> None:
    assert unsafe_loads(tree(path)) == []


def test_no_committed_file_names_a_package_registry() -> None:
    files = (
        subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")
    )
    texts = {name: (ROOT / name).read_bytes() for name in files if (ROOT / name).is_file()}
    assert texts
    assert [(name, host) for name, text in texts.items() for host in REGISTRY_HOSTS if host.encode() in text] == []


@pytest.mark.parametrize(
    ("importer", "source", "found"),
    [
        ("encoders.space", "def f():\n    import ray.data", ["ray.data"]),
        ("encoders.space", "from pipelines import table", ["pipelines.table"]),
        ("encoders.towers.a", "from ...jobs import embed", ["jobs.embed"]),
        ("encoders.space", "import raytracer", []),
        ("pipelines.embed", "from ray import train", ["ray.train"]),
        ("pipelines.embed", "import ray\nray.train.report({})", ["ray.train"]),
        ("pipelines.embed", "import ray.data", []),
        ("jobs.embed", "import tests.conftest", ["tests.conftest"]),
    ],
)
def test_an_uphill_import_is_found(importer: str, source: str, found: list[str]) -> None:
    assert uphill_imports(ast.parse(source), importer) == found


def test_a_cycle_is_found_and_a_diamond_is_none() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []


@pytest.mark.parametrize("caught", ["except:", "except Exception:", "except (OSError, BaseException) as e:"])
def test_a_broad_catch_is_found_unless_it_raises_again(caught: str) -> None:
    assert broad_catches(ast.parse(f"try:\n    f()\n{caught}\n    pass")) == [3]
    assert broad_catches(ast.parse(f"try:\n    f()\n{caught}\n    raise")) == []


def test_a_missing_docstring_is_found() -> None:
    assert undocumented(ast.parse("def f(): ...\nclass _P: ...\nclass C:\n    'doc'")) == ["", "f"]


@pytest.mark.parametrize(
    "line", ["pickle.loads(b)", "from joblib import load", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)"]
)
def test_a_load_that_can_run_code_is_found(line: str) -> None:
    assert unsafe_loads(ast.parse(line)) == [1]
    assert unsafe_loads(ast.parse("torch.load(f, weights_only=True)")) == []
