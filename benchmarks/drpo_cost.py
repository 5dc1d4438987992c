"""Time of DRPO's advantages against the length of the run's history.

``released`` refits K-means on every question since the run began, ``recommended`` looks at the
batch alone:

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/drpo_cost.py --longest 20000

``--longest`` bounds the history of ``released`` (its cost per step grows with it); ``recommended``
is also measured after 200,000 and 2.6 million questions. Batch: 512 questions x 5 rollouts over
nine domains of very different sizes.
"""

import argparse
import json
import time
import tracemalloc

import numpy as np

from qoq_lib.domains import DOMAIN_NAMES
from qoq_lib.training.drpo import PRESETS, DomainStatistics, compute_advantages

QUESTIONS, ROLLOUTS = 512, 5
LENGTHS = (0, 500, 5_000, 20_000, 50_000, 200_000, 2_600_000)
SHARES = np.arange(len(DOMAIN_NAMES), 0, -1.0) ** 2
CHUNK = 10_000


def draw(rng: np.random.Generator, questions: int) -> tuple[np.ndarray, list[str]]:
    """Rewards between 0 and 1 around each question's own mean, and domains."""
    means = rng.uniform(0, 1, (questions, 1))
    rewards = np.clip(rng.normal(means, 0.1, (questions, ROLLOUTS)), 0, 1)
    return rewards, rng.choice(DOMAIN_NAMES, questions, p=SHARES / SHARES.sum()).tolist()


def measure(preset: str, history: int, repeats: int) -> list[float]:
    """After ``history``: median ms of a step (clock, CPU), MiB of the state, KiB of its JSON."""
    rng, config = np.random.default_rng(0), PRESETS[preset]
    tracemalloc.start()
    statistics = DomainStatistics(config)
    for start in range(0, history, CHUNK):
        statistics.add(*reversed(draw(rng, min(CHUNK, history - start))))
    held = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    stored = len(json.dumps(statistics.state_dict())) / 2**10
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        rewards, domains = draw(rng, QUESTIONS)
        began = time.perf_counter(), time.process_time()
        compute_advantages(rewards, domains, config, statistics)
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return [*(1000 * np.median(times, axis=0)), held, stored]


def main() -> None:
    """Print one table for both presets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longest", type=int, default=20_000, help="longest history of 'released'")
    longest = parser.parse_args().longest
    print(f"{QUESTIONS} questions x {ROLLOUTS} rollouts over {len(DOMAIN_NAMES)} domains a step")
    heads = ("preset", "history", "ms a step", "ms CPU", "state MiB", "JSON KiB")
    print("{:<12} {:>9} {:>10} {:>10} {:>10} {:>9}".format(*heads))
    for preset in ("released", "recommended"):
        for history in LENGTHS:
            if preset == "released" and history > longest:
                continue
            found = measure(preset, history, 3 if preset == "released" else 15)
            columns = "{:>10.1f} {:>10.1f} {:>10.2f} {:>9.1f}".format(*found)
            print(f"{preset:<12} {history:>9,} {columns}", flush=True)


if __name__ == "__main__":
    main()
