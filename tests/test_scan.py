"""The last look at what leaves: everything that must not is found, and ordinary words are not."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from qoq_lib.publishing.scan import ScanError, check_clean, findings_table, scan, suspicious
from qoq_lib.runs import project_root

PERSONAL = {
    "token or secret": (
        "hf_" + "a" * 30,
        "ghp_" + "B" * 36,
        "AKIA" + "A" * 16,
        "-----BEGIN RSA PRIVATE KEY-----",
        'password = "correct horse"'.replace(" horse", "horse"),
        '{"api_key": "0123456789abcdef"}',
    ),
    "home path": ("/home/jane/run.py", "/Users/jane", "C:\\Users\\jane", '"C:\\\\Users\\\\jane"'),
    "e-mail address": ("write to jane.doe+x@ward.hospital.org.", "j@kh.de"),
    "phone number": (
        "(555) 123-4567",
        "call 555-123-4567 now",
        "555.123.4567",
        "+49 171 234 5678",
        "Phone: 0171 2345678",
    ),
    "date of birth": (
        "DOB: 01/02/1960",
        "born on 3 May 1960",
        '"birth_date": "1960-01-02"'.replace("_", " "),
        "date of birth is March 4, 1971",
        "D.O.B. 19600102",
    ),
    "record number of a person": (
        "MRN 00412345",
        "medical record number: AB-1234567",
        "Patient ID: 1234567",
        "NHS number 943 476 5919",
        "Accession No. 20231234",
        "123-45-6789",
    ),
    "DICOM patient tag": ("PatientName: Doe^Jane", "(0010,0030) DA", "Patient's Name = X"),
}
ORDINARY = (
    "\\boxed{pneumonia, pleural effusion}",
    '[{"bbox_2d": [100, 200, 300, 400], "label": "mass"}]',
    "Patient: female, 63 years. The patient is 63 and was born with a cleft lip.",
    "patient_id: string",
    "phantom/patient-000123 and mimic_cxr/p10000032/s50414267",
    "1.2.840.113654.2.55.3233448",
    "M 123.456789 234.567890 L 12.5 100.25 z",
    "accession of fluid in 1234 cases (n = 12345)",
    "f625e69fcd46dc0f60faf6e7dec2566f2033ca5d02cb6f9173dfbfa443e4877a",
    "reward 0.8000000268220901 at 2026-11-22T07:46:39.123+00:00",
    "x = q @ k.transpose(-1, -2)",
    "a sk-learn metric, 120-130 mmHg, 5-10-15 scheme",
)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in PERSONAL.items() for t in texts])
def test_what_names_a_person_is_found_in_text_and_in_tables(
    tmp_path: Path, kind: str, text: str
) -> None:
    (tmp_path / "notes.md").write_text(f"# Notes\n\nIt says {text} here.\n")
    assert kind in {one.kind for one in scan(tmp_path)}
    assert suspicious(pa.chunked_array([[None, "fine", f"It says {text} here."]])).to_pylist() == [
        False,
        False,
        True,
    ]


def test_ordinary_words_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\n".join(ORDINARY))
    pd.DataFrame({"completion": ORDINARY}).to_parquet(tmp_path / "x.parquet")
    assert findings_table(scan(tmp_path)).to_string(index=False).startswith("Empty")


def test_the_package_itself_is_clean() -> None:
    for folder in ("data_cards", "configs"):
        check_clean(project_root() / folder)


def test_texts_inside_lists_and_structures_are_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Reach me: jane@ward.org"}]
    rows = {"messages": [chat], "options": [["a", "MRN 00412345"]], "note": [None]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "x.parquet")
    found = {(one.where, one.kind) for one in scan(tmp_path)}
    assert found == {
        ("column messages", "e-mail address"),
        ("column options", "record number of a person"),
    }


def test_columns_of_persons_are_found_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"patient_id": ["x"], "name": ["y"], "id": ["z"]}).to_parquet(
        tmp_path / "x.parquet"
    )
    assert {one.where for one in scan(tmp_path)} == {"column patient_id", "column name"}


def jpeg(**tags: object) -> bytes:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    stored = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stored, "JPEG", exif=exif)
    return stored.getvalue()


def test_exif_is_found_in_files_and_inside_tables(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(Artist="Dr Doe", Orientation=1))
    (tmp_path / "fine.jpg").write_bytes(jpeg(Orientation=6, XResolution=72.0))
    images = [{"bytes": jpeg(DateTime="2020:01:02 03:04:05"), "path": None}]
    pd.DataFrame({"images": [images]}).to_parquet(tmp_path / "x.parquet")
    found = {(one.file, one.kind) for one in scan(tmp_path)}
    assert found == {("a.jpg", "EXIF tag"), ("x.parquet", "EXIF tag")}


def test_a_place_and_a_comment_in_an_image_are_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    Image.new("L", (8, 8)).save(tmp_path / "gps.jpg", exif=exif)
    words = PngInfo()
    words.add_text("Comment", "DOB 01/02/1960")
    Image.new("L", (8, 8)).save(tmp_path / "b.png", pnginfo=words)
    assert {(one.file, one.kind) for one in scan(tmp_path)} == {
        ("gps.jpg", "EXIF tag"),
        ("b.png", "date of birth"),
    }


def test_a_dicom_file_tells_its_patient_under_any_name(tmp_path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        SecondaryCaptureImageStorage,
        "1.2",
    )
    scanned = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    scanned.PatientName, scanned.PatientID, scanned.Rows = "Doe^Jane", "", 8
    scanned.save_as(tmp_path / "scan", enforce_file_format=True)
    (found,) = scan(tmp_path)
    assert (found.kind, found.excerpt) == ("DICOM patient tag", "PatientName")
    scanned.PatientName = ""
    scanned.save_as(tmp_path / "scan", enforce_file_format=True)
    assert scan(tmp_path) == []


def test_a_notebook_and_the_header_of_weights_are_read(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": [], "outputs": [{"text": ["saved to /home/jane/x\n"]}]}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    header = json.dumps({"__metadata__": {"by": "jane@ward.org"}}).encode()
    weights = len(header).to_bytes(8, "little") + header + np.zeros(64).tobytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "tokenizer.json").write_text('{"vocab": {"you@example.org": 1}}')  # no person's
    assert {(one.file, one.kind) for one in scan(tmp_path)} == {
        ("n.ipynb", "home path"),
        ("model.safetensors", "e-mail address"),
    }


def test_a_finding_stops_a_release_in_one_sentence_that_gives_nothing_away(tmp_path: Path) -> None:
    secret = "hf_" + "q" * 30
    (tmp_path / "run.json").write_text(json.dumps({"token": secret, "by": "jane@ward.org"}))
    with pytest.raises(ScanError, match=r"^run.json holds what looks like a ") as told:
        check_clean(tmp_path)
    assert len(told.value.findings) == 2 and "\n" not in str(told.value)
    assert (
        secret not in str(told.value)
        and secret not in findings_table(told.value.findings).to_string()
    )


def test_a_damaged_image_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG and no more")
    assert [one.kind for one in scan(tmp_path)] == ["file that cannot be read"]
