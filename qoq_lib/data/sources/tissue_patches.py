"""The reader of large tissue images with a class per pixel: patches of one predominant tissue."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qoq_lib.data.readers import MediaError, read_label_map
from qoq_lib.data.sources.source import Record, Source, Unreadable


@dataclass(frozen=True)
class TissuePatches:
    """``images/<name>.png`` beside ``masks/<name>.png``, whose pixels are the codes of tissues.

    An image is cut into a grid of ``side`` x ``side`` pixels, from its top left; what is left over
    at the right and the bottom is not used. A patch is a record where one of ``tissues`` (answer to
    codes) covers at least ``share`` of it, and its mask is that tissue. ``patient`` is the number
    of characters of the name that tell the patient, ``site`` the slice of it that tells the
    hospital; ``test_sites`` are the official test split. One damaged or missing file of the two
    refuses the whole image by name.
    """

    tissues: Mapping[str, tuple[int, ...]]
    patient: int
    site: slice
    test_sites: frozenset[str]
    side: int = 512
    share: float = 0.5

    def __call__(self, source: Source, root: Path) -> Iterator[Record | Unreadable]:
        """Yield the patches of ``source``, image by image, each row by row."""
        files = (file for folder in ("images", "masks") for file in (root / folder).glob("*.png"))
        for name in sorted({file.name for file in files}):
            image, mask = root / "images" / name, root / "masks" / name
            try:
                codes = read_label_map(mask)
            except MediaError as error:
                yield Unreadable(image.stem, str(error))
                continue
            if not image.is_file():
                yield Unreadable(image.stem, f"The image {image} is missing: fetch it again.")
                continue
            for answer, x, y in self._patches(codes):
                yield self._record(image, mask, answer, x, y)

    def _patches(self, codes: np.ndarray) -> Iterator[tuple[str, int, int]]:
        """Answer and top left corner of each patch with a predominant tissue."""
        side, rows, columns = self.side, *(length // self.side for length in codes.shape)
        grid = codes[: rows * side, : columns * side].reshape(rows, side, columns, side)
        shares = {
            answer: np.isin(grid, tissue).mean(axis=(1, 3))
            for answer, tissue in self.tissues.items()
        }
        for row, column in np.ndindex(rows, columns):
            answer = max(shares, key=lambda name: shares[name][row, column])
            if shares[answer][row, column] >= self.share:
                yield answer, column * side, row * side

    def _record(self, image: Path, mask: Path, answer: str, x: int, y: int) -> Record:
        name = image.stem
        return Record(
            record_id=f"{name}_x{x}_y{y}",
            patient_id=name[: self.patient],
            answers=(answer,),
            images=(image,),
            masks=(mask,),
            mask_values=self.tissues[answer],
            crop=(x, y, x + self.side, y + self.side),
            split="test" if name[self.site] in self.test_sites else "train",
        )
