"""``python -m qoq_lib.evaluation.study configs/study/reduced.yaml --workers 2``."""

import argparse
import sys
from pathlib import Path

from qoq_lib.evaluation.study.comparing import save_tables
from qoq_lib.evaluation.study.config import StudyError, load_study
from qoq_lib.evaluation.study.workers import STUDY_RUN, run_study, study_folder


def main() -> None:
    """Run or resume a study and write its tables."""
    parser = argparse.ArgumentParser(prog="python -m qoq_lib.evaluation.study", description=__doc__)
    parser.add_argument("study", type=Path, help="a file such as configs/study/reduced.yaml")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--run-id", default=STUDY_RUN, help="name of the folder below runs/")
    parser.add_argument("--data-root", type=Path, help="folder of the clinical kit")
    given = parser.parse_args()
    study, folder = load_study(given.study), study_folder(given.run_id)
    runs = run_study(study, folder, workers=given.workers, data_root=given.data_root)
    tables = save_tables(study, runs, folder)
    leading = tables.comparison.query(
        "domain == 'overall' and metric == 'macro_f1' and baseline == @study.baselines[0]"
    )
    print(leading.to_string(index=False, float_format="{:.3f}".format))
    print(f"The tables are in {folder}.")


if __name__ == "__main__":  # spawned workers import this module, too
    try:
        main()
    except StudyError as error:
        sys.exit(str(error))
