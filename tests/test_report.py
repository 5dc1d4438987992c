"""What is computed for figures and tables: score tables, cases, cells."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fictions import joined, predictions, scores

from qoq_lib.data.sources.catalogue import PAPER_SOURCES
from qoq_lib.domains import DOMAIN_NAMES, DOMAINS
from qoq_lib.evaluation.metrics import PredictionsError, evaluate
from qoq_lib.evaluation.paper_tables import (
    PAPER_RESULTS,
    _printed_sets,
    beside_paper,
    beside_paper_sets,
    by_paper,
    overall_basis,
    paper_table,
)
from qoq_lib.evaluation.report import (
    gains,
    gains_table,
    gap_table,
    interval_table,
    measure_table,
    notes,
    read_predictions,
    score_table,
)
from qoq_lib.evaluation.tables import cell_text, table
from qoq_lib.runs import RunError
from qoq_lib.runs.manifest import Manifest


def test_the_score_table_ends_with_the_overall_mean() -> None:
    found = score_table(scores(aligned=0.5, trained=1.0))
    assert list(found) == ["n", "aligned", "trained", "constant", "invalid", "all options"]
    assert found.loc["Overall", "trained"] == 1.0
    bare = score_table(scores(trained=0.5), "exact_match", floors=False)
    assert list(bare) == ["n", "trained"] and bare.loc["CT", "trained"] == 0.5


def test_predictions_are_read_in_the_order_of_the_models(tmp_path: Any) -> None:
    with pytest.raises(RunError, match="run notebook 03"):
        read_predictions(tmp_path)
    for name in ("trained", "aligned", "another"):
        predictions().to_parquet(tmp_path / f"{name}.parquet")
    found = read_predictions(tmp_path)
    assert list(found) == ["another", "aligned", "trained"]
    assert evaluate(found["trained"])["overall"]["macro_f1"] == 1.0


def test_predictions_without_rows_or_torn_are_one_sentence(tmp_path: Any) -> None:
    predictions().head(0).to_parquet(tmp_path / "trained.parquet")
    with pytest.raises(RunError, match="^predictions/trained.parquet has no rows"):
        read_predictions(tmp_path)
    (tmp_path / "trained.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(RunError, match="^predictions/trained.parquet cannot be read"):
        read_predictions(tmp_path)


def test_notes_say_what_the_page_rests_on(tmp_path: Any) -> None:
    tables = {"aligned": predictions(("ct",)), "trained": predictions(("ct",)).head(6)}
    manifest = Manifest(tmp_path / "run.json", tmp_path.name)
    for stage in ("02_align_modalities", "03_drpo_train", "05_domain_analysis"):
        manifest.claim(stage, {})
    manifest.end("02_align_modalities", "completed", {})
    scored = {name: evaluate(table) for name, table in tables.items()}
    assert notes(tmp_path, tables, scored) == [
        "Models: aligned, trained; 6 test questions of 6 patients.",
        "How the answers of aligned, trained were decoded is not known.",
        "03_drpo_train of this run is recorded as running.",
        "Fewer than 10 patients, so no interval: CT, Overall.",
        "One domain has questions: the overall score is that domain's.",
        "The trained model's predictions do not hold boxes (no IoU); log-probabilities of the "
        "options (no AUROC, no calibration); sex and age (no subgroups).",
        "Not the questions of the trained model, so without a gain: aligned.",
    ]
    assert gains(tables) == {}
    whole = predictions(tuple(DOMAIN_NAMES), right=0.5).assign(
        boxes=None, option_logprobs=None, sex=None
    )
    whole["patient_id"] = [str(number) for number in range(len(whole))]
    assert len(notes(tmp_path / "none", {"trained": whole}, {"trained": evaluate(whole)})) <= 3
    many = joined([predictions(("ct",))] * 2).assign(patient_id=[str(n) for n in range(16)])
    assert notes(tmp_path / "none", {"trained": many}, {"trained": evaluate(many)})[2] == (
        "The same score in every resample, so no interval: CT, Overall (macro f1, penalised f1, "
        "balanced accuracy, exact match, jaccard, invalid rate)."
    )


def test_tables_have_intervals_where_there_are_enough_patients() -> None:
    many = joined([predictions(("ct",), right=0.5)] * 4)
    many["patient_id"] = [str(number) for number in range(len(many))]
    scored = {"trained": evaluate(many)}
    cell = interval_table(scored, "exact_match").loc["Overall", "trained"]
    assert re.fullmatch(r"0\.500 \[0\.\d{3}, 0\.\d{3}\]", cell)
    floor = interval_table(scored).loc["Overall", "all options"]
    assert re.fullmatch(r"0\.400 \[0\.3\d\d, 0\.4\d\d\]", floor)
    few = interval_table(scores(trained=0.5), "exact_match").loc["CT"]
    assert few["trained"] == "0.500 [–]" and few["patients"] == 8
    assert interval_table(scored, by_set=True).index.tolist() == ["CT: set_ct"]
    every = measure_table(scored | {"located": evaluate(many.assign(boxes=[[[0, 0, 1, 1]]] * 32))})
    assert every.loc["box iou", "n"] == 32 and every["trained"].isna()["box iou"]
    assert "constant" not in every.index


def test_n_and_patients_are_those_of_the_number_beside_them(tmp_path: Any) -> None:
    asked = predictions(("ct",), right=0.5).head(6)
    where = pd.concat([predictions(("ct",))] * 4, ignore_index=True).assign(dataset="where")
    where["options"] = where["answers"] = [["lung"]] * 32
    where["id"] = where["patient_id"] = [f"where/{number}" for number in range(32)]
    both = pd.concat([asked, where], ignore_index=True)
    scored = {"trained": evaluate(both)}
    row = interval_table(scored).loc["Overall"]
    assert (row["n"], row["patients"]) == (6, 6) and row["trained"].endswith(" [–]")
    assert score_table(scored).loc["CT", "n"] == 6
    assert interval_table(scored, "exact_match").loc["CT", "patients"] == 38
    assert interval_table(scored, by_set=True).loc["CT: where", "n"] == 0
    assert beside_paper(by_paper(both, seed=0), "f1").loc["CT", "n"] == 6
    assert notes(tmp_path, {"trained": both}, scored)[2] == (
        "Fewer than 10 patients, so no interval: CT, Overall (macro f1, penalised f1, "
        "balanced accuracy, f1 above floor)."
    )


def test_gains_and_gaps_as_tables() -> None:
    before, after = predictions(right=0.0), predictions(right=1.0)
    table = gains_table(gains({"aligned": before, "trained": after}), "exact_match")
    assert table.loc["Overall", "over aligned"].startswith("1.000")
    halves = joined([before, after]).assign(sex=["F"] * 18 + ["M"] * 18)
    halves["patient_id"] = [str(number) for number in range(36)]
    gap = gap_table(evaluate(halves)).set_index("measure").loc["exact match"]
    assert (gap["highest"], gap["lowest"], gap["gap"]) == ("M", "F", "1.000 [–]")
    assert gap_table(evaluate(before)).empty


def test_the_papers_numbers_stand_beside_a_run() -> None:
    assert paper_table("f1", ("GRPO", "DRPO"), "2").loc["Overall"].tolist() == [0.193, 0.295]
    with pytest.raises(PredictionsError, match="Table 2 of the paper has no f1 of 'GPT-4o'"):
        paper_table("f1", ("GPT-4o",), "2")
    scored = by_paper(predictions(("ct", "ecg"), right=0.0), seed=0)
    accuracy = beside_paper(scored, "accuracy")
    assert accuracy.loc["CT", "this run"] == "0.750 [–]" and accuracy.loc["CT", "n"] == 8
    assert accuracy.loc["CT", "floor: invalid"] == 0.75
    assert accuracy.loc["CT", "paper: QoQ-Med-32B"] == 0.571
    assert np.isnan(accuracy.loc["ECG", "paper: GRPO"])
    f1 = beside_paper(scored, "f1")
    assert f1.loc["CT", "floor: all options"] == pytest.approx(0.4)


def test_the_overall_row_beside_the_paper_is_over_its_domains() -> None:
    right, wrong = predictions(("ct", "mri")), predictions(("ecg",), right=0.0)
    both = joined([joined([right] * 2), wrong])
    both["patient_id"] = [str(number) for number in range(len(both))]
    scored = by_paper(both, seed=0)
    table = beside_paper(scored, "f1")
    assert list(table.index) == ["CT", "MRI", "ECG", "Overall"]
    assert table.loc["Overall", "this run"] == "1.000 [–]"
    assert table.loc["Overall", "n"] == 2 * len(right) and table.loc["ECG", "n"] == len(wrong)
    assert overall_basis(scored).startswith("Overall is over CT, MRI, the paper's also over Chest")
    assert "ECG" not in overall_basis(scored)
    alone = by_paper(wrong, seed=0)
    assert list(beside_paper(alone, "f1").index) == ["ECG"]
    assert overall_basis(alone).startswith("no Overall, as the paper averages none")


def test_the_papers_data_sets_stand_beside_those_of_a_run() -> None:
    ours = {
        "ct": ["kits23", "set_ct"],
        "mammography": ["vindr_mammo"],
        "multimodal": ["mimic_iv_mortality"],
        "ecg": ["ptb_xl", "georgia"],
    }
    tables = [
        predictions(("ct",)).assign(
            domain=domain, dataset=name, id=[f"{name}{n}" for n in range(8)]
        )
        for domain, names in ours.items()
        for name in names
    ]
    found = beside_paper_sets(by_paper(pd.concat(tables, ignore_index=True), seed=0))
    assert list(found.index) == [
        *("Mammography: vindr_mammo", "CT: kits23", "ECG: all", "Multimodal: mimic_iv_mortality")
    ]
    assert found.loc["CT: kits23", "F1: this run"] == "1.000 [–]"
    assert found.loc["CT: kits23", "printed in"] == "Tables 8-14"
    both = found.loc["Multimodal: mimic_iv_mortality", ["F1: paper's GRPO", "F1: paper's DRPO"]]
    assert both.tolist() == [0.354, 0.597]
    ecg = found.loc["ECG: all"]
    assert ecg["accuracy: paper's DRPO"] == 0.768 and np.isnan(ecg["F1: paper's DRPO"])
    assert ecg["n"] == 16
    assert beside_paper_sets(by_paper(predictions(("ct", "ecg")), seed=0)).empty


def test_every_data_set_of_the_paper_is_one_of_ours() -> None:
    printed = {key for key in _printed_sets() if key[1]}
    assert (
        printed <= {(source.domain, name) for name, source in PAPER_SOURCES.items()}
        and len(printed) == 28
    )


def test_every_printed_number_has_its_source_and_place() -> None:
    known = pd.read_csv(PAPER_RESULTS, keep_default_na=False)
    assert list(known) == ["table", "model", "domain", "dataset", "metric", "value", "source"]
    assert known["source"].str.startswith("arXiv 2506.00711v2").all()
    assert set(known["domain"]) <= {*DOMAINS, "overall"} and known["value"].between(0, 1).all()
    assert not known.duplicated(["table", "model", "domain", "dataset", "metric"]).any()
    # Rows whose printed overall score is the mean of their domains, unlike the paper's DRPO.
    for model in ("SFT", "PPO", "GRPO", "DRPO, no KL"):
        for metric in ("f1", "accuracy"):
            *domains, overall = paper_table(metric, (model,), "2")[model]
            assert np.mean(domains) == pytest.approx(overall, abs=0.0016)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (1.0, "1.00"),
        (12345.6, "12346"),
        (123.4, "123"),
        (99.96, "100"),
        (0.0, "0.00"),
        (float("nan"), "–"),
        (None, "–"),
        (12345, "12345"),
        (["a", "b"], "a, b"),
        (np.array([1, 2]), "1, 2"),
        (True, "True"),
    ],
)
def test_cells_have_three_significant_digits(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_a_table_has_both_forms_and_no_colour_of_its_own() -> None:
    frame = pd.DataFrame({"score": [0.123456], "text": ["<think>a & b</think>"]})
    shown = table(frame, "Caption")
    html = shown._repr_html_()
    assert "<think>" not in html and "&lt;think&gt;" in html and "0.123" in html
    assert "color" not in html and html == table(frame, "Caption")._repr_html_()
    assert repr(shown).startswith("Caption\n") and "<think>a & b</think>" in repr(shown)
    assert repr(table(frame.head(0), "None")) == "None\n(no rows)"
    assert table(pd.DataFrame(), "a & b")._repr_html_() == "<p><b>a &amp; b</b><br>(no rows)</p>"
