"""What is unpacked, and what is refused before a byte of it is written."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from qoq_lib.data.fetch import FetchError, archives
from qoq_lib.data.fetch.archives import unpack


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    mode = {"tgz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}.get(path.name.split(".")[-1], "w")
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.xz", "a.tar.bz2"])
def test_files_arrive_with_their_sizes(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    archive = make(tmp_path / name, {"top/a/1.txt": b"one", "top/2.txt": b""})
    assert unpack(archive, tmp_path / "out") == {"top/a/1.txt": 3, "top/2.txt": 0}
    assert (tmp_path / "out" / "top/a/1.txt").read_bytes() == b"one"
    assert unpack(archive, tmp_path / "flat", strip=1) == {"a/1.txt": 3, "2.txt": 0}
    assert files_below(tmp_path / "flat") == ["2.txt", "a/1.txt"]


def test_the_shadow_files_of_macos_are_left_out(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"x/1.jpg": b"1", "__MACOSX/x/._1.jpg": b"junk"})
    assert list(unpack(archive, tmp_path / "out")) == ["x/1.jpg"]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, name: str, suffix: str) -> None:
    make = make_zip if suffix == "zip" else make_tar
    archive = make(tmp_path / f"a.{suffix}", {"good.txt": b"1", name: b"evil"})
    with pytest.raises(FetchError, match="evil.txt', which leads out of its folder"):
        unpack(archive, tmp_path / "out")
    assert files_below(tmp_path) == [archive.name]


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    special = [
        link("x", "/etc/passwd"),
        link("x", "good.txt"),
        link("x", "../../etc/passwd", tarfile.LNKTYPE),
        link("x", "", tarfile.FIFOTYPE),
        link("x", "", tarfile.CHRTYPE),
    ]
    for info in special:
        archive = make_tar(tmp_path / "a.tar", {"good.txt": b"1"}, info)
        with pytest.raises(FetchError, match="'x', which is a (link|device): only plain files"):
            unpack(archive, tmp_path / "out")
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.txt", b"1")
        archive.writestr(info, "/etc")
    with pytest.raises(FetchError, match="'x', which is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not files_below(tmp_path / "out")


def test_a_link_that_lies_in_the_folder_leads_nothing_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    archive = make_zip(tmp_path / "a.zip", {"images/1.png": b"1"})
    with pytest.raises(
        FetchError, match=r"'images/1\.png' through a link out of .*remove the link"
    ):
        unpack(archive, tmp_path / "out")
    assert not files_below(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_a_bomb_is_refused_before_it_swells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 1000)
    make = make_zip if name.endswith("zip") else make_tar
    zeros = {f"{n}.raw": bytes(1 << 20) for n in range(3)}
    with pytest.raises(FetchError, match="it looks like a bomb and is not unpacked"):
        unpack(make(tmp_path / name, zeros), tmp_path / "out")
    assert not files_below(tmp_path / "out")
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 4 << 20)  # the same is no bomb if small
    assert len(unpack(tmp_path / name, tmp_path / "out")) == 3


def test_a_bomb_of_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    archive = make_zip(tmp_path / "a.zip", {f"{n}": b"" for n in range(4)})
    with pytest.raises(FetchError, match="more than 3 files"):
        unpack(archive, tmp_path / "out")


def test_a_member_that_is_longer_than_it_says_is_damage(tmp_path: Path) -> None:
    """A bomb may lie about its size: no more comes out than was announced and allowed."""
    archive = make_zip(tmp_path / "a.zip", {"x.raw": bytes(100_000)})
    content = archive.read_bytes()
    archive.write_bytes(
        content.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    )
    with pytest.raises(FetchError, match=r"a\.zip is damaged \(BadZipFile\)"):
        unpack(archive, tmp_path / "out")
    assert not files_below(tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar.xz", "a.tar"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.9])
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, name: str, kept: float) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    noise = bytes(hash((n, "noise")) % 256 for n in range(30_000))
    archive = make(tmp_path / name, {"x.raw": noise})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * kept)] if name != "a.tar" else noise)
    with pytest.raises(FetchError, match=r"is damaged \(\w+\): delete it and fetch again"):
        unpack(archive, tmp_path / "out")
    assert not files_below(tmp_path / "out")


def test_an_encrypted_or_ambiguous_archive_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"x": b"1"})
    content = bytearray(archive.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(FetchError, match="'x', which is encrypted"):
        unpack(archive, tmp_path / "out")
    archive = make_zip(tmp_path / "b.zip", {"a/x": b"1", "b/x": b"2"})
    with pytest.raises(FetchError, match="holds 'x' twice"):
        unpack(archive, tmp_path / "out", strip=1)
    with pytest.raises(FetchError, match="its layout has changed"):
        unpack(archive, tmp_path / "out", strip=2)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    archive = make_zip(tmp_path / "a.zip", {"x": b"123"})
    with pytest.raises(FetchError, match=r"needs 0\.0 GB unpacked .* free the disk"):
        unpack(archive, tmp_path / "out")
