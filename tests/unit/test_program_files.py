"""Which files a program is started from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from harness.compat.program_files import files_of


def test_links_on_the_way_are_found_with_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "real/bin/program-1").write_text("#!/bin/sh\n")
    (tmp_path / "real/bin/program").symlink_to("program-1")
    (tmp_path / "bin").symlink_to("real/bin")
    (tmp_path / "up").symlink_to("bin/../../bin/program")
    chain = ["up", "bin", "real/bin/program", "real/bin/program-1"]
    assert files_of(f"{tmp_path}/up") == [f"{tmp_path}/{name}" for name in ("up", "bin", *chain[2:])]
    assert files_of(f"{tmp_path}/bin/program") == [f"{tmp_path}/{name}" for name in ("bin", *chain[2:])]


def test_links_in_a_circle_and_missing_files_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert files_of(f"{tmp_path}/a") == files_of(f"{tmp_path}/nothing") == []


def test_every_file_that_the_loader_opens_is_among_them() -> None:
    """As the kernel tells it of a process that has been started."""
    argv = [sys.executable, "-S", "-c", "print(open('/proc/self/maps').read())"]
    shown = subprocess.run(argv, capture_output=True, check=True, text=True)
    mapped = set(re.findall(r" (/\S+(?:\.so\S*|python[0-9.]*))$", shown.stdout, re.MULTILINE))
    assert any("libc.so" in path for path in mapped)
    assert {path for path in mapped if "/lib-dynload/" not in path} <= set(files_of(sys.executable))
