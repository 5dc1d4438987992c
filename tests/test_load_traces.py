"""Traces back from a Hub and from a folder, with the genuine clients."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, IterableDataset
from hub_releases import hub_environment
from hub_server import HubServer
from huggingface_hub import constants
from trace_runs import write_run

import qoq_lib
from qoq_lib.hub_errors import GatedError, MissingError, OfflineError
from qoq_lib.publishing.hub import publish
from qoq_lib.publishing.loading import COLUMNS, TracesError
from qoq_lib.publishing.plan import plan_release
from qoq_lib.publishing.trace_set import TraceSet
from qoq_lib.publishing.traces import write_traces

NAME = "writer/traces"


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, tiny: tuple[Any, Any]
) -> tuple[Path, TraceSet]:
    run = write_run(tmp_path_factory.mktemp("runs") / "small", tiny)
    return run.parent / "traces", write_traces(run, run.parent / "traces")


@pytest.fixture(autouse=True)
def own_caches(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets, too, talks to the Hub of the test, and keeps what it makes of it there."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.address)


@pytest.fixture
def published(hub: HubServer, written: tuple[Path, TraceSet]) -> HubServer:
    publish(plan_release(written[0], NAME, "dataset", private=False), "hf_write", "v1")
    return hub


def counts(source: str, written: TraceSet, **how: Any) -> dict[str, int]:
    return {name: qoq_lib.load_traces(source, name, **how).num_rows for name in written.configs}


def test_a_published_set_comes_back_whole_and_typed(
    published: HubServer, written: tuple[Path, TraceSet]
) -> None:
    folder, made = written
    expected = {name: splits["train"].rows for name, splits in made.configs.items()}
    assert counts(NAME, made) == counts(str(folder), made) == expected
    for name, features in made.features.items():
        assert qoq_lib.load_traces(NAME, name).features == features
    assert isinstance(qoq_lib.load_traces(NAME), Dataset)
    assert (
        qoq_lib.load_traces(NAME, "all", split="test").num_rows == made.configs["all"]["test"].rows
    )


def test_only_what_is_asked_for_is_downloaded(published: HubServer) -> None:
    published.log.clear()
    qoq_lib.load_traces(NAME)
    assert published.asked("GET .*/data/default/") == 1
    assert published.asked("/data/(all|rl_steps|cases)/") == 0


def test_streaming_reads_the_same_rows(published: HubServer) -> None:
    rows = qoq_lib.load_traces(NAME, "all", streaming=True)
    assert isinstance(rows, IterableDataset)
    assert list(rows) == list(qoq_lib.load_traces(NAME, "all"))


def test_the_stock_clients_read_it_too(
    published: HubServer, written: tuple[Path, TraceSet], tmp_path: Path
) -> None:
    script = """
import sys
import pandas as pd
from datasets import load_dataset
name = sys.argv[1]
whole = load_dataset(name, "default", split="train")
streamed = sum(1 for _ in load_dataset(name, "default", split="train", streaming=True))
table = pd.read_parquet(f"hf://datasets/{name}/data/default")
print(whole.num_rows, streamed, len(table), whole[0]["messages"][0]["role"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, NAME],
        env=hub_environment(published, tmp_path / "clean"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = written[1].configs["default"]["train"].rows
    assert done.stdout.split()[:3] == [str(rows)] * 3


def test_a_revision_is_that_revision_for_ever(
    published: HubServer, written: tuple[Path, TraceSet], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for path in written[0].rglob("*"):
        if path.is_file():
            (other / path.relative_to(written[0])).parent.mkdir(parents=True, exist_ok=True)
            (other / path.relative_to(written[0])).write_bytes(path.read_bytes())
    chats = next((other / "data" / "default").glob("*.parquet"))
    pd.read_parquet(chats).head(2).to_parquet(chats)
    publish(plan_release(other, NAME, "dataset", private=False), "hf_write", "v2")
    assert [qoq_lib.load_traces(NAME, revision=name).num_rows for name in ("v1", "v2")] == [9, 2]
    assert qoq_lib.load_traces(NAME).num_rows == 2
    assert len(list(qoq_lib.load_traces(NAME, revision="v1", streaming=True))) == 9


def test_offline_the_cache_answers_and_never_with_another_revision(
    published: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    qoq_lib.load_traces(NAME, revision="v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert qoq_lib.load_traces(NAME, revision="v1").num_rows == 9
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE"):
        qoq_lib.load_traces(NAME, revision="v2")
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE"):
        qoq_lib.load_traces(NAME, "all", revision="v1")
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE"):
        qoq_lib.load_traces(NAME, streaming=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_gated_missing_and_unreachable_are_told_apart(
    published: HubServer, streaming: bool
) -> None:
    def load(name: str = NAME, **how: Any) -> Any:
        return next(iter(qoq_lib.load_traces(name, streaming=streaming, **how)))

    with pytest.raises(MissingError, match="is not on the Hub, or is private"):
        load("writer/nothing")
    with pytest.raises(MissingError, match="no such revision"):
        load(revision="v9")
    published.repos["datasets", NAME].gated = "manual"
    with pytest.raises(GatedError, match="accept its terms"):
        load()
    published.fail("", lose="request", times=99)
    with pytest.raises(OfflineError, match="check the network"):
        load()


def test_what_is_no_trace_set_is_said(tmp_path: Path, written: tuple[Path, TraceSet]) -> None:
    with pytest.raises(TracesError, match="use one of default, all, rl_steps, cases"):
        qoq_lib.load_traces(written[0], "chat")
    with pytest.raises(TracesError, match="configuration 'default' and split 'test'"):
        qoq_lib.load_traces(written[0], split="test")
    with pytest.raises(TracesError, match="There is no folder not/a/folder"):
        qoq_lib.load_traces("not/a/folder")
    (tmp_path / "data" / "all").mkdir(parents=True)
    shard = tmp_path / "data" / "all" / "train-00000-of-00001.parquet"
    pd.DataFrame({"id": ["a"], "completion": ["b"]}).to_parquet(shard)
    with pytest.raises(TracesError, match="lacks the columns advantage, answers"):
        qoq_lib.load_traces(tmp_path, "all")
    shard.write_bytes(b"PAR1 no more")
    with pytest.raises(TracesError, match="is damaged"):
        qoq_lib.load_traces(tmp_path, "all")


def test_every_configuration_has_its_columns(written: tuple[Path, TraceSet]) -> None:
    for name, features in written[1].features.items():
        assert set(COLUMNS[name]) <= set(features)
