"""Releases: written to a folder from a run folder, checked, and put on the Hugging Face Hub."""
