"""`bundle create --from`: hostile images are refused whole, and what came from other hosts runs here."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import images
import prctl
import pytest
from actors import Answer, CommandLine, until
from images import HOSTILE, Hostile, directory, entry, symlink, tar, write_layout

from harness.cli.entry import COMMANDS
from harness.cli.group import run as run_command
from harness.process.children import become_subreaper

ARCHITECTURE = images.ARCHITECTURES[platform.machine()]
DATA = Path(__file__).parents[1] / "data" / "inspect"
LIMITS = ("--max-size", "64M", "--max-entries", "2000")


def need(*names: str) -> None:
    """Skip without these programs; fail when HARNESS_REQUIRE demands them."""
    absent = {name for name in names if shutil.which(name) is None}
    demanded = absent & set(os.environ.get("HARNESS_REQUIRE", "").split(","))
    if demanded:
        pytest.fail(f"HARNESS_REQUIRE demands {', '.join(sorted(demanded))}, not on this host")
    if absent:
        pytest.skip(f"needs {', '.join(sorted(absent))}")


@pytest.fixture(scope="module", autouse=True)
def somebody_else_reaps() -> Iterator[None]:
    """As on any host: orphans of commands and of podman go to the host's init, not to the tests."""
    become_subreaper()  # now, so that no command that is run in this process does
    prctl.set_child_subreaper(False)
    yield
    prctl.set_child_subreaper(True)


@pytest.fixture(autouse=True)
def _needs(require: Callable[..., None]) -> None:
    require("root", "busybox")


def here(*args: str) -> Answer:
    """The command in this process: its status and what it prints, without the time that Python takes to start."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = run_command(list(args), COMMANDS)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Answer(status, out.getvalue(), err.getvalue())


def described(root: Path) -> list[tuple[str, int, int, bytes]]:
    """Everything below `root`: path, mode, time of change, content."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), status.st_mode, 0 if path.is_dir() else status.st_mtime_ns, content))
    return found


def refused(place: Path, source: Path, *args: str) -> str:
    """Make a bundle of something hostile: status 2, one line, and nothing in `place` is other than before."""
    (place / "canary").write_text("safe")
    before = described(place)
    answer = here("bundle", "create", str(place / "bundle"), "--from", str(source), *LIMITS, *args)
    assert answer.status == 2, answer
    assert described(place) == before
    assert answer.stdout == ""
    return answer.error


# -- hostile images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_layer_makes_no_bundle(tmp_path: Path, hostile: Hostile) -> None:
    """Status 2, one line that names the fault, nothing changed outside, nothing left behind."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", hostile.layers, architecture=ARCHITECTURE)
    assert hostile.says in refused(tmp_path, layout)


def test_umoci_alone_would_leave_its_directory(tmp_path: Path) -> None:
    """What the looking through is for: umoci 0.4 removes the parent of its root for one of these layers."""
    need("umoci")
    layout = write_layout(tmp_path / "image", HOSTILE["whiteout-of-the-parent"].layers, architecture=ARCHITECTURE)
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/canary").write_text("safe")
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:latest", f"{tmp_path}/outer/rootfs"]
    subprocess.run(command, capture_output=True, check=False)
    if (tmp_path / "outer/canary").exists():
        pytest.skip("this umoci has been mended")
    assert not (tmp_path / "outer").exists()


def _foreign(config: dict[str, Any], manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["urls"] = ["https://example.com/layer"]


def _fewer_diffs(config: dict[str, Any], manifest: dict[str, Any]) -> None:
    config["rootfs"]["diff_ids"] = []


def _wrong_diff(config: dict[str, Any], manifest: dict[str, Any]) -> None:
    config["rootfs"]["diff_ids"] = [f"sha256:{'0' * 64}"]


def _wrong_type(config: dict[str, Any], manifest: dict[str, Any]) -> None:
    config["config"] = {"Env": "PATH=/bin"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_foreign, "layer 1 is to be fetched from elsewhere"),
        (_fewer_diffs, "1 layers in its manifest, but 0 in its config"),
        (_wrong_diff, "umoci refuses it: "),
        (_wrong_type, "Expected `array | null`, got `str` - at `$.config.Env`"),
    ],
)
def test_a_manifest_that_does_not_add_up(tmp_path: Path, change: Callable[..., None], says: str) -> None:
    """Foreign layers, unknown compressions, diff ids that are not those of the layers, wrong types: refused."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE, change=change)
    assert says in refused(tmp_path, layout)


def test_a_blob_that_is_not_what_its_digest_says(tmp_path: Path) -> None:
    """One changed byte in a layer is found."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE)
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes().replace(b"0000644", b"0004755"))
    assert "skopeo refuses it" in refused(tmp_path, layout)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_a_layout_of_links_and_pipes(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A layout holds files: a link to a file of the host, or a pipe that would hang the reader, is refused."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE)
    make(layout / "blobs/sha256" / ("0" * 64))
    assert "is neither a file nor a directory" in refused(tmp_path, layout)


def test_an_image_for_other_platforms_only(tmp_path: Path) -> None:
    """A list without this host's platform is refused; --platform takes one of it, and says what will come of it."""
    need("skopeo", "umoci")

    def others(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**each, "platform": {"os": "linux", "architecture": "s390x"}} for each in manifests]

    layer = tar(directory("bin"), entry("bin/true", data=b"x", mode=0o755))
    inner = write_layout(tmp_path / "inner", (layer,), architecture="s390x", process={"Cmd": ["/bin/true"]})
    listed = others(json.loads((inner / "index.json").read_text())["manifests"])
    index_type = "application/vnd.oci.image.index.v1+json"
    nested = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": listed}).encode()
    top = {"mediaType": index_type, **images.write_blob(inner, nested)}
    (inner / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    assert "skopeo refuses it" in refused(tmp_path, inner)
    made = here("bundle", "create", f"{tmp_path}/b", "--from", str(inner), "--platform", "linux/s390x", "--json")
    assert made.status == 0, made
    assert made.json["image"]["platform"] == "linux/s390x"
    assert any("exec format error" in finding["why"] for finding in made.json["findings"])


@pytest.mark.parametrize(
    ("further", "says"),
    [
        (entry("../canary", data=b"x"), "leads outside of the archive"),
        (entry("/canary", data=b"x"), "leads outside of the archive"),
        (symlink("blobs/sha256/evil", "/etc/passwd"), "neither a file nor a directory"),
        (images.hard_link("evil", "/etc/passwd"), "neither a file nor a directory"),
        (entry("evil", tarfile.CHRTYPE, devmajor=1, devminor=1), "neither a file nor a directory"),
        (entry("index.json", data=b"{}"), "it is in the archive twice"),
        (symlink("a/layer.tar", "../../../etc/passwd"), "neither a file nor a directory"),
        (entry("large", data=bytes(images.BIG)), "it unpacks to more than"),
        (entry("a\nb"), "control character"),
    ],
)
def test_a_hostile_archive(tmp_path: Path, further: tuple[tarfile.TarInfo, bytes], says: str) -> None:
    """The archive around the layers is looked through as well, before skopeo sees it."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE)
    archive = images.pack(layout, tmp_path / "image.tar", further)
    assert says in refused(tmp_path, archive)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("rootfs.tar", tar(entry("bin/sh")), "a tar, but no image"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
        ("a.tar.gz", b"\x1f\x8b" + bytes(600), "damaged"),
        ("program", b"\x7fELF" + bytes(600), "cannot tell what it is"),
        ("empty", b"", "cannot tell what it is"),
        ("images.tar", tar(entry("manifest.json", data=b"[]")), "no list of images"),
        ("docker.tar", tar(entry("manifest.json", data=b"[{}, {}]")), "2 images in it; name one"),
        ("deep.tar", tar(entry("manifest.json", data=b"[" * 5000)), "deeper"),
        ("huge.tar", tar(entry("manifest.json", data=b" " * 2_000_000)), "an extended header of"),
    ],
)
def test_a_file_that_is_no_image(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    """What is no image is told in one line, with what it is where that can be seen."""
    (tmp_path / name).write_bytes(data)
    assert says in refused(tmp_path, tmp_path / name)


def test_several_images_need_a_name(tmp_path: Path) -> None:
    """An image of several is chosen as PATH:TAG; without one the tags are listed."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE, tags=("1.0", "2.0"))
    assert "2 images in it; name one: 1.0, 2.0" in refused(tmp_path, layout)
    assert "no image '3' in it; there are 1.0, 2.0" in refused(tmp_path, Path(f"{layout}:3"))
    assert here("bundle", "create", f"{tmp_path}/b", "--from", f"{layout}:2.0").status == 0
    archive = images.pack(layout, tmp_path / "image.tar")
    assert here("bundle", "create", f"{tmp_path}/c", "--from", f"{archive}:1.0").status == 0


@pytest.mark.parametrize("tool", ["skopeo", "umoci"])
def test_a_missing_tool_names_its_package(tmp_path: Path, cli: CommandLine, tool: str) -> None:
    """Without skopeo or umoci: status 3 and one line that says what to install."""
    need("skopeo", "umoci")
    layout = write_layout(tmp_path / "image", (tar(entry("a")),), architecture=ARCHITECTURE)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {"skopeo", "umoci"} - {tool}:
        (tools / name).symlink_to(shutil.which(name) or "")
    answer = cli("bundle", "create", f"{tmp_path}/b", "--from", str(layout), env={**os.environ, "PATH": str(tools)})
    assert answer.status == 3
    assert f"apt-get install {tool}" in answer.error
    assert not (tmp_path / "b").exists()


def test_the_tools_can_write_to_one_directory_only(tmp_path: Path) -> None:
    """In the confinement everything else is read-only, whatever a tool is made to do."""
    from harness.errors import InputError
    from harness.oci.confinement import Confinement

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    with Confinement(inside) as confinement:
        confinement.run(["sh", "-c", "echo x > file"], about="test")
        for place in (outside, Path("/tmp"), Path("/etc"), Path("/dev/shm")):
            with pytest.raises(InputError, match="Read-only file system"):
                confinement.run(["sh", "-c", f"echo x > {place}/oci-harness-test"], about="test")
    assert (inside / "file").read_text() == "x\n"
    (outside / "file").write_text("the host itself is as before")


def test_killed_in_the_middle(tmp_path: Path, cli: CommandLine) -> None:
    """Ctrl-C leaves nothing; after SIGKILL the bundle is not there, and the next run removes what was begun."""
    need("skopeo", "umoci")
    layer = tar(entry("a", data=os.urandom(150_000_000)))
    layout = write_layout(tmp_path / "image", (layer,), architecture=ARCHITECTURE)
    place = tmp_path / "place"
    place.mkdir()
    for number in (signal.SIGINT, signal.SIGKILL):
        process = cli.start("bundle", "create", f"{place}/b", "--from", str(layout))
        until(lambda: any(place.glob(".oci-harness-bundle-*/image")), "the work has begun")
        process.send_signal(number)
        process.wait(timeout=20)
        assert not (place / "b").exists()
        assert len(list(place.iterdir())) == (number == signal.SIGKILL)
    assert here("bundle", "create", f"{place}/b").status == 0
    assert [path.name for path in place.iterdir()] == ["b"]


# -- what runs ---------------------------------------------------------------------------------------------------------


def bundle_runs(cli: CommandLine, runtime: str, bundle: Path) -> Answer:
    """Run it; the harness leaves no container behind by itself."""
    answer = cli("run", "--runtime", runtime, "--bundle", str(bundle), f"from-{os.getpid()}")
    assert answer.status == 0, answer
    return answer


@pytest.fixture(scope="module")
def busybox_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox image, made by umoci from a directory as people do it."""
    need("umoci", "skopeo", "busybox")
    place = tmp_path_factory.mktemp("busybox")
    rootfs = place / "rootfs"
    for name in ("bin", "etc", "srv"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", rootfs / "bin/busybox")
    for name in ("sh", "id", "pwd", "cat"):
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    layout = f"{place}/layout"
    config = ["--config.entrypoint", "/bin/sh", "--config.cmd=-c", "--config.cmd", "id; pwd; echo $FOO"]
    config += [
        "--config.env",
        "FOO=bar",
        "--config.env",
        "PATH=/bin",
        "--config.workingdir",
        "/srv",
        "--config.user",
        "app",
    ]
    for command in (
        ["umoci", "init", "--layout", layout],
        ["umoci", "new", "--image", f"{layout}:box"],
        ["umoci", "insert", "--image", f"{layout}:box", str(rootfs), "/"],
        ["umoci", "config", "--image", f"{layout}:box", *config],
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:box", f"oci-archive:{place}/oci.tar:box"],
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:box", f"docker-archive:{place}/docker.tar:box:1"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return place


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("name", ["layout", "oci.tar", "docker.tar"])
def test_an_image_becomes_a_bundle_that_runs(
    cli: CommandLine, tmp_path: Path, busybox_layout: Path, name: str, runtime: str
) -> None:
    """A layout and both kinds of archive: user, groups, directory, command and environment are those of the image."""
    need(runtime)
    made = here("bundle", "create", f"{tmp_path}/b", "--from", str(busybox_layout / name), "--json")
    assert made.status == 0, made
    assert made.json["kind"] == made.json["rootfs"]["how"] == "image"
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700
    lines = bundle_runs(cli, runtime, tmp_path / "b").stdout.splitlines()
    assert lines == ["uid=1000(app) gid=1001(app) groups=2000(extra)", "/srv", "bar"]


@pytest.mark.parametrize("runtime", ["runc", "crun", "runsc"])
@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.json")))
def test_what_a_cluster_says_runs_here(cli: CommandLine, tmp_path: Path, name: str, runtime: str) -> None:
    """Each recorded inspect output, though its namespaces, sources and labels are gone, runs with --portable."""
    need(runtime)
    made = here("bundle", "create", f"{tmp_path}/b", "--from", str(DATA / f"{name}.json"), "--portable", "--json")
    assert made.status == 0, made
    assert made.json["rootfs"]["how"] == "synthesized"
    assert here("bundle", "validate", f"{tmp_path}/b").status == 0
    bundle_runs(cli, runtime, tmp_path / "b")


def test_limits_of_the_pod_are_kept(cli: CommandLine, tmp_path: Path) -> None:
    """The container of a pod whose pause process is dead gets the pod's memory, CPU and pids limits."""
    need("runc")
    assert (
        here("bundle", "create", f"{tmp_path}/b", "--from", f"{DATA}/crictl-containerd.json", "--portable").status == 0
    )
    config = json.loads((tmp_path / "b/config.json").read_text())
    config["process"]["args"] = ["/app/server", "pause"]
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    name = f"from-{os.getpid()}"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the container holds them
    created = cli("create", "--runtime", "runc", "--bundle", f"{tmp_path}/b", name, **silent)
    try:
        assert created.status == 0
        seen = cli("state", name, "--json").json["snapshot"]["cgroup"]["statistics"]
    finally:
        cli("delete", "--force", name)
    limits = (seen["memory"]["limit_bytes"], seen["cpu"]["quota_usec"], seen["pids"]["limit"])
    assert limits == (268435456, 50000, 1024)


def test_without_portable_the_runtime_fails_as_the_node_did(cli: CommandLine, tmp_path: Path) -> None:
    """The same evidence without --portable keeps everything as it was, lists it, and fails in the same words."""
    need("runc")
    made = here("bundle", "create", f"{tmp_path}/b", "--from", f"{DATA}/crictl-containerd.json", "--json")
    assert made.json["replacements"] == []
    pointers = {finding["pointer"] for finding in made.json["findings"]}
    assert {
        "/linux/namespaces/1/path",
        "/linux/cgroupsPath",
        "/process/apparmorProfile",
        "/hooks/createRuntime/0",
    } <= pointers
    kept = json.loads((tmp_path / "b/config.json").read_text())
    given = json.loads((DATA / "crictl-containerd.json").read_text())["info"]["runtimeSpec"]
    assert kept == given
    assert here("bundle", "create", f"{tmp_path}/c", "--from", f"{DATA}/ctr.json").status == 0
    answer = cli("run", "--runtime", "runc", "--bundle", f"{tmp_path}/c", f"from-{os.getpid()}")
    assert answer.status == 4
    assert 'error mounting "/nope/missing" to rootfs at "/mnt"' in answer.stderr


def test_a_bundle_takes_its_own_files_along(cli: CommandLine, tmp_path: Path) -> None:
    """A bundle made with --portable has relative sources: one made of it has them too, and still runs."""
    need("runc")
    source = f"{DATA}/docker.json"
    assert here("bundle", "create", f"{tmp_path}/a", "--from", source, "--portable").status == 0
    assert here("bundle", "create", f"{tmp_path}/b", "--from", f"{tmp_path}/a").status == 0
    shutil.rmtree(tmp_path / "a")
    names = sorted(path.name for path in (tmp_path / "b/mounts").iterdir())
    assert any(name.endswith("-nginx.conf") for name in names)
    bundle_runs(cli, "runc", tmp_path / "b")


def test_a_user_namespace_owns_its_files(cli: CommandLine, tmp_path: Path) -> None:
    """With id mappings the synthesized files belong to the container's root, so that it can use them."""
    need("runc")
    spec = json.loads((DATA / "ctr.json").read_text())["Spec"]
    spec["linux"]["namespaces"].append({"type": "user"})
    for name in ("uidMappings", "gidMappings"):
        spec["linux"][name] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    assert here("bundle", "create", f"{tmp_path}/b", "--from", f"{tmp_path}/spec.json", "--portable").status == 0
    assert (tmp_path / "b/rootfs/bin/sleep").stat().st_uid == 200000
    bundle_runs(cli, "runc", tmp_path / "b")


PODMAN_OPTIONS = (
    *("--network", "none", "-e", "A=b", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--read-only"),
    *("--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--ulimit", "nofile=100:200", "--oom-score-adj", "100"),
    *("--device", "/dev/null:/dev/mynull", "--hostname", "foo", "--tmpfs", "/scratch:size=1m"),
)


@pytest.fixture(scope="module")
def podman(busybox_layout: Path) -> Iterator[tuple[Path, Path]]:
    """The inspect output and the config.json of a real podman container."""
    need("podman", "runc")
    place = Path(tempfile.mkdtemp(prefix="podman-"))  # podman takes no --runroot of more than 50 characters
    command = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
    command += ["--cgroup-manager", "cgroupfs", "--runtime", "runc"]  # and nothing of the host's own storage

    def call(*args: str, check: bool = True) -> str:
        return subprocess.run([*command, *args], check=check, capture_output=True, text=True, timeout=60).stdout

    call("load", "-i", f"{busybox_layout}/docker.tar")
    (place / "volume").mkdir()
    call("create", "--name", "box", *PODMAN_OPTIONS, "-v", f"{place}/volume:/mnt:ro", "box:1")
    call("init", "box", check=False)  # writes config.json; that host limits forbid the rest is what we are here for
    (place / "inspect.json").write_text(call("inspect", "box"))
    found = next((place / "root").glob("*-containers/*/userdata/config.json"))
    shutil.copy(found, place / "config.json")
    yield place / "inspect.json", place / "config.json"
    call("rm", "-f", "box", check=False)
    shutil.rmtree(place)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("number", [0, 1], ids=["inspect", "config"])
def test_a_podman_container_runs_without_podman(
    cli: CommandLine, tmp_path: Path, podman: tuple[Path, Path], busybox_layout: Path, number: int, runtime: str
) -> None:
    """What podman says of a container runs, and what it hands to a runtime, as the same user in the same place."""
    need(runtime)
    rootfs = ("--rootfs", f"{busybox_layout}/oci.tar") if number == 0 else ()
    made = here("bundle", "create", f"{tmp_path}/b", "--from", str(podman[number]), *rootfs, "--portable", "--json")
    assert made.status == 0, made
    assert made.json["kind"] == ("podman", "runtime-spec")[number]
    lines = bundle_runs(cli, runtime, tmp_path / "b").stdout.splitlines()
    assert lines[0].startswith("uid=1000(app) gid=1001(app) groups=")
    assert "2000(extra)" in lines[0]
    assert lines[1:] == ["/srv", "bar"]


def test_the_translation_says_what_podman_says(tmp_path: Path, podman: tuple[Path, Path], busybox_layout: Path) -> None:
    """From inspect alone: command, capabilities, limits, namespaces and mounts as in podman's own config.json."""
    made = here("bundle", "create", f"{tmp_path}/b", "--from", str(podman[0]), "--rootfs", f"{busybox_layout}/oci.tar")
    assert made.status == 0, made
    ours = json.loads((tmp_path / "b/config.json").read_text())
    theirs = json.loads(podman[1].read_text())
    for name in ("args", "cwd", "oomScoreAdj"):
        assert ours["process"][name] == theirs["process"][name], name
    # podman adds HOME, runtimes do if it is not there
    assert [each for each in theirs["process"]["env"] if not each.startswith("HOME=")] == ours["process"]["env"]
    assert {k: sorted(v) for k, v in ours["process"]["capabilities"].items()} == {
        k: sorted(v) for k, v in theirs["process"]["capabilities"].items()
    }
    assert ours["process"]["rlimits"] == theirs["process"]["rlimits"]
    assert (ours["process"]["user"]["uid"], ours["process"]["user"]["gid"]) == (1000, 1001)
    assert ours["hostname"] == theirs["hostname"]
    assert ours["root"]["readonly"] == theirs["root"]["readonly"]
    for name in ("memory", "cpu", "pids"):
        assert ours["linux"]["resources"][name] == theirs["linux"]["resources"][name], name
    assert {each["type"] for each in ours["linux"]["namespaces"]} == {
        each["type"] for each in theirs["linux"]["namespaces"]
    }
    assert [each["path"] for each in ours["linux"]["devices"]] == [each["path"] for each in theirs["linux"]["devices"]]
    # the engine's files for these exist, and are told, only while it runs
    destinations = [{each["destination"] for each in config["mounts"]} for config in (ours, theirs)]
    assert destinations[0] == destinations[1] - {
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/run/.containerenv",
    }


def test_a_hostile_bundle_copies_nothing_out(tmp_path: Path) -> None:
    """A relative source that climbs out through a link is named by its whole path, and nothing is written outside."""
    source = tmp_path / "source"
    (source / "p/q/r").mkdir(parents=True)
    (source / "p/x").write_text("x")
    (source / "a").symlink_to("p/q/r")
    mounts = [
        {"destination": "/m", "type": "bind", "options": ["bind"], "source": each}
        for each in ("a/../../x", "../y", ".")
    ]
    (tmp_path / "y").write_text("y")
    spec = {"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["/x"]}, "root": {"path": "none"}, "mounts": mounts}
    (source / "config.json").write_text(json.dumps(spec))
    (tmp_path / "place").mkdir()
    assert here("bundle", "create", f"{tmp_path}/place/b", "--from", str(source)).status == 0
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["b"]
    made = json.loads((tmp_path / "place/b/config.json").read_text())
    assert [each["source"] for each in made["mounts"]] == ["mounts/0-x", f"{tmp_path}/y", str(source)]
    assert (tmp_path / "place/b/mounts/0-x").read_text() == "x"


def test_what_is_set_has_the_last_word(tmp_path: Path) -> None:
    """--portable leaves alone what --set has chosen, and what lies below it."""
    chosen = (
        "--set",
        '/linux/cgroupsPath="/mine"',
        "--set",
        '/linux/namespaces=[{"type": "network", "path": "/proc/1/ns/net"}]',
    )
    source = f"{DATA}/crictl-crio.json"
    made = here("bundle", "create", f"{tmp_path}/b", "--from", source, "--portable", *chosen, "--json")
    assert made.status == 0, made
    config = json.loads((tmp_path / "b/config.json").read_text())
    assert config["linux"]["cgroupsPath"] == "/mine"
    assert config["linux"]["namespaces"] == [{"type": "network", "path": "/proc/1/ns/net"}]
    assert not [
        each for each in made.json["replacements"] if each["pointer"].startswith(("/linux/cgroupsPath", "/linux/names"))
    ]


def test_a_rootfs_that_would_hold_the_bundle(tmp_path: Path) -> None:
    """A config whose root is / is refused: the copy would never end."""
    spec = {"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["/x"]}, "root": {"path": "/"}}
    (tmp_path / "config.json").write_text(json.dumps(spec))
    assert "contains the new bundle" in refused(tmp_path, tmp_path / "config.json")
