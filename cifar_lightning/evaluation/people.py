"""Compare a network with people: CIFAR-10H, the votes of about 51 annotators for each of CIFAR-10's test images.

J. Peterson et al., "Human uncertainty makes classification more robust", 2019 (arXiv 1908.07086). Its counts are under
CC BY-NC-SA 4.0, so they are read where they lie and not shipped.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError, first_line, regular
from cifar_lightning.evaluation.intervals import Measure, mean, share

FILE = "cifar10h-counts.npy"
# Of the images and labels of CIFAR-10's official test set, in its order.
TEST_SET = "2c33b053d1cd726af8d86e174a96dd89d7000ba1412add026d68142375b89d51"
HARD = 0.9  # of the votes: an image is hard where fewer agree
AGREEING = 0.9  # of the official labels are the majority's; in another order a tenth would be


def counts_of(root: Path, split: Split) -> Tensor:
    """The counts int64 [N, K] in the folder. Raises UserError where there are none, or for other images."""
    path = root.expanduser() / FILE
    if not path.is_file():
        raise UserError(f"there is no {FILE} (CIFAR-10H) in {root}")
    if test_set(split) != TEST_SET:
        raise UserError("CIFAR-10H is about the official test set of CIFAR-10 in its order, which this is not")
    try:
        counts = np.load(regular(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} can't be read: {first_line(error)}") from error
    if counts.shape != (len(split), 10) or counts.dtype.kind not in "iu" or counts.min() < 0 or not counts.any(1).all():
        raise UserError(f"{path} has {counts.dtype} {list(counts.shape)}: votes are integers [{len(split)}, 10]")
    if (counts.argmax(1) == split.labels.numpy()).mean() < AGREEING:
        raise UserError(f"{path} is in another order: its majority is not the label of most images")
    return torch.from_numpy(counts.astype(np.int64))


def test_set(split: Split) -> str:
    digest = hashlib.sha256(split.images.contiguous().numpy().data)
    digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def people_measures(logits: Tensor, labels: Tensor, counts: Tensor) -> dict[str, Measure]:
    """How well predictions agree with the votes: logits [N, K], labels [N], counts [N, K].

    The cross-entropy of the votes' shares, in nats, beside the least that any network could reach, their entropy; the
    accuracy by the majority's label; and by the official label on images that people find hard, and on the others.
    """
    votes = counts.double() / counts.sum(1, keepdim=True)
    predictions = logits.argmax(1)
    hits, hard = predictions == labels, votes.amax(1) < HARD
    words = f"fewer than {HARD:.0%} agree".replace("%", " %")
    measures = {
        "cross_entropy_people": mean("cross-entropy with people", -(votes * logits.double().log_softmax(1)).sum(1)),
        "entropy_people": mean("the least possible: people's entropy", torch.special.entr(votes).sum(1)),
        "acc_majority": share("accuracy by the majority's label", predictions == counts.argmax(1)),
    }
    if hard.any() and not hard.all():
        measures["acc_hard"] = share(f"accuracy on hard images ({words})", hits[hard])
        measures["acc_easy"] = share("accuracy on the others", hits[~hard])
    return measures
