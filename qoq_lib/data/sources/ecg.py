"""ECG: four sets of 12-lead recordings with the same seven labels, several of which may apply.

"Normal" stands alone: it is dropped where anything else is stated. A statement that belongs to no
other label is "other", a slow or fast rhythm included. No label is picked at random from several.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from qoq_lib.data.sources.source import Record, Source, SourceError, Split, as_age, inside
from qoq_lib.data.sources.tables import Row, read_table
from qoq_lib.data.sources.wfdb_header import WfdbHeader

_NORMAL, _OTHER = "normal", "other"
_FINDINGS = (
    "conduction disturbance",
    "myocardial infarction",
    "ST-T change",
    "atrial fibrillation or flutter",
    "hypertrophy",
    _OTHER,
)
_OPTIONS = (_NORMAL, *_FINDINGS)

# SNOMED CT codes of the PhysioNet/CinC Challenges (https://moody-challenge.physionet.org/2021).
_SNOMED: Mapping[str, tuple[str, ...]] = {
    _NORMAL: ("426783006",),
    "conduction disturbance": (
        "6374002", "733534002", "713427006", "270492004", "713426002", "445118002", "164909002",
        "698252002", "164947007", "59118001", "233917008", "27885002", "204384007", "82226007",
        "195042002", "426183003", "251120003", "445211001", "54016002", "65778007", "195060002",
        "74390002",
    ),
    "myocardial infarction": ("57054005", "54329005", "164865005", "164867002"),
    "ST-T change": (
        "111975006", "164934002", "59931005", "413444003", "426434006", "413844008", "425419005",
        "704997005", "425623009", "164861001", "428750005", "55930002", "429622005", "164931005",
        "164930006", "251259000",
    ),
    "atrial fibrillation or flutter": (
        "164889003", "164890007", "195080001", "426749004", "282825002", "314208002",
    ),
    "hypertrophy": (
        "195126007", "253352002", "67741000119109", "446813000", "164873001", "55827005",
        "253339007", "446358003", "67751000119106", "89792004", "266249003",
    ),
}  # fmt: skip

# All 71 statements of PTB-XL's scp_statements.csv. Diagnoses follow its diagnostic classes (NORM,
# CD, MI, STTC, HYP); of the forms and rhythms, what they are. "SR" tells the rhythm and no
# more, so it is no label.
_SCP: Mapping[str | None, tuple[str, ...]] = {
    None: ("SR",),
    _NORMAL: ("NORM",),
    "conduction disturbance": (
        "LAFB", "IRBBB", "1AVB", "IVCD", "CRBBB", "CLBBB", "LPFB", "WPW", "ILBBB", "3AVB", "2AVB",
        "LPR",
    ),
    "myocardial infarction": (
        "IMI", "ASMI", "ILMI", "AMI", "ALMI", "INJAS", "LMI", "INJAL", "IPLMI", "IPMI", "INJIN",
        "INJLA", "PMI", "INJIL",
    ),
    "ST-T change": (
        "NDT", "NST_", "DIG", "LNGQT", "ISC_", "ISCAL", "ISCIN", "ISCIL", "ISCAS", "ISCLA",
        "ISCAN", "ANEUR", "EL", "STD_", "STE_", "LOWT", "NT_", "INVT", "TAB_",
    ),
    "atrial fibrillation or flutter": ("AFIB", "AFLT"),
    "hypertrophy": ("LVH", "LAO/LAE", "RVH", "RAO/RAE", "SEHYP", "VCLVH"),
    _OTHER: (
        "ABQRS", "PVC", "QWAVE", "PAC", "LVOLT", "HVOLT", "PRC(S)", "STACH", "SARRH", "SBRAD",
        "PACE", "SVARR", "BIGU", "SVTAC", "PSVT", "TRIGU",
    ),
}  # fmt: skip
_FOLDS: Mapping[str, Split] = {"9": "validation", "10": "test"}
_BY_STATEMENT = {code: label for label, codes in _SCP.items() for code in codes}


def ptb_xl_records(source: Source, root: Path) -> Iterator[Record]:
    """The recordings at 500 Hz that ``ptbxl_database.csv`` lists, with their patients.

    Folds 9 and 10, whose labels a human has seen, are for validation and test as the owners advise;
    folds keep a patient together. The reports are left out: they state the labels.
    """
    for row in read_table(root / "ptbxl_database.csv"):
        yield Record(
            record_id=row["ecg_id"],
            patient_id=row["patient_id"],
            answers=scp_labels(row),
            ecg=inside(root, f"{row['filename_hr']}.hea", "The table ptbxl_database.csv"),
            sex={"0": "M", "1": "F"}.get(row["sex"]),
            age_years=as_age(row["age"]),
            split=_FOLDS.get(row["strat_fold"], "train"),
        )


def scp_labels(row: Row) -> tuple[str, ...]:
    """What the ``scp_codes`` of a line of PTB-XL state, in the order of the options.

    Every statement counts, whatever its likelihood: 0 means that none was given. ``SourceError`` on
    one that PTB-XL does not define.
    """
    try:
        found = {_BY_STATEMENT[code] for code in ast.literal_eval(row["scp_codes"])}
    except (KeyError, SyntaxError, TypeError, ValueError) as error:
        raise SourceError(
            f"ptbxl_database.csv, ECG {row['ecg_id']}: {row['scp_codes']!r} are not statements of "
            "PTB-XL: fetch the table again."
        ) from error
    alone = not found & set(_FINDINGS)
    return tuple(label for label in _OPTIONS if label in found and (alone or label != _NORMAL))


_PTB_XL = Source(
    name="ptb_xl",
    domain="ecg",
    folder="ecg/ptb_xl",
    license="CC-BY-4.0",
    options=_OPTIONS,
    readers=(ptb_xl_records,),
)


def _challenge(name: str, license: str) -> Source:
    """A set of the challenges: ``.hea`` and ``.mat`` in any folders, one patient per recording."""
    codes = {code: label for label, codes in _SNOMED.items() for code in codes}
    reader = WfdbHeader(codes, implied={_NORMAL: frozenset(_FINDINGS)}, other=_OTHER)
    return Source(name, "ecg", license, _OPTIONS, (reader,), folder=f"ecg/{name}")


SOURCES: tuple[Source, ...] = (
    _PTB_XL,
    _challenge("chapman_shaoxing", "CC-BY-4.0"),
    _challenge("georgia", "CC0-1.0"),
    _challenge("cpsc2018", "CC-BY-4.0"),
)
"""The sources of the domain."""
