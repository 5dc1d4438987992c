"""The page and the figures of a study say what its numbers say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qoq_lib.evaluation import plots
from qoq_lib.evaluation.plots.study import arm_styles, binned
from qoq_lib.evaluation.study.claims import claims_of
from qoq_lib.evaluation.study.comparing import ENDS, KEYS, Tables, comparison_table
from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.page import claims_table, page_text, write_page
from qoq_lib.evaluation.study.scoring import add_box_floor, score_records
from qoq_lib.evaluation.tables import table

ARMS = ("untrained", "grpo", "drpo")
PAPER_ARMS = ("untrained", "grpo", "grpo_balanced", "drpo_paper", "drpo")
DOMAINS = {"ct": 90.0, "mri": 30.0, "ecg": 5.0}


def made(drpo: float, noise: float = 0.01) -> tuple[Study, Tables]:
    """Three arms, three seeds; DRPO's macro-F1 is ``drpo``, GRPO's .4, the start's .2."""
    study = Study(
        name="made_up",
        data={"source": "phantom"},
        model_size="tiny",
        seeds=[0, 1, 2],
        baselines=["grpo", "untrained"],
        arms=[{"name": name, "method": None if name == "untrained" else name} for name in ARMS],
    )
    rng, rows = np.random.default_rng(0), []
    part = {"penalised_f1": 0.3, "balanced_accuracy": 0.4, "exact_match": 0.5}
    part |= {"invalid_rate": 0.0, "n": 50}
    part |= {"floor_constant": 0.1, "floor_all_options": 0.3}
    for arm, mean in zip(ARMS, (0.2, 0.4, drpo), strict=True):
        for seed in study.seeds:
            f1 = dict(zip(DOMAINS, mean + noise * rng.standard_normal(3), strict=True))
            overall = part | {"macro_f1": float(np.mean(list(f1.values())))}
            scores = {"overall": overall, "domains": {d: part | {"macro_f1": f1[d]} for d in f1}}
            for decoding in ("greedy", "sampled"):
                facts = {"arm": arm, "seed": seed, "decoding": decoding}
                rows += [facts | record for record in score_records(scores, rare=["ecg"])]
    results = pd.DataFrame(rows)
    none = pd.DataFrame(columns=[*KEYS, *ENDS])
    cost = pd.DataFrame(
        {"arm": ARMS, "seed": 0, "completions": 1600, "seconds": [0, 9, np.nan], "device": "CPU"}
    ).assign(code=["abc", "abc", "def"])
    curves = pd.DataFrame(
        [
            ("grpo", s, t, d, 8, 0.5, 0.25 * t)
            for s in (0, 1)
            for t in (1, 2)
            for d in ("ct", "ecg")
        ],
        columns=["arm", "seed", "step", "domain", "rollouts", "reward", "correct"],
    )
    comparison = comparison_table(study, results, none)
    return study, Tables(results, comparison, cost, curves, pd.Series(DOMAINS).sort_values())


def with_boxes(study: Study, tables: Tables, after: float) -> Tables:
    """The same with an IoU of about .02 before training and ``after`` behind it."""
    rng, rows = np.random.default_rng(0), []
    for arm, mean in zip(ARMS, (0.02, after, after), strict=True):
        for seed in study.seeds:
            part = {"n": 50, "lesions": 30, "pointing": 0.5}
            part |= dict.fromkeys(("macro_f1", "exact_match", "invalid_rate"), 0.5)
            part |= {"box_iou": mean + 0.0005 * rng.standard_normal()}
            scores = {"overall": dict(part), "domains": {name: dict(part) for name in DOMAINS}}
            add_box_floor(scores, {"ct": 0.1, "mri": 0.3})
            facts = {"arm": arm, "seed": seed, "decoding": "greedy"}
            rows += [facts | record for record in score_records(scores, rare=["ecg"])]
    drawn = pd.DataFrame(rows).query("metric in ('box_iou', 'pointing', 'floor_constant_box')")
    results = pd.concat([tables.results, drawn], ignore_index=True)
    none = pd.DataFrame(columns=[*KEYS, *ENDS])
    return replace(tables, results=results, comparison=comparison_table(study, results, none))


def section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_a_large_gain_held_and_says_its_interval() -> None:
    text = page_text(*made(drpo=0.7))
    held = section(text, "What held")
    assert "drpo beats grpo (greedy answers): +0.3" in held
    assert "The mean gain of drpo on grpo is 43 % or more, and surely above 0" in held
    assert "grpo is above the floor of listing every option" in held
    assert "Nothing that was asked." in section(text, "What did not hold")
    assert "drpo beats grpo in exact match" in section(text, "What stays open")
    assert "Trained by the code of commit abc, def." in text
    assert all("[" in line and "n = 3" in line for line in held.strip().splitlines())


def test_the_page_says_when_the_claim_on_the_papers_gain_held() -> None:
    study, tables = made(drpo=0.56, noise=0.05)
    text = page_text(study, tables)
    gain = next(line for line in text.splitlines() if "drpo on grpo is 43 %" in line)
    low = float(gain.split("[")[1].split(",")[0])
    assert 0 < low < 43 and gain in section(text, "What held")
    said = text.split("## How to read the intervals")[1]
    assert said.count("43 % above that of critic-free methods (abstract of arXiv 2506.00711)") == 1
    assert "held when the mean gain is 43 % or more and its interval excludes 0" in said


def test_floors_have_an_interval_over_the_seeds() -> None:
    study, tables = made(drpo=0.7)
    constant = (tables.results["metric"] == "floor_constant") & (tables.results["seed"] == 2)
    tables.results.loc[constant, "value"] = 0.4  # after .1 and .1: t of two degrees is 4.303
    said = "macro-F1 0.200 [-0.230, 0.630] (the best constant answer) and 0.300 [0.300, 0.300]"
    assert said in page_text(study, tables)


def test_the_words_follow_the_numbers() -> None:
    worse = page_text(*made(drpo=0.3))
    failed = section(worse, "What did not hold")
    assert "drpo beats grpo (greedy answers): -0.089 [-0.101, -0.077]" in failed
    assert "The mean gain of drpo on grpo is 43 % or more" in failed
    small = page_text(*made(drpo=0.45))
    assert "drpo beats grpo (" in section(small, "What held")
    assert "The mean gain of drpo on grpo is 43 % or more" in section(small, "What did not hold")
    unclear = section(page_text(*made(drpo=0.41, noise=0.2)), "What stays open")
    assert "drpo beats grpo (" in unclear
    assert "The mean gain of drpo on grpo is 43 % or more" in unclear


def test_a_study_with_boxes_says_how_many_times_the_start_they_overlap() -> None:
    study, tables = made(drpo=0.7)
    assert "IoU" not in page_text(study, tables)
    text = page_text(study, with_boxes(study, tables, after=0.3))
    held = section(text, "What held")
    claim = next(line for line in held.splitlines() if "The mean IoU of drpo is 10 times" in line)
    assert "(greedy answers): +0.099 [" in claim and "], n = 3." in claim
    assert "drpo has a higher IoU than its start (greedy answers): +0.28" in held
    assert "| drpo | greedy | 0.300 [" in section(text, "IoU by arm")
    assert "| untrained | greedy | 0.020 [" in section(text, "IoU by arm")
    assert "drpo has a higher IoU than one box per domain for all patients" in held
    assert "reaches 0.200 [0.200, 0.200], mean over seeds" in section(text, "IoU by arm")
    assert "over the 30 test questions with lesions" in section(text, "IoU by arm")
    less = page_text(study, with_boxes(study, tables, after=0.1))
    assert "The mean IoU of drpo is 10 times" in section(less, "What did not hold")


def test_on_shared_patients_the_wider_interval_decides() -> None:
    study, tables = made(drpo=0.7)
    kit = study.model_copy(update={"data": study.data.model_copy(update={"source": "kit"})})
    tables = with_boxes(study, tables, after=0.3)
    wide = dict(zip(ENDS, (-0.5, 0.9, -90.0, 900.0), strict=True))
    drawn = tables.comparison[KEYS].assign(**wide)
    shared = replace(tables, comparison=comparison_table(kit, tables.results, drawn))
    assert {claim.verdict for claim in claims_of(kit, shared)} == {"open"}
    assert "left open: this interval does not know" in page_text(kit, shared)
    assert "left open" not in page_text(study, tables)


def test_without_an_interval_nothing_is_claimed() -> None:
    study, tables = made(drpo=0.7)
    one = tables.results[tables.results["seed"] == 0]
    none = pd.DataFrame(columns=[*KEYS, *ENDS])
    alone = replace(tables, results=one, comparison=comparison_table(study, one, none))
    assert claims_of(study, alone) == []
    assert "(no rows)" in repr(table(claims_table([]), "Claims"))
    text = page_text(study, alone)
    assert "[no interval]" in text and "Nothing can be claimed yet" in text


def test_an_arm_without_results_is_in_no_claim() -> None:
    study, tables = made(drpo=0.7)
    kept = {
        name: part[part["arm"] != "drpo"]
        for name, part in (("results", tables.results), ("comparison", tables.comparison))
    }
    claims = claims_of(study, replace(tables, **kept))
    assert claims and not [claim for claim in claims if "drpo" in claim.text]
    assert "| drpo |" in page_text(study, replace(tables, **kept))


def test_the_page_says_which_arms_lack_seeds() -> None:
    study, tables = made(drpo=0.6)
    assert "finished" not in page_text(study, tables)
    lacking = tables.results[(tables.results["arm"] != "drpo") | (tables.results["seed"] == 0)]
    page = page_text(study, replace(tables, results=lacking))
    assert "all 3 seeds are finished: 1 of drpo; 3 of untrained, grpo." in page


def test_claims_are_listed_with_their_seeds() -> None:
    listed = claims_table(claims_of(*made(drpo=0.7)))
    assert set(listed.index) <= {"held", "did not hold", "open"} and (listed["seeds"] == 3).all()


def test_an_arm_looks_alike_in_every_study() -> None:
    few, many = arm_styles(["untrained", "grpo", "drpo"]), arm_styles(["rloo", *PAPER_ARMS])
    assert few["grpo"] == many["grpo"] and few["drpo"] == many["drpo"]
    assert len(set(many.values())) == len(many)


def test_the_page_comes_with_its_numbers_and_figures(tmp_path: Path) -> None:
    study, tables = made(drpo=0.5)
    picture = tmp_path / "08_differences.png"
    picture.write_bytes(b"png")
    page = write_page(study, tables, tmp_path / "docs", "study", {"differences": picture})
    assert "](img/study_differences.png)" in page.read_text()
    assert (tmp_path / "docs" / "img" / "study_differences.png").read_bytes() == b"png"
    kept = pd.read_csv(tmp_path / "docs" / "study" / "comparison.csv")
    assert len(kept) == len(tables.comparison)
    assert "Rare are the third of the domains with the fewest: ECG." in page.read_text()
    assert "| drpo | 1,600 | no value | CPU |" in page.read_text()


def test_every_figure_of_a_study_is_drawn() -> None:
    plots.use_theme()
    _, tables = made(drpo=0.5)
    differences = plots.study_differences(tables.comparison, "grpo")
    assert [label.get_text() for label in differences.axes[0].get_yticklabels()] == [
        *("untrained", "drpo")
    ]
    assert len(plots.study_tail(tables.comparison, "grpo").axes) == 3
    by_domain = plots.study_domains(tables.results, tables.train_rows, list(ARMS)).axes[0]
    with pytest.raises(plots.PlotError, match="no IoU"):
        plots.study_domains(tables.results, tables.train_rows, list(ARMS), metric="box_iou")
    ticks = [label.get_text().splitlines()[0] for label in by_domain.get_yticklabels()]
    assert ticks == ["CT", "MRI", "ECG"]
    assert len(plots.study_curves(tables.curves, "grpo", window=1).axes) == 1
    with pytest.raises(plots.PlotError, match="'rloo'"):
        plots.study_differences(tables.comparison, "rloo")


def test_curves_weigh_domains_alike() -> None:
    curve = pd.DataFrame(
        {"seed": 0, "step": [1, 2, 2], "domain": ["ct", "ct", "ecg"], "rollouts": [8, 24, 8]}
    ).assign(correct=[0.0, 1.0, 0.25])
    assert binned(curve, 2).to_dict() == {0: {1.5: pytest.approx((0.75 + 0.25) / 2)}}
