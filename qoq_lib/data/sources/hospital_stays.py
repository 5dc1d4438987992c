"""The reader of MIMIC-IV: what was known of a hospital stay 48 hours after admission.

A stay is listed where a 12-lead ECG and a frontal chest X-ray were taken in its window, from
arrival (in the emergency department where it began there) to 48 hours after admission or its end,
whichever is first. Nothing outside the window is in a record: no picture or tracing of another
time, no laboratory result that was reported later. Diagnoses, discharge summaries, radiology
reports and how the stay ended are not read into it at all. A stay that ended within 48 hours lies
in its window as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

import pandas as pd

from qoq_lib.data.sources.source import Record, Source, SourceError, as_age, as_sex, inside

WINDOW = pd.Timedelta(hours=48)
_CHUNK = 1_000_000
_STATEMENTS = tuple(f"report_{number}" for number in range(18))
_VITAL_SIGNS = (
    "Heart Rate", "Non Invasive Blood Pressure systolic", "Non Invasive Blood Pressure diastolic",
    "Respiratory Rate", "O2 saturation pulseoxymetry", "Temperature Fahrenheit",
)  # fmt: skip
_STAY_COLUMNS = (
    "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "edregtime",
    "discharge_location",
)  # fmt: skip
_EVENT_COLUMNS = ("subject_id", "itemid", "charttime", "storetime", "valuenum", "valueuom")


@dataclass(frozen=True)
class HospitalStays:
    """The stays of MIMIC-IV that have an ECG and an X-ray.

    The source's parts ``mimic_iv`` (``hosp/``, ``icu/``), ``mimic_iv_ecg`` and ``mimic_cxr`` (the
    JPEGs) are as PhysioNet distributes them. ``outcome`` gives the answer of each stay, missing
    where it has none, from a table with the columns of ``hosp/admissions`` and times as such. Of
    several ECGs or X-rays in a window the first is taken.
    """

    outcome: Callable[[pd.DataFrame], pd.Series]

    def __call__(self, source: Source, root: Path) -> Iterator[Record]:
        """Yield the records of ``source`` in the order of their admission numbers."""
        names = ("mimic_iv", "mimic_iv_ecg", "mimic_cxr")
        ehr, ecg, film = (inside(root, source.parts[name], source.name) for name in names)
        stays = _stays(ehr)
        stays["answer"] = self.outcome(stays)
        for first in (_first_ecg(ecg, stays), _first_film(film, stays)):
            stays = stays.merge(first, on="hadm_id")
        texts = _texts(ehr, ecg, stays)
        for stay in stays.sort_values("hadm_id").itertuples(index=False):
            yield _record(stay, texts.get(stay.hadm_id), ecg, film)


def _record(stay: Any, text: str | None, ecg: Path, film: Path) -> Record:
    patient = str(stay.subject_id)
    study = f"p{patient[:2]}/p{patient}/s{stay.film_study}"
    return Record(
        record_id=str(stay.hadm_id),
        patient_id=patient,
        answers=() if pd.isna(stay.answer) else (str(stay.answer),),
        images=(film / "files" / study / f"{stay.dicom_id}.jpg",),
        ecg=inside(ecg, f"{stay.path}.hea", "The table record_list.csv"),
        report=text,
        sex=as_sex(stay.gender),
        age_years=as_age(str(stay.anchor_age + stay.admittime.year - stay.anchor_year)),
    )


def _stays(ehr: Path) -> pd.DataFrame:
    """One row per admission, with its patient, and ``start`` and ``until`` of its window."""
    admissions = _table(ehr / "hosp" / "admissions.csv.gz", _STAY_COLUMNS)
    for column in ("admittime", "dischtime", "deathtime", "edregtime"):
        admissions[column] = pd.to_datetime(admissions[column])
    patients = _table(
        ehr / "hosp" / "patients.csv.gz", ("subject_id", "gender", "anchor_age", "anchor_year")
    )
    start = admissions["edregtime"].fillna(admissions["admittime"])
    ends = admissions[["dischtime", "deathtime"]].assign(known=admissions["admittime"] + WINDOW)
    until = ends.min(axis=1)
    return admissions.assign(start=start, until=until).merge(patients, on="subject_id")


def _first_ecg(folder: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """``hadm_id, ecg_study, path`` of the first ECG in each window."""
    ecgs = _table(folder / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"))
    ecgs = ecgs.rename(columns={"study_id": "ecg_study"})
    ecgs["time"] = pd.to_datetime(ecgs["ecg_time"])
    return _first(_within(ecgs, stays), ["hadm_id", "ecg_study", "path"])


def _first_film(folder: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """``hadm_id, film_study, dicom_id`` of the first frontal chest X-ray in each window."""
    films = _table(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        ("subject_id", "study_id", "dicom_id", "ViewPosition", "StudyDate", "StudyTime"),
        text=("StudyDate", "StudyTime"),
    )
    films = films[films["ViewPosition"].isin(("AP", "PA"))].rename(
        columns={"study_id": "film_study"}
    )
    clock = films["StudyTime"].str.partition(".")[0].str.zfill(6)  # "83013.5" is half past eight
    films["time"] = pd.to_datetime(films["StudyDate"] + clock, format="%Y%m%d%H%M%S")
    return _first(_within(films, stays), ["hadm_id", "film_study", "dicom_id"])


def _within(events: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """The events whose ``time`` lies in a window of their patient, with its ``hadm_id``."""
    windows = stays[["subject_id", "hadm_id", "start", "until"]]
    joined = events.merge(windows, on="subject_id")
    inside_window = (joined["time"] >= joined["start"]) & (joined["time"] <= joined["until"])
    return joined[inside_window]


def _first(events: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    ordered = events.sort_values(["time", columns[-1]])  # of the same minute: the same every time
    return ordered.drop_duplicates("hadm_id")[columns]


def _texts(ehr: Path, ecg: Path, stays: pd.DataFrame) -> dict[int, str]:
    """The text of each stay that has one, by admission: machine's reading, results, vital signs."""
    parts = (
        _readings(ecg, stays),
        _values("Laboratory", ehr / "hosp", "labevents", "d_labitems", (), stays),
        _values("Vital signs", ehr / "icu", "chartevents", "d_items", _VITAL_SIGNS, stays),
    )
    texts: dict[int, str] = {}
    for part in parts:
        for stay, text in part.items():
            texts[stay] = f"{texts[stay]} {text}" if stay in texts else text
    return texts


def _readings(ecg: Path, stays: pd.DataFrame) -> dict[int, str]:
    """What the machine wrote below the ECG of each stay."""
    columns = ("study_id", *_STATEMENTS)
    readings = _table(ecg / "machine_measurements.csv", columns, text=_STATEMENTS)
    of_stay = stays[["hadm_id", "ecg_study"]].merge(
        readings, left_on="ecg_study", right_on="study_id"
    )
    lines = of_stay[list(_STATEMENTS)].to_numpy()
    texts = ("; ".join(line for line in one if isinstance(line, str)) for one in lines)
    return {
        stay: f"ECG machine: {text}."
        for stay, text in zip(of_stay["hadm_id"].tolist(), texts, strict=True)
        if text
    }


def _values(
    title: str, folder: Path, events: str, items: str, wanted: Sequence[str], stays: pd.DataFrame
) -> dict[int, str]:
    """The first and last number of each item in each window; ``wanted`` empty: of all items."""
    names = (
        _table(folder / f"{items}.csv.gz", ("itemid", "label"))
        .set_index("itemid")["label"]
        .dropna()
    )
    if wanted:
        names = names[names.isin(wanted)]
    known = names.index
    parts = [
        _reported(chunk[chunk["itemid"].isin(known)], stays)
        for chunk in _chunks(folder / f"{events}.csv.gz", _EVENT_COLUMNS)
    ]
    numbers = pd.concat(parts).sort_values("charttime", kind="stable")
    ends = numbers.groupby(["hadm_id", "itemid"])["valuenum"].agg(["first", "last"])
    units = numbers.groupby(["hadm_id", "itemid"])["valueuom"].last()
    lines: dict[int, list[str]] = {}
    for (stay, item), first, last, unit in zip(
        ends.index, ends["first"], ends["last"], units, strict=True
    ):
        change = f"{first:g}" if first == last else f"{first:g} to {last:g}"
        lines.setdefault(stay, []).append(
            f"{names[item]} {change}{f' {unit}' if isinstance(unit, str) else ''}"
        )
    return {stay: f"{title}: {'; '.join(found)}." for stay, found in lines.items()}


def _reported(events: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """The events taken and reported inside a window; a result counts from when it was reported."""
    of_stays = events["subject_id"].isin(stays["subject_id"])
    events = events[of_stays & events["valuenum"].notna() & events["storetime"].notna()]
    taken, reported = (pd.to_datetime(events[name]) for name in ("charttime", "storetime"))
    found = _within(events.assign(charttime=taken, time=reported), stays)
    return found[found["charttime"] >= found["start"]][
        ["hadm_id", "itemid", "charttime", "valuenum", "valueuom"]
    ]


def _table(path: Path, columns: Sequence[str], text: Sequence[str] = ()) -> pd.DataFrame:
    return pd.concat(_chunks(path, columns, text), ignore_index=True)


def _chunks(path: Path, columns: Sequence[str], text: Sequence[str] = ()) -> Iterator[pd.DataFrame]:
    """``columns`` of a CSV table that may not fit into memory; those in ``text`` stay as written.

    ``SourceError`` on a missing or unreadable table and on a missing column.
    """
    if not path.is_file():
        raise SourceError(f"The table {path} is missing: put it there or check data_root.")
    types = dict.fromkeys(text, str)
    try:
        with pd.read_csv(path, usecols=list(columns), dtype=types, chunksize=_CHUNK) as chunks:
            yield from chunks
    except (OSError, EOFError, ZlibError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"The table {path} cannot be read ({reason}): fetch it again.") from error
