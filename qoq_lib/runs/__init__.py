"""A run folder: parameters in, manifest out.

The only part of the library that knows notebooks exist::

    from qoq_lib.runs import start_run
    run = start_run("03_drpo_train", globals())  # setup cell: validates, seeds, shows environment
    run.finish({"reward_mean": 0.61}, artefacts=[checkpoint])  # last cell
"""

from qoq_lib.runs.environment import Environment, code_version
from qoq_lib.runs.files import (
    OneSentenceError,
    RunError,
    existing_run,
    project_root,
    replaced_folder,
    runs_root,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from qoq_lib.runs.parameters import Parameter, ParameterError, declared_parameters, read_parameters
from qoq_lib.runs.progress import is_watched, progress
from qoq_lib.runs.results import RESULT_MIME, read_result
from qoq_lib.runs.run import Run, derive_seed, resume_command, start_run

__all__ = [
    "RESULT_MIME",
    "Environment",
    "OneSentenceError",
    "Parameter",
    "ParameterError",
    "Run",
    "RunError",
    "code_version",
    "declared_parameters",
    "derive_seed",
    "existing_run",
    "is_watched",
    "progress",
    "project_root",
    "read_parameters",
    "read_result",
    "replaced_folder",
    "resume_command",
    "runs_root",
    "sha256_file",
    "start_run",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]
