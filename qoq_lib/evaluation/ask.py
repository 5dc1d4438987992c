"""Any model of images and text, a folder or of the Hub, asked a run's questions.

    python -m qoq_lib.evaluation.ask owner/model@revision --run demo

Notebook 05 shows it beside the run's own models.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from datasets import Dataset

from qoq_lib.data.prompts import AnswerStyle
from qoq_lib.data.storage import AssemblyError, load_assembled
from qoq_lib.evaluation.metrics import PredictionsError
from qoq_lib.evaluation.predict import predict
from qoq_lib.evaluation.prompting import is_qoq, without_ecg
from qoq_lib.evaluation.report import MODELS
from qoq_lib.hub_errors import HubError
from qoq_lib.model.any_model import load_any
from qoq_lib.model.files import LoadError
from qoq_lib.runs import RunError, existing_run
from qoq_lib.runs.files import make_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and say where the answers are; what is wrong is one sentence and exit code 1."""
    try:
        path = ask(_options().parse_args(arguments))
    except (AssemblyError, HubError, LoadError, PredictionsError, RunError) as error:
        sys.exit(str(error))
    print(f"The answers are in {path}: notebook 05 shows them beside the run's own models.")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qoq_lib.evaluation.ask",
        description="Ask any model of images and text the questions of a run.",
    )
    parser.add_argument("model", help="a folder, or a Hub id, if need be with @revision")
    parser.add_argument("--run", required=True, help="the run, a folder below runs/")
    parser.add_argument("--split", default="test", help="of the run's data")
    parser.add_argument("--name", help="of the file below predictions/; else the model's")
    parser.add_argument(
        "--style", choices=get_args(AnswerStyle), default="reasoning", help="of the answer"
    )
    heat, count = _from(0.0), _from(1)
    parser.add_argument("--temperature", type=heat, default=0.0, help="0: greedy")
    parser.add_argument("--max-new-tokens", type=count, default=1024, help="at most, of an answer")
    parser.add_argument("--batch-size", type=count, default=8, help="questions at a time")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    return parser


def _from(least: float) -> Callable[[str], float]:
    """Reads a number of the type of ``least`` that is not below it."""

    def number(text: str) -> float:
        value = type(least)(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number from {least}, not {text}")
        return value

    return number


def ask(given: argparse.Namespace) -> Path:
    """Write the answers that the command's options ask for; the file they are in.

    Raises:
        RunError: there is no such run, or the file would take the place of one of its own models'.
        AssemblyError, PredictionsError: the run has no such questions.
        LoadError, HubError: the model cannot be had.
    """
    run = existing_run(given.run)
    model_name, revision = _split_revision(given.model)
    path = _target(run, given.name or Path(model_name).name)
    rows = _rows(run, given.split)
    model, processor = load_any(model_name, revision)
    if not is_qoq(processor):
        rows = _askable(rows)
    make_folder(path.parent)
    predict(
        model,
        processor,
        rows,
        style=given.style,
        max_new_tokens=given.max_new_tokens,
        temperature=given.temperature,
        batch_size=given.batch_size,
        seed=given.seed,
        logprobs=is_qoq(processor),
        path=path,
    )
    return path


def _split_revision(model: str) -> tuple[str, str | None]:
    """Name and revision; of a folder, whose name may hold an @, there is none."""
    name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    return name, revision or None


def _target(run: Path, name: str) -> Path:
    if name in MODELS:
        raise RunError(
            f"predictions/{name}.parquet is of a model of run {run.name!r} itself: give the "
            "answers another --name."
        )
    if not name or Path(name).name != name:
        raise RunError(f"The name {name!r} is not that of a file: give --name without folders.")
    return run / "predictions" / f"{name}.parquet"


def _rows(run: Path, split: str) -> Dataset:
    splits = load_assembled(run / "data")
    if split not in splits:
        raise PredictionsError(
            f"The data of run {run.name!r} have no split {split!r}: use one of {', '.join(splits)}."
        )
    return splits[split]


def _askable(rows: Dataset) -> Dataset:
    """What a model of images and text can be asked; what it cannot is said."""
    kept = without_ecg(rows)
    if not len(kept):
        raise PredictionsError(
            f"All {len(rows)} questions have an ECG, which this model cannot read: ask a QoQ model."
        )
    if len(kept) < len(rows):
        print(
            f"{len(rows) - len(kept)} of {len(rows)} questions have an ECG, which this model "
            "cannot read: they are left out, so that no gain is computed over it."
        )
    print("Options are scored for QoQ and Qwen2.5-VL models alone: no AUROC, no calibration.")
    return kept


if __name__ == "__main__":
    main()
