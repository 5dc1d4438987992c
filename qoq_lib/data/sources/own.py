"""A user's own data, declared from what lies in the folder: a class per folder, or a table."""

from pathlib import Path

from qoq_lib.data.sources.folder_per_class import FolderPerClass, class_files
from qoq_lib.data.sources.folder_table import FolderTable
from qoq_lib.data.sources.source import Source, SourceError, inside
from qoq_lib.data.sources.tables import read_table

OWN_COLUMNS = ("file", "label", "patient", "split", "sex", "age", "report", "mask")
"""What a user's table may hold; ``file`` and ``label`` it must. Paths are relative to the root."""


def own_source(data_root: Path, domain: str, table: str | None = None) -> Source:
    """Declare the folder ``data_root`` as a source of ``domain``; its labels are those it holds.

    Without ``table`` the folder has one folder per class, else ``table`` is a CSV below it with the
    columns of ``OWN_COLUMNS``. ``SourceError`` where there is no file, table or second label.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise SourceError(f"The data folder {root} is missing: check data_root.")
    reader = FolderPerClass() if table is None else _own_table(root, table)
    if table is None:
        labels = {file.parent.name for file in class_files(root, domain)}
    else:
        labels = {row["label"] for row in read_table(inside(root, table, "The data folder"))}
    if len(labels) < 2:
        raise SourceError(
            f"{root} holds {len(labels)} labels and needs at least two: give "
            "<class>/<file> folders, or a table with the columns file and label."
        )
    return Source(
        name=root.resolve().name,
        domain=domain,
        license="not stated",
        options=tuple(sorted(labels)),
        readers=(reader,),
    )


def _own_table(root: Path, table: str) -> FolderTable:
    columns = read_table(inside(root, table, "The data folder"))[0]
    for needed in OWN_COLUMNS[:2]:
        if needed not in columns:
            raise SourceError(
                f"The table {root / table} has no column {needed!r}: it needs file and label, and "
                f"may have {', '.join(OWN_COLUMNS[2:])}."
            )
    template = {name: f"{{{name}}}" if name in columns else "" for name in OWN_COLUMNS}
    return FolderTable(
        table=table,
        file=template["file"],
        label=template["label"],
        patient=template["patient"],
        split=template["split"],
        sex=template["sex"],
        age=template["age"],
        report=template["report"],
        mask=template["mask"],
    )
