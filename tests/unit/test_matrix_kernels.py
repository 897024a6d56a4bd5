"""Kernels by name and by path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.compat.kernels import PACKAGE, cache_directory, cached, find, is_named, release_of
from harness.errors import InputError


def boot_image(version: str) -> bytes:
    """The head of a bzImage with this version text (Documentation/arch/x86/boot.rst)."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x400).to_bytes(2, "little")
    text = version.encode() + b"\0"
    head[0x600 : 0x600 + len(text)] = text
    return bytes(head)


def fetched(cache: Path, release: str, depmod: bool = True) -> None:
    modules = cache / "kernels" / release / "lib/modules" / release
    modules.mkdir(parents=True)
    (cache / "kernels" / release / "boot").mkdir()
    (cache / "kernels" / release / f"boot/vmlinuz-{release}").write_bytes(boot_image(release))
    if depmod:
        (modules / "modules.dep").touch()


@pytest.mark.parametrize(
    ("name", "fits"),
    [("6.1", True), ("6.1.0", True), ("6.1.0-56", True), ("6.1.0-56-amd64", True), ("6.1.0-5", False), ("6", True)],
)
def test_a_name_is_the_beginning_of_a_release_up_to_a_whole_number(name: str, fits: bool) -> None:
    assert is_named("6.1.0-56-amd64", name) is fits


def test_6_1_is_not_6_12() -> None:
    assert not is_named("6.12.117+deb12-amd64", "6.1")


@pytest.mark.parametrize("package", ["linux-image-6.1.0-56-amd64", "linux-image-6.12.117+deb12-amd64"])
def test_a_package_name_has_its_release(package: str) -> None:
    match = PACKAGE.fullmatch(package)
    assert match is not None
    assert f"linux-image-{match[1]}-amd64" == package


def test_the_release_is_read_from_the_boot_image(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(boot_image("6.9.3-custom (me@there) #1 SMP"))
    assert release_of(tmp_path / "vmlinuz") == "6.9.3-custom"


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(600), boot_image("")])
def test_what_is_no_boot_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(InputError, match="boot image") as raised:
        release_of(tmp_path / "it")
    assert str(tmp_path / "it") in str(raised.value)


def test_a_boot_image_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vmlinuz: No such file"):
        find(f"{tmp_path}/vmlinuz", tmp_path)


def test_the_newest_that_fits_is_taken_and_a_half_unpacked_one_is_not_there(tmp_path: Path) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.1-amd64"):
        fetched(tmp_path, release)
    fetched(tmp_path, "6.1.0-11-amd64", depmod=False)
    assert [kernel.release for kernel in cached(tmp_path)] == ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.1-amd64"]
    assert find("6.1", tmp_path).release == "6.1.0-10-amd64"


def test_a_kernel_that_was_not_fetched_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"oci-harness kernels fetch 6\.1"):
        find("6.1", tmp_path)


def test_modules_by_path_must_have_been_through_depmod(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(boot_image("6.9.3"))
    (tmp_path / "lib/modules/6.9.3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"modules\.dep"):
        find(f"{tmp_path}/vmlinuz:{tmp_path}/lib/modules", tmp_path)
    (tmp_path / "lib/modules/6.9.3/modules.dep").touch()
    assert find(f"{tmp_path}/vmlinuz:{tmp_path}/lib/modules", tmp_path).modules == tmp_path / "lib/modules/6.9.3"


def test_modules_beside_the_image_are_found_as_a_package_has_them(tmp_path: Path) -> None:
    fetched(tmp_path, "6.9.3")
    found = find(str(tmp_path / "kernels/6.9.3/boot/vmlinuz-6.9.3"), tmp_path)
    assert found.modules == tmp_path / "kernels/6.9.3/lib/modules/6.9.3"


def test_host_is_the_kernel_that_runs_here(tmp_path: Path) -> None:
    assert find("host", tmp_path).release == os.uname().release


def test_the_cache_is_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OCI_HARNESS_CACHE", raising=False)
    assert cache_directory() == tmp_path / "oci-harness"
    monkeypatch.setenv("OCI_HARNESS_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    assert cache_directory(tmp_path / "given") == tmp_path / "given"
