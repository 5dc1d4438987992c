"""Who samples the rollouts: transformers, vLLM in this process, or a vLLM server; all as TRL does.

TRL hands vLLM token ids and images, never an ECG, so questions with an ECG are sampled by
transformers in either case, and the rest of the batch by vLLM (``Split``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import GenerationConfig
from trl.import_utils import is_vllm_available

from qoq_lib.model.plain import without_ecg, write_plain
from qoq_lib.model.processing_qoq import suppressed_token_ids, vllm_suppression
from qoq_lib.training.estimators import NEED_GREEDY
from qoq_lib.training.generation.decoding import Decoder
from qoq_lib.training.job import TrainingError, TrainingJob
from qoq_lib.training.sharing import Prompt

VLLM_PROMPT = 16_384
"""Most tokens of a prompt in a colocated vLLM. TRL's default is the 128,000 of the model's
configuration, for which vLLM must reserve keys and values: more memory than TRL gives it."""


def check_engine(rollout: str, estimator: str | None, server: str) -> None:
    """Look, before any heavy work, whether these rollouts can be had here.

    Args:
        rollout: ``transformers``, ``vllm`` or ``vllm_server``.
        estimator: of the advantages; ``None`` for a training without rollouts.
        server: address of the vLLM server.

    Raises:
        TrainingError: vLLM, its GPU or its server is missing, or the estimator rules it out.
    """
    if rollout == "transformers" or estimator is None:
        return
    refuse_greedy(estimator)
    if not is_vllm_available():
        raise TrainingError(
            f"rollout {rollout!r} needs vLLM, which is not installed: pip install 'trl[vllm]', or "
            "use rollout transformers."
        )
    if not torch.cuda.is_available():
        raise TrainingError(
            f"rollout {rollout!r} needs an NVIDIA GPU in the training process, too, and none is "
            "visible: run it on a GPU machine, or use rollout transformers."
        )
    if rollout == "vllm_server":
        _refuse_silence(server)


def refuse_greedy(estimator: str) -> None:
    """``TrainingError`` for an estimator that compares rollouts with greedy completions."""
    if estimator in NEED_GREEDY:
        raise TrainingError(
            f"Advantages {estimator!r} need greedy completions, which vLLM is not asked for: use "
            "rollout transformers, or another method."
        )


def _refuse_silence(server: str) -> None:
    try:
        requests.get(f"{server}/health", timeout=5).raise_for_status()
    except requests.RequestException as error:
        raise TrainingError(
            f"No vLLM server answers at {server} ({type(error).__name__}): start it as "
            "docs/rollouts.md says, or set rollout_server to its address."
        ) from error


def engine_options(job: TrainingJob, tokenizer: Any, answer_length: int) -> dict[str, Any]:
    """The fields of TRL's ``GRPOConfig`` for the job's engine; all others stay TRL's defaults."""
    if job.rollout == "transformers":
        return {"generation_kwargs": {"suppress_tokens": suppressed_token_ids(tokenizer)}}
    options = {"use_vllm": True, "generation_kwargs": vllm_suppression(tokenizer)}
    if job.rollout == "vllm_server":
        return options | {"vllm_mode": "server", "vllm_server_base_url": job.rollout_server}
    length = VLLM_PROMPT + answer_length
    return options | {"vllm_mode": "colocate", "vllm_max_model_length": length}


def transformers_engine(trainer: Any, tokenizer: Any, compiled: bool) -> Decoder:
    """How transformers samples in a trainer: compiled on a GPU where that is wanted and can be."""
    if trainer.use_vllm:
        _beside_vllm(trainer, tokenizer)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    device = trainer.accelerator.device
    # Beside vLLM the number of rows varies, and each number would be compiled anew.
    static = compiled and device.type == "cuda" and not sharded and not trainer.use_vllm
    return Decoder(device, tokenizer.pad_token_id, static=static, sharded=sharded)


def _beside_vllm(trainer: Any, tokenizer: Any) -> None:
    """What TRL lacks where vLLM samples a part of the rollouts, for a model with an ECG path.

    Transformers gets the settings of vLLM's sampling, and vLLM no weights that it has no place for.
    """
    trainer.generation_config = GenerationConfig(
        max_new_tokens=trainer.max_completion_length,
        do_sample=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=trainer.eos_token_ids,
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        top_k=trainer.top_k,
        min_p=trainer.min_p,
        repetition_penalty=trainer.repetition_penalty,
        suppress_tokens=suppressed_token_ids(tokenizer),
    )
    trainer.generation_kwargs = None
    vllm, every = trainer.vllm_generation, trainer.vllm_generation._iter_named_params
    vllm._iter_named_params = lambda: without_ecg(every())


@contextmanager
def loadable_by_vllm(job: TrainingJob, model: Any, folder: Path) -> Iterator[None]:
    """While a colocated vLLM is built, ``model`` bears the name of a folder that vLLM can load.

    vLLM knows Qwen2.5-VL and not QoQ, and TRL has it load what the model is called. The folder is
    a temporary one in ``folder``; TRL sends the weights themselves before the first rollout.
    """
    if job.rollout != "vllm" or job.method.advantages is None:
        yield
        return
    state, name = PartialState(), model.name_or_path
    with TemporaryDirectory(dir=folder) as made:
        places = [made]
        broadcast_object_list(places)  # the first process's; the others' stay empty
        if state.is_main_process:
            write_plain(job.start, Path(places[0]) / "plain", job.size.pixels)
        state.wait_for_everyone()
        model.name_or_path = str(Path(places[0]) / "plain")
        yield
        model.name_or_path = name
        state.wait_for_everyone()


@dataclass(frozen=True)
class Split:
    """The rows of one process's batch, by engine.

    All processes ask vLLM for equally many rows, and all of them sample some with transformers or
    none does: both are collective where a server or a sharded model is in use.

    Attributes:
        there: rows for vLLM; ``None`` fills up to the number of the other processes.
        here: rows for transformers; ``None`` stands for any, where only other processes have some.
        share: part of all processes' rows that transformers samples.
    """

    there: list[int | None]
    here: list[int | None]
    share: float

    @classmethod
    def of(cls, prompts: Sequence[Prompt], group: int) -> "Split":
        """Rows with an ECG stay here, the others go to vLLM; a collective call.

        Where a process holds a part of a question's ``group`` rollouts, TRL pairs rows with prompts
        over all processes, so a batch with any ECG in it then stays here as a whole.
        """
        has_ecg = ["ecg_values" in prompt.media for prompt in prompts]
        heads = [prompts[row - row % group] for row in range(len(prompts))]
        whole = len(prompts) % group == 0 and list(prompts) == heads
        told = gather_object([(whole, has_ecg)])
        flags = [flag for _, theirs in told for flag in theirs]
        together = any(flags) and not all(theirs_whole for theirs_whole, _ in told)
        if together:
            return cls([], list(range(len(prompts))), 1.0)
        here: list[int | None] = [row for row, ecg in enumerate(has_ecg) if ecg]
        there: list[int | None] = [row for row, ecg in enumerate(has_ecg) if not ecg]
        most = max(theirs.count(False) for _, theirs in told)
        there += [None] * (most - len(there))
        return cls(there, here or [None] * any(flags), sum(flags) / len(flags))

    def requests(
        self, prompts: Sequence[Prompt], filler: list[int], folded: int | None
    ) -> tuple[list[list[int]], list[list[Any] | None]]:
        """Token ids and images (``None`` where there are none) of the rows for vLLM.

        ``folded`` is a token whose runs become a single one, or ``None``: a vLLM in this process
        replaces one token of each image by as many as the image has, and puts all of them beside
        those already there (huggingface/trl issue 6294); what a server is asked must hold them all,
        since TRL finds there where the images stand.
        """
        rows = [None if row is None else prompts[row] for row in self.there]
        ids = [prompt.input_ids.tolist() if prompt else filler for prompt in rows]
        if folded is not None:
            ids = [_folded(each, folded) for each in ids]
        return ids, [(prompt.images or None) if prompt else None for prompt in rows]

    def merged(
        self, here: Sequence[list[int]], there: Sequence[list[int]], logps: Sequence[list[float]]
    ) -> tuple[list[list[int]], list[list[float | None]]]:
        """Completions of all rows in order, and their log-probabilities where vLLM sampled them.

        ``None`` elsewhere: TRL corrects nothing there, as the policy itself has sampled.
        """
        ids: Mapping[int | None, list[int]]
        ids = dict(zip([*self.here, *self.there], [*here, *there], strict=True))
        told: dict[int | None, list[float]] = dict(zip(self.there, logps, strict=True))
        rows = sorted(row for row in ids if row is not None)
        return (
            [ids[row] for row in rows],
            [list(told.get(row, [None] * len(ids[row]))) for row in rows],
        )


def _folded(ids: list[int], token: int) -> list[int]:
    """``ids`` with one ``token`` in place of each run of it."""
    pairs = zip([None, *ids], ids, strict=False)
    return [now for before, now in pairs if now != token or before != token]
