import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from cifar_lightning.evaluation.out_of_distribution import detection_measures


@pytest.mark.parametrize("tied", [False, True])
def test_auroc_and_fpr95_are_scikit_learns(tied):
    generator = torch.Generator().manual_seed(0)
    inside = (3 * torch.randn(300, 5, generator=generator)).double()
    outside = (1.5 * torch.randn(200, 5, generator=generator)).double()
    if tied:
        inside[100:], outside[:100] = inside[:100].repeat(2, 1), inside[:100]
    logits = torch.cat([inside, outside])
    own = np.repeat([1, 0], [300, 200])
    p = logits.softmax(1)
    scores = {"max_softmax": p.amax(1), "energy": logits.logsumexp(1), "entropy": (p * p.log()).sum(1)}
    measures = detection_measures(inside, outside, "other")
    for name, score in scores.items():
        score = score.numpy().round(12)
        auroc, fpr95 = (measures[f"{metric}_{name}_other"] for metric in ("auroc", "fpr95"))
        assert auroc.value == pytest.approx(roc_auc_score(own, score), abs=1e-9)
        false, true, _ = roc_curve(own, score, drop_intermediate=False)
        assert fpr95.value == pytest.approx(false[np.argmax(true >= 0.95 - 1e-9)], abs=1e-9)
        assert auroc.low < auroc.value < auroc.high
        assert auroc.images == 500
