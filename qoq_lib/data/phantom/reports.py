"""The short text that stands with some rows: a history that matters, or words that do not."""

from qoq_lib.data.phantom.catalog import FINDINGS, PLAIN_REASONS, rivals
from qoq_lib.data.phantom.plan import Case, named_rng

PLAIN_SHARE = 0.1
"""Share of rows whose report says nothing about the label."""
HISTORY_SHARE = 0.25
"""Share of rows, where a domain has histories, that tell one although the label needs none."""


def report_of(case: Case, seed: int) -> str | None:
    """A history, a sentence without information on the label, or no report (``None``).

    Where a pattern has two diagnoses, a history decides between them, and without one the first is
    meant. The same histories are told with other patterns too, so that the report alone decides
    nothing either.
    """
    rng = named_rng(seed, f"{case.id}/report")
    tell, plain = rng.random(2)
    histories = _histories(case)
    if histories and (case.finding.needs_history or tell < HISTORY_SHARE):
        return str(rng.choice(histories))
    if plain < PLAIN_SHARE:
        person = "Woman" if case.patient.sex == "F" else "Man"
        return f"{person} of {case.patient.age}, {rng.choice(PLAIN_REASONS)}."
    return None


def _histories(case: Case) -> tuple[str, ...]:
    """Histories that may stand with this case without making its label wrong."""
    if case.split == "align":
        return ()
    if len(rivals(case.domain, case.finding.pattern)) > 1:
        return case.finding.history
    return tuple(line for finding in FINDINGS[case.domain] for line in finding.history)
