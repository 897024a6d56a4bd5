"""What --from was given is told by looking at it, and what engines print becomes the config.json that they meant."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.oci.evidence import Evidence, look_at, look_at_rootfs
from harness.oci.here import Here, parse_list
from harness.oci.host_part import HostPart
from harness.oci.image import Source
from harness.oci.inspect_docker import parse_inspected
from harness.oci.spec import Config
from harness.oci.translation import Translated, translate
from harness.oci.validate import type_problems
from harness.oci.vocabulary import CAPABILITIES

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DATA = Path(__file__).parents[1] / "data" / "inspect"
HERE = Here(
    capabilities=frozenset(CAPABILITIES) - {"CAP_SYS_RESOURCE"},
    raises_limits=False,
    hard_limits={"RLIMIT_NOFILE": 20_000, "RLIMIT_NPROC": None},
    oom_score_adj=0,
    hugepage_sizes=frozenset({"2MB"}),
    cpus=frozenset({0, 1}),
    nodes=frozenset({0}),
    apparmor=None,
    selinux=False,
    controllers=frozenset({"memory", "cpu", "cpuset", "pids", "blkio"}),
    unified=False,
    swap_limit=True,
    rdt=False,
    uids=(range(2**32 - 1),),
    gids=(range(2**32 - 1),),
)


def seen(text: str | Path) -> Evidence:
    return look_at(str(text), HERE)


# -- the grammar of --from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("crictl-containerd", "crictl"),
        ("crictl-crio", "crictl"),
        ("crio-config", "runtime-spec"),
        ("podman-config", "runtime-spec"),
        ("ctr", "ctr"),
        ("docker", "docker"),
        ("podman", "podman"),
    ],
)
def test_each_output_is_known_by_its_shape(name: str, kind: str) -> None:
    """The name of the file tells nothing: the JSON does; and the config has no type error."""
    evidence = seen(DATA / f"{name}.json")
    assert evidence.kind == kind
    assert evidence.config is not None
    assert type_problems(evidence.config.document) == []


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`crictl inspect ID | oci-harness bundle create DIR --from -` works."""
    data = io.BytesIO((DATA / "crictl-crio.json").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert seen("-").kind == "crictl"


def test_directories_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout, a bundle, any other directory, a recipe; what is there wins over a recipe of that name."""
    for name, file in (("layout", "oci-layout"), ("rootfs", "some-file")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/config.json").write_text('{"ociVersion": "1.0.2", "root": {"path": "sub/rootfs"}}')
    assert seen(tmp_path / "layout").image == Source(tmp_path / "layout")
    assert seen(f"{tmp_path}/layout:v1").image == Source(tmp_path / "layout", "v1")
    bundle = seen(tmp_path / "bundle")
    assert (bundle.kind, bundle.rootfs) == ("bundle", (tmp_path / "bundle/sub/rootfs",))
    assert seen(tmp_path / "rootfs").kind == "rootfs"
    assert seen("pause").kind == "recipe"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pause").mkdir()
    (tmp_path / "pause/x").touch()
    assert seen("pause").kind == "rootfs"


def inspected(**values: Any) -> str:
    return json.dumps([{"Id": "a", "Path": "x", "Config": {}, "HostConfig": values}])


SPEC = {"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["a"]}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot tell what it is; it may be a recipe's name"),
        ("hello", "cannot tell what it is"),
        ("{", "not JSON: line 1, column 2"),
        ("[]", "0 containers in it"),
        ("[{}, {}]", "2 containers in it; give the output for one"),
        ("[1]", "number 1 is nothing that a container engine prints"),
        ("{}", "JSON that is no container's description (nothing)"),
        ('{"kind": "Pod"}', "JSON that is no container's description (kind)"),
        ('{"info": {"pid": 1}, "status": {}}', "/info/runtimeSpec is not in it"),
        ('{"info": {"runtimeSpec": {"ociVersion": 5}}}', "/ociVersion: expected a string, found number 5"),
        (json.dumps({**SPEC, "process": {"cwd": "/", "args": "sh"}}), "/process/args: expected an array"),
        ('[{"Id": "a", "Config": {}, "HostConfig": {"Memory": "1g"}}]', "/0/HostConfig/Memory: expected an integer"),
        ('[{"Id": "a", "Config": {}, "HostConfig": {}}]', "there is no command to run"),
        (inspected(Ulimits=[{"Name": "x", "Soft": 1, "Hard": 1}]), "there is no limit 'x'"),
        (inspected(DeviceCgroupRules=["x"]), "'x' is no rule such as"),
        ('{"a": ' * 300 + "1" + "}" * 300, "nests deeper"),
        ('{"a\\u0000b": "\\ud800"}', "JSON that is no container's description"),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    """A wrong file gives one printable line that names it and what is wrong."""
    (tmp_path / "file").write_text(content)
    with pytest.raises(InputError) as caught:
        seen(tmp_path / "file")
    assert says in str(caught.value)
    assert f"{tmp_path}/file" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nope", "--from nope: no such file, and there is no recipe 'nope'; there are "),
        ("./pause", "--from ./pause: no such file or directory"),
        ("/no/such/dir", "--from /no/such/dir: no such file or directory"),
        ("/dev/null", "--from /dev/null: neither a file nor a directory"),
        ("", "--from '': neither a path nor a name"),
        ("a\0b", "neither a path nor a name"),
    ],
)
def test_names_that_lead_nowhere(text: str, says: str) -> None:
    """Neither a path nor a recipe: one line, with the recipes that there are."""
    with pytest.raises(InputError) as caught:
        seen(text)
    assert says in str(caught.value)


def test_rootfs_is_a_directory_or_an_image(tmp_path: Path) -> None:
    """--rootfs takes a directory, a layout or an archive, and refuses the rest in one line."""
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").touch()
    (tmp_path / "text").write_text("x")
    assert look_at_rootfs(str(tmp_path)) == tmp_path
    assert look_at_rootfs(f"{tmp_path}/layout:a") == Source(tmp_path / "layout", "a")
    for text in ("text", "nope"):
        with pytest.raises(InputError, match="neither a directory nor an image; or write synthesized"):
            look_at_rootfs(f"{tmp_path}/{text}")


# -- docker and podman -------------------------------------------------------------------------------------------------


def translated(**changes: Any) -> Translated:
    """docker.json with changes: `Config_User="x"` changes Config.User."""
    document = json.loads((DATA / "docker.json").read_text())[0]
    for path, value in changes.items():
        place, _, name = path.rpartition("__")
        (document[place] if place else document)[name] = value
    return translate(parse_inspected(document, "docker.json", ("0",)), HERE)


def host(**changes: Any) -> dict[str, Any]:
    return translated(**{f"HostConfig__{name}": value for name, value in changes.items()}).document


def test_a_docker_container_is_translated() -> None:
    """Every setting of docker.json is where dockerd would have put it."""
    result = translated()
    config = Config(result.document)
    assert type_problems(result.document) == []
    process = config.get("/process")
    assert process["args"] == ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]
    assert process["env"] == ["HOSTNAME=web01", "NGINX_VERSION=1.27.0", PATH]
    assert (process["cwd"], process["terminal"], process["oomScoreAdj"]) == ("/", False, 100)
    assert process["noNewPrivileges"] is True
    assert process["apparmorProfile"] == "docker-default"
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}]
    caps = set(process["capabilities"]["bounding"])
    assert "CAP_NET_ADMIN" in caps
    assert "CAP_MKNOD" not in caps
    assert len(caps) == 14
    assert (result.user, result.groups) == ("nginx", ("2000",))
    assert config.get("/root/readonly") is True
    assert config.get("/hostname") == "web01"
    resources = config.get("/linux/resources")
    assert resources["memory"] == {"limit": 134217728, "swap": 268435456}
    assert resources["cpu"] == {"shares": 512, "period": 100000, "quota": 50000, "cpus": "0"}
    assert resources["pids"] == {"limit": 100}
    assert resources["devices"][1:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "c", "major": 42, "access": "rwm"},
    ]
    assert [each["path"] for each in config.get("/linux/devices")] == ["/dev/mynull"]
    assert config.get("/linux/sysctl") == {"net.core.somaxconn": "1024"}
    assert "/proc/interrupts" in config.get("/linux/maskedPaths")
    kinds = [each["type"] for each in config.get("/linux/namespaces")]
    assert kinds == ["mount", "network", "pid", "ipc", "uts", "cgroup"]
    assert "cgroupsPath" not in config.get("/linux")
    mounts = {each["destination"]: each for each in config.get("/mounts")}
    assert mounts["/etc/nginx/nginx.conf"]["options"] == ["rbind", "ro", "rprivate"]
    assert mounts["/var/log/nginx"] == {
        "destination": "/var/log/nginx",
        "type": "bind",
        "source": "/var/lib/docker/volumes/weblogs/_data",
        "options": ["rbind", "rprivate"],
    }
    assert mounts["/run"]["options"] == ["noexec", "nosuid", "nodev"]
    assert mounts["/var/cache/nginx"]["options"] == ["noexec", "nosuid", "nodev", "size=16m", "mode=1777"]
    assert "size=67108864" in mounts["/dev/shm"]["options"]
    assert set(mounts) >= {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/sys", "/sys/fs/cgroup"}
    told = {(note.pointer, note.what) for note in result.notes}
    assert ("/linux/seccomp", "the engine's default profile") in told
    assert ("/linux/namespaces/1", "network bridge") in told
    assert any("/dev/nvidia0" in note.what for note in result.notes)


def capabilities(**changes: Any) -> set[str]:
    return set(host(**changes)["process"]["capabilities"]["bounding"])


def test_capabilities_are_added_and_dropped_as_docker_does() -> None:
    """ALL on either side, names with and without CAP_, in any case; --privileged is all that this host has."""
    assert capabilities(CapAdd=None, CapDrop=["ALL"]) == set()
    assert capabilities(CapAdd=["net_raw", "CAP_SYS_ADMIN"], CapDrop=["all"]) == {"CAP_NET_RAW", "CAP_SYS_ADMIN"}
    assert capabilities(CapAdd=["ALL"], CapDrop=["SYS_ADMIN"]) == HERE.capabilities - {"CAP_SYS_ADMIN"}
    assert capabilities(Privileged=True, CapDrop=["ALL"]) == HERE.capabilities


def test_privileged_means_all_of_it() -> None:
    """No masked or read-only paths, writable /sys and cgroups, every device allowed."""
    document = host(Privileged=True, MaskedPaths=None, ReadonlyPaths=None)
    linux, mounts = document["linux"], {each["destination"]: each for each in document["mounts"]}
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert "ro" not in mounts["/sys"]["options"] + mounts["/sys/fs/cgroup"]["options"]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"NanoCpus": 0, "CpuQuota": 2500, "CpuPeriod": 5000, "CpuShares": 0},
            {"quota": 2500, "period": 5000, "cpus": "0"},
        ),
        ({"NanoCpus": 1500000000, "CpuShares": 0, "CpusetCpus": ""}, {"quota": 150000, "period": 100000}),
        ({"NanoCpus": 0, "CpuShares": 0, "CpusetCpus": ""}, None),
    ],
)
def test_cpu_limits(changes: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """NanoCpus, quota with period, or nothing."""
    assert host(**changes)["linux"]["resources"].get("cpu") == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (0, None), (-1, {"limit": -1}), (5, {"limit": 5})])
def test_pids_limit(limit: int | None, expected: dict[str, int] | None) -> None:
    """Absent and 0 are no limit of ours, -1 is unlimited by wish."""
    assert host(PidsLimit=limit)["linux"]["resources"].get("pids") == expected


def test_namespaces_of_the_host_and_of_others() -> None:
    """host: no namespace; container:ID: a new one and a note; hostname only with a namespace of its own."""
    result = translated(HostConfig__NetworkMode="host", HostConfig__PidMode="container:abc", HostConfig__UTSMode="host")
    kinds = [each["type"] for each in result.document["linux"]["namespaces"]]
    assert kinds == ["mount", "pid", "ipc", "cgroup"]
    assert "hostname" not in result.document
    assert any(note.what == "pid of container:abc" for note in result.notes)


@pytest.mark.parametrize(
    ("parent", "path"),
    [("/mine", "/mine/{}"), ("mine.slice", "mine.slice:docker:{}"), ("", None)],
)
def test_cgroup_parent(parent: str, path: str | None) -> None:
    """A slice makes a path for systemd; no parent leaves the place to the runtime, for the driver is not told."""
    document = host(CgroupParent=parent)
    container = json.loads((DATA / "docker.json").read_text())[0]["Id"]
    assert document["linux"].get("cgroupsPath") == (path.format(container) if path else None)


def test_binds_of_a_container_that_has_no_mounts_yet() -> None:
    """Binds and --mount stand in where Mounts says nothing; a mount over /dev hides the engine's below it."""
    result = translated(
        Mounts=[{"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True, "Propagation": ""}],
        HostConfig__Binds=["/a:/b:ro,z,rshared", "volume:/c", "/dev:/dev"],
        HostConfig__Mounts=[{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 511}}],
        HostConfig__Tmpfs={"/x": "exec,size=1m"},
    )
    mounts = {each["destination"]: each for each in result.document["mounts"]}
    assert mounts["/b"]["options"] == ["rbind", "ro", "rshared"]
    assert mounts["/t"]["options"] == ["noexec", "nosuid", "nodev", "size=4096", "mode=777"]
    assert mounts["/x"]["options"] == ["nosuid", "nodev", "exec", "size=1m"]
    assert "/c" not in mounts
    assert mounts["/dev"]["type"] == "bind"
    assert not {"/dev/pts", "/dev/shm", "/dev/mqueue"} & set(mounts)


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (["seccomp=unconfined"], lambda d, notes: not [n for n in notes if n.pointer == "/linux/seccomp"]),
        (["seccomp={}"], lambda d, notes: [n for n in notes if n.what == "a profile of its own"]),
        (["no-new-privileges:true"], lambda d, notes: d["process"]["noNewPrivileges"] is True),
        (["no-new-privileges=false"], lambda d, notes: d["process"]["noNewPrivileges"] is False),
        ([], lambda d, notes: "noNewPrivileges" not in d["process"]),
    ],
)
def test_security_options(options: list[str], check: Any) -> None:
    """Both separators are read; what is not in the output is a note, never silence."""
    result = translated(HostConfig__SecurityOpt=options)
    assert check(result.document, result.notes)


def test_path_wins_over_entrypoint() -> None:
    """Path and Args are what the engine ran; without them Entrypoint and Cmd are joined, podman's string too."""
    assert translated(Path="", Args=[]).document["process"]["args"][0] == "/docker-entrypoint.sh"
    changes = {"Path": "", "Args": [], "Config__Entrypoint": "/bin/sh", "Config__Cmd": ["-c", "x"]}
    assert translated(**changes).document["process"]["args"] == ["/bin/sh", "-c", "x"]


def test_podman_tells_its_capabilities() -> None:
    """EffectiveCaps and BoundingCaps are what came out, so they are taken as they are."""
    evidence = seen(DATA / "podman.json")
    assert evidence.config is not None
    theirs = json.loads((DATA / "podman-config.json").read_text())["process"]["capabilities"]
    assert evidence.config.get("/process/capabilities") == theirs


def test_a_domain_name_needs_a_newer_version() -> None:
    """The version is the oldest that the translated fields need."""
    assert translated().document["ociVersion"] == "1.0.2"
    assert translated(Config__Domainname="example.com").document["ociVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3,7", {0, 1, 2, 3, 7}), ("5", {5}), ("x", None), ("", None), ("1-", {1}), ("0-99999999999", None)],
)
def test_lists_of_cpus(text: str, numbers: set[int] | None) -> None:
    """The kernel's list format; what is none, or absurdly long, is None."""
    assert parse_list(text) == numbers


def test_a_note_says_what_and_why() -> None:
    """Findings of the translation have the same shape as those of the config."""
    assert all(isinstance(note, HostPart) and note.what and note.why for note in translated().notes)
