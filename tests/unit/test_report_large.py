"""A result of 100,000 samples is compared and made into a page in seconds and in little memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import saved_results as saved

pytest.importorskip("matplotlib")

SECONDS = 10  # of CPU time: others may be busy on this machine
MEBIBYTES = 500
RUN = """
import json, resource, sys
from harness.report.comparison import Asked, compare
from harness.report.html import render
from harness.report.saved import load
what, path, target = sys.argv[1:]
if what == "compare":
    assert not compare(path, path + ".again", Asked()).failed
else:
    open(target, "w").write(render([load(path, keep=True)]))
used = resource.getrusage(resource.RUSAGE_SELF)
# not ru_maxrss, which starts at that of the process that this one was cloned from
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As long as `bench` writes them, each sample on many lines."""
    value = saved.bench({"runc": 1.0, "crun": 0.9}, runs=500)
    text = json.dumps(value["samples"], indent=2)[1:-2]
    path = tmp_path_factory.mktemp("large") / "large.json"
    rest = json.dumps(value | {"samples": []})
    before, _, after = rest.partition('"samples": []')
    for target in (path, Path(f"{path}.again")):
        with target.open("w") as file:
            file.write(before + '"samples": [')
            file.writelines(f"{',' if at else ''}{text}" for at in range(100))
            file.write("]" + after)
    return path


def test_large(large: Path, tmp_path: Path) -> None:
    """Comparing two and reporting one together stay below the limits."""
    seconds = 0.0
    target = tmp_path / "page.html"
    for what in ("compare", "report"):
        done = subprocess.run(
            [sys.executable, "-c", RUN, what, str(large), str(target)], capture_output=True, text=True, check=True
        )
        used, memory = json.loads(done.stdout)
        seconds += used
        assert memory < MEBIBYTES, what
    assert seconds < SECONDS
    assert target.stat().st_size < large.stat().st_size / 3


def test_limits_are_of_this_system() -> None:
    """ru_maxrss is in KiB, as the test takes it to be."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 10_000
