"""Miniatures of the pathology sets: folders of tiles, and regions with a class per pixel."""

from pathlib import Path

import numpy as np
from miniatures import draw
from PIL import Image

TISSUES = {
    "lung_image_sets": ("lung_aca", "lung_n", "lung_scc"),
    "colon_image_sets": ("colon_aca", "colon_n"),
}
REGIONS = {
    "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500": [[1, 2], [21, 0]],
    "TCGA-A1-A0SK-DX1_xmin100_ymin200_MPP-0.2500": [[3, 4], [20, 11]],
    "TCGA-A2-A04P-DX1_xmin8000_ymin3000_MPP-0.2500": [[2, 1], [10, 4]],
    "TCGA-AR-A0TS-DX1_xmin118843_ymin22812_MPP-0.2500": [[1, 3], [2, 4]],
    "TCGA-OL-A5D6-DX1_xmin115108_ymin40554_MPP-0.2500": [[1, 2], [19, 4]],
    "TCGA-E2-A14N-DX1_xmin21383_ymin66838_MPP-0.2500": [[2, 3], [5, 9]],
}
"""Name of a region, and the code that most of each of its four patches of 512 pixels has."""

SIDE = 512
_MARGIN = 40


def lc25000(root: Path) -> Path:
    """``lung_colon_image_set/<organ>_image_sets/<class>/<class><n>.jpeg``, 12 of each; one cut."""
    folder = root / "pathology" / "lc25000" / "lung_colon_image_set"
    names = [(organ, tissue) for organ, found in TISSUES.items() for tissue in found]
    for place, (organ, tissue) in enumerate(names):
        for index in range(12):
            name = f"{tissue.replace('_', '')}{index + 1}.jpeg"
            draw(folder / organ / tissue / name, 100 * place + index)
    cut = folder / "lung_image_sets" / "lung_n" / "lungn4.jpeg"
    cut.write_bytes(cut.read_bytes()[:50])
    return root


def bcss(root: Path) -> Path:
    """``images/<region>.png`` and ``masks/<region>.png``, one pair damaged, one of two missing.

    Of each patch three quarters (the lower ones) have its code and the rest is outside the region
    (0); a patch of code 2 in the first region is but a third.
    """
    folder = root / "pathology" / "bcss"
    for name, codes in REGIONS.items():
        mask = np.zeros((2 * SIDE + _MARGIN, 2 * SIDE + 2 * _MARGIN), dtype=np.uint8)
        for (row, column), code in np.ndenumerate(codes):
            top, left = row * SIDE + SIDE // 4, column * SIDE
            mask[top : (row + 1) * SIDE, left : left + SIDE] = code
        if name.startswith("TCGA-A1-A0SK-DX1_xmin45749"):
            mask[: 2 * SIDE // 3, SIDE:] = 0
        _save(folder / "masks" / f"{name}.png", mask)
        _save(folder / "images" / f"{name}.png", _stained(mask))
    whole = (folder / "masks" / f"{next(iter(REGIONS))}.png").read_bytes()
    for site in ("C8", "D8"):
        (folder / "masks" / f"TCGA-{site}-A131-DX1_xmin1_ymin1_MPP-0.2500.png").write_bytes(whole)
    broken = folder / "masks" / "TCGA-C8-A131-DX1_xmin1_ymin1_MPP-0.2500.png"
    broken.write_bytes(whole[:60])
    (folder / "images" / broken.name).write_bytes(whole)
    return root


def _stained(mask: np.ndarray) -> np.ndarray:
    """A picture whose red is the code, and whose other channels tell row and column."""
    rows, columns = np.indices(mask.shape)
    return np.stack([mask, rows // 8 % 256, columns // 8 % 256], axis=2).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)
