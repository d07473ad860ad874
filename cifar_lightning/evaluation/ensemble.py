"""Measure an ensemble: each member, the whole, and how much the members disagree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from cifar_lightning.checkpoints.members import Member
from cifar_lightning.models.ensemble import log_mean_probabilities
from cifar_lightning.reporting.tables import Row, mean_and_std, number, percent
from cifar_lightning.training.metrics import calibration_error, check_logits


def member_metrics(members: Sequence[Member], logits: Tensor, labels: Tensor, split: str) -> list[dict[str, Any]]:
    """Each member's file, size, seed and metrics on the split; logits [M, N, K], labels [N]."""
    rows = []
    for member, own in zip(members, logits.double(), strict=True):
        check_logits(own, member.classifier.class_names)
        confidences, predictions = own.softmax(1).max(1)
        config = member.classifier.config
        rows.append(
            {
                "checkpoint": str(member.path),
                "model": config.get("choices", {}).get("model"),
                "seed": config.get("seed"),
                "parameters": sum(p.numel() for p in member.classifier.network.parameters()),
                f"{split}/acc": (predictions == labels).double().mean().item(),
                f"{split}/loss": cross_entropy(own, labels).item(),
                f"{split}/ece": calibration_error(confidences, predictions == labels),
            }
        )
    return rows


def disagreement(logits: Tensor) -> dict[str, Any]:
    """How different the members' predictions are; logits [M, N, K].

    disagreement: the share of images for which two members predict different classes, as a mean over the pairs
    (Fort et al. 2019, arXiv 1912.02757); disagreement_of_pairs: for each pair, [M, M].
    js_divergence: the members' Jensen-Shannon divergence in nats, as a mean over the images: the mean Kullback-Leibler
    divergence from their mean (Lin 1991; times M, what Lakshminarayanan et al. 2017 call disagreement). 0 if
    all agree, at most log M.
    """
    classes = logits.argmax(2)
    pairs = (classes[:, None] != classes[None, :]).double().mean(2)
    members = len(logits)
    own, whole = logits.double().log_softmax(2), log_mean_probabilities(logits.double())
    return {
        "disagreement": pairs.sum().item() / (members * (members - 1)),
        "js_divergence": (own.exp() * (own - whole)).sum(2).mean().item(),
        "disagreement_of_pairs": pairs.tolist(),
    }


def ensemble_rows(whole: Mapping[str, Any], split: str) -> list[Row]:
    """A row for each member, their mean, and the ensemble; `whole` is the content of evaluation.json."""
    members, pairs = whole["members"], whole["disagreement_of_pairs"]
    keys = {"accuracy": f"{split}/acc", "loss": f"{split}/loss", "calibration error": f"{split}/ece"}
    mean = {key: mean_and_std([member[key] for member in members])[0] for key in keys.values()}
    names = short_names([member["checkpoint"] for member in members])
    named = [*zip(names, members, strict=True), ("mean of the members", mean), ("ensemble", whole)]
    rows = [
        {
            "": name,
            **{title: number(row[key], 4) if title == "loss" else percent(row[key]) for title, key in keys.items()},
        }
        for name, row in named
    ]
    for row, others in zip(rows, pairs, strict=False):
        row["disagrees with the others"] = percent(sum(others) / (len(others) - 1))
    return rows


def short_names(paths: Sequence[str]) -> list[str]:
    """The parts of the paths in which they differ: `seed=1` and `seed=2` of a sweep."""
    parts = [list(Path(path).parts) for path in paths]
    for end in (0, -1):
        while all(parts) and len({some[end] for some in parts}) == 1:
            for some in parts:
                del some[end]
    return ["/".join(some) for some in parts]
