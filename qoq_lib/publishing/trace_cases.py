"""The questions of a run as cases: what was asked, with image or ECG where it may be shared."""

import io
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from qoq_lib.data.example import ecg_array
from qoq_lib.data.storage import load_index
from qoq_lib.model.pixels import convert_boxes, model_size
from qoq_lib.model.processing_qoq import QoQProcessor
from qoq_lib.training.checkpoints import run_checkpoint

_ROWS = 64
_COPIED = ("id", "domain", "dataset", "question", "options", "answers", "split", "license")
_OWN = ("images", "boxes", "ecg", "ecg_leads", "ecg_rate_hz", "report")
"""What is the source's own: shared as its card says of images and signals."""


def run_image_processor(run_folder: Path) -> Any:
    """The image processor of the run's last checkpoint; ``None`` where it has none."""
    folder = run_checkpoint(run_folder)
    return QoQProcessor.from_pretrained(folder).image_processor if folder else None


def read_cases(
    data: Path, ids: Collection[str], shared: Collection[str], image_processor: Any
) -> Iterator[dict[str, Any]]:
    """The questions ``ids`` as rows of ``trace_rows.CASES``, in the order of the assembly.

    Args:
        data: folder of the assembled data.
        ids: questions wanted; those that are not there are left out.
        shared: data sets whose own images, signals, boxes and reports are given; for the others
            they are null.
        image_processor: tells ``image_size``; without one, sizes and boxes are null.

    Raises:
        AssemblyError: ``data`` is no assembled data set.
    """
    wanted = set(ids)
    index = load_index(data, ("id", "shard"))
    shards = dict.fromkeys(
        shard
        for name, shard in zip(index["id"].to_pylist(), index["shard"].to_pylist(), strict=True)
        if name in wanted
    )
    for shard in shards:
        for batch in pq.ParquetFile(Path(data) / shard).iter_batches(_ROWS):
            asked = pa.array([name in wanted for name in batch.column("id").to_pylist()])
            for row in batch.filter(asked).to_pylist():
                yield _case(row, row["dataset"] in shared, image_processor)


def _case(row: Mapping[str, Any], shared: bool, image_processor: Any) -> dict[str, Any]:
    files = [_bytes(image) for image in row["images"] or []]
    ecg = ecg_array(row)
    known = {name: row[name] for name in _COPIED} | {
        "source_record": row["id"].removeprefix(f"{row['dataset']}/"),
        "image_ref": [sha256(data).hexdigest() for data in files],
        "ecg_ref": None if ecg is None else sha256(ecg.tobytes()).hexdigest(),
    }
    size = Image.open(io.BytesIO(files[0])).size if files and image_processor else None
    known["image_size"] = model_size(*size, image_processor) if size else None
    if not shared:
        return known | dict.fromkeys(_OWN)
    own = {name: row[name] for name in _OWN}
    boxes = row["boxes"]
    if boxes:
        boxes = (
            convert_boxes(boxes, size, image_processor, source="original", target="model")
            if size
            else None
        )
    # A stored path would tell the folders of this machine.
    images = [{"bytes": data, "path": None} for data in files]
    return known | own | {"images": images, "boxes": boxes}


def _bytes(image: Mapping[str, Any]) -> bytes:
    data: bytes | None = image["bytes"]
    return Path(image["path"]).read_bytes() if data is None else data
