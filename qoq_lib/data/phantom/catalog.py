"""What the phantom shows: per domain its diagnoses, the pattern each one draws, and report texts.

A *pattern* is what can be seen and named without medical knowledge; a *diagnosis* is what it means
here. Patterns and diagnoses stand one to one, except that two diagnoses (``needs_history``) share
another's pattern and are right only where the report tells their history.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One diagnosis of a domain.

    ``share`` is its share of the domain's training rows (shares of a domain sum to 1), ``history``
    the report sentences that point to it, and ``needs_history`` marks a diagnosis that only its
    history tells from the other one with the same pattern.
    """

    diagnosis: str
    pattern: str
    share: float
    history: tuple[str, ...] = ()
    needs_history: bool = False


FINDINGS: dict[str, tuple[Finding, ...]] = {
    "chest_xray": (
        Finding("normal chest", "clear field", 0.26),
        Finding(
            "pneumonia",
            "diffuse haze",
            0.22,
            history=(
                "Fever and productive cough for three days, raised CRP.",
                "High fever with chills, raised white cell count.",
            ),
        ),
        Finding("lung mass", "round spot", 0.20),
        Finding("pneumothorax", "dark rim", 0.16),
        Finding(
            "pulmonary edema",
            "diffuse haze",
            0.16,
            history=(
                "Breathless lying flat, swollen ankles, raised BNP.",
                "Known heart failure, rapid weight gain, no fever.",
            ),
            needs_history=True,
        ),
    ),
    "mammography": (
        Finding("normal breast", "even tissue", 0.31),
        Finding("fibroadenoma", "smooth oval", 0.27),
        Finding("breast carcinoma", "spiky mass", 0.23),
        Finding("ductal carcinoma in situ", "cluster of specks", 0.19),
    ),
    "dermoscopy": (
        Finding("melanocytic nevus", "even brown patch", 0.31),
        Finding("benign keratosis", "dotted tan patch", 0.27),
        Finding("melanoma", "ragged dark patch", 0.23),
        Finding("basal cell carcinoma", "shiny pink patch", 0.19),
    ),
    "ct": (
        Finding("normal abdomen", "even organs", 0.31),
        Finding("hepatic cyst", "dark round spot", 0.27),
        Finding("liver metastases", "several dark spots", 0.23),
        Finding("aortic aneurysm", "large bright disc", 0.19),
    ),
    "fundus": (
        Finding("no retinopathy", "plain background", 0.31),
        Finding("diabetic retinopathy", "dark red blots", 0.27),
        Finding("macular degeneration", "central yellow spots", 0.23),
        Finding("glaucoma", "wide pale cup", 0.19),
    ),
    "ultrasound": (
        Finding("normal organ", "even speckle", 0.31),
        Finding("simple cyst", "black oval", 0.27),
        Finding("gallstone", "bright arc with shadow", 0.23),
        Finding("hemangioma", "bright ball", 0.19),
    ),
    "mri": (
        Finding("normal brain", "even folds", 0.31),
        Finding("glioma", "ragged ring", 0.27),
        Finding("multiple sclerosis", "scattered bright spots", 0.23),
        Finding("meningioma", "bright ball at the edge", 0.19),
    ),
    "pathology": (
        Finding("normal tissue", "sparse even cells", 0.31),
        Finding("adenocarcinoma", "open rings of cells", 0.27),
        Finding("chronic inflammation", "swarm of small dots", 0.23),
        Finding("necrosis", "blank pink patch", 0.19),
    ),
    "ecg": (
        Finding("sinus rhythm", "steady narrow beats", 0.26),
        Finding("atrial fibrillation", "irregular beats", 0.22),
        Finding(
            "myocardial infarction",
            "raised ST segment",
            0.20,
            history=(
                "Crushing chest pain for two hours, raised troponin.",
                "Sudden chest pain into the left arm, smoker, troponin rising.",
            ),
        ),
        Finding("left bundle branch block", "wide beats", 0.16),
        Finding(
            "pericarditis",
            "raised ST segment",
            0.16,
            history=(
                "Recent viral illness, pain on breathing in, troponin normal.",
                "Chest pain that eases on leaning forward, pericardial rub.",
            ),
            needs_history=True,
        ),
    ),
}

PLAIN_REASONS = (
    "routine follow-up",
    "assessment before surgery",
    "referred by the family doctor",
    "second opinion",
    "check-up on request",
)
"""Reasons for examination that say nothing about the label."""


def options(domain: str) -> list[str]:
    """The domain's diagnoses, most frequent first."""
    return [finding.diagnosis for finding in FINDINGS[domain]]


def patterns(domain: str) -> list[str]:
    """The domain's patterns, each once."""
    return list(dict.fromkeys(finding.pattern for finding in FINDINGS[domain]))


def rivals(domain: str, pattern: str) -> list[Finding]:
    """All diagnoses that draw this pattern: one, or two that the report tells apart."""
    return [finding for finding in FINDINGS[domain] if finding.pattern == pattern]


def words() -> list[str]:
    """Every diagnosis and pattern of the phantom, each once."""
    findings = [finding for kinds in FINDINGS.values() for finding in kinds]
    names = [text for finding in findings for text in (finding.diagnosis, finding.pattern)]
    return list(dict.fromkeys(names))


def sentences() -> list[str]:
    """Every report text of the phantom."""
    findings = [finding for kinds in FINDINGS.values() for finding in kinds]
    histories = [line for finding in findings for line in finding.history]
    return list(dict.fromkeys([*histories, *PLAIN_REASONS]))
