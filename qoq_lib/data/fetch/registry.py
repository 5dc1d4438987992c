"""How each data set of the paper is had: one entry per source, read top to bottom by ``fetch``.

Paths are below the source's own folder, in the layout its reader expects. Addresses are those of
the data cards and of the owners' pages. No checksum is written here, because none was known:
PhysioNet, Zenodo, figshare and Dataverse publish theirs beside the files, and they are compared;
TCIA, the ISIC archive, Mendeley, GitHub and KiTS publish none, and what the first fetch brings is
recorded in the lock (see ``ledger``).
"""

import json
from pathlib import Path

from qoq_lib.data.fetch.errors import FetchError
from qoq_lib.data.fetch.origins import ByHand, Doi, Files, Kaggle, Origin, PhysioNet, Tcia
from qoq_lib.data.fetch.remote import RemoteFile, Unpack

_ISIC = "https://isic-challenge-data.s3.amazonaws.com"
_MENDELEY = "https://prod-dcd-datasets-cache-zipfiles.s3.eu-west-1.amazonaws.com"
_TCIA_TABLES = "https://www.cancerimagingarchive.net/wp-content/uploads"
_KITS_IMAGES = "https://kits19.sfo2.digitaloceanspaces.com"


def _isic(year: int, name: str) -> RemoteFile:
    unpack = Unpack() if name.endswith(".zip") else None
    return RemoteFile(f"{_ISIC}/{year}/{name}", name, unpack=unpack)


def _github(repository: str) -> RemoteFile:
    """The newest state of a repository; which one it was, the lock says by its checksum."""
    url = f"https://github.com/{repository}/archive/HEAD.zip"
    return RemoteFile(url, "repository.zip", unpack=Unpack(strip=1))


def _cbis_table(kind: str, part: str) -> RemoteFile:
    name = f"{kind}_case_description_{part}_set.csv"
    return RemoteFile(f"{_TCIA_TABLES}/{name}", f"csv/{name}")


def _kits_images(folder: Path) -> list[RemoteFile]:
    """The volumes of the cases that the repository lists; it holds all else itself."""
    table = folder / "dataset" / "kits23.json"
    try:
        cases = [case["case_id"] for case in json.loads(table.read_text(encoding="utf-8"))]
        return [
            RemoteFile(
                f"{_KITS_IMAGES}/master_{int(case.removeprefix('case_')):05d}.nii.gz",
                f"dataset/{case}/imaging.nii.gz",
            )
            for case in cases
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(
            f"{table} does not list the cases of KiTS23: delete it and fetch again."
        ) from error


def _challenge(version_of: str, version: str, part: str) -> tuple[Origin, ...]:
    return (PhysioNet(version_of, version, only=(f"training/{part}/*",)),)


def _stanford(page: str, what: str, shows: str) -> ByHand:
    return ByHand(
        f"register at {page}, accept Stanford's research use agreement and put {what} there", shows
    )


ORIGINS: dict[str, tuple[Origin, ...]] = {
    "mimic_cxr": (PhysioNet("mimic-cxr-jpg", "2.0.0", "credentialed"),),
    "chexpert": (
        _stanford(
            "https://stanfordmlgroup.github.io/competitions/chexpert/",
            "the folder CheXpert-v1.0",
            "CheXpert-v1.0/train.csv",
        ),
    ),
    "vindr_cxr": (PhysioNet("vindr-cxr", "1.0.0", "credentialed"),),
    "covid19": (Kaggle("darshan1504/covid19-detection-xray-dataset"),),
    "coronahack": (Kaggle("praveengovi/coronahack-chest-xraydataset"),),
    "vindr_mammo": (PhysioNet("vindr-mammo", "1.0.0", "restricted"),),
    "cbis_ddsm": (
        Files(
            tuple(
                _cbis_table(kind, part) for kind in ("mass", "calc") for part in ("train", "test")
            )
        ),
        Tcia("CBIS-DDSM"),
    ),
    "cmmd": (
        Files(
            (
                RemoteFile(
                    f"{_TCIA_TABLES}/CMMD_clinicaldata_revision.xlsx",
                    "CMMD_clinicaldata_revision.xlsx",
                ),
            )
        ),
        Tcia("CMMD"),
    ),
    "isic2020": (
        Files(
            (
                _isic(2020, "ISIC_2020_Training_GroundTruth.csv"),
                _isic(2020, "ISIC_2020_Training_JPEG.zip"),
            )
        ),
    ),
    "ham10000": (
        Files(
            (
                _isic(2018, "ISIC2018_Task3_Training_Input.zip"),
                _isic(2018, "ISIC2018_Task3_Training_GroundTruth.zip"),
                _isic(2018, "ISIC2018_Task3_Training_LesionGroupings.csv"),
                _isic(2018, "ISIC2018_Task1_Training_GroundTruth.zip"),
            )
        ),
    ),
    "pad_ufes_20": (
        Files(
            (
                RemoteFile(
                    f"{_MENDELEY}/zr7vgbcyr2-1.zip",
                    "zr7vgbcyr2-1.zip",
                    unpack=Unpack(nested="images/imgs_part_*.zip"),
                ),
            )
        ),
    ),
    "aptos2019": (Kaggle("aptos2019-blindness-detection", competition=True),),
    "messidor2": (
        Kaggle("google-brain/messidor2-dr-grades"),
        ByHand(
            "request the images at https://www.adcis.net/en/third-party/messidor2/ and put them "
            "into IMAGES, beside messidor-2.csv",
            "IMAGES/*",
        ),
    ),
    "jichi": (Doi("10.6084/m9.figshare.4879853"),),
    "lndb": (
        Doi("10.5281/zenodo.8348419"),
        ByHand(
            "unpack the RAR archives that were fetched with a program that reads them, such as "
            "7-Zip: the scans into data, the masks into masks, beside trainNodules.csv",
            "data/*.mhd",
        ),
    ),
    "inspect": (
        _stanford(
            "https://inspect.stanford.edu",
            "the tables study_mapping, labels and splits of June 2025 and the folder CTPA",
            "CTPA/*.nii.gz",
        ),
    ),
    "kits23": (Files((_github("neheller/kits23"),), more=_kits_images),),
    "hemorrhage": (Kaggle("vbookshelf/computed-tomography-ct-images"),),
    "rspect": (Kaggle("rsna-str-pulmonary-embolism-detection", competition=True),),
    "busi": (Kaggle("aryashah2k/breast-ultrasound-images-dataset", strip=1),),
    "covid_blues": (Files((_github("NinaWie/COVID-BLUES"),)),),
    "covid_us": (
        ByHand(
            "clone https://github.com/nrc-cnrc/COVID-US, run its script, which collects the "
            "videos from four sites, and put the clone's folders utils and data there",
            "data/video/cropped/*",
        ),
    ),
    "echonet_dynamic": (
        _stanford(
            "https://echonet.github.io/dynamic/",
            "FileList.csv, VolumeTracings.csv and the folder Videos",
            "Videos/*.avi",
        ),
    ),
    "brain_tumor": (Kaggle("sartajbhuvaji/brain-tumor-classification-mri"),),
    "brain_tumor_2": (Kaggle("navoneel/brain-mri-images-for-brain-tumor-detection"),),
    "lc25000": (Kaggle("andrewmvd/lung-and-colon-cancer-histopathological-images"),),
    "bcss": (
        ByHand(
            "run the script of https://github.com/PathologyDataScience/BCSS, or take the folder "
            "that its page links, and put images and masks there",
            "masks/*.png",
        ),
    ),
    "ptb_xl": (
        PhysioNet(
            "ptb-xl", "1.0.3", only=("ptbxl_database.csv", "scp_statements.csv", "records500/*")
        ),
    ),
    "chapman_shaoxing": _challenge("challenge-2021", "1.0.3", "chapman_shaoxing"),
    "georgia": _challenge("challenge-2020", "1.0.2", "georgia"),
    "cpsc2018": _challenge("challenge-2020", "1.0.2", "cpsc_2018"),
    "mimic_iv": (
        PhysioNet(
            "mimiciv",
            "3.1",
            "credentialed",
            (
                *(f"hosp/{name}.csv.gz" for name in ("admissions", "patients")),
                *(f"hosp/{name}.csv.gz" for name in ("labevents", "d_labitems")),
                *(f"icu/{name}.csv.gz" for name in ("chartevents", "d_items")),
            ),
        ),
    ),
    "mimic_iv_ecg": (PhysioNet("mimic-iv-ecg", "1.0", "credentialed"),),
}
"""By name: that of the source's data card, or of one of its ``parts``."""
