"""Miniatures of the MRI collections: folders of slices, with a copy and a damaged file in each."""

from pathlib import Path

from miniatures import draw

_TUMORS = {"glioma": "gg", "meningioma": "m", "pituitary": "p", "no": "image"}


def brain_tumor(root: Path) -> Path:
    """``{Training,Testing}/<class>_tumor/<letters>(<n>).jpg``, 8 and 3 of each class.

    One training slice is a copy of a test slice, and one is cut off in the middle.
    """
    folder = root / "mri" / "brain_tumor"
    for place, (tumor, letters) in enumerate(_TUMORS.items()):
        for split, count, seed in (("Training", 8, 0), ("Testing", 3, 500)):
            for index in range(count):
                name = f"{letters}({index + 1}).jpg"
                draw(folder / split / f"{tumor}_tumor" / name, seed + 20 * place + index)
    copy = folder / "Testing" / "glioma_tumor" / "gg(1).jpg"
    (folder / "Training" / "glioma_tumor" / "gg(5).jpg").write_bytes(copy.read_bytes())
    _cut(folder / "Training" / "no_tumor" / "image(2).jpg")
    return root


def brain_tumor_2(root: Path) -> Path:
    """``{yes,no}/<file>`` with suffixes as they come, and everything again one folder deeper."""
    folder = root / "mri" / "brain_tumor_2"
    names = [("yes", f"Y{n}.jpg") for n in range(12)] + [("no", f"{n} no.jpeg") for n in range(9)]
    names += [("no", "No12.png"), ("no", "N3.JPG")]
    for seed, (label, name) in enumerate(names):
        draw(folder / label / name, 900 + seed)
        again = folder / "brain_tumor_dataset" / label / name
        again.parent.mkdir(parents=True, exist_ok=True)
        again.write_bytes((folder / label / name).read_bytes())
    _cut(folder / "yes" / "Y3.jpg")
    return root


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])
