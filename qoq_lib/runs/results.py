"""The result a notebook hands over: shown in its last cell, read back from the executed file."""

from pathlib import Path
from typing import Any

from qoq_lib.runs.files import RunError

RESULT_MIME = "application/vnd.qoq.result+json"


def read_result(notebook_path: str | Path) -> dict[str, Any]:
    """The object ``run.finish`` displayed: ``{"run_id", "stage", "metrics"}``.

    papermill's exit code is 0 after ``sys.exit()`` and its metadata is silent about a killed
    kernel, so a notebook counts as done only when every code cell completed and the result is
    there; otherwise ``RunError`` says what is missing.
    """
    import nbformat  # its schema takes two seconds to load, which no running notebook should wait

    path = Path(notebook_path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise RunError(f"Cannot read the executed notebook {path.name}: {error}") from error
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(cells, start=1):
        if problem := _problem(cell):
            raise RunError(f"Code cell {number} of {len(cells)} in {path.name} {problem}.")
    results = [
        output.data[RESULT_MIME]
        for cell in cells
        for output in cell.outputs
        if RESULT_MIME in output.get("data", {})
    ]
    if not results:
        raise RunError(f"{path.name} holds no result: its last cell did not call run.finish.")
    return dict(results[-1])


def _problem(cell: Any) -> str | None:
    """What keeps ``cell`` from counting as completed, or ``None``."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"failed with {output.ename}: {output.evalue}"
    status = cell.metadata.get("papermill", {}).get("status", "completed")
    if status != "completed" or cell.execution_count is None:
        return "did not run to its end"
    return None
