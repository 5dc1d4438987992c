"""What a training starts from: notebooks 01 and 02 as functions, each usable by itself.

A stage that is missing is built on the way: ``ensure_data`` draws the phantom, ``ensure_aligned``
aligns a model, and both say so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict
from peft import get_peft_model

from qoq_lib.data.assemble import assemble, load_assembled, load_assembly
from qoq_lib.data.phantom import make_phantom
from qoq_lib.data.prompts import answer_text
from qoq_lib.data.storage import ASSEMBLY_FILE
from qoq_lib.model.ecg_jepa import load_ecg_jepa
from qoq_lib.model.loading import ModelSize, load_base
from qoq_lib.model.tuning import prepare
from qoq_lib.runs import derive_seed
from qoq_lib.training.align import align
from qoq_lib.training.checkpoints import save_checkpoint
from qoq_lib.training.freeing import release_memory
from qoq_lib.training.planning.fitting import plan_here

PHANTOM_ROWS = 3000


def ensure_data(folder: Path, seed: int) -> DatasetDict:
    """The assembled data set in ``folder``; the phantom is drawn there when nothing is."""
    if not (folder / ASSEMBLY_FILE).exists():
        print(
            "NOTE: no data set has been assembled for this run, so it uses the embedded PHANTOM "
            "(drawings, not patients); notebook 01 assembles real data."
        )
        assemble("phantom", folder, rows=PHANTOM_ROWS, seed=seed)
    return load_assembled(folder)


def data_facts(folder: Path) -> dict[str, Any]:
    """Fingerprint and rows per split of an assembled folder, for ``run.record``."""
    assembly = load_assembly(folder)
    splits = sorted({split for counts in assembly.rows.values() for split in counts})
    rows = {split: assembly.rows_in(split) for split in splits}
    return {"fingerprint": assembly.fingerprint, "rows": rows, "sources": assembly.sources}


def label_names(data: Mapping[str, Dataset]) -> list[str]:
    """Every answer option of the splits, sorted."""
    return sorted(
        {name for rows in data.values() for options in rows["options"] for name in options}
    )


def answer_length(size: ModelSize, data: Mapping[str, Dataset], tokenizer: Any) -> int:
    """Most new tokens of an answer: the size's, or else what the longest true answer needs."""
    if size.max_completion_length is not None:
        return size.max_completion_length
    said = [answer for rows in data.values() for answer in rows["answers"]]
    said += [[name] for name in label_names(data)]
    answers = {answer_text(labels, (0, 0, 28, 28), size.answer_style) for labels in said}
    return 1 + max(len(tokenizer(text)["input_ids"]) for text in answers)  # 1: the end token


def perception_rows(data: DatasetDict, seed: int) -> Dataset:
    """The ``align`` split, or the phantom's where the data have none (real files carry none)."""
    if "align" in data:
        return data["align"]
    print("These data hold no perception questions: the phantom's are used for alignment.")
    drawn = make_phantom(PHANTOM_ROWS, seed=seed)
    return drawn.filter(lambda split: split == "align", input_columns="split")


def align_base(
    data: DatasetDict, size: ModelSize, run_folder: Path, seed: int, ecg_weights: str = ""
) -> tuple[Any, Any, pd.DataFrame]:
    """Align the size's base and save it to ``checkpoints/aligned``; (model, processor, log).

    ``ecg_weights`` is ECG-JEPA's published file; without it the ECG encoder starts from nothing.
    """
    model, processor = load_base(size, derive_seed(seed, "weights"), label_names(data))
    if ecg_weights:
        load_ecg_jepa(model.model.ecg_encoder, ecg_weights)
    adapters = prepare(model, size.tuning, size.trainable)
    adapted = get_peft_model(model, adapters) if adapters else None  # changes ``model`` in place
    log = align(
        model,
        processor,
        perception_rows(data, seed),
        data["train"],
        size.alignment,
        style=size.answer_style,
        seed=derive_seed(seed, "alignment"),
        out=run_folder / "checkpoints" / "alignment",
        checkpointing=size.needs_gpu,
    )
    model = adapted.merge_and_unload() if adapted else model
    save_checkpoint(model, processor, run_folder / "checkpoints" / "aligned")
    release_memory()  # the optimiser: the model is asked next
    return model, processor, log


def ensure_aligned(data: DatasetDict, size: ModelSize, run_folder: Path, seed: int) -> Path:
    """The folder of the aligned checkpoint, which is made when there is none.

    It is made as notebook 02 would by itself: on one GPU, by the first tuning that fits there,
    which need not be that of a training over several.

    Raises:
        TrainingError: it has to be made and does not fit the GPU.
    """
    folder = run_folder / "checkpoints" / "aligned"
    if not (folder / "config.json").exists():
        print("No aligned checkpoint in this run: aligning the base model first (notebook 02).")
        own = size.model_copy(deep=True)
        plan_here(own, tuning="auto")
        align_base(data, own, run_folder, seed)
        release_memory()  # the model too: whoever goes on from the folder loads it anew
    return folder
