"""Reading images, masks and ECGs as hospitals store them, or saying in one sentence why not.

Boxes are ``[x1, y1, x2, y2]`` in pixels, origin top left, ``x2`` and ``y2`` exclusive.
"""

from qoq_lib.data.readers.ecg import Ecg, header_path, read_ecg
from qoq_lib.data.readers.hashes import content_hash, look_of
from qoq_lib.data.readers.images import (
    IMAGE_SUFFIXES,
    Crop,
    StoredImage,
    View,
    boxes_of,
    marked_frames,
    read_images,
    read_label_map,
    read_mask,
    stored_images,
    suffix_of,
)
from qoq_lib.data.readers.media import MediaError, ReaderMissing

__all__ = [
    "IMAGE_SUFFIXES",
    "Crop",
    "Ecg",
    "MediaError",
    "ReaderMissing",
    "StoredImage",
    "View",
    "boxes_of",
    "content_hash",
    "header_path",
    "look_of",
    "marked_frames",
    "read_ecg",
    "read_images",
    "read_label_map",
    "read_mask",
    "stored_images",
    "suffix_of",
]
