"""Templates: a text as its program prints it matches, whatever the quoting; nothing else does."""

from __future__ import annotations

import pytest

from harness.diagnosis.reading import read
from harness.diagnosis.template import Match, Template
from harness.errors import InputError


def find(template: str, raw: str) -> Match | None:
    reading = read(raw)
    return Template(template, "test").find(reading.text, reading.hay)


@pytest.mark.parametrize(
    ("template", "raw", "fields"),
    [
        ("exec: {path}: not found", 'x: exec: "a b": not found: y', {"path": "a b"}),
        ("exec: {path}: not found", "exec: `a`: Not Found", {"path": "a"}),
        ("exec: {path}: not found", "exec: /a/b c: not found", {"path": "/a/b c"}),
        ("stat {path}: {ENOENT}", "stat /a: no such file or", {"path": "/a", "errno": "ENOENT"}),
        ("stat {path}: {ENOENT|EACCES}", "stat /a: Permission denied", {"path": "/a", "errno": "EACCES"}),
        ("mount {source} to {target}: {errno}", "mount `a` to `b`: Invalid argument", {"errno": "EINVAL"}),
        ("load: {errno}", "load: errno 524", {"errno": "ENOTSUPP"}),
        ("open {path} (os error 13)", "open /x (os error 13)", {"path": "/x"}),
        ("chdir {path}: {errno}", "chdir /x: oops (os error 13)", None),
        ("chdir {path} ({errno})", "chdir /x (os error 13)", {"errno": "EACCES"}),
        ("write {value} to {cgroup}: {EINVAL}", 'write "-1" to memory.max: invalid argument', {"value": "-1"}),
        (
            "open {cgroup}: {ENOENT}",
            "open /sys/fs/cgroup/a/io.max: no such file or directory",
            {"cgroup_file": "io.max"},
        ),
        ("open {cgroup}: {ENOENT}", "open /etc/passwd: no such file or directory", None),
        ("hook #{index:int}: exit <status|code> {code}", "hook #0: exit code 3", {"index": "0", "code": "3"}),
        ("executable file {path} not found< in $PATH|>", "executable file 'node' not found", {"path": "node"}),
        ("a \\<b\\> {word}", "a <b> c", {"word": "c"}),
        ("cannot find user {user}", "cannot find user me: no", {"user": "me"}),
    ],
)
def test_a_template_finds_its_text_and_its_fields(template: str, raw: str, fields: dict[str, str] | None) -> None:
    match = find(template, raw)
    if fields is None:
        assert match is None
    else:
        assert match is not None
        assert fields.items() <= match.fields.items()


@pytest.mark.parametrize("template", ["{path", "a <b", "{path}", "{nobody}: text here", "ab {path}", "{EWHAT}: text"])
def test_what_is_no_template_is_refused_with_its_place(template: str) -> None:
    with pytest.raises(InputError, match="rule-7"):
        Template(template, "rule-7")


def test_offsets_are_characters_also_behind_wide_ones() -> None:
    match = find("write {value} to {cgroup}", "\U0001f600 é: write \U00010001 to net_cls.classid")
    assert match is not None
    assert match.fields["value"] == "\U00010001"
    assert match.start == 5
