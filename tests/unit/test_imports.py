"""Imports point one way, and only the modules that are meant to do so start processes, print or load heavy packages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "harness"
# Each may import what stands before it; those of one tuple are siblings, who may not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "units", "version"),
    ("kernel",),
    ("process",),
    ("cgroup", "oci"),
    ("runtime",),
    ("faults",),
    ("diagnosis",),
    ("trace", "bench"),
    ("compat",),
    ("report",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
STARTERS = frozenset(
    {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "startfile"}
    | {f"exec{suffix}" for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
    | {f"spawn{suffix}" for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
)
PROCESS_MODULES = frozenset({"subprocess", "multiprocessing", "pty", "concurrent.futures.process", "_posixsubprocess"})


@dataclass(frozen=True)
class Module:
    """A module's syntax tree, without its `if TYPE_CHECKING` blocks."""

    name: str  # below harness: "cli.entry"; "" is the package itself
    path: Path
    nodes: tuple[ast.AST, ...]
    top: tuple[ast.AST, ...]  # what runs when the module is imported

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(node: ast.AST, into_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from walk(other, into_functions)
            continue
        yield child
        if into_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from walk(child, into_functions)


def parse(path: Path, name: str, text: str | None = None) -> Module:
    tree = ast.parse(path.read_text() if text is None else text)
    return Module(name, path, tuple(walk(tree, True)), tuple(walk(tree, False)))


def modules() -> list[Module]:
    found = []
    for path in sorted(HARNESS.rglob("*.py")):
        parts = path.relative_to(HARNESS).with_suffix("").parts
        found.append(parse(path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    return found


MODULES = modules()


def imported(module: Module, nodes: tuple[ast.AST, ...]) -> Iterator[tuple[str, int]]:
    """(full dotted name of what is imported, line); `from a import b` counts as a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["harness", *(module.name.split(".") if module.name else [])]
                depth = node.level - (module.path.name == "__init__.py")
                base = ".".join([*(here[:-depth] if depth else here), *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def upward(module: Module) -> list[str]:
    """Imports of this module that go up or aside."""
    wrong = []
    for name, line in imported(module, module.nodes):
        first, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if first != "harness" or target in {module.package, "bundles"}:
            continue
        if target not in RANK or RANK[target] >= RANK[module.package]:
            wrong.append(f"harness/{module.path.relative_to(HARNESS)}:{line}: {module.package} imports {name}")
    return wrong


def calls(module: Module) -> Iterator[tuple[str, int]]:
    """(dotted name of what is called, line)."""
    for node in module.nodes:
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def where(module: Module, line: int, what: str) -> str:
    return f"harness/{module.path.relative_to(HARNESS)}:{line}: {what}"


def test_every_package_has_its_place() -> None:
    """Every top-level module and package is in the order of layers."""
    assert {module.package for module in MODULES} - {""} <= set(RANK)
    assert len(MODULES) > 50


def test_no_arrow_upward() -> None:
    """A module imports only what lies below it, or its own package; imports for the type checker do not count."""
    assert [line for module in MODULES if module.package for line in upward(module)] == []


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("kernel.x", "from harness.process import run", 1),
        ("kernel.x", "def f():\n    import harness.cli.entry", 1),
        ("kernel.x", "from harness import cli", 1),
        ("cgroup.x", "from harness.oci.spec import Config", 1),
        ("oci.x", "from harness.cgroup import groups", 1),
        ("oci.x", "from ..runtime import client", 1),
        ("bench.x", "from harness.trace import phases\nfrom harness.kernel import shim", 1),
        ("units", "from harness.errors import InputError", 1),
        ("cli.x", "from harness.nowhere import x", 1),
        ("kernel.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.cli import entry", 0),
        ("oci.x", "from harness.kernel import shim\nfrom . import spec\nfrom .spec import Config\nimport os", 0),
        ("cli.x", "from harness.bench import run\nfrom harness.cli import entry", 0),
    ],
)
def test_the_check_itself(name: str, text: str, count: int) -> None:
    """The check sees an import upward or aside wherever it is written, and lets the others pass."""
    path = HARNESS / Path(*name.split(".")).with_suffix(".py")
    assert len(upward(parse(path, name, text))) == count


def test_one_importer_of_the_shim() -> None:
    """Only harness/kernel/shim.py imports the compiled shim."""
    found = {
        module.name
        for module in MODULES
        for name, _ in imported(module, module.nodes)
        if name.startswith("harness.kernel._shim") or name == "_shim"
    }
    assert found == {"kernel.shim"}


def test_processes_are_started_in_one_place() -> None:
    """Only harness/process and the shim start processes: no subprocess, os.fork, os.exec* and the like elsewhere."""
    wrong = []
    for module in MODULES:
        if module.package == "process" or module.name == "kernel.shim":
            continue
        for name, line in imported(module, module.nodes):
            parts = name.split(".")
            if any(".".join(parts[:n]) in PROCESS_MODULES for n in range(1, len(parts) + 1)):
                wrong.append(where(module, line, f"imports {name}"))
            if parts[0] in ("os", "posix") and parts[-1] in STARTERS:
                wrong.append(where(module, line, f"imports {name}"))
        for name, line in calls(module):
            parts = name.split(".")
            if parts[0] in ("os", "posix", "pty") and parts[-1] in STARTERS:
                wrong.append(where(module, line, f"calls {name}"))
            if name == "shim.spawn":
                wrong.append(where(module, line, f"calls {name}"))
    assert wrong == []


def test_only_the_cli_prints_and_exits() -> None:
    """Outside of harness/cli nothing is printed, to either stream, and nobody exits."""
    forbidden = {"print", "click.echo", "click.secho", "sys.exit", "exit", "quit", "os._exit", "os.abort"}
    streams = ("sys.stdout.", "sys.stderr.", "sys.__stdout__.", "sys.__stderr__.")
    wrong = []
    for module in MODULES:
        if module.package == "cli":
            continue
        wrong += [
            where(module, line, f"calls {name}")
            for name, line in calls(module)
            if name in forbidden or name.startswith(streams)
        ]
        wrong += [
            where(module, line, f"imports {n}") for n, line in imported(module, module.nodes) if n.startswith("click")
        ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("numpy", {"bench.statistics"}), ("rich", {"cli", "report"}), ("click", {"cli"}), ("cffi", set())],
)
def test_who_may_import(package: str, allowed: set[str]) -> None:
    """Each heavy package has its few importers."""
    found = {
        module.name
        for module in MODULES
        for name, _ in imported(module, module.nodes)
        if name.partition(".")[0] == package and not {module.name, module.package} & allowed
    }
    assert found == set()


@pytest.mark.parametrize("package", ["pyroute2", "prctl", "rich"])
def test_never_at_the_top(package: str) -> None:
    """These are imported where they are used: loading them costs more than most commands take."""
    found = [
        where(module, line, f"imports {name}")
        for module in MODULES
        for name, line in imported(module, module.top)
        if name.partition(".")[0] == package
    ]
    assert found == []


PROBE = """
import json, sys
before = set(sys.modules)
sys.argv = ['oci-harness', *sys.argv[1:]]
try:
    from harness.cli.entry import main
    main()
except SystemExit as error:
    status = error.code
sys.stderr.write(json.dumps([status, sorted({name.partition('.')[0] for name in set(sys.modules) - before})]))
"""


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (("--version",), "click msgspec numpy pyroute2 rich cffi _cffi_backend subprocess"),
        (("--help",), "msgspec numpy pyroute2 rich cffi _cffi_backend"),
        (("create", "--help"), "numpy pyroute2 rich"),
        (("bench", "--help"), "numpy pyroute2 rich"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_loaded(arguments: tuple[str, ...], unwanted: str) -> None:
    """What prints a version or a help text loads nothing that it does not need."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    status, loaded = json.loads(done.stderr)
    assert status in (0, None)
    assert done.stdout
    assert set(loaded) & set(unwanted.split()) == set()


def test_importing_the_package_is_light() -> None:
    """`import harness` loads nothing but the version; its names are loaded when they are used."""
    script = (
        "import sys; before = set(sys.modules); import harness\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('harness')))\n"
        "print(all(getattr(harness, name) is not None for name in harness.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['harness', 'harness.version']", "True"]
