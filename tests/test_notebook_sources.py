"""Notebook 01 on data sets of the paper: chosen by name and domain, read from one data root."""

import json
from pathlib import Path

import pytest
from layouts import mri as layout
from test_notebooks_run import execute, printed

from qoq_lib.data.fetch import Fetched, FetchError, ready_names
from qoq_lib.data.sources.catalogue import PAPER_SOURCES, choose_sources
from qoq_lib.data.sources.source import SourceError
from qoq_lib.domains import DOMAINS
from qoq_lib.runs import read_result


def test_all_sources_of_the_paper_can_be_chosen() -> None:
    chosen = choose_sources("all")
    assert len(chosen) == 33  # 31 of one domain; MIMIC-IV asks two questions
    assert [source.name for source in chosen] == list(PAPER_SOURCES)
    assert {source.domain for source in chosen} == set(DOMAINS)
    assert [one.name for one in choose_sources("all", "pathology")] == ["lc25000", "bcss"]
    assert [one.name for one in choose_sources("ptb_xl, busi,busi")] == ["ptb_xl", "busi"]
    assert choose_sources("phantom", "ct") == ()


@pytest.mark.parametrize(
    ("names", "domain", "sentence"),
    [
        ("ptbxl", None, "Unknown data set 'ptbxl': did you mean 'ptb_xl'?"),
        ("busi", "ct", "is of the domain 'ct': their domains are ultrasound"),
        ("all", "xray", "is of the domain 'xray'"),
        ("", None, "Unknown data set ''"),
    ],
)
def test_a_wrong_choice_is_one_sentence(names: str, domain: str | None, sentence: str) -> None:
    with pytest.raises(SourceError) as caught:
        choose_sources(names, domain)
    assert sentence in str(caught.value)


def test_what_must_be_requested_is_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    here = Fetched("mri", Path("a"), ("one", "both"), "complete")
    waiting = Fetched("stays", Path("b"), ("both",), "to request", note="Sign the agreement.")
    assert ready_names([here, waiting]) == ["one"]
    assert "stays is left out: Sign the agreement." in capsys.readouterr().out
    with pytest.raises(FetchError, match="None of the data sets is here: stays must be requested"):
        ready_names([waiting])


def test_the_notebook_assembles_a_domain_of_the_paper(tmp_path: Path) -> None:
    root = layout.brain_tumor(tmp_path / "data")
    layout.brain_tumor_2(root)
    given = {
        "run_id": "mri", "sources": "all", "domain": "mri", "data_root": str(root),
        "on_error": "skip", "balance": "class", "cap": "9", "workers": "2", "embed": "False",
    }  # fmt: skip
    options = [word for name, value in given.items() for word in ("-p", name, value)]
    done = execute("01_assemble_data", tmp_path / "o.ipynb", tmp_path / "runs", tmp_path, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "o.ipynb").read_text())["cells"]
    assert str(root) not in json.dumps([cell.get("outputs") for cell in cells])
    assert "To be assembled: brain_tumor,brain_tumor_2" in printed(tmp_path / "o.ipynb")
    metrics = read_result(tmp_path / "o.ipynb")["metrics"]
    assert metrics["rows_train"] <= 9 + 9 < metrics["rows_train"] + metrics["rows_test"]
    assembly = json.loads((tmp_path / "runs" / "mri" / "data" / "assembly.json").read_text())
    assert assembly["leaks"]["brain_tumor"]["copies_across"] == 0
    assert sum(assembly["balanced_out"].values()) > 0


def test_the_notebook_wants_a_data_root(tmp_path: Path) -> None:
    done = execute(
        "01_assemble_data", tmp_path / "o.ipynb", tmp_path, tmp_path, "-p", "sources", "busi"
    )
    assert done.returncode != 0 and "give data_root" in done.stderr
