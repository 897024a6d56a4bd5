"""The installed package: complete without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD = PROJECT["build-system"]["requires"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project installed into a directory of its own, from a copy: the checkout is neither used nor touched."""
    from importlib.metadata import PackageNotFoundError, version

    wanted = dict(requirement.split("==") for requirement in BUILD)
    for name, release in wanted.items():
        try:
            if version(name) != release:
                pytest.skip(f"building needs {name}=={release}, here is {version(name)}")
        except PackageNotFoundError:
            pytest.skip(f"building needs {name}=={release}")
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("building needs a C compiler")
    base = tmp_path_factory.mktemp("packaging")
    source, target = base / "source", base / "target"
    names = ("harness", "native", "bundles", "pyproject.toml", "README.md", "LICENSE")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "generated")
    for name in names:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=ignored)
        else:
            shutil.copy(origin, source / name)
    for binary in (source / "bundles/payload").iterdir():
        if binary.suffix == "":  # built anew
            binary.unlink()
    argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*argv, "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
        cwd=base,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    return target


def ask(installed: Path, script: str, *args: str) -> str:
    """Run Python with the installed copy, and the dependencies, but not the checkout."""
    import click

    site = Path(click.__file__).parents[1]
    preamble = (
        "import sys\n"
        f"others = [path for path in sys.path if not path.startswith({str(ROOT)!r})]\n"
        f"sys.path[:] = [{str(installed)!r}, *others, {str(site)!r}]\n"
        # an editable install leaves a finder, which would look into the checkout
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", preamble + script, *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=installed.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_data_is_found(installed: Path) -> None:
    """Recipes and the payload are found in the installed copy, not in the checkout."""
    script = (
        "import harness\nfrom harness.kernel import shim\n"
        "from harness.oci.recipe import data_root, load_recipe, recipe_names\n"
        "from harness.oci.rootfs import is_static, payload_binary\n"
        "print(harness.__file__, data_root(), payload_binary(), sep='\\n')\n"
        "print(recipe_names(), all(load_recipe(name).config for name in recipe_names()), is_static(payload_binary()))\n"
    )
    *places, last = ask(installed, script).splitlines()
    assert all(place.startswith(str(installed)) for place in places)
    names = sorted(path.stem for path in (ROOT / "bundles/recipes").glob("*.json"))
    assert last == f"{names} True True"


def test_payload_runs(installed: Path) -> None:
    """The payload keeps its executable bit, or at least a bundle made from it has it, and it runs."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom harness.oci.bundle import create_bundle\n"
        "from harness.process.command import run\n"
        "bundle = create_bundle(Path(sys.argv[1]))\n"
        "print(run('payload', [str(bundle.rootfs / 'payload'), 'exit', '7']).exit_status)\n"
    )
    assert ask(installed, script, str(installed.parent / "bundle")) == "7\n"


def test_command(installed: Path) -> None:
    """The console command is installed and tells the version of the package."""
    assert (installed / "bin/oci-harness").is_file()
    from harness.version import VERSION

    out = ask(installed, "from harness.cli.entry import main\nmain(['--version'])")
    assert out == f"oci-harness {VERSION}\n"
    assert (installed / f"oci_harness-{VERSION}.dist-info").is_dir()


def test_every_module_is_packaged(installed: Path) -> None:
    """Every module and data file of harness/ and bundles/ is in the installed copy, and nothing of the tests is."""
    missing = []
    for folder, place in (("harness", "harness"), ("bundles", "harness/bundles")):
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            wanted = (
                path.suffix in (".py", ".pyi", ".json", ".toml", ".typed", ".c") and "__pycache__" not in path.parts
            )
            if wanted and not (installed / place / relative).is_file():
                missing.append(str(path.relative_to(ROOT)))
    assert missing == []
    assert sorted(path.name for path in installed.iterdir() if path.suffix != ".dist-info") == ["bin", "harness"]


def test_packages_are_listed() -> None:
    """pyproject.toml lists every package of the checkout, so that none is forgotten in a wheel."""
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "harness").rglob("__init__.py")}
    found |= {
        ".".join(["harness", *path.parent.relative_to(ROOT).parts]) for path in (ROOT / "bundles").rglob("__init__.py")
    }
    assert listed == found


def test_dependencies_are_those_that_are_imported() -> None:
    """Every third-party package that harness/ imports is declared, and none is declared for nothing."""
    import ast
    import re

    modules = {"python-prctl": "prctl", "google-re2": "re2", "PyYAML": "yaml"}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"]]
    wanted += [each for name in extras if name != "test" for each in extras[name]]
    declared = {re.split(r"[<>=!~ \[]", each)[0] for each in wanted}
    imported: set[str] = set()
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    third = imported - set(sys.stdlib_module_names) - {"harness", "_shim"}
    # cffi is loaded by the compiled shim, virtme-ng is called as a program
    assert third == {modules.get(name, name) for name in declared} - {"cffi", "virtme-ng"}
