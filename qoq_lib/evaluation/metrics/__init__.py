"""Scores of predictions, each with its number of rows and a 95 % interval over patients.

``evaluate`` scores one model, ``compare`` two on the same questions. Per-class scores are averaged,
unweighted, to data sets, domains and an overall score, as in the paper (appendix C); beside its
measures stand those that its tables lack, and three trivial floors that any model has to beat.
"""

from qoq_lib.evaluation.metrics.checking import PredictionsError
from qoq_lib.evaluation.metrics.labels import FLOORS
from qoq_lib.evaluation.metrics.reading import answered
from qoq_lib.evaluation.metrics.resampling import MIN_PATIENTS
from qoq_lib.evaluation.metrics.scores import MEASURES, PAPER_MEASURES, compare, evaluate

__all__ = [
    "FLOORS",
    "MEASURES",
    "MIN_PATIENTS",
    "PAPER_MEASURES",
    "PredictionsError",
    "answered",
    "compare",
    "evaluate",
]
