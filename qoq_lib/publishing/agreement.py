"""Traces counted: by domain, and group by group (the rollouts of one question at one step)."""

import numpy as np
import pandas as pd

from qoq_lib.domains import DOMAINS, domain_order


def overview(index: pd.DataFrame) -> pd.DataFrame:
    """A row per domain and "All": traces, questions, and the means of what was measured.

    ``index`` as of ``explore.trace_index``; ``cut`` is the share that reached the longest length.
    """
    rows = {DOMAINS[name].title: _told(part) for name, part in by_domain(index).items()}
    return pd.DataFrame.from_dict({**rows, "All": _told(index)}, orient="index")


def by_domain(index: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each domain that has any, in the domains' order."""
    present = domain_order(list(index["domain"].unique()))
    return {name: index[index["domain"] == name] for name in present}


def _told(index: pd.DataFrame) -> dict[str, float]:
    told: dict[str, float] = {
        "traces": len(index),
        "questions": index["id"].nunique(),
        "correct": float(index["correct"].mean()),
        "reward": float(index["reward"].mean()),
    }
    if "n_tokens" in index:
        told["tokens (median)"] = float(index["n_tokens"].median())
    if "finish_reason" in index:
        told["cut"] = float((index["finish_reason"] == "length").mean())
    return told


def groups(index: pd.DataFrame) -> pd.DataFrame:
    """A row per group: how far its rollouts agree, and whether their majority is right.

    A question that a step asks twice makes two groups. Give whole groups: an index that was
    filtered by outcome or reward has parts of them.

    Returns:
        ``step, domain, dataset, rollouts``, ``agreement`` (share of the most frequent answer),
        ``majority`` (whether that answer is correct; of equally frequent ones the first said),
        ``correct`` (share of correct rollouts) and ``any`` (whether one is).
    """
    keys = pd.DataFrame({"step": index["step"], "id": index["id"].cat.codes})
    asked = keys.assign(sample=index["sample"]).groupby(["step", "id", "sample"]).cumcount()
    group = keys.assign(asked=asked).groupby(["step", "id", "asked"], sort=False).ngroup()
    flat = pd.DataFrame(
        {
            "group": group.to_numpy(),
            "said": index["said"].cat.codes.to_numpy(),
            "correct": index["correct"].to_numpy(),
        }
    )
    said = flat.groupby(["group", "said"], sort=False)["correct"].agg(["size", "first"])
    said = said.reset_index().sort_values(["group", "size"], ascending=[True, False], kind="stable")
    top = said.drop_duplicates("group").set_index("group")
    whole = flat.groupby("group")["correct"].agg(["size", "mean", "any"])
    first = index.iloc[np.unique(group.to_numpy(), return_index=True)[1]]
    return pd.DataFrame(
        {
            "step": first["step"].to_numpy(),
            "domain": first["domain"].to_numpy(),
            "dataset": first["dataset"].to_numpy(),
            "rollouts": whole["size"].to_numpy(),
            "agreement": (top["size"] / whole["size"]).to_numpy(),
            "majority": top["first"].to_numpy(),
            "correct": whole["mean"].to_numpy(),
            "any": whole["any"].to_numpy(),
        }
    )


def agreement_table(grouped: pd.DataFrame) -> pd.DataFrame:
    """By domain and "All": one rollout, the majority of the group, and the best of the group.

    ``grouped`` as ``groups`` gives it.
    """
    rows = {DOMAINS[name].title: _agreed(part) for name, part in by_domain(grouped).items()}
    return pd.DataFrame.from_dict({**rows, "All": _agreed(grouped)}, orient="index")


def _agreed(grouped: pd.DataFrame) -> dict[str, float]:
    return {
        "groups": len(grouped),
        "rollouts": float(grouped["rollouts"].median()),
        "agreement": float(grouped["agreement"].mean()),
        "one rollout correct": float(grouped["correct"].mean()),
        "majority correct": float(grouped["majority"].mean()),
        "any correct": float(grouped["any"].mean()),
    }
