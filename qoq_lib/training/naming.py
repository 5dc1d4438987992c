"""Naming, the first phase of alignment: media tokens are pulled towards the words that name them.

The mean of an image's or ECG's tokens is compared with the embedding of each perception answer
(cosine, softmax over all answers), the loss of CLIP (arXiv 2103.00020) with the language model's
own embedding table as the text side: no parameter is added, and what the encoders say is already in
the words' space when the language model first reads it.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from qoq_lib.data.example import ecg_array
from qoq_lib.model.ecg_signal import prepare_ecg

TEMPERATURE = 0.05


class Naming(nn.Module):
    """The encoders of ``model`` with the naming loss, in the form ``transformers.Trainer`` takes.

    ``names`` are the answers to tell apart.
    """

    def __init__(self, model: Any, tokenizer: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.words = [torch.tensor(tokenizer(name)["input_ids"]) for name in names]

    def forward(
        self,
        targets: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        ecg_values: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """``targets`` (indices into ``names``) of the images first, then of the ECGs."""
        backbone, seen = self.model.model, []
        if pixel_values is not None:
            features = backbone.get_image_features(pixel_values, image_grid_thw).pooler_output
            seen += [tokens.mean(dim=0) for tokens in features]
        if ecg_values is not None:
            seen += list(backbone.get_ecg_features(ecg_values).mean(dim=1))
        table = backbone.get_input_embeddings().weight
        named = torch.stack([table[ids.to(table.device)].mean(dim=0) for ids in self.words])
        scores = functional.normalize(torch.stack(seen)) @ functional.normalize(named).T
        return {"loss": functional.cross_entropy(scores / TEMPERATURE, targets)}


class NamingMix(TorchDataset):
    """Example i is a function of (seed, i): a row, its image mirrored every second time."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], length: int, seed: int) -> None:
        self.rows, self.length, self.seed = rows, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Mapping[str, Any], bool]:
        rng = random.Random(f"{self.seed}/{index}")
        return rng.choice(self.rows), rng.random() < 0.5


class NamingCollator:
    """Rows (from ``model_view``, with one image or one ECG each) as ``Naming``'s arguments."""

    def __init__(self, image_processor: Any, names: Sequence[str]) -> None:
        self.image_processor = image_processor
        self.index = {name: place for place, name in enumerate(names)}

    def __call__(self, examples: Sequence[tuple[Mapping[str, Any], bool]]) -> dict[str, Any]:
        """``examples`` as ``NamingMix`` gives them."""
        pictured = [(row, mirrored) for row, mirrored in examples if row["images"]]
        signals = [row for row, _ in examples if not row["images"]]
        order = [row for row, _ in pictured] + signals
        batch: dict[str, Any] = {
            "targets": torch.tensor([self.index[row["answers"][0]] for row in order])
        }
        if pictured:
            images = [
                row["images"][0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                if mirrored
                else row["images"][0]
                for row, mirrored in pictured
            ]
            features = self.image_processor(images=images, return_tensors="pt")
            batch |= {name: features[name] for name in ("pixel_values", "image_grid_thw")}
        if signals:
            prepared = [
                prepare_ecg(np.asarray(ecg_array(row)), row["ecg_leads"], row["ecg_rate_hz"])
                for row in signals
            ]
            batch["ecg_values"] = torch.from_numpy(np.stack(prepared))
        return batch
