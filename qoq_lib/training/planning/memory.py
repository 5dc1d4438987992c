"""How many bytes a training step asks of one GPU, as formulas of the model's shape.

Symbols of the formulas: ``H`` width, ``I`` width of the MLP, ``L`` layers, ``V`` vocabulary, all of
the language model; ``W`` and ``M`` width and MLP of the vision tower; ``T`` tokens of one pass. The
factors count the tensors that the classes in transformers' ``modeling_qwen2_5_vl.py`` keep alive at
the worst moment, under autocast to bfloat16, with LoRA inputs cast as peft casts them, attention
by ``sdpa`` and gradient checkpointing by layer (Chen et al., arXiv 1604.06174).
``benchmarks/memory_plan.py`` compares them with the tensors of a real step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qoq_lib.model.tuning import Part
from qoq_lib.training.generation.decoding import CACHE_STEP
from qoq_lib.training.planning.counting import Counts

MOMENTS = ("reading", "decoding", "scoring", "backward")
"""When memory may peak: the prompts are read for the rollouts, the last token of all rollouts is
sampled, the log-probabilities of a pass are computed, a layer is recomputed for its gradients."""

Needs = dict[str, dict[str, float]]  # part -> moment -> bytes


@dataclass(frozen=True)
class Load:
    """What one GPU works on at once.

    Attributes:
        questions: different prompts that are read together for the rollouts.
        rows: rollouts that are generated together.
        prompt: tokens of a prompt, media included.
        answer: most new tokens.
        patches: patches of 14 x 14 pixels of a prompt's images.
        ecgs: ECGs of a prompt.
        packed: prompts of a log-probability pass, and rollouts laid out behind each.
        scored: tokens of that pass whose logits are computed.
    """

    questions: int
    rows: int
    prompt: int
    answer: int
    patches: int
    ecgs: int
    packed: tuple[int, int]
    scored: int


def weight_needs(counts: Counts, processes: int, parallel: str, *, gather: bool) -> Needs:
    """Weights of all kinds, and what the optimiser keeps, on one GPU.

    AdamW keeps a gradient and two moments of a weight's own type (Loshchilov and Hutter, arXiv
    1711.05101): 12 bytes beside a float32 weight. With ``ddp`` every GPU holds everything, and the
    gradients a second time in the buckets that are summed over GPUs. ``fsdp2`` and ``zero3`` share
    all of it out; trained weights are then float32 beside a bfloat16 copy at work (ZeRO, arXiv
    1910.02054, section 3.1). At work FSDP2 has the weights outside the layers and two layers whole,
    this one and the next; ZeRO-3 up to 10^9 parameters (``stage3_max_live_parameters``), and all of
    them for ``generate`` where TRL gathers them (``gather``: it does by default).
    """
    if processes == 1 or parallel == "ddp":
        gradients = counts.trained_bytes * (2 if processes > 1 else 1)
        return {
            "frozen weights": _always(counts.frozen_bytes),
            "trained weights": _always(counts.trained_bytes),
            "gradients and optimiser": _always(gradients + 2 * counts.trained_bytes),
        }
    whole = 2.0 * (counts.outside + 2 * counts.layer)
    if parallel == "zero3":
        whole = 2.0 * min(counts.weights, 10**9)
    gathered = _always(whole)
    if parallel == "zero3" and gather:
        gathered |= dict.fromkeys(("reading", "decoding"), 2.0 * counts.weights)
    return {
        "frozen weights": _always(counts.frozen_bytes / processes),
        "trained weights": _always(4 * counts.trained / processes),
        "gradients and optimiser": _always(12 * counts.trained / processes),
        "gathered weights": gathered,
    }


def _always(count: float) -> dict[str, float]:
    return dict.fromkeys(MOMENTS, float(count))


def rollout_needs(config: Any, load: Load, number: int, *, kept: bool) -> Needs:
    """Memory of transformers' ``generate`` beside the weights; ``number`` is bytes per value.

    Keys and values take 2 x L x key-value heads x head width values a token, those of the prompts
    beside those of the rollouts. The latter's stay between steps where the cache is ``kept``, a
    static one of a multiple of ``CACHE_STEP`` tokens. Reading needs 10 I bytes a token (MLP: gate,
    up, their product and its copy for the adapter, in bfloat16), or 38 W bytes a patch and the
    patch itself while the vision tower turns queries and keys in float32. A decoding step reads
    keys and values as they are (``generation.attention``), and sampling takes float32 logits,
    log-probabilities and 64-bit noise, 32 V bytes a row.
    """
    text, vision = config.text_config, config.vision_config
    heads = text.num_key_value_heads / text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * heads * text.hidden_size * number
    tokens, patches = load.questions * load.prompt, load.questions * load.patches
    length = load.prompt + load.answer
    length = -(-length // CACHE_STEP) * CACHE_STEP if kept else length
    cache = load.rows * length * per_token
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    layer = 5 * number * text.intermediate_size * tokens
    tower = (19 * number * vision.hidden_size + 4 * pixels) * patches
    return {
        "KV cache": _always(cache) if kept else {"decoding": cache},
        "keys and values of prompts": dict.fromkeys(("reading", "decoding"), tokens * per_token),
        "activations": {"reading": max(layer, tower)},
        "logits": {"decoding": 32 * load.rows * text.vocab_size},
    }


def update_needs(
    config: Any, load: Load, number: int, trainable: Sequence[Part], *, checkpointing: bool
) -> Needs:
    """Memory of one log-probability pass with its gradients, beside weights and their gradients.

    Held from the pass to its gradients: the input of each layer, 2 H (L + 1) bytes a token in
    bfloat16; where the vision tower is trained, that of each of its blocks, 2 W bytes a patch, and
    where it or the merger is, 10 W around the merger; the attention mask, 3 bytes per pair of
    tokens; an ECG's encoder, which is not checkpointed, 36 bytes per value of each block. On top of
    that, either three float32 copies of the logits (the model's, as rows of rollouts, and one in
    the making), 12 V bytes per scored token; or one layer recomputed (8 I + 28 H bytes a token)
    with the gradients inside it (8 I), or likewise one trained vision block
    (12 M + 24 W bytes a patch). Without checkpointing all layers are held as if recomputed.
    """
    text, vision, ecg = config.text_config, config.vision_config, config.ecg_config
    sees = "vision_tower" in trainable
    prompts, slots = load.packed
    length = load.prompt + slots * load.answer
    tokens, patches = prompts * length, prompts * load.patches
    layer = number * (4 * text.intermediate_size + 14 * text.hidden_size) * tokens
    block = number * (3 * vision.intermediate_size + 6 * vision.hidden_size) * patches
    passing = number * 4 * text.intermediate_size * tokens  # gradients inside a layer
    if checkpointing:
        layers = number * text.hidden_size * (text.num_hidden_layers + 1) * tokens
        blocks = number * vision.hidden_size * vision.depth * patches * sees
        passing = max(passing + layer, 2 * block * sees)
    else:
        layers, blocks = layer * text.num_hidden_layers, block * vision.depth * sees
    merger = 5 * number * vision.hidden_size * patches * (sees or "merger" in trainable)
    mask = (1 + number) * prompts * length**2
    encoder = ecg.leads * (ecg.samples // ecg.patch_size) * ecg.hidden_size * ecg.depth
    held = layers + blocks + merger + mask + 18 * number * encoder * prompts * load.ecgs
    return {
        "activations": {"scoring": held, "backward": held + passing},
        "logits": {"scoring": 12 * text.vocab_size * load.scored},
    }


def copy_needs(config: Any, trained: int) -> Needs:
    """What full tuning in bfloat16 adds to its float32 weights.

    Autocast keeps a bfloat16 copy of each during a forward pass, of which the output layer's lives
    on with the logits; and when the gradients of input and output embeddings arrive, there are
    three float32 tensors of V x H beside them.
    """
    words = config.text_config.vocab_size * config.text_config.hidden_size
    forward = {moment: 2.0 * trained for moment in ("reading", "decoding")}
    return {"copies of weights": forward | {"scoring": 2.0 * words, "backward": 12.0 * words}}
