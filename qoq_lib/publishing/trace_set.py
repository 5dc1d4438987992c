"""What a written trace set holds: for its card, its publisher and its reader."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from qoq_lib.publishing.folders import ReleaseError
from qoq_lib.publishing.policy import Verdict, gate_text
from qoq_lib.runs import write_json_atomic, write_text_atomic

MARKER = "traces.json"
CARD = "README.md"


@dataclass(frozen=True)
class TraceSplit:
    """Rows of one split of one configuration, and their size in memory and in files, in bytes."""

    rows: int
    size: int
    stored: int


@dataclass(frozen=True)
class TraceSet:
    """A folder of traces.

    Attributes:
        run_id: of the run that they are of.
        gated: whether they may leave for a gated repository only.
        configs: configuration to split to its size, in the order of the card.
        features: columns of each configuration.
        files: path in the folder to SHA-256.
        datasets: rows of ``all`` by data set, over its splits.
        verdicts: what the data cards say of the traces, and of images and signals.
        left_out: rows that were left out, by reason.
        notes: sentences about what is missing.
    """

    run_id: str
    gated: bool
    configs: Mapping[str, Mapping[str, TraceSplit]]
    features: Mapping[str, Features]
    files: Mapping[str, str]
    datasets: Mapping[str, int]
    verdicts: tuple[Verdict, ...]
    left_out: Mapping[str, int]
    notes: tuple[str, ...]

    def rows(self, config: str) -> int:
        """Rows of a configuration over its splits."""
        return sum(split.rows for split in self.configs[config].values())

    def front_matter(self) -> dict[str, Any]:
        """``configs`` and ``dataset_info`` as the Hub and ``load_dataset`` read them."""
        infos = DatasetInfosDict({name: self._info(name) for name in self.configs})
        data = DatasetCardData()
        infos.to_dataset_card_data(data)
        listed = [
            {
                "config_name": name,
                "data_files": [
                    {"split": split, "path": f"data/{name}/{split}-*"} for split in splits
                ],
                **({"default": True} if name == next(iter(self.configs)) else {}),
            }
            for name, splits in self.configs.items()
        ]
        return {"configs": listed, **data.to_dict()}

    def save(self, folder: Path) -> None:
        """Write ``traces.json``, and a card that is its front matter and the sources' terms."""
        told = {name: value for name, value in asdict(self).items() if name != "features"}
        write_json_atomic(folder / MARKER, told)
        terms = gate_text(self.verdicts)
        data = DatasetCardData(**self.front_matter(), extra_gated_prompt=terms or None)
        write_text_atomic(folder / CARD, f"---\n{data.to_yaml()}\n---\n")

    def _info(self, config: str) -> DatasetInfo:
        splits = self.configs[config]
        return DatasetInfo(
            config_name=config,
            features=self.features[config],
            splits=SplitDict(
                {
                    name: SplitInfo(name, num_bytes=split.size, num_examples=split.rows)
                    for name, split in splits.items()
                }
            ),
            download_size=sum(split.stored for split in splits.values()),
            dataset_size=sum(split.size for split in splits.values()),
        )


def read_trace_set(folder: Path) -> TraceSet:
    """The trace set that ``write_traces`` wrote to a folder.

    Raises:
        ReleaseError: the folder holds none, or not all of it.
    """
    folder = Path(folder)
    try:
        told = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        configs = {
            name: {split: TraceSplit(**facts) for split, facts in splits.items()}
            for name, splits in told["configs"].items()
        }
        features = {
            name: Features.from_arrow_schema(
                pq.read_schema(next((folder / "data" / name).glob("*.parquet")))
            )
            for name in configs
        }
        verdicts = tuple(Verdict(**one) for one in told["verdicts"])
        return TraceSet(
            **told
            | {"configs": configs, "features": features, "verdicts": verdicts}
            | {"notes": tuple(told["notes"])}
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ReleaseError(
            f"{folder} holds no complete trace set ({MARKER} or its files are missing or damaged): "
            "write it again."
        ) from error
