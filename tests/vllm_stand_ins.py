"""What TRL talks to when vLLM samples, on a CPU: stock Qwen2.5-VL behind vLLM's two interfaces.

``Server`` speaks the HTTP of ``vllm serve`` as far as TRL's own client uses it, ``LocalLLM`` has
the methods that TRL calls of ``vllm.LLM``. Both load a model folder as vLLM would, with
transformers, and really sample. Weights come over HTTP where vLLM takes them over NCCL.
"""

import base64
import json
import threading
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from trl.generation.vllm_client import VLLMClient

from qoq_lib.model.pixels import image_processor_class

Sampled = tuple[list[int], list[float]]


class PlainModel:
    """A stock model that samples; ``asked`` holds (token ids, images, n) of every request."""

    def __init__(self, folder: str | Path) -> None:
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.image_processor = image_processor_class().from_pretrained(folder)
        self.asked: list[tuple[list[int], int, int]] = []
        self.updates = 0
        self.lock = threading.Lock()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Refuses a name that the model does not have, as vLLM's loader does."""
        own = dict(self.model.named_parameters())
        for name, tensor in weights:
            own[name].data.copy_(tensor)

    def expanded(self, ids: list[int], images: Sequence[Any]) -> list[int]:
        """One token of each image replaced by as many as the image has, as vLLM does.

        It would take more of them, and read another prompt than was meant; here they are refused.
        """
        token = self.model.config.image_token_id
        assert ids.count(token) == len(images), "one placeholder token per image"
        if not images:
            return ids
        grids = self.image_processor(images=list(images), return_tensors="pt")["image_grid_thw"]
        counts = iter((grids.prod(dim=1) // self.image_processor.merge_size**2).tolist())
        return [one for each in ids for one in [each] * (next(counts) if each == token else 1)]

    @torch.no_grad()
    def sample(
        self, ids: list[int], images: Sequence[Any], n: int, params: dict[str, Any]
    ) -> list[Sampled]:
        """``n`` completions with the log-probabilities of what was sampled from."""
        banned = [self.tokenizer.encode(w, add_special_tokens=False) for w in params["bad_words"]]
        assert all(len(tokens) == 1 for tokens in banned)
        row = torch.tensor([ids])
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        inputs["mm_token_type_ids"] = (row == self.model.config.image_token_id).long()
        if images:
            inputs |= self.image_processor(images=list(images), return_tensors="pt")
        with self.lock, torch.random.fork_rng():
            self.asked.append((ids, len(images), n))
            torch.manual_seed(sum(ids) + self.updates)
            made = self.model.generate(
                **inputs,
                do_sample=True,
                num_return_sequences=n,
                max_new_tokens=params["max_tokens"],
                temperature=params["temperature"],
                top_k=params["top_k"],
                suppress_tokens=[token for tokens in banned for token in tokens],
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
        logps = torch.stack(made.scores, dim=1).log_softmax(-1)
        return [
            self._cut(tokens, told)
            for tokens, told in zip(made.sequences[:, len(ids) :].tolist(), logps, strict=True)
        ]

    def _cut(self, tokens: list[int], logps: torch.Tensor) -> Sampled:
        end = self.tokenizer.eos_token_id
        length = tokens.index(end) + 1 if end in tokens else len(tokens)
        return tokens[:length], [float(logps[i, tokens[i]]) for i in range(length)]


class LocalLLM:
    """In place of ``vllm.LLM``."""

    made: list["LocalLLM"] = []

    def __init__(self, model: str, **options: Any) -> None:
        self.plain, self.options = PlainModel(model), options
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=self.plain))
        executor = SimpleNamespace(driver_worker=runner)
        self.llm_engine = SimpleNamespace(model_executor=executor)
        self.made.append(self)

    def reset_prefix_cache(self) -> None:
        self.plain.updates += 1  # the last call of a transfer

    def generate(self, prompts: list[dict], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        return [self._answer(prompt, vars(sampling_params)) for prompt in prompts]

    def _answer(self, prompt: dict[str, Any], params: dict[str, Any]) -> Any:
        given = prompt.get("multi_modal_data", {}).get("image", [])
        images = given if isinstance(given, list) else [given]
        ids = self.plain.expanded(prompt["prompt_token_ids"], images)
        outputs = [
            SimpleNamespace(
                token_ids=tokens,
                logprobs=[
                    {token: SimpleNamespace(rank=1, logprob=logp)}
                    for token, logp in zip(tokens, logps, strict=True)
                ],
            )
            for tokens, logps in self.plain.sample(ids, images, params["n"], params)
        ]
        return SimpleNamespace(prompt_token_ids=ids, outputs=outputs)


class LoopbackClient(VLLMClient):
    """TRL's client; weights go over HTTP instead of NCCL, which needs a GPU."""

    def init_communicator(self, device: Any = 0) -> None:
        pass

    def update_named_params(self, metadata: Any, named_params: Any) -> None:
        tensors = {name: tensor.detach().clone() for name, tensor in named_params}
        assert list(tensors) == [name for name, _, _ in metadata]
        url = f"{self.base_url}/weights"
        assert self.session.post(url, data=save_tensors(tensors)).status_code == 200


class Server(ThreadingHTTPServer):
    """``vllm serve`` on a free port of this machine; a context manager that serves inside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plain = PlainModel(folder)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """The requests that TRL's client sends."""

    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({"/health": {}, "/v1/models": {"data": [{"id": "plain"}]}}[self.path])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        plain = self.server.plain
        if self.path == "/weights":
            plain.load_weights(load_tensors(body).items())
            plain.updates += 1
            return self._reply({})
        if self.path == "/reset_prefix_cache":
            return self._reply({})
        answer = {
            "/v1/completions": self._completions,
            "/v1/chat/completions/render": self._render,
            "/inference/v1/generate": self._generate,
        }[self.path]
        return self._reply(answer(json.loads(body)))

    def _completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for ids in asked["prompt"]:
            for tokens, logps in self.server.plain.sample(ids, [], asked["n"], asked):
                names = [f"token_id:{token}" for token in tokens]
                told = {"tokens": names, "token_logprobs": logps, "top_logprobs": [{}] * len(names)}
                choices.append({"prompt_token_ids": ids, "token_ids": tokens, "logprobs": told})
        return {"choices": choices}

    def _render(self, asked: dict[str, Any]) -> dict[str, Any]:
        parts = asked["messages"][0]["content"]
        urls = [part["image_url"]["url"].split(",", 1)[1] for part in parts]
        return {"features": {"mm_placeholders": {"image": [{}] * len(urls)}, "kwargs_data": urls}}

    def _generate(self, asked: dict[str, Any]) -> dict[str, Any]:
        features, ids, params = asked["features"], asked["token_ids"], asked["sampling_params"]
        images = []
        if features:
            images = [
                Image.open(BytesIO(base64.b64decode(d))).convert("RGB")
                for d in features["kwargs_data"]
            ]
            token = self.server.plain.model.config.image_token_id
            spans = features["mm_placeholders"]["image"]
            assert all(set(ids[s["offset"] :][: s["length"]]) == {token} for s in spans)
        choices = []
        for tokens, logps in self.server.plain.sample(ids, images, params["n"], params):
            content = [
                {"token": f"token_id:{token}", "logprob": logp, "top_logprobs": []}
                for token, logp in zip(tokens, logps, strict=True)
            ]
            choices.append({"token_ids": tokens, "logprobs": {"content": content}})
        return {"choices": choices}

    def _reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
