"""From a run folder to the Hugging Face Hub and back: traces, weights, cards, and their release."""
