"""The page of a study's result: every word and number of it comes from the tables."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from qoq_lib.domains import DOMAINS
from qoq_lib.evaluation.study.boxes import boxes_section
from qoq_lib.evaluation.study.claims import DRPO_ARMS, PAPER_GAIN, Claim, Verdict, claims_of
from qoq_lib.evaluation.study.comparing import (
    COMPARISON_FILE,
    COST_FILE,
    RESULTS_FILE,
    Tables,
)
from qoq_lib.evaluation.study.config import Study
from qoq_lib.evaluation.study.scoring import COMMON, GAP, OVERALL, RARE, rare_domains
from qoq_lib.evaluation.study.statistics import DRAWS, Interval, mean_interval
from qoq_lib.evaluation.study.wording import (
    compared_row,
    floor_text,
    interval_text,
    markdown,
    overall_runs,
)
from qoq_lib.runs import write_text_atomic

HEADINGS: Mapping[Verdict, str] = {
    "held": "What held",
    "did not hold": "What did not hold",
    "open": "What stays open",
}


def write_page(
    study: Study, tables: Tables, docs: Path, name: str, figures: Mapping[str, Path]
) -> Path:
    """Write ``<docs>/<name>.md``, its figures below ``img/`` and its numbers below ``<name>/``.

    ``figures`` are PNG files by what they show, in the page's order.
    """
    images = []
    for shown, figure in figures.items():
        target = docs / "img" / f"{name}_{shown}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure, target)
        images.append(target.relative_to(docs).as_posix())
    named = {RESULTS_FILE: tables.results, COMPARISON_FILE: tables.comparison}
    for file, table in (named | {COST_FILE: tables.cost}).items():
        write_text_atomic(docs / name / file, table.to_csv(index=False, float_format="%.6g"))
    return write_text_atomic(docs / f"{name}.md", page_text(study, tables, name, images))


def page_text(study: Study, tables: Tables, name: str = "study", images: Sequence[str] = ()) -> str:
    """The page as Markdown; ``images`` are paths beside it."""
    parts = [
        f"# Study {study.name}: DRPO beside its baselines",
        _made_of(study, tables),
        *_verdicts(claims_of(study, tables)),
        "## Macro-F1 by arm",
        markdown(arms_table(study, tables)),
        _floors(tables),
        *boxes_section(tables),
        "## Rare against common (greedy answers)",
        markdown(groups_table(study, tables)),
        "## Differences by domain (greedy answers)",
        markdown(domains_table(study, tables)),
        "## Cost of training a seed",
        markdown(cost_table(tables)),
        _COST_NOTE,
        *[f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in images],
        "## How to read the intervals",
        _reading(study, tables, name),
    ]
    return "\n\n".join(parts) + "\n"


def _made_of(study: Study, tables: Tables) -> str:
    results, rows = tables.results, tables.train_rows
    size = study.size()
    plan, data = size.training, study.data
    questions = results[results["domain"] == OVERALL]["n"].max()
    drawn = f"the phantom ({data.rows:,} rows, drawn by code: no patients)"
    source = drawn if data.source == "phantom" else "the clinical kit (real records)"
    by_domain = ", ".join(f"{DOMAINS[key].title} {n:.0f}" for key, n in rows[::-1].items())
    rare = ", ".join(DOMAINS[key].title for key in rare_domains(rows))
    return (
        f"{results['arm'].nunique()} arms x {results['seed'].nunique()} seeds at size "
        f"`{size.name}` on {source}. Training rows, mean over seeds: {by_domain}. Rare are the "
        f"third of the domains with the fewest: {rare}.\n\n"
        "All arms of a seed have the same data, aligned start, order of questions "
        f"(but where an arm samples them otherwise), budget ({plan.steps} steps of "
        f"{plan.questions_per_step} questions x {plan.rollouts} rollouts, learning rate "
        f"{plan.rate(size.tuning):g}{_own_rates(study)}) and {study.split} split ({questions:,} "
        f"questions). Settings: `configs/study/{study.name}.yaml`. Trained by the code of commit "
        f"{', '.join(sorted(set(tables.cost['code'])))}.{_unfinished(study, results)}"
    )


def _unfinished(study: Study, results: pd.DataFrame) -> str:
    """Which arms lack seeds, in a sentence; nothing where none does."""
    seeds = results.groupby("arm")["seed"].nunique()
    arms: dict[int, list[str]] = {}
    for arm in study.arms:
        arms.setdefault(int(seeds.get(arm.name, 0)), []).append(arm.name)
    short = [f"{count} of {', '.join(arms[count])}" for count in sorted(arms)]
    if list(arms) == [len(study.seeds)]:
        return ""
    return f" Not all {len(study.seeds)} seeds are finished: {'; '.join(short)}."


def _own_rates(study: Study) -> str:
    rates = [f"; {arm.name} {arm.learning_rate:g}" for arm in study.arms if arm.learning_rate]
    return "".join(rates)


def _verdicts(claims: Sequence[Claim]) -> list[str]:
    if not claims:
        return ["Nothing can be claimed yet: an interval takes two seeds."]
    parts = []
    for verdict, heading in HEADINGS.items():
        lines = [claim_text(claim) for claim in claims if claim.verdict == verdict]
        parts += [f"## {heading}", "\n".join(lines) or "Nothing that was asked."]
    return parts


def claim_text(claim: Claim) -> str:
    """A claim as a line of a list, with its interval."""
    return f"- {claim.text} ({claim.decoding} answers): {_shown(claim)}, n = {claim.interval.n}."


def _shown(claim: Claim) -> str:
    points = claim.unit == "points"
    text = interval_text(claim.interval, signed=True, digits=3 if points else 1)
    return text if points else f"{text} {claim.unit}"


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per claim: verdict, claim, kind of answers, interval, seeds; no rows without claims."""
    columns = ["verdict", "claim", "answers", "mean [95 % interval]", "seeds"]
    lines = [
        (claim.verdict, claim.text, claim.decoding, _shown(claim), claim.interval.n)
        for claim in claims
    ]
    return pd.DataFrame(lines, columns=columns).set_index("verdict")


def arms_table(study: Study, tables: Tables) -> pd.DataFrame:
    """A row per arm and kind of answers: overall scores with their intervals, as text."""
    leading = study.baselines[0]
    lines = []
    for (arm, decoding), own in overall_runs(tables.results):
        scores = {metric: part["value"].to_numpy() for metric, part in own.groupby("metric")}
        lines.append(
            {
                "arm": arm,
                "answers": decoding,
                "macro-F1": interval_text(mean_interval(scores["macro_f1"])),
                f"minus {leading}": _difference(tables.comparison, arm, leading, decoding, OVERALL),
                "relative gain (%)": _gain(tables.comparison, arm, leading, decoding),
                "penalised F1": interval_text(mean_interval(scores["penalised_f1"])),
                "exact match": interval_text(mean_interval(scores["exact_match"])),
                "invalid answers": interval_text(mean_interval(scores["invalid_rate"])),
            }
        )
    return pd.DataFrame(lines).set_index("arm")


def _floors(tables: Tables) -> str:
    constant, every = (
        floor_text(tables.results, name) for name in ("floor_constant", "floor_all_options")
    )
    return (
        f"Answers that look at nothing reach macro-F1 {constant} (the best constant answer) and "
        f"{every} (listing every option), mean over seeds [95 % interval]."
    )


def _difference(
    comparison: pd.DataFrame, arm: str, baseline: str, decoding: str, domain: str
) -> str:
    row = compared_row(comparison, arm=arm, baseline=baseline, decoding=decoding, domain=domain)
    if row is None:
        return "–"
    return interval_text(
        Interval(row["difference"], row["low"], row["high"], int(row["seeds"])), signed=True
    )


def _gain(comparison: pd.DataFrame, arm: str, baseline: str, decoding: str) -> str:
    row = compared_row(comparison, arm=arm, baseline=baseline, decoding=decoding, domain=OVERALL)
    if row is None:
        return "–"
    gain = Interval(row["gain_pct"], row["gain_low"], row["gain_high"], int(row["seeds"]))
    return interval_text(gain, signed=True, digits=1)


def leading_arms(study: Study, tables: Tables, count: int = 6) -> list[str]:
    """The arms that a figure has room for, those of the paper's question first."""
    first = ["untrained", *study.baselines, "drpo", *DRPO_ARMS, *(arm.name for arm in study.arms)]
    finished = set(tables.results["arm"])
    return [name for name in dict.fromkeys(first) if name in finished][:count]


def groups_table(study: Study, tables: Tables) -> pd.DataFrame:
    """A row per arm: differences to the leading baseline in rare and common domains, greedy."""
    leading = study.baselines[0]
    lines = {
        arm.name: {
            f"{group}, minus {leading}": _difference(
                tables.comparison, arm.name, leading, "greedy", group
            )
            for group in (RARE, COMMON, GAP)
        }
        for arm in study.arms
        if arm.name != leading
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("arm")


def domains_table(study: Study, tables: Tables) -> pd.DataFrame:
    """A row per domain, rare ones first: the leading arms' differences to the first baseline."""
    leading = study.baselines[0]
    arms = [name for name in leading_arms(study, tables) if name != leading]
    lines = {
        DOMAINS[domain].title: {
            arm: _difference(tables.comparison, arm, leading, "greedy", domain) for arm in arms
        }
        for domain in tables.train_rows.index
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(f"minus {leading}")


def cost_table(tables: Tables) -> pd.DataFrame:
    """A row per arm: completions and seconds of training a seed, and the device."""
    lines = {}
    for arm, own in tables.cost.groupby("arm", sort=False):
        seconds = own["seconds"].dropna().to_numpy()
        lines[arm] = {
            "completions": f"{own['completions'].mean():,.0f}",
            "seconds": interval_text(mean_interval(seconds), digits=0),
            "device": ", ".join(sorted(set(own["device"]))),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("arm")


_COST_NOTE = (
    "Completions sampled in training, and wall-clock seconds with as many arms at a time as the "
    "study had workers; a training that was interrupted and resumed has no seconds."
)


_SAME_PATIENTS = (
    "The seeds split one pool of patients anew, so test patients recur: a draw of patients holds "
    "for all seeds, and differences and relative gains have the wider of their two intervals. "
)


_PAPER_GAIN = (
    f"The paper reports a macro-F1 {PAPER_GAIN:.0f} % above that of critic-free methods (abstract "
    f"of arXiv 2506.00711): the claim on a gain of {PAPER_GAIN:.0f} % held when the mean gain is "
    f"{PAPER_GAIN:.0f} % or more and its interval excludes 0, did not hold when its whole interval "
    f"lies below {PAPER_GAIN:.0f} %, and is open otherwise."
)


def _reading(study: Study, tables: Tables, name: str) -> str:
    chosen = tables.comparison[
        (tables.comparison["domain"] == OVERALL) & (tables.comparison["metric"] == "macro_f1")
    ]
    return (
        "All intervals are 95 %. Differences are paired: both arms of a seed share start, "
        "questions and patients; the interval is Student's t over the seeds. A relative gain is "
        "the ratio of the means with Fieller's interval. The thin lines of the figures are a "
        f"hierarchical bootstrap ({DRAWS:,} draws of seeds, then of patients within each data set "
        "of a seed), which is too narrow with few seeds. A claim *held* when its whole interval "
        "lies above zero and *did not hold* when it lies below; else it stays *open*. "
        f"{_PAPER_GAIN} *Penalised F1* is macro-F1 with a price on naming more options than apply. "
        f"{_SAME_PATIENTS if study.shares_patients else ''}No interval is corrected for the "
        f"number of comparisons ({len(chosen)} overall differences). This page and its figures are "
        f"written by notebook 08 from [{RESULTS_FILE}]({name}/{RESULTS_FILE}), [{COMPARISON_FILE}]"
        f"({name}/{COMPARISON_FILE}) and [{COST_FILE}]({name}/{COST_FILE}). What was tried before "
        "stands in [study_search.md](study_search.md)."
    )
