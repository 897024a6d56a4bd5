"""Records: a paste falls into what was written at once."""

from __future__ import annotations

import pytest

from harness.diagnosis.records import LIMIT, records

DESCRIBE = """Events:
  Type     Reason     Age                From     Message
  ----     ------     ----               ----     -------
  Normal   Pulled     10s                kubelet  Container image "a" already present on machine
  Warning  Failed     9s (x2 over 10s)   kubelet  Error: failed to create containerd task: exec: "/a": permission denied
  Warning  BackOff    8s                 kubelet  Back-off restarting failed container
"""
WRAPPED = """docker: Error response from daemon: failed to create task for container:
failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process:
unable to apply cgroup configuration: cannot enter cgroupv2 "/sys/fs/cgroup/docker" with domain controllers
-- it is in threaded mode: unknown.
"""
JOURNAL = """Oct 12 15:08:36 node containerd[149]: time="2021-10-12T15:08:36Z" level=error msg="one
two"
Oct 12 15:08:37 node containerd[149]: time="2021-10-12T15:08:37Z" level=error msg="three"
"""
YOUKI = """Error: failed to create directory /run/youki

Caused by:
    Permission denied (os error 13)
ERRO[0000] Error removing container
Error: unable to start container "a": OCI permission denied
"""


def cut(text: str) -> list[str]:
    found = list(records(text.splitlines(keepends=True)))
    assert "".join(record.text for record in found) == text
    assert [record.start for record in found] == [text.index(record.text) for record in found]
    return [record.text for record in found]


@pytest.mark.parametrize(("text", "number"), [(DESCRIBE, 4), (WRAPPED, 1), (JOURNAL, 2), (YOUKI, 3), ("", 0), ("a", 1)])
def test_a_record_is_what_was_written_at_once(text: str, number: int) -> None:
    assert len(cut(text)) == number


def test_a_record_of_any_length_takes_bounded_memory() -> None:
    (record,) = records(["x" * 1000] * 3000)
    assert len(record.text) == LIMIT
    assert record.cut


def test_a_line_in_parts_stays_one_record() -> None:
    (record,) = records(["Error: a: ", "Error: b", " c\n"])
    assert record.text == "Error: a: Error: b c\n"
