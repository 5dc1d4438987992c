"""papermill whose notebook hears SIGTERM: a training then saves, and papermill exits with 0.

    python -m qoq_lib.runs.papermill notebooks/03_drpo_train.ipynb out.ipynb -p run_id first

takes papermill's own arguments. papermill itself dies of SIGTERM at once and its kernel, which runs
in a session of its own, with it; here the kernel gets the signal. In a cell that makes nothing of
it the kernel dies, and papermill reports that with exit code 138.
"""

from papermill.__main__ import papermill

from qoq_lib.runs.signals import hand_down, on_sigterm

if __name__ == "__main__":
    with on_sigterm(hand_down):
        papermill()
