"""What may be planned for the Hub, and what stays here."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_releases import CARD, GATED, contents, write_release
from hub_server import HubServer

from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.plan import PlanError, plan_release
from qoq_lib.publishing.policy import PolicyError
from qoq_lib.publishing.scan import ScanError


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({".gitignore": b"*"}, r"\.gitignore belongs to git"),
        ({"a/.git/config": b""}, "belongs to git"),
        ({"training_args.bin": b"x"}, "training_args.bin can run code when opened"),
        ({"x.parquet.tmp": b"x"}, "x.parquet.tmp is an unfinished file"),
        ({"data/x.parquet": b"PAR1half"}, "data/x.parquet is no complete parquet file"),
        ({"README.md": b"# No front matter"}, "begins with no front matter"),
        ({"README.md": b"---\na: [\n---\n"}, "front matter of .* is not readable"),
    ],
)
def test_a_folder_that_must_not_leave_is_refused(
    tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    folder = write_release(tmp_path / "r", files)
    with pytest.raises(PlanError, match=sentence) as refused:
        plan_release(folder, "writer/qoq", "model")
    assert "\n" not in str(refused.value)


def rows_of(dataset: str) -> dict[str, bytes]:
    table = io.BytesIO()
    pq.write_table(pa.table({"dataset": [dataset], "completion": ["So."]}), table)
    return {"data/all/train-00000-of-00001.parquet": table.getvalue()}


@pytest.mark.parametrize(
    ("dataset", "card", "sentence"),
    [
        ("mimic_cxr", GATED, "Traces of mimic_cxr may not leave this machine"),
        ("ham10000", CARD, "Traces of ham10000 may go to a gated repository only"),
        ("a_source_without_a_card", GATED, "may not leave this machine"),
    ],
)
def test_rows_leave_only_as_their_data_card_allows(
    tmp_path: Path, dataset: str, card: str, sentence: str
) -> None:
    folder = write_release(tmp_path / "r", rows_of(dataset), card)
    with pytest.raises(PolicyError, match=sentence):
        plan_release(folder, "writer/qoq", "dataset")


@pytest.mark.parametrize(
    ("images", "ecg", "leaves"),
    [([], None, True), ([b"png"], None, False), (None, [[0.5]], False)],
)
def test_media_leave_only_where_the_card_says_so(
    tmp_path: Path, images: list | None, ecg: list | None, leaves: bool
) -> None:
    columns = {"dataset": ["busi"], "images": pa.array([images], pa.list_(pa.binary()))}
    columns["ecg"] = pa.array([ecg], pa.list_(pa.list_(pa.float32())))
    table = io.BytesIO()
    pq.write_table(pa.table(columns), table)
    files = {"data/cases/train-00000-of-00001.parquet": table.getvalue()}
    folder = write_release(tmp_path / "r", files, GATED)
    if leaves:
        assert plan_release(folder, "writer/qoq", "dataset").verdicts
        return
    with pytest.raises(PolicyError, match="Images of busi may not leave this machine"):
        plan_release(folder, "writer/qoq", "dataset")


def test_rows_of_a_gated_source_leave_behind_its_gate(hub: HubServer, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", rows_of("ham10000"), GATED)
    plan = plan_release(folder, "writer/qoq", "dataset")
    assert [(one.dataset, one.share) for one in plan.verdicts] == [("ham10000", "gated")]
    publish(plan, "hf_write")
    assert hub.repos["datasets", "writer/qoq"].gated == "manual"


def test_a_token_in_a_file_keeps_the_release_here(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", {"notes.md": f"hf_{'a' * 30}".encode()})
    with pytest.raises(ScanError, match="notes.md holds what looks like a token"):
        plan_release(folder, "writer/qoq", "model")


def test_no_folder_no_card_no_owner_and_no_links(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="There is no folder"):
        plan_release(tmp_path / "none", "writer/qoq", "model")
    folder = write_release(tmp_path / "r")
    for name in ("qoq", "a/b/c", "writer/"):
        with pytest.raises(PlanError, match=f"The name '{name}'"):
            plan_release(folder, name, "model")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(PlanError, match="link is a link"):
        plan_release(folder, "writer/qoq", "model")
    (folder / "link").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(PlanError, match="README.md is missing"):
        plan_release(folder, "writer/qoq", "model")


def test_a_plan_lists_every_file_and_sends_nothing(hub: HubServer, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r")
    plan = plan_release(folder, "writer/qoq", "model")
    assert str(plan) == "writer/qoq (model, private, not gated): 3 files, 865 bytes"
    assert list(plan.table()["file"]) == sorted(contents(folder))
    assert plan.table()["bytes"].sum() == plan.size == 865
    assert plan.card == CARD and hub.log == []
