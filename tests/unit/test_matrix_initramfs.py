"""What is laid over virtme-ng's initramfs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.compat.initramfs import Script, archive

SCRIPT = Script(
    argv=("/opt/py thon", "-c", "print('it''s')"),
    environment=(("PATH", "/bin:/it's here"),),
    working_directory="/a b",
    modules=Path("/cache/with space/lib/modules/6.1"),
    brought=("/usr/bin/crun", "/a b/it's"),
)


def test_the_archive_is_one_that_cpio_unpacks(tmp_path: Path, require: Callable[..., None]) -> None:
    require("busybox")
    files = {"init": b"#!/bin/sh\n", "a": b"", "b": b"12345"}
    subprocess.run(["busybox", "cpio", "-id"], input=archive(files), cwd=tmp_path, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("systemd_root", [None, Path("/a root")])
def test_every_script_is_one_that_a_shell_can_read(tmp_path: Path, systemd_root: Path | None) -> None:
    script = replace(SCRIPT, systemd_root=systemd_root)
    for name, content in script.files().items():
        (tmp_path / name).write_bytes(content)
        subprocess.run(["sh", "-n", str(tmp_path / name)], check=True)


def test_words_of_the_agent_reach_it_whole(tmp_path: Path) -> None:
    program = tmp_path / "say it"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$NAME" "$@"\n')
    program.chmod(0o755)
    script = Script((str(program), "a b", "it's", "$HOME"), (("NAME", "x 'y"),), str(tmp_path), None)
    said = subprocess.run(["sh"], input=script.files()["agent.sh"], capture_output=True, check=True)
    assert said.stdout.decode().splitlines() == [str(tmp_path), "x 'y", "a b", "it's", "$HOME"]
