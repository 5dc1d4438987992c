"""What images and DICOM files say about a person, beside their pixels."""

import io

from PIL import ExifTags, Image, UnidentifiedImageError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

Found = tuple[str, str]
"""What kind of thing, and what it says."""

# How the pixels are to be shown, and nothing of where they come from.
_HARMLESS_EXIF = frozenset(
    (
        ExifTags.Base.Orientation,
        ExifTags.Base.XResolution,
        ExifTags.Base.YResolution,
        ExifTags.Base.ResolutionUnit,
        ExifTags.Base.YCbCrPositioning,
        ExifTags.Base.ColorSpace,
        ExifTags.Base.ExifOffset,
        ExifTags.Base.ExifImageWidth,
        ExifTags.Base.ExifImageHeight,
        ExifTags.Base.ExifVersion,
        ExifTags.Base.ImageWidth,
        ExifTags.Base.ImageLength,
        ExifTags.Base.BitsPerSample,
        ExifTags.Base.SamplesPerPixel,
        ExifTags.Base.Compression,
        ExifTags.Base.PhotometricInterpretation,
        ExifTags.Base.StripOffsets,
        ExifTags.Base.StripByteCounts,
        ExifTags.Base.RowsPerStrip,
        ExifTags.Base.PlanarConfiguration,
    )
)

# From the confidentiality profile of DICOM PS3.15, annex E: what names or dates a person or visit.
_PERSONAL_TAGS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "PatientAddress"),
    *("OtherPatientIDs", "OtherPatientNames", "PatientTelephoneNumbers", "PatientMotherBirthName"),
    *("IssuerOfPatientID", "MilitaryRank", "PatientInsurancePlanCodeSequence", "PatientComments"),
    *("AccessionNumber", "StudyID", "AdmissionID", "AdmittingDate", "StudyDate", "SeriesDate"),
    *("AcquisitionDate", "ContentDate", "ReferringPhysicianName", "PerformingPhysicianName"),
    *("OperatorsName", "RequestingPhysician", "InstitutionName", "InstitutionAddress"),
    *("StationName", "DeviceSerialNumber", "RequestedProcedureID", "OtherPatientIDsSequence"),
)

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"GIF8", b"BM")


def is_media(start: bytes) -> bool:
    """Whether a file that starts with these (132 or more) bytes is an image or a DICOM file."""
    return start.startswith(_IMAGES) or start[:4] == b"RIFF" or _is_dicom(start)


def media_findings(data: bytes) -> list[Found]:
    """What an image or DICOM file tells beside its pixels; empty for any other bytes."""
    if _is_dicom(data):
        return _dicom(data)
    return _image(data) if is_media(data) else []


def media_words(data: bytes) -> str:
    """The texts that an image carries: PNG text chunks, JPEG comments."""
    if not is_media(data) or _is_dicom(data):
        return ""
    try:
        with Image.open(io.BytesIO(data)) as image:
            texts = {key: value for key, value in image.info.items() if key != "exif"}
    except (UnidentifiedImageError, OSError, SyntaxError):
        return ""
    said = [(key, v.decode("latin-1") if isinstance(v, bytes) else v) for key, v in texts.items()]
    return "\n".join(f"{key}: {value}" for key, value in said if isinstance(value, str))


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _image(data: bytes) -> list[Found]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            tags = image.getexif()
            named = dict(tags) | dict(tags.get_ifd(ExifTags.IFD.Exif))
            place = tags.get_ifd(ExifTags.IFD.GPSInfo)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        return [("file that cannot be read", str(error))]
    told = [tag for tag, value in named.items() if tag not in _HARMLESS_EXIF and value]
    found = [("EXIF tag", str(ExifTags.TAGS.get(tag, tag))) for tag in told]
    return [*found, ("EXIF tag", "GPSInfo")] if place else found


def _dicom(data: bytes) -> list[Found]:
    try:
        header = dcmread(io.BytesIO(data), stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError) as error:
        return [("file that cannot be read", str(error))]
    return [("DICOM patient tag", tag) for tag in _PERSONAL_TAGS if header.get(tag)]
