"""The card of the GGUF files of a model."""

from huggingface_hub import ModelCardData

from qoq_lib.publishing.cards.citation import citation_section
from qoq_lib.publishing.cards.data import (
    base_license,
    gate_fields,
    joint_license,
    limits_section,
    release_section,
)
from qoq_lib.publishing.cards.markdown import fence, section
from qoq_lib.publishing.cards.model_card import LIMITS, TAGS
from qoq_lib.publishing.cards.results import TASK
from qoq_lib.publishing.policy import Verdict
from qoq_lib.publishing.record import RunRecord

GGUF_LIMITS = (
    "**It has no ECG path**: GGUF knows no ECG encoder, so it answers about images and text alone.",
    "The scores on the model's card are of the model itself; these files were not scored.",
    *LIMITS,
)


def gguf_card(
    record: RunRecord,
    verdicts: tuple[Verdict, ...],
    repo_id: str,
    model_id: str,
    files: tuple[str, str],
) -> str:
    """The text of ``README.md``; ``files`` are the names of the text and the vision part."""
    front = ModelCardData(
        **joint_license(base_license(record.base_model), verdicts).fields,
        base_model=model_id,
        base_model_relation="quantized",
        pipeline_tag=TASK,
        language="en",
        tags=["gguf", *(tag for tag in TAGS if tag != "ecg")],
        **gate_fields(verdicts),
    )
    text, vision = files
    call = f'llama-mtmd-cli -m {text} --mmproj {vision} --image image.png -p "Which diagnosis?"'
    body = [
        f"# {repo_id.rsplit('/', 1)[1]}",
        f"The vision and text part of [{model_id}](https://huggingface.co/{model_id}) for "
        "llama.cpp, in half precision.",
        section("How to use", fence(call, "sh")),
        limits_section(record.cards.values(), *GGUF_LIMITS),
        release_section(verdicts),
        citation_section(),
    ]
    return f"---\n{front.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"
