"""Cards of published models and trace sets: every fact from the run's files or the data cards."""

from qoq_lib.publishing.cards.data import APACHE, base_license, terms_file
from qoq_lib.publishing.cards.dataset_card import dataset_card
from qoq_lib.publishing.cards.gguf_card import gguf_card
from qoq_lib.publishing.cards.model_card import model_card, usage_code
from qoq_lib.publishing.cards.results import benchmark_results

__all__ = [
    "APACHE",
    "base_license",
    "benchmark_results",
    "dataset_card",
    "gguf_card",
    "model_card",
    "terms_file",
    "usage_code",
]
