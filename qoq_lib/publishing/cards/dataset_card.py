"""The card of a trace set's repository, from what was written and the run's manifest."""

from collections.abc import Mapping

import pandas as pd
from huggingface_hub import DatasetCardData

from qoq_lib.data.cards import Card
from qoq_lib.publishing.cards.citation import citation_section
from qoq_lib.publishing.cards.data import (
    APACHE,
    data_section,
    gate_fields,
    joint_license,
    limits_section,
    release_section,
)
from qoq_lib.publishing.cards.markdown import fence, section, table
from qoq_lib.publishing.cards.training import reproduction_section, training_section
from qoq_lib.publishing.record import Stages
from qoq_lib.publishing.trace_set import TraceSet

CONFIGS = {
    "default": "chats whose answer is correct and well-formed, ready for supervised training",
    "all": "every sampled answer, right or wrong, with its rewards",
    "rl_steps": "a row per question and optimiser step: the group of answers drawn there, as lists",
    "cases": "the questions, with their images and ECGs where the source allows",
}
LIMITS = (
    "The texts were written by a model, wrong answers and invented findings included; only those "
    "of `default` are known to end with the right label, and nobody checked their reasoning.",
    "Boxes are in pixels of the image as the model saw it.",
    "A question, its options and its answer come from the source and stand under its terms.",
)
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


def dataset_card(
    traces: TraceSet,
    stages: Stages,
    cards: Mapping[str, Card],
    repo_id: str,
    model: str | None = None,
) -> str:
    """The text of ``README.md``, front matter included.

    Args:
        traces: what was written.
        stages: the published entries of the run's ``run.json``.
        cards: the data card of each data set in the traces.
        repo_id: ``owner/name`` of the data set repository.
        model: Hub id of the model that wrote the traces, where it is released, too.
    """
    rows = {name: {"rows of `all`": count} for name, count in traces.datasets.items()}
    body = "\n\n".join(
        [
            f"# {repo_id.rsplit('/', 1)[1]}",
            _summary(traces, model),
            _usage(traces, repo_id),
            _contents(traces),
            _features(traces),
            limits_section(cards.values(), *LIMITS),
            data_section(cards.values(), rows),
            release_section(traces.verdicts),
            training_section(stages),
            reproduction_section(traces.run_id, stages),
            citation_section(),
        ]
    )
    return f"---\n{_front_matter(traces, repo_id).to_yaml()}\n---\n\n{body}\n"


def _front_matter(traces: TraceSet, repo_id: str) -> DatasetCardData:
    return DatasetCardData(
        **joint_license(APACHE, traces.verdicts).fields,
        language="en",
        pretty_name=repo_id.rsplit("/", 1)[1],
        size_categories=_size(traces.rows("all")),
        task_categories=["image-text-to-text"],
        tags=["medical", "clinical", "reasoning", "rl", "not-for-clinical-use"],
        **traces.front_matter(),
        **gate_fields(traces.verdicts),
    )


def _size(rows: int) -> str:
    """The Hub's word for a number of rows, up to ten million."""
    return next((word for bound, word in _SIZES if rows < bound), "1M<n<10M")


def _summary(traces: TraceSet, model: str | None) -> str:
    by = f"[{model}](https://huggingface.co/{model})" if model else "the model in training"
    left = [f"{count:,} rows were left out: {why}." for why, count in traces.left_out.items()]
    return "\n\n".join(
        [
            f"Reasoning traces of run `{traces.run_id}`: what {by} answered to clinical questions "
            "while it was trained and tested, with the reward of every answer. Made with the "
            "reproducibility package of QoQ-Med (arXiv:2506.00711). **Not for clinical use.**",
            *left,
            *traces.notes,
        ]
    )


def _usage(traces: TraceSet, repo_id: str) -> str:
    first = next(iter(traces.configs))
    code = f"""\
from datasets import load_dataset

traces = load_dataset("{repo_id}", "{first}")
samples = load_dataset("{repo_id}", "all", split="train", streaming=True)"""
    return section("How to use", fence(code, "python"))


def _contents(traces: TraceSet) -> str:
    lines = [
        {"configuration": config, "split": split, "rows": facts.rows, "bytes": facts.stored}
        for config, splits in traces.configs.items()
        for split, facts in splits.items()
    ]
    told = [f"- `{name}`: {CONFIGS[name]}" for name in traces.configs]
    return section("Configurations", "\n".join(told), table(pd.DataFrame(lines)))


def _features(traces: TraceSet) -> str:
    lines = [
        {"configuration": config, "columns": ", ".join(f"`{name}`" for name in features)}
        for config, features in traces.features.items()
    ]
    return section("Columns", table(pd.DataFrame(lines)))
