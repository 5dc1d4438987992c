"""One file over HTTP from a server that misbehaves."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from file_server import Fault, FileServer

from qoq_lib.data.fetch import AccessError, FetchError, transfers
from qoq_lib.data.fetch.transfers import ATTEMPTS, Transfers

BODY = bytes(range(256)) * 40
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serves ``BODY`` at ``/file.bin``; nobody waits between two attempts."""
    monkeypatch.setattr(transfers, "LONGEST_WAIT_S", 0.0)
    with FileServer().running() as server:
        server.files["/file.bin"] = BODY
        yield server


def test_a_file_arrives_whole_under_its_name_and_nothing_else_stays(
    server: FileServer, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "file.bin"
    found = Transfers().download(server.url("/file.bin"), target, SHA256)
    assert f"sha256:{found}" == SHA256 and target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(
    server: FileServer, tmp_path: Path
) -> None:
    server.faults["/file.bin"] = [Fault(cut=1000), Fault(cut=3000)]
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    ranges = [one.headers.get("Range") for one in server.asked("/file.bin")]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(
    server: FileServer, tmp_path: Path
) -> None:
    server.faults["/file.bin"] = [Fault(cut=1000)] + [Fault(503)] * ATTEMPTS
    with pytest.raises(FetchError, match=r"5 times in a row \(it answers 503\).*kept, run again"):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 1000
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.asked("/file.bin")[-1].headers["Range"] == "bytes=1000-"


def test_a_file_that_changed_meanwhile_is_not_joined_to_its_old_beginning(
    server: FileServer, tmp_path: Path
) -> None:
    server.faults["/file.bin"] = [Fault(cut=1000)] + [Fault(503)] * ATTEMPTS
    with pytest.raises(FetchError):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    server.files["/file.bin"] = BODY[::-1]
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY[::-1]


@pytest.mark.parametrize(("ranges", "tags"), [(False, True), (True, False)])
def test_a_server_that_cannot_resume_is_asked_for_the_whole_again(
    server: FileServer, tmp_path: Path, ranges: bool, tags: bool
) -> None:
    server.ranges, server.tags = ranges, tags
    server.faults["/file.bin"] = [Fault(cut=1000)]
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    if not tags:  # nothing would tell whether the rest belongs to the same file
        assert not any("Range" in one.headers for one in server.requests)


def test_a_part_that_is_already_whole_is_taken(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY)
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_spoilt_part_is_fetched_anew_and_a_wrong_file_refused(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    server.files["/file.bin"] = b"something else"
    with pytest.raises(FetchError, match=r"another checksum than sha256:"):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY  # the earlier file stays
    assert not (tmp_path / "file.bin.part").exists()


def test_md5_is_compared_too(server: FileServer, tmp_path: Path) -> None:
    md5 = hashlib.md5(BODY).hexdigest()
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin", f"md5:{md5}")
    with pytest.raises(FetchError, match="another checksum"):
        Transfers().download(server.url("/file.bin"), tmp_path / "other", f"md5:{md5[::-1]}")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path, status: int) -> None:
    server.faults["/file.bin"] = [Fault(status, {"Retry-After": "3600"}), Fault(status)]
    Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert len(server.asked("/file.bin")) == 3


def test_the_wait_is_the_one_that_the_server_asks_for(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(transfers, "LONGEST_WAIT_S", 600.0)
    running = Transfers()
    monkeypatch.setattr(running.stop, "wait", lambda seconds: waits.append(seconds))
    server.faults["/file.bin"] = [
        Fault(429, {"Retry-After": "7"}),
        Fault(503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        Fault(503, {"Retry-After": "86400"}),
        Fault(503),
    ]
    running.download(server.url("/file.bin"), tmp_path / "file.bin")
    assert waits == [7.0, 0.0, 600.0, 16.0]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, AccessError, "asks for a login .* access table"),
        (403, AccessError, "does not let you have .* accept the terms"),
        (404, FetchError, "is not there .* home page"),
        (410, FetchError, "is not there"),
        (418, FetchError, "answers 418"),
    ],
)
def test_a_refusal_is_one_sentence_and_final(
    server: FileServer, tmp_path: Path, status: int, error: type[FetchError], words: str
) -> None:
    server.faults["/file.bin"] = [Fault(status)] * 9
    with pytest.raises(error, match=words):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert len(server.asked("/file.bin")) == 1 and not list(tmp_path.iterdir())


def test_nobody_there_is_one_sentence(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9/x cannot be fetched"):
        Transfers().download("http://127.0.0.1:9/x", tmp_path / "x")


def test_a_login_page_is_not_taken_for_the_file(server: FileServer, tmp_path: Path) -> None:
    server.types["/file.bin"] = "text/html; charset=utf-8"
    with pytest.raises(AccessError, match="answers with a web page in place of the file"):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_file_that_the_disk_cannot_hold_is_not_begun(server: FileServer, tmp_path: Path) -> None:
    server.faults["/file.bin"] = [Fault(headers={"Content-Length": str(10**18)}, cut=0)]
    with pytest.raises(FetchError, match=r"needs 1000000000\.0 GB more .* free the disk"):
        Transfers().download(server.url("/file.bin"), tmp_path / "file.bin")


def test_a_disk_that_refuses_is_one_sentence(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(FetchError, match=r"Cannot write .*folder/file\.bin"):
        Transfers().download(server.url("/file.bin"), tmp_path / "folder" / "file.bin")


def test_redirects_are_followed_and_end(server: FileServer, tmp_path: Path) -> None:
    server.faults["/old"] = [Fault(302, {"Location": "/file.bin"})]
    Transfers().download(server.url("/old"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    server.faults["/loop"] = [Fault(302, {"Location": "/loop"})] * 99
    with pytest.raises(FetchError, match=r"/loop cannot be fetched \(TooManyRedirects\)"):
        Transfers().download(server.url("/loop"), tmp_path / "loop")


def test_no_redirect_leads_out_of_encryption(server: FileServer) -> None:
    asked = requests.Request("GET", "https://data.org/a?token=my-token").prepare()
    reply = requests.Response()
    reply.request = asked
    session = Transfers()._session
    with pytest.raises(FetchError, match=r"https://data\.org/a leads to .* without encryption"):
        session.rebuild_auth(requests.Request("GET", "http://data.org/a").prepare(), reply)
    session.rebuild_auth(requests.Request("GET", "https://cdn.org/a").prepare(), reply)


def test_a_login_goes_to_its_host_alone(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password secret-of-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    running = Transfers({"127.0.0.1": ("me", "secret")})
    with FileServer().running() as elsewhere:
        elsewhere.files["/file.bin"] = BODY
        foreign = elsewhere.url("/file.bin").replace("127.0.0.1", "localhost")
        server.faults["/moved"] = [Fault(302, {"Location": f"{foreign}?signature=abc"})]
        elsewhere.files["/file.bin?signature=abc"] = BODY
        running.download(server.url("/moved"), tmp_path / "file.bin")
        running.download(foreign, tmp_path / "again.bin")
    assert server.requests[0].headers["Authorization"].startswith("Basic ")
    assert all("Authorization" not in one.headers for one in elsewhere.requests)


def test_no_secret_reaches_a_message(server: FileServer, tmp_path: Path) -> None:
    running = Transfers({"127.0.0.1": ("me", "my-secret")})
    url = server.url("/file.bin?token=my-token").replace("//", "//someone:my-password@")
    faults = server.faults["/file.bin?token=my-token"]
    for status in (401, 403, 404, 418, *[503] * ATTEMPTS):
        faults.append(Fault(status))
    signed = {"Location": "http://127.0.0.1:9/x?signature=my-signature"}
    faults.extend([Fault(302, signed)] * ATTEMPTS)
    for _ in range(6):
        with pytest.raises(FetchError) as caught:
            running.download(url, tmp_path / "file.bin")
        assert "my-" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
