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

# Of CPU time: 10 s where the standard library reads this file in 1.1 s, as it did here. How fast a machine is
# differs from day to day.
TIMES_JSON = 9
MEBIBYTES = 500
RUN = """
import json, resource, sys
from harness.report.comparers import compare
from harness.report.comparison import Asked
from harness.report.html import render
from harness.report.saved import load
what, path, target = sys.argv[1:]
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
if what == "json":
    json.loads(open(path).read())
    print(json.dumps([spent(), 0]))
    sys.exit()
if what == "compare":
    assert not compare(path, path + ".again", Asked()).failed
else:
    open(target, "w").write(render([load(path, keep=True)]))
# not ru_maxrss, which starts at that of the process that this one was cloned from
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([spent(), peak / 1024]))
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
    target = tmp_path / "page.html"
    seconds = {}
    for what in ("json", "compare", "report"):
        done = subprocess.run(
            [sys.executable, "-c", RUN, what, str(large), str(target)], capture_output=True, text=True, check=True
        )
        seconds[what], memory = json.loads(done.stdout)
        assert memory < MEBIBYTES, what
    assert seconds["compare"] + seconds["report"] < TIMES_JSON * seconds["json"], seconds
    assert target.stat().st_size < large.stat().st_size / 3


def test_limits_are_of_this_system() -> None:
    """ru_maxrss is in KiB, as the test takes it to be."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 10_000
