"""Parts of a config.json that belong to another host: which are found, and what takes their place."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from test_oci_evidence import DATA, HERE

from harness.errors import InputError
from harness.oci.host_part import KEPT, REMOVED, HostPart
from harness.oci.portable import host_parts, replace
from harness.oci.rootfs_paths import inside, look_up_user
from harness.oci.spec import Config
from harness.oci.synthesized import synthesize

NOWHERE = Path("/no/such/base")


def found(document: dict[str, Any], **facts: Any) -> dict[str, HostPart]:
    parts = host_parts(document, changed(HERE, **facts), NOWHERE)
    return {part.pointer: part for part in parts}


def only(document: dict[str, Any], **facts: Any) -> HostPart:
    (part,) = found(document, **facts).values()
    return part


def linux(**values: Any) -> dict[str, Any]:
    return {"linux": values}


def process(**values: Any) -> dict[str, Any]:
    return {"process": values}


def mount(destination: str, source: str, *options: str, kind: str = "bind") -> dict[str, Any]:
    return {"mounts": [{"destination": destination, "type": kind, "source": source, "options": list(options)}]}


LISTENER = {
    "listenerPath": "/run/no-such.sock",
    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
}


@pytest.mark.parametrize(
    ("document", "pointer", "to"),
    [
        (
            linux(namespaces=[{"type": "pid"}, {"type": "network", "path": "/proc/4194305/ns/net"}]),
            "/linux/namespaces/1/path",
            REMOVED,
        ),
        (linux(namespaces=[{"type": "network", "path": "/proc/1/ns/net"}]), "/linux/namespaces/0/path", REMOVED),
        (linux(namespaces=[{"type": "user", "path": "/proc/4194305/ns/user"}]), "/linux/namespaces/0", REMOVED),
        (linux(cgroupsPath="/kubepods/burstable/podX/abc"), "/linux/cgroupsPath", REMOVED),
        (linux(cgroupsPath="system.slice:docker:abc"), "/linux/cgroupsPath", REMOVED),
        (linux(resources={"unified": {"memory.oom.group": "1"}}), "/linux/resources/unified", REMOVED),
        (linux(resources={"cpu": {"cpus": "1-3"}}), "/linux/resources/cpu/cpus", "1"),
        (linux(resources={"cpu": {"cpus": "8-11"}}), "/linux/resources/cpu/cpus", REMOVED),
        (linux(resources={"cpu": {"mems": "0-1"}}), "/linux/resources/cpu/mems", "0"),
        (
            linux(resources={"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
            "/linux/resources/hugepageLimits",
            REMOVED,
        ),
        (
            linux(resources={"blockIO": {"weightDevice": [{"major": 4000, "minor": 0}]}}),
            "/linux/resources/blockIO/weightDevice/0",
            REMOVED,
        ),
        (linux(resources={"rdma": {"mlx5": {}}}), "/linux/resources/rdma", REMOVED),
        (linux(intelRdt={"l3CacheSchema": "L3:0=f"}), "/linux/intelRdt", REMOVED),
        (linux(netDevices={"eth7": {}}), "/linux/netDevices/eth7", REMOVED),
        (
            linux(devices=[{"type": "c", "path": "/dev/nvidia0", "major": 4000, "minor": 0}]),
            "/linux/devices/0",
            REMOVED,
        ),
        (linux(sysctl={"net.ipv4.no_such": "1"}), "/linux/sysctl/net.ipv4.no_such", REMOVED),
        (linux(sysctl={"net.ipv4.conf.eth0.forwarding": "1"}), "/linux/sysctl/net.ipv4.conf.eth0.forwarding", REMOVED),
        (linux(mountLabel="system_u:object_r:container_file_t:s0"), "/linux/mountLabel", REMOVED),
        (process(selinuxLabel="system_u:system_r:container_t:s0"), "/process/selinuxLabel", REMOVED),
        (process(apparmorProfile="docker-default"), "/process/apparmorProfile", REMOVED),
        (process(terminal=True), "/process/terminal", False),
        (process(oomScoreAdj=-997), "/process/oomScoreAdj", 0),
        (
            process(capabilities={"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]}),
            "/process/capabilities/bounding/1",
            REMOVED,
        ),
        ({"hooks": {"prestart": [{"path": "/no/such/hook"}]}}, "/hooks/prestart/0", REMOVED),
        ({"hooks": {"prestart": [{"path": "/bin/sh"}]}}, "/hooks/prestart/0", KEPT),
        (
            {"annotations": {"io.kubernetes.cri.container-type": "container"}},
            "/annotations/io.kubernetes.cri.container-type",
            REMOVED,
        ),
        ({"ociVersion": "1.2.0"}, "/ociVersion", "1.0.2"),
        (mount("/a", "/no/such", "rbind", "context=system_u:object_r:x:s0"), "/mounts/0/options/1", REMOVED),
        (
            mount("/data", "/dev/no-such", kind="ext4"),
            "/mounts/0",
            {"destination": "/data", "type": "tmpfs", "source": "tmpfs"},
        ),
    ],
)
def test_what_belongs_to_another_host(document: dict[str, Any], pointer: str, to: Any) -> None:
    """Each kind of host-specific part is found at its pointer, with what takes its place and why."""
    part = found(document)[pointer]
    assert part.to == to
    assert part.what
    assert part.why


@pytest.mark.parametrize(
    "document",
    [
        {"ociVersion": "1.0.2-dev"},
        {"ociVersion": "1.0.0"},
        {"ociVersion": "1.1.0", "domainname": "x"},
        linux(namespaces=[{"type": "network"}, {"type": "pid", "path": ""}]),
        linux(resources={"cpu": {"cpus": "0-1", "mems": "0", "shares": 5}, "memory": {"limit": 1, "swap": 2}}),
        linux(devices=[{"type": "c", "path": "/dev/null", "major": 1, "minor": 3}]),
        linux(sysctl={"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "1"}),
        linux(uidMappings=[{"containerID": 0, "hostID": 100000, "size": 65536}]),
        process(apparmorProfile="unconfined", oomScoreAdj=100, terminal=False),
        process(
            rlimits=[
                {"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 5},
                {"type": "RLIMIT_NPROC", "hard": 2**40, "soft": 1},
            ]
        ),
        mount("/a", "/etc", "rbind"),
        mount("/proc", "proc", kind="proc"),
    ],
)
def test_what_works_here_is_left_alone(document: dict[str, Any]) -> None:
    """Nothing is said of what any host has, or this one."""
    assert found(document) == {}


def test_limits_above_ours() -> None:
    """Both numbers come down to our hard limit, unless we may raise it."""
    document = process(rlimits=[{"type": "RLIMIT_NOFILE", "hard": 2**20, "soft": 30_000}])
    assert {pointer: part.to for pointer, part in found(document).items()} == {
        "/process/rlimits/0/hard": 20_000,
        "/process/rlimits/0/soft": 20_000,
    }
    assert found(document, raises_limits=True) == {}


def test_profiles_that_are_loaded_stay() -> None:
    """With AppArmor on, only a profile that is not loaded is removed; with SELinux labels stay."""
    document = process(apparmorProfile="mine")
    assert found(document, apparmor=frozenset({"mine"})) == {}
    assert only(document, apparmor=frozenset({"other"})).why == "not loaded here"
    assert found({**process(selinuxLabel="x"), **linux(mountLabel="y")}, selinux=True) == {}


def test_a_listener_that_is_not_here() -> None:
    """The socket goes, and what asked it is allowed: else the filter cannot be loaded."""
    parts = found(linux(seccomp=LISTENER))
    assert parts["/linux/seccomp/listenerPath"].to is REMOVED
    assert parts["/linux/seccomp/syscalls/0/action"].to == "SCMP_ACT_ALLOW"


def test_ids_that_cannot_be_had() -> None:
    """Inside a user namespace that does not map them the container's own goes, mappings and all."""
    mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    document = linux(namespaces=[{"type": "user"}], uidMappings=mappings, gidMappings=mappings)
    assert found(document) == {}
    parts = found(document, uids=(range(1000),))
    assert {pointer for pointer, part in parts.items() if part.to is REMOVED} >= {
        "/linux/uidMappings",
        "/linux/gidMappings",
        "/linux/namespaces/0",
    }


def test_whole_controllers_that_are_not_here() -> None:
    """Of a controller that no runtime can use the whole section goes, in one entry."""
    document = linux(
        resources={"memory": {"limit": 5, "swap": 6}, "pids": {"limit": 7}, "cpu": {"quota": 1, "cpus": "0"}}
    )
    parts = found(document, controllers=frozenset({"cpu"}), swap_limit=False)
    assert set(parts) == {"/linux/resources/memory", "/linux/resources/pids", "/linux/resources/cpu/cpus"}


@pytest.mark.parametrize(
    ("destination", "source", "kind"),
    [
        ("/etc/hosts", "/gone/etc-hosts", "file"),
        ("/dev/termination-log", "/gone/x", "file"),
        ("/app/settings.yaml", "/gone/x", "file"),
        ("/run/docker.sock", "/gone/docker.sock", "file"),
        ("/etc/conf.d", "/gone/conf.d", "directory"),
        ("/home/.cache", "/gone/.cache", "directory"),
        ("/var/lib/data", "/gone/data", "directory"),
        ("/v1.2/", "/gone/x", "directory"),
        ("/data.d/x.y", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1", "directory"),
        ("/log", "/var/lib/kubelet/pods/u/containers/web/0a1b", "file"),
        ("/dev/shm", "/gone/shm", "directory"),
    ],
)
def test_what_a_missing_source_was(destination: str, source: str, kind: str) -> None:
    """File or directory, by kubelet's own places, well-known names, and how people name things."""
    part = only(mount(destination, source, "rbind"))
    assert (part.pointer, part.make) == ("/mounts/0/source", kind)
    assert part.to.startswith("mounts/0-")


def test_the_root_file_system_knows_best(tmp_path: Path) -> None:
    """Where the destination exists it says what the source was, links followed inside only."""
    (tmp_path / "real").mkdir()
    (tmp_path / "settings.yaml").symlink_to("/real")
    (tmp_path / "data").write_text("")
    for destination, kind in (("/settings.yaml", "directory"), ("/data", "file"), ("/../../data", "file")):
        (part,) = host_parts(mount(destination, "/gone/x", "bind"), HERE, NOWHERE, tmp_path)
        assert part.make == kind


def test_replacements_are_made_and_listed(tmp_path: Path) -> None:
    """Values are set, places removed, sources made; each is listed with the pointer that it had."""
    document = {
        **process(capabilities={"bounding": ["CAP_SYS_RESOURCE", "CAP_CHOWN", "CAP_SYS_RESOURCE"]}, oomScoreAdj=-5),
        "hooks": {"prestart": [{"path": "/no/a"}, {"path": "/bin/sh"}, {"path": "/no/b"}]},
        "mounts": [*mount("/a.txt", "/gone/a", "bind")["mounts"], *mount("/b", "/gone/b", "bind")["mounts"]],
    }
    before = copy.deepcopy(document)
    done = replace(document, host_parts(document, HERE, tmp_path), tmp_path)
    assert document["process"] == {"capabilities": {"bounding": ["CAP_CHOWN"]}, "oomScoreAdj": 0}
    assert document["hooks"] == {"prestart": [{"path": "/bin/sh"}]}
    assert [each["source"] for each in document["mounts"]] == ["mounts/0-a.txt", "mounts/1-b"]
    assert (tmp_path / "mounts/0-a.txt").is_file()
    assert (tmp_path / "mounts/1-b").is_dir()
    for each in done:
        assert Config(before).get(each.pointer) == each.before
    listed = {each.pointer: each.to_json() for each in done}
    assert listed["/process/oomScoreAdj"] == {
        "pointer": "/process/oomScoreAdj",
        "from": -5,
        "to": 0,
        "why": "ours is 0, and we lack CAP_SYS_RESOURCE to lower it",
    }
    assert listed["/hooks/prestart/2"]["to"] is None
    assert json.loads(json.dumps(list(listed.values())))


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*config*.json")))
def test_replaced_once_is_replaced(name: str, tmp_path: Path) -> None:
    """After --portable nothing of another host is left to find."""
    document = json.loads((DATA / f"{name}.json").read_text())
    replace(document, host_parts(document, HERE, tmp_path), tmp_path)
    assert [part for part in host_parts(document, HERE, tmp_path) if part.to is not KEPT] == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "path", "source", "destination", "options", "cpus", "major", "hostID", "size", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
PLACES = [
    "/linux/namespaces",
    "/linux/resources",
    "/linux/resources/cpu",
    "/linux/resources/blockIO",
    "/linux/devices",
    "/linux/uidMappings",
    "/linux/sysctl",
    "/linux/cgroupsPath",
    "/linux/seccomp",
    "/process",
    "/process/rlimits",
    "/process/capabilities",
    "/hooks",
    "/mounts",
    "/annotations",
    "/ociVersion",
    "/linux",
]


@settings(max_examples=300, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=4))
def test_no_document_is_too_odd(places: dict[str, Any]) -> None:
    """Whatever is in a config.json, looking for host-specific parts never raises."""
    config = Config({})
    for pointer in sorted(places, key=len):
        with contextlib.suppress(InputError):  # a parent that can hold nothing
            config.set(pointer, places[pointer])
    host_parts(config.document, HERE, NOWHERE)


# -- inside a root file system -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        ({}, "/a/b", "a/b"),
        ({}, "../../a", "a"),
        ({"x": "/etc"}, "/x/passwd", "etc/passwd"),
        ({"x": "../../../etc"}, "/x/passwd", "etc/passwd"),
        ({"x": "y", "y": "z/w"}, "x/v", "z/w/v"),
        ({"x": "x"}, "/x", None),
        ({"x": "y", "y": "x"}, "/x/a", None),
    ],
)
def test_paths_stay_inside(tmp_path: Path, links: dict[str, str], path: str, expected: str | None) -> None:
    """Links are followed as a process with that root would, and never out of it."""
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert inside(tmp_path, path) == (None if expected is None else tmp_path / expected)


PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\nbad\n77:x:78:79::/:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:app,other\nwheel:x:51:app\nx:y\n"


@pytest.mark.parametrize(
    ("text", "groups", "expected"),
    [
        ("", (), (0, 0, ())),
        ("app", (), (1000, 1001, (50, 51))),
        ("1000", (), (1000, 1001, (50, 51))),
        ("app:wheel", (), (1000, 51, ())),
        ("app:5", (), (1000, 5, ())),
        ("4242", (), (4242, 0, ())),
        ("4242:4243", ("staff", "7"), (4242, 4243, (50, 7))),
        (":wheel", (), (0, 51, ())),
        ("77", (), (78, 79, ())),
    ],
)
def test_users_as_docker_looks_them_up(
    tmp_path: Path, text: str, groups: tuple[str, ...], expected: tuple[int, int, tuple[int, ...]]
) -> None:
    """Names and numbers, with groups of their own, given ones and further ones."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    user = look_up_user(tmp_path, text, groups)
    assert (user.uid, user.gid, user.additional_gids) == expected
    assert user.unknown == ()


@pytest.mark.parametrize("text", ["nobody-knows", "app:nogroup", "99999999999", "-1", "٣"])
def test_names_that_nobody_knows(tmp_path: Path, text: str) -> None:
    """An unknown name is told, and never taken for root."""
    user = look_up_user(tmp_path, text)
    assert user.unknown
    assert user.uid == 1000


def test_a_passwd_that_leads_out_is_not_read(tmp_path: Path) -> None:
    """A link to the host's file ends inside, and a pipe does not hang."""
    secret = tmp_path / "secret"
    secret.write_text("app:x:7:7::/:/bin/sh\n")
    rootfs = tmp_path / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc/passwd").symlink_to(secret)
    os.mkfifo(rootfs / "etc/group")
    assert look_up_user(rootfs, "app:x").unknown == ("app", "x")


# -- the synthesized root file system ----------------------------------------------------------------------------------


def paths(root: Path) -> set[str]:
    return {"/" + str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_synthesized_rootfs_has_what_the_config_needs(tmp_path: Path) -> None:
    """The command, the working directory, mount points of the right kind, and the user; all may be entered by all."""
    document = {
        **process(
            args=["/app/server", "x"], cwd="/var/lib/app", user={"uid": 1000, "gid": 3000, "additionalGids": [4]}
        ),
        "mounts": [
            *mount("/etc/hosts", "/etc/passwd", "bind")["mounts"],
            *mount("/data/deep", "/etc", "bind")["mounts"],
            *mount("/sys/fs/cgroup", "cgroup", kind="cgroup")["mounts"],
        ],
    }
    synthesize(tmp_path, document, NOWHERE)
    assert paths(tmp_path) >= {"/app/server", "/var/lib/app", "/data/deep", "/sys/fs/cgroup", "/proc", "/dev", "/tmp"}
    assert (tmp_path / "etc/hosts").is_file()
    assert (tmp_path / "app/server").stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o555 == 0o555 for path in tmp_path.rglob("*") if path.is_dir())
    assert look_up_user(tmp_path, "1000").gid == 3000
    assert "group4:x:4:" in (tmp_path / "etc/group").read_text()


@pytest.mark.parametrize(
    ("args", "env", "cwd", "place"),
    [
        (["server"], ["PATH=/opt/bin:/bin"], "/", "/opt/bin/server"),
        (["server"], [], "/", "/usr/local/sbin/server"),
        (["server"], ["PATH=relative:/sbin"], "/", "/sbin/server"),
        (["./run.sh"], [], "/srv", "/srv/run.sh"),
        (["/a/../../../b"], [], "/", "/b"),
        ([], [], "/", "/payload"),
    ],
)
def test_where_the_command_goes(tmp_path: Path, args: list[str], env: list[str], cwd: str, place: str) -> None:
    """Where a runtime will look for it: its path, against the working directory, or the first directory of PATH."""
    synthesize(tmp_path, process(args=args, env=env, cwd=cwd), NOWHERE)
    assert place in paths(tmp_path)


@pytest.mark.parametrize(
    "odd", ["/a\0b", "/" + "x" * 300, "/\ud800", "/../../../out", "//", "relative/x", "/etc/passwd/x"]
)
def test_odd_paths_never_lead_out_nor_raise(tmp_path: Path, odd: str) -> None:
    """Whatever a destination is called, only the root file system is written to."""
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    synthesize(rootfs, {**process(args=[odd], cwd=odd), **mount(odd, odd, "bind")}, NOWHERE)
    assert [path.name for path in tmp_path.iterdir()] == ["rootfs"]
