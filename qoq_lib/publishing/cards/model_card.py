"""The card of a model repository, written from the run's record; no number is typed by hand."""

from huggingface_hub import ModelCardData

from qoq_lib.data.prompts import task_question, user_text
from qoq_lib.publishing.cards.citation import citation_section
from qoq_lib.publishing.cards.data import (
    base_license,
    data_section,
    gate_fields,
    joint_license,
    labels_section,
    limits_section,
    release_section,
)
from qoq_lib.publishing.cards.markdown import fence, section
from qoq_lib.publishing.cards.results import TASK, eval_results, results_section
from qoq_lib.publishing.cards.training import reproduction_section, training_section
from qoq_lib.publishing.policy import Verdict
from qoq_lib.publishing.record import RunRecord
from qoq_lib.publishing.trace_source import style_asked
from qoq_lib.publishing.weights import Weights

TAGS = ["medical", "clinical", "ecg", "reasoning", "not-for-clinical-use"]
LIMITS = (
    "The reasoning that a completion gives need not be why the answer came out as it did.",
    "Boxes and labels are stated in the same words whether they are right or wrong.",
    "It was taught and tested on questions that list their options; other questions are outside "
    "of what was measured.",
    "Nothing was measured for populations, devices and hospitals that its data sets do not show.",
)
_ECG_START = (
    "The ECG encoder began with ECG-JEPA's published weights (arXiv:2410.08559), whose terms apply."
)
_KINDS = {
    "full": "all weights, trained in full",
    "merged": "all weights, the adapters merged into the base that they were trained on",
    "adapter": "an adapter, to be loaded onto its base",
}


def model_card(
    record: RunRecord,
    weights: Weights,
    verdicts: tuple[Verdict, ...],
    repo_id: str,
    traces: str | None = None,
) -> str:
    """The text of ``README.md``, front matter included.

    Args:
        record: of the run.
        weights: what was written.
        verdicts: on the weights, of each data set that they learned from.
        repo_id: ``owner/name`` of the model repository.
        traces: Hub id of the traces that are released with it.

    Raises:
        ReleaseError: the licence of the base is not known.
    """
    front = _front_matter(record, weights, verdicts, repo_id, traces)
    name = repo_id.rsplit("/", 1)[1]
    body = "\n\n".join(
        [
            f"# {name}",
            _summary(record, weights, traces),
            _usage(record, weights, repo_id),
            limits_section(record.cards.values(), *LIMITS),
            results_section(record),
            data_section(record.cards.values(), record.rows),
            labels_section(record.labels),
            release_section(verdicts),
            training_section(record.stages, record.start),
            reproduction_section(record.run_id, record.stages),
            citation_section(),
        ]
    )
    return f"---\n{front.to_yaml()}\n---\n\n{body}\n"


def _front_matter(
    record: RunRecord,
    weights: Weights,
    verdicts: tuple[Verdict, ...],
    repo_id: str,
    traces: str | None,
) -> ModelCardData:
    adapter = weights.kind == "adapter"
    base = None if record.base_model == "tiny" else record.base_model
    relation = "adapter" if adapter else "finetune" if base else None
    method = record.stage["parameters"].get("method")
    return ModelCardData(
        **joint_license(base_license(record.base_model), verdicts).fields,
        base_model=(weights.base_model or "").partition("@")[0] or base,
        base_model_relation=relation,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=TASK,
        language="en",
        datasets=[traces] if traces else None,
        tags=[*TAGS, *([method] if method else [])],
        model_name=repo_id.rsplit("/", 1)[1],
        eval_results=eval_results(record),
        **gate_fields(verdicts),
    )


def _summary(record: RunRecord, weights: Weights, traces: str | None) -> str:
    base = (
        "random weights of the same architecture at miniature size"
        if record.base_model == "tiny"
        else f"[{record.base_model}](https://huggingface.co/{record.base_model})"
    )
    told = f"The reasoning traces of the run: [{traces}](https://huggingface.co/datasets/{traces})."
    return "\n\n".join(
        [
            "A model that reads clinical images, ECGs and text and answers questions about them, "
            "made with the reproducibility package of QoQ-Med (arXiv:2506.00711). **Not a medical "
            "device; not for clinical use.**",
            f"The {record.checkpoint} checkpoint of run `{record.run_id}`: "
            f"{_KINDS[weights.kind]}. {weights.parameters:,} parameters, "
            f"{', '.join(weights.dtypes)}. Base: {base}.",
            *([told] if traces else []),
            *(_ECG_START for one in record.stages.values() if one["parameters"].get("ecg_weights")),
        ]
    )


def _usage(record: RunRecord, weights: Weights, repo_id: str) -> str:
    needs = "transformers and peft" if weights.kind == "adapter" else "transformers"
    return section(
        "How to use",
        f"With {needs} alone; the repository brings its own code, which you should read first:",
        fence(usage_code(repo_id, weights), "python"),
        "Questions list their options and end with the answer format, as they did in training; "
        "the final answer stands in `\\boxed{}`:",
        fence(_example_question(record), "text"),
    )


def _example_question(record: RunRecord) -> str:
    """A question as the first data set of the test split asks it."""
    domain, part = next(iter(record.scores[record.checkpoint]["domains"].items()))
    options = record.labels[next(iter(part["datasets"]))]
    style = style_asked(record.stage["parameters"])
    return user_text(task_question("diagnosis", domain, options), None, style)


def usage_code(repo_id: str, weights: Weights) -> str:
    """Lines that load the model and ask it about an image and an ECG."""
    if weights.kind == "adapter":
        base, _, revision = str(weights.base_model).partition("@")
        pin = f', revision="{revision}"' if revision else ""
        load = f"""\
from peft import PeftModel

base = AutoModelForImageTextToText.from_pretrained("{base}"{pin}, trust_remote_code=True)
model = PeftModel.from_pretrained(base, "{repo_id}")"""
    else:
        load = f"""\
model = AutoModelForImageTextToText.from_pretrained("{repo_id}", trust_remote_code=True)"""
    return f"""\
from transformers import AutoModelForImageTextToText, AutoProcessor
{load}
processor = AutoProcessor.from_pretrained("{repo_id}", trust_remote_code=True)

content = [
    {{"type": "image", "image": "image.png"}},
    {{"type": "ecg", "ecg": "ecg.npy", "rate_hz": 500}},  # leads x samples, or a WFDB record
    {{"type": "text", "text": "What do the image and the ECG show?"}},
]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
tokens = model.generate(**inputs, max_new_tokens=1024)
print(processor.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""
