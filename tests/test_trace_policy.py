"""What of a run's traces may leave: names of people, closed sources, closed images."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trace_runs import GROUP, STEPS, copied, write_run

from qoq_lib.publishing.policy import PolicyError
from qoq_lib.publishing.traces import write_traces


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Any, Any]) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small", tiny)


def test_rows_that_look_as_if_they_named_somebody_are_left_out_and_counted(
    run: Path, tmp_path: Path
) -> None:
    run = copied(run, tmp_path / "told")
    path = run / "rollouts" / "step-00000001.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "completion"] = "Call her: 555-123-4567. \\boxed{x}"
    table.loc[1, "completion"] = "Her MRN is 00412345."
    table.to_parquet(path)
    made = write_traces(run, tmp_path / "out")
    assert made.left_out == {"the text looks as if it named a person": 2}
    assert made.configs["all"]["train"].rows == STEPS * 9 * GROUP - 2


def test_sources_that_may_not_leave_are_refused_or_left_out(run: Path, tmp_path: Path) -> None:
    run = copied(run, tmp_path / "mixed")
    for path in sorted((run / "rollouts").glob("*.parquet")):
        table = pd.read_parquet(path)
        for domain, dataset in (("chest_xray", "mimic_cxr"), ("ct", "kits23")):
            table.loc[table["domain"] == domain, "dataset"] = dataset
        table.to_parquet(path)
    with pytest.raises(PolicyError, match="mimic_cxr may not leave") as told:
        write_traces(run, tmp_path / "out")
    assert "kits23 may go to a gated repository only" in str(told.value)
    assert not (tmp_path / "out").exists()
    made = write_traces(run, tmp_path / "out", leave_out=True)
    held = {name for name in made.datasets}
    assert not held & {"mimic_cxr", "kits23"}
    assert made.left_out == {"the data set may not leave": 2 * STEPS * GROUP}
    made = write_traces(run, tmp_path / "out", gated=True, leave_out=True)
    assert "kits23" in made.datasets and "mimic_cxr" not in made.datasets
    text = (tmp_path / "out" / "README.md").read_text()
    assert "extra_gated_prompt" in text and "CC-BY-NC-SA-4.0" in text
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert "mimic_cxr" not in pq.read_table(path, columns=["dataset"])["dataset"].to_pylist()


def test_images_that_may_not_leave_are_named_by_hash_and_record(run: Path, tmp_path: Path) -> None:
    run = copied(run, tmp_path / "chexpert")
    for path in [*(run / "data").glob("*-*.parquet"), *(run / "rollouts").glob("*.parquet")]:
        table = pq.read_table(path)
        names = ["aptos2019" if n == "phantom_fundus" else n for n in table["dataset"].to_pylist()]
        column = table.schema.get_field_index("dataset")
        pq.write_table(table.set_column(column, "dataset", pa.array(names)), path)
    write_traces(run, tmp_path / "out", gated=True)
    cases = pd.read_parquet(tmp_path / "out" / "data" / "cases").set_index("id")
    closed = cases[cases["dataset"] == "aptos2019"]
    assert len(closed) and closed["images"].isna().all() and closed["boxes"].isna().all()
    assert closed["report"].isna().all()
    assert all(len(refs[0]) == 64 for refs in closed["image_ref"])
    assert closed["source_record"].notna().all() and closed["question"].notna().all()
    assert cases.loc[cases["domain"] == "ct", "images"].notna().all()
