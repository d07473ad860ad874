import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import beta, ks_2samp, kstest
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from cifar_lightning.data.augmentation import CutMix, Mixup
from cifar_lightning.errors import UserError

LABELS = torch.arange(16) * 7 % 10
TARGETS = one_hot(LABELS, 10).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.uint8, 0.5001), (torch.float32, 1e-6)])
def test_mixup_is_torchvisions_with_a_lambda_for_each_image(dtype, tolerance):
    images, mixup, theirs = pictures(16, dtype), Mixup(), v2.MixUp(num_classes=10)
    shares = mixup.draw(16, seeded())
    out, targets = mixup.apply(images, shares), mixup.apply_labels(TARGETS, shares)
    assert out.dtype == dtype
    for i, share in enumerate(shares.tolist()):
        params = {"lam": share, "labels": LABELS, "batch_size": 16}
        expected = theirs.transform(images.double(), params)[i]
        assert (out[i] - expected).abs().max() <= tolerance
        torch.testing.assert_close(targets[i], theirs.transform(LABELS, params)[i])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_is_torchvisions_with_a_box_for_each_image(dtype):
    images, cutmix, theirs = pictures(16, dtype), CutMix(), v2.CutMix(num_classes=10)
    boxes = cutmix.draw(16, seeded())
    out, targets = cutmix.apply(images, boxes), cutmix.apply_labels(TARGETS, boxes)
    for i, (top, left, bottom, right) in enumerate(boxes.tolist()):
        share = 1 - (bottom - top) * (right - left) / 32**2
        params = {"box": (left, top, right, bottom), "lam_adjusted": share, "labels": LABELS, "batch_size": 16}
        assert torch.equal(out[i], theirs.transform(images, params)[i])
        torch.testing.assert_close(targets[i], theirs.transform(LABELS, params)[i])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    assert kstest(Mixup(alpha).draw(5_000, seeded()), beta(alpha, alpha).cdf).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmix_draws_the_boxes_that_torchvision_draws(alpha):
    n = 3_000
    boxes = CutMix(alpha).draw(n, seeded())
    theirs, image = v2.CutMix(alpha=alpha, num_classes=10), torch.zeros(1, 3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left, top, right, bottom = torch.tensor([theirs.make_params([image])["box"] for _ in range(n)]).unbind(1)
    for ours, expected in zip(boxes.unbind(1), (top, left, bottom, right), strict=True):
        assert ks_2samp(ours, expected).pvalue > 0.001
    ours, expected = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), (bottom - top) * (right - left)
    assert ks_2samp(ours, expected).pvalue > 0.001


@pytest.mark.parametrize("mixing", [Mixup(p=0.3), CutMix(p=0.3)])
def test_p_is_the_share_of_mixed_images(mixing):
    n = 4_000
    targets = mixing.apply_labels(
        torch.eye(n, 2)[:, :1].fill_(0).index_fill(0, torch.arange(0, n, 2), 1), mixing.draw(n, seeded())
    )
    mixed = ((targets > 0) & (targets < 1)).float().mean()
    assert 0.25 < mixed < 0.32  # a few boxes of CutMix are empty or the whole image


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixing_refuses_bad_values(kind):
    with pytest.raises(UserError, match="alpha=0"):
        kind(alpha=0)
    with pytest.raises(UserError, match="p=2"):
        kind(p=2)
