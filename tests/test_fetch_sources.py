"""Data sets fetched whole, from stand-ins of the hosts that hold them."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import Fault, FileServer
from test_fetch_archives import files_below, make_zip

from qoq_lib.data.fetch import (
    Fetched,
    FetchError,
    fetch,
    origins,
    registry,
    transfers,
)
from qoq_lib.data.fetch.origins import ByHand, Files, Origin, PhysioNet, Tcia
from qoq_lib.data.fetch.remote import RemoteFile, Unpack
from qoq_lib.data.sources.source import Source

LOGIN = f"Basic {base64.b64encode(b'me:my-secret').decode()}"

Declare = Callable[..., Source]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """Stands in for PhysioNet and TCIA; no credentials of the machine are looked at."""
    monkeypatch.setattr(transfers, "LONGEST_WAIT_S", 0.0)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("PHYSIONET_USERNAME", "PHYSIONET_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with FileServer().running() as server:
        monkeypatch.setattr(origins, "PHYSIONET", server.address)
        monkeypatch.setattr(origins, "TCIA", server.address)
        monkeypatch.setattr("qoq_lib.data.fetch.fetching.PHYSIONET_HOST", "127.0.0.1")
        yield server


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Declares where a data set comes from and gives its source, at ``<name>/`` below the root."""

    def declared(name: str, *ways: Origin) -> Source:
        monkeypatch.setitem(registry.ORIGINS, name, ways)
        return Source(name, "ecg", "none", ("a", "b"), (), folder=name)

    return declared


@pytest.fixture
def project(server: FileServer) -> dict[str, bytes]:
    """A PhysioNet project of four files with its list of checksums."""
    files = {"a.csv": b"1,2", "records/1.dat": b"\1\2", "records/2.dat": b"\3", "other/3.dat": b"4"}
    sums = "".join(f"{hashlib.sha256(body).hexdigest()} {name}\n" for name, body in files.items())
    server.files |= {f"/files/p/1.0/{name}": body for name, body in files.items()}
    server.files["/files/p/1.0/SHA256SUMS.txt"] = sums.encode()
    return files


def test_a_project_arrives_and_a_second_run_asks_for_what_is_missing(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    source = declare("ptb_xl", PhysioNet("p", "1.0", only=("a.csv", "records/*")))
    (done,) = fetch([source], tmp_path)
    assert (done.status, done.new, done.unchecked, done.ready) == ("complete", 4, 1, True)
    assert files_below(tmp_path / "ptb_xl") == [
        "SHA256SUMS.txt", "a.csv", "records/1.dat", "records/2.dat",
    ]  # fmt: skip
    server.requests.clear()
    assert fetch([source], tmp_path)[0].new == 0 and not server.requests
    (tmp_path / "ptb_xl/records/2.dat").unlink()
    assert fetch([source], tmp_path)[0].new == 1
    assert [one.path for one in server.requests] == ["/files/p/1.0/records/2.dat"]


def test_one_bad_file_does_not_keep_the_others_from_coming(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    server.files["/files/p/1.0/a.csv"] = b"1,3"
    sources = [declare("ptb_xl", PhysioNet("p", "1.0")), declare("busi", ByHand("ask", "*.png"))]
    with pytest.raises(
        FetchError, match=r"1 of 2 downloads .* ptb_xl: .*/a\.csv arrives with anot"
    ):
        fetch(sources, tmp_path)
    assert len(files_below(tmp_path / "ptb_xl")) == 4
    server.files["/files/p/1.0/a.csv"] = project["a.csv"]
    assert fetch(sources, tmp_path)[0].new == 1


def test_a_host_at_which_all_fails_is_left_alone(
    server: FileServer, declare: Declare, tmp_path: Path
) -> None:
    files = tuple(RemoteFile(server.url(f"/{n}"), f"{n}") for n in range(200))
    with pytest.raises(FetchError, match="5 files of busi failed. The first: .* is not there"):
        fetch([declare("busi", Files(files))], tmp_path)
    assert len(server.requests) < 50


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_the_users_own_login_opens_a_project_and_is_shown_nowhere(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path, where: str,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.logins["/files/p"] = LOGIN
    source = declare("mimic_cxr", PhysioNet("p", "1.0", "credentialed"))
    (done,) = fetch([source], tmp_path / "data")
    assert done.status == "to request" and not done.ready and "asks for a login" in done.note
    if where == "environment":
        monkeypatch.setenv("PHYSIONET_USERNAME", "me")
        monkeypatch.setenv("PHYSIONET_PASSWORD", "my-secret")
    else:
        (tmp_path / "netrc").write_text("machine physionet.org login me password my-secret\n")
    (done,) = fetch([source], tmp_path / "data")
    assert done.status == "complete" and done.new == 5
    written = [path.read_text(errors="replace") for path in (tmp_path / "data").rglob("*.*")
               if path.is_file()]  # fmt: skip
    shown = "".join([*capfd.readouterr(), repr(done), *written])
    assert "my-secret" not in shown and LOGIN not in shown


def test_a_wrong_login_and_an_unsigned_agreement_say_so(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PHYSIONET_USERNAME", "me")
    source = declare("vindr_cxr", PhysioNet("p", "1.0", "credentialed"))
    with pytest.raises(FetchError, match="Only one of PHYSIONET_USERNAME and PHYSIONET_PASSWORD"):
        fetch([source], tmp_path)
    monkeypatch.setenv("PHYSIONET_PASSWORD", "wrong")
    server.logins["/files/p"] = LOGIN
    assert "refuses the user name and password" in fetch([source], tmp_path)[0].note
    server.logins.clear()
    server.faults["/files/p/1.0/SHA256SUMS.txt"] = [Fault(403)]
    assert "request access and accept the terms" in fetch([source], tmp_path)[0].note


def test_a_folder_filled_by_hand_is_taken_as_it_is(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    source = declare("mimic_cxr", PhysioNet("p", "1.0", "credentialed"))
    server.logins["/files/p"] = LOGIN
    assert not fetch([source], tmp_path)[0].ready
    (tmp_path / "mimic_cxr" / "files").mkdir(parents=True)
    (tmp_path / "mimic_cxr" / "files" / "1.jpg").write_bytes(b"mine")
    server.requests.clear()
    (done,) = fetch([source], tmp_path)
    assert done.status == "put there by hand" and done.ready and not server.requests
    assert files_below(tmp_path / "mimic_cxr") == ["files/1.jpg"]


def test_a_file_that_is_there_is_checked_and_never_replaced(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    source = declare("ptb_xl", PhysioNet("p", "1.0"))
    fetch([source], tmp_path)
    (tmp_path / "ptb_xl" / "a.csv").write_bytes(b"edited")
    with pytest.raises(FetchError, match=r"a\.csv has another checksum than .*: delete it, and"):
        fetch([source], tmp_path)
    assert (tmp_path / "ptb_xl" / "a.csv").read_bytes() == b"edited"


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil"])
def test_a_listing_cannot_name_a_place_outside(
    server: FileServer, declare: Declare, tmp_path: Path, path: str
) -> None:
    server.files["/files/p/1.0/SHA256SUMS.txt"] = f"{'0' * 64} {path}\n".encode()
    with pytest.raises(FetchError, match=r"points out of its folder"):
        fetch([declare("ptb_xl", PhysioNet("p", "1.0"))], tmp_path)
    server.files["/files/p/1.0/SHA256SUMS.txt"] = b"<html>"
    with pytest.raises(FetchError, match="checksum|not a list"):
        fetch([declare("busi", PhysioNet("p", "1.0"))], tmp_path)


def test_nothing_is_written_through_a_link_out_of_the_folder(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    source = declare("ptb_xl", PhysioNet("p", "1.0", only=("a.csv",)))
    fetch([source], tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ptb_xl" / "records").symlink_to(tmp_path / "elsewhere")
    source = declare("ptb_xl", PhysioNet("p", "1.0"))
    with pytest.raises(FetchError, match=r"ptb_xl/records is a link out of .*: remove the link"):
        fetch([source], tmp_path)
    assert not files_below(tmp_path / "elsewhere")
    (tmp_path / "disk").mkdir()
    (tmp_path / "busi").symlink_to(tmp_path / "disk")  # the folder itself may be elsewhere
    assert fetch([declare("busi", PhysioNet("p", "1.0"))], tmp_path)[0].status == "complete"


def test_without_a_published_checksum_the_first_fetch_is_the_witness(
    server: FileServer, declare: Declare, tmp_path: Path
) -> None:
    server.files["/a.csv?key=my-secret"] = b"first"
    source = declare("cmmd", Files((RemoteFile(server.url("/a.csv?key=my-secret"), "a.csv"),)))
    (done,) = fetch([source], tmp_path)
    assert done.unchecked == 1
    (line,) = (tmp_path / ".fetched" / "cmmd.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "path": "a.csv", "bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest(),
        "origin": server.url("/a.csv"), "checked_by": "nothing", "archive": None, "unpacked": None,
    }  # fmt: skip
    server.files["/a.csv?key=my-secret"] = b"later"
    (tmp_path / "cmmd" / "a.csv").unlink()
    with pytest.raises(FetchError, match=r"its owner has replaced the file, delete its line"):
        fetch([source], tmp_path)


def test_archives_are_unpacked_and_fetched_again_for_a_lost_member(
    server: FileServer, declare: Declare, tmp_path: Path
) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"imgs_part_1/1.png": b"1"}).read_bytes()
    outer = {"images/imgs_part_1.zip": inner, "metadata.csv": b"x"}
    server.files["/a.zip"] = make_zip(tmp_path / "outer.zip", outer).read_bytes()
    unpack = Unpack(nested="images/imgs_part_*.zip")
    remote = RemoteFile(server.url("/a.zip"), "a.zip", unpack=unpack)
    source = declare("pad_ufes_20", Files((remote,)))
    root = tmp_path / "data"
    assert fetch([source], root)[0].new == 1
    assert files_below(root / "pad_ufes_20") == ["images/1.png", "metadata.csv"]
    assert fetch([source], root)[0].new == 0
    (root / "pad_ufes_20" / "images" / "1.png").unlink()
    assert fetch([source], root)[0].new == 1 and len(server.requests) == 2
    assert files_below(root / "pad_ufes_20") == ["images/1.png", "metadata.csv"]


def test_a_table_that_was_fetched_may_list_further_files(
    server: FileServer, declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = json.dumps([{"case_id": "case_00000"}, {"case_id": "case_00401"}]).encode()
    archive = {"kits23-main/dataset/kits23.json": cases, "kits23-main/README.md": b""}
    server.files["/kits.zip"] = make_zip(tmp_path / "kits.zip", archive).read_bytes()
    server.files |= {"/master_00000.nii.gz": b"0", "/master_00401.nii.gz": b"401"}
    monkeypatch.setattr(registry, "_KITS_IMAGES", server.address)
    remote = RemoteFile(server.url("/kits.zip"), "repository.zip", unpack=Unpack(strip=1))
    (kits,) = registry.ORIGINS["kits23"]
    source = declare("kits23", Files((remote,), more=kits.more))
    assert fetch([source], tmp_path / "data")[0].new == 3
    case = tmp_path / "data" / "kits23" / "dataset" / "case_00401" / "imaging.nii.gz"
    assert case.read_bytes() == b"401"


def test_a_tcia_collection_lies_by_patient_study_and_series(
    server: FileServer, declare: Declare, tmp_path: Path
) -> None:
    one = {"PatientID": "P1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3",
           "SeriesDescription": "full, mammogram"}  # fmt: skip
    server.files["/getSeries?Collection=CBIS-DDSM&format=json"] = json.dumps([one]).encode()
    content = make_zip(tmp_path / "s.zip", {"1-1.dcm": b"dicom"}).read_bytes()
    server.files["/getImage?NewFileNames=Yes&SeriesInstanceUID=1.2.3"] = content
    assert fetch([declare("cbis_ddsm", Tcia("CBIS-DDSM"))], tmp_path / "data")[0].new == 2
    root = tmp_path / "data" / "cbis_ddsm"
    assert (root / "CBIS-DDSM" / "P1" / "1.2" / "1.2.3" / "1-1.dcm").read_bytes() == b"dicom"
    assert (root / "metadata.csv").read_text().splitlines() == [
        "Series UID,Subject ID,Series Description,File Location",
        '1.2.3,P1,"full, mammogram",./CBIS-DDSM/P1/1.2/1.2.3',
    ]


def test_what_must_be_done_by_hand_is_said_until_it_is_done(
    declare: Declare, tmp_path: Path
) -> None:
    source = declare("echonet_dynamic", ByHand("register there", "Videos/*.avi"))
    (done,) = fetch([source], tmp_path)
    assert not done.ready and done.note.endswith("Videos/*.avi is missing: register there.")
    (tmp_path / "echonet_dynamic" / "Videos").mkdir(parents=True)
    (tmp_path / "echonet_dynamic" / "Videos" / "1.avi").touch()
    assert fetch([source], tmp_path)[0].status == "complete"


def test_downloads_that_sources_share_are_fetched_once(
    server: FileServer, project: dict[str, bytes], declare: Declare, tmp_path: Path
) -> None:
    chest = declare("mimic_cxr", PhysioNet("p", "1.0", only=("records/*",)))
    stays = declare("mimic_iv", PhysioNet("p", "1.0", only=("a.csv",)))
    parts = {"mimic_iv": "tables", "mimic_cxr": "mimic_cxr"}
    done: list[Fetched] = fetch([chest, replace(stays, parts=parts)], tmp_path)
    assert [(one.name, one.sources) for one in done] == [
        ("mimic_cxr", ("mimic_cxr", "mimic_iv")), ("mimic_iv", ("mimic_iv",)),
    ]  # fmt: skip
    assert (tmp_path / "tables" / "a.csv").is_file()
    assert len(server.asked("/files/p/1.0/records/1.dat")) == 1
