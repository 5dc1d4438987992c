"""A miniature of MIMIC-IV, MIMIC-IV-ECG and MIMIC-CXR-JPG as PhysioNet distributes them."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from layouts.ecg import heartbeat, write_dat
from miniatures import draw

ADMITTED = pd.Timestamp("2150-03-01 10:00:00")
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)

HEART_RATE, TEMPERATURE_SITE, CREATININE, LACTATE = 220045, 224642, 50912, 50813


@dataclass(frozen=True)
class Stay:
    """A stay of ``days``; hours count from admission."""

    patient: int
    stay: int
    days: float
    admitted: pd.Timestamp = ADMITTED
    died_hours: float | None = None
    place: str = "HOME"
    emergency: bool = True  # three hours in the emergency department came first
    ecg_hours: tuple[float, ...] = (2.0, 49.0)
    film_hours: tuple[float, ...] = (-1.0, 60.0)

    @property
    def discharged(self) -> pd.Timestamp:
        return self.admitted + self.days * DAY


STAYS = (
    *(
        Stay(10000000 + number, 20000000 + number, days)
        for number, days in enumerate(
            (0.5, 3.0, 4.9, 2.5, 5.0, 8.9, 6.0, 7.0, 9.0, 12.9, 10.0, 11.0, 13.0, 40.0, 20.0, 15.0)
        )
    ),
    Stay(10000003, 20000103, 30.0, ADMITTED + 365 * DAY),  # number 3 again, a year later
    Stay(10000020, 20000020, 1.25, died_hours=30.0, place="DIED", film_hours=(1.0,)),
    Stay(10000021, 20000021, 1.5, place="HOSPICE"),
    Stay(10000022, 20000022, 6.0, place="HOSPICE"),
    Stay(10000023, 20000023, 2.5, died_hours=60.0, place="DIED"),
    # Discharged before admission: a slip of the records.
    Stay(10000024, 20000024, -0.05, ecg_hours=(-2.0,), film_hours=(-2.5,)),
    Stay(10000025, 20000025, 3.0, ecg_hours=(-30.0, 48.5)),  # no ECG in the window
    Stay(10000026, 20000026, 3.0, film_hours=(-30.0, 48.5)),  # no X-ray in the window
    Stay(10000027, 20000027, 1.0, ecg_hours=(30.0,)),  # an ECG after the stay
    Stay(10000030, 20000030, 3.0, emergency=False),  # its X-ray is of before the stay
    Stay(10000028, 20000028, 3.0),  # its X-ray is not there
    Stay(10000029, 20000029, 3.0),  # its ECG is damaged
)


def mimic_iv(root: Path) -> Path:
    """The three data bases below ``root``, with ``STAYS`` and what was measured in them."""
    ehr = root / "multimodal" / "mimic_iv"
    _admissions(ehr)
    _results(ehr)
    _ecgs(root / "ecg" / "mimic_iv_ecg")
    _films(root / "chest_xray" / "mimic_cxr")
    return root


def study(stay: Stay, number: int) -> int:
    """The number of the ``number``-th ECG or X-ray of a stay."""
    return stay.stay * 10 % 10**8 + number


def _admissions(ehr: Path) -> None:
    stays = [
        {
            "subject_id": one.patient,
            "hadm_id": one.stay,
            "admittime": one.admitted,
            "dischtime": one.discharged,
            "deathtime": one.admitted + one.died_hours * HOUR if one.died_hours else None,
            "admission_type": "EW EMER.",
            "admit_provider_id": "P00000",
            "admission_location": "EMERGENCY ROOM",
            "discharge_location": one.place,
            "insurance": "Other",
            "language": "ENGLISH",
            "marital_status": "MARRIED",
            "race": "WHITE",
            "edregtime": one.admitted - 3 * HOUR if one.emergency else None,
            "edouttime": None,
            "hospital_expire_flag": int(one.place == "DIED"),
        }
        for one in STAYS
    ]
    _write(ehr / "hosp" / "admissions.csv.gz", stays)
    patients = [
        {
            "subject_id": patient,
            "gender": "F" if patient % 2 else "M",
            "anchor_age": 50,
            "anchor_year": 2148,
            "anchor_year_group": "2008 - 2010",
            "dod": None,
        }
        for patient in sorted({one.patient for one in STAYS})
    ]
    _write(ehr / "hosp" / "patients.csv.gz", patients)


def _results(ehr: Path) -> None:
    """Values taken and reported in the window, and such as must not be read (8.8 and 9.9)."""
    labs, signs = [], []
    for one in STAYS:
        for item, taken, reported, value, unit in (
            (CREATININE, 1, 2, 1.1, "mg/dL"),
            (CREATININE, 5, 6, 1.4, "mg/dL"),
            (CREATININE, 47, 50, 9.9, "mg/dL"),  # known too late
            (CREATININE, 50, 51, 9.9, "mg/dL"),
            (CREATININE, -90, -89, 8.8, "mg/dL"),  # of another time
            (CREATININE, -5, 1, 8.8, "mg/dL"),  # taken before arrival
            (LACTATE, 3, 4, 2.0, None),
            (LACTATE, 3, 4, None, None),
        ):
            labs.append(_event(one, item, taken, reported, value, unit))
        for item, taken, value in ((HEART_RATE, 4, 90.0), (HEART_RATE, 8, 70.0)):
            signs.append(_event(one, item, taken, taken + 0.1, value, "bpm"))
        signs.append(_event(one, TEMPERATURE_SITE, 4, 4.1, 1.0, None))
    _write(ehr / "hosp" / "labevents.csv.gz", labs)
    _write(ehr / "icu" / "chartevents.csv.gz", signs)
    labels = [(CREATININE, "Creatinine"), (LACTATE, "Lactate")]
    _write(ehr / "hosp" / "d_labitems.csv.gz", [{"itemid": n, "label": name} for n, name in labels])
    labels = [(HEART_RATE, "Heart Rate"), (TEMPERATURE_SITE, "Temperature Site")]
    _write(ehr / "icu" / "d_items.csv.gz", [{"itemid": n, "label": name} for n, name in labels])


def _event(
    one: Stay, item: int, taken: float, reported: float, value: float | None, unit: str | None
) -> dict:
    return {
        "subject_id": one.patient,
        "hadm_id": one.stay,
        "itemid": item,
        "charttime": one.admitted + taken * HOUR,
        "storetime": one.admitted + reported * HOUR,
        "value": value,
        "valuenum": value,
        "valueuom": unit,
        "flag": None,
    }


def _ecgs(folder: Path) -> None:
    listed, read = [], []
    for place, one in enumerate(STAYS):
        for number, hours in enumerate((*one.ecg_hours, -2000.0)):
            name = study(one, number)
            path = f"files/p{one.patient // 10000}/p{one.patient}/s{name}/{name}"
            common = {"subject_id": one.patient, "study_id": name}
            at = {"ecg_time": one.admitted + hours * HOUR}
            listed.append({**common, "file_name": name, **at, "path": path})
            lines = [f"Sinus rhythm {number}", None, "Borderline ECG", *[None] * 15]
            reports = {f"report_{n}": line for n, line in enumerate(lines)}
            read.append({**common, "cart_id": 1, **at, **reports, "rr_interval": 659})
            if number == 0:
                write_dat(folder / path, heartbeat(7000 + place))
    _write(folder / "record_list.csv", listed)
    _write(folder / "machine_measurements.csv", read)
    damaged = next(folder.rglob(f"{study(STAYS[-1], 0)}.dat"))
    damaged.write_bytes(damaged.read_bytes()[:999])


def _films(folder: Path) -> None:
    lines = []
    for place, one in enumerate(STAYS):
        for number, hours in enumerate((*one.film_hours, -700.0)):
            time = one.admitted + hours * HOUR
            for view in ("LATERAL", "PA"):
                lines.append(
                    {
                        "dicom_id": f"{study(one, number)}-{view.lower()}",
                        "subject_id": one.patient,
                        "study_id": study(one, number),
                        "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
                        "ViewPosition": view,
                        "Rows": 3056,
                        "Columns": 2544,
                        "StudyDate": time.strftime("%Y%m%d"),
                        "StudyTime": f"{int(time.strftime('%H%M%S'))}.312",
                    }
                )
        name = study(one, 0)
        film = f"files/p10/p{one.patient}/s{name}/{name}-pa.jpg"
        if one is not STAYS[-2]:
            draw(folder / film, 8000 + place)
    _write(folder / "mimic-cxr-2.0.0-metadata.csv.gz", lines)


def _write(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).to_csv(path, index=False)
