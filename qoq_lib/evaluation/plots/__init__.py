"""Figures: pure functions from tables and rows to a matplotlib ``Figure``.

``use_theme()`` once in a notebook, then one call per figure. Colours stay apart for colour-blind
readers, faces are white in JupyterLab's dark mode, and the same input gives the same figure.
"""

from qoq_lib.evaluation.plots.answers import confusion, overlap_chart, reliability
from qoq_lib.evaluation.plots.counts import class_chart, count_chart, modality_counts
from qoq_lib.evaluation.plots.ecg import ecg_strip
from qoq_lib.evaluation.plots.media import answer_regions, case_sheet, contact_sheet
from qoq_lib.evaluation.plots.scores import score_chart, subgroup_chart
from qoq_lib.evaluation.plots.study import (
    study_curves,
    study_differences,
    study_domains,
    study_tail,
)
from qoq_lib.evaluation.plots.theme import PlotError, use_theme
from qoq_lib.evaluation.plots.traces import agreement_chart, answer_chart, length_chart
from qoq_lib.evaluation.plots.training import (
    HEALTH,
    alignment_loss,
    reward_by,
    reward_curves,
    signal_share,
    temperatures,
    training_health,
)

__all__ = [
    "HEALTH",
    "PlotError",
    "agreement_chart",
    "alignment_loss",
    "answer_chart",
    "answer_regions",
    "case_sheet",
    "class_chart",
    "confusion",
    "contact_sheet",
    "count_chart",
    "ecg_strip",
    "length_chart",
    "modality_counts",
    "overlap_chart",
    "reliability",
    "reward_by",
    "reward_curves",
    "score_chart",
    "signal_share",
    "study_curves",
    "study_differences",
    "study_domains",
    "study_tail",
    "subgroup_chart",
    "temperatures",
    "training_health",
    "use_theme",
]
