"""Altered copies of an image are found among others, and nothing else is."""

import io

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from torchvision.transforms.v2.functional import gaussian_blur as torchvisions_blur

from cifar_lightning.data import near_duplicates as audit


def scenes(n: int, seed: int = 0) -> Tensor:
    """Random coloured shapes, uint8 [n, 3, 48, 48]: larger than the images that are cut out of them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 9, 9, generator=generator) * 200
    fine = torch.randn(n, 3, 48, 48, generator=generator) * 8
    return (interpolate(coarse, size=48, mode="bicubic") + 20 + fine).clamp(0, 255).byte()


def cut(scene: Tensor, across: int = 0, down: int = 0) -> Tensor:
    return scene[..., 8 + down : 40 + down, 8 + across : 40 + across]


def recompressed(image: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def brighter(image: Tensor) -> Tensor:
    return (image * 0.8 + 40).clamp(0, 255).byte()


COPIES = {
    "the same": lambda scene: cut(scene),
    "moved": lambda scene: cut(scene, 3, -2),
    "moved to a corner": lambda scene: cut(scene, -3, -3),
    "brighter": lambda scene: brighter(cut(scene)),
    "recompressed": lambda scene: recompressed(cut(scene), 40),
    "mirrored": lambda scene: cut(scene).flip(-1),
    "mirrored and moved": lambda scene: cut(scene, 2, 2).flip(-1),
    "all together": lambda scene: recompressed(brighter(cut(scene, -2, 1)), 60).flip(-1),
}


def test_every_altered_copy_is_found_and_nothing_else():
    some = scenes(300)
    images = torch.cat([cut(some), torch.stack([copy(some[7 * i]) for i, copy in enumerate(COPIES.values())])])
    pairs = audit.near_duplicates(images)
    found = dict(
        zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.mirrored.tolist(), strict=True)
    )
    assert found == {(7 * i, 300 + i): "mirrored" in name or "all" in name for i, name in enumerate(COPIES)}
    assert pairs.similarity[0] == pytest.approx(1)
    assert (pairs.similarity.diff() <= 0).all()


def test_a_higher_threshold_leaves_the_more_similar_pairs():
    some = scenes(60)
    images = torch.cat([cut(some), torch.stack([recompressed(cut(some[1]), 20), brighter(cut(some[0]))])])
    both = audit.near_duplicates(images, 0.7)
    assert both.first.tolist() == [0, 1]
    assert audit.near_duplicates(images, float(both.similarity[0])).first.tolist() == [0]


def test_there_are_no_pairs_among_blank_images():
    assert len(audit.near_duplicates(torch.full((5, 3, 32, 32), 200, dtype=torch.uint8))) == 0


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 64)])
def test_images_may_have_other_sizes(channels, size):
    some = interpolate(cut(scenes(40)).float(), size=size, mode="bilinear").byte()[:, :channels]
    moved = some[5].roll((1, 1), (1, 2))
    pairs = audit.near_duplicates(torch.cat([some, moved[None]]))
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(5, 40)]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_correlation_is_that_of_the_best_shift(stride):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 3, 12, 12, generator=generator).numpy() * 50
    expected = []
    for one, other in zip(a, b, strict=True):
        part = one[:, 2:10:stride, 2:10:stride].ravel()
        windows = [other[:, y : y + 8 : stride, x : x + 8 : stride].ravel() for y in range(5) for x in range(5)]
        expected.append(max(part @ w / np.linalg.norm(part) / np.linalg.norm(w) for w in windows))
    found = audit.correlation(torch.from_numpy(a), torch.from_numpy(b), 2, stride)
    assert_allclose(found, expected, rtol=1e-5)


def test_tiles_give_the_pairs_of_a_whole_product(monkeypatch):
    monkeypatch.setattr(audit, "TILE", (7, 10))
    a, b = normalize(torch.randn(2, 45, 6, generator=torch.Generator().manual_seed(0)), dim=2)
    found = {
        (i, j): value
        for some in audit.similar_pairs(a, b, 0.5)
        for i, j, value in zip(*(column.tolist() for column in some), strict=True)
    }
    whole = a @ b.T
    expected = [(i, j) for i in range(45) for j in range(i + 1, 45) if whole[i, j] > 0.5]
    assert sorted(found) == expected
    assert_allclose([found[pair] for pair in expected], [whole[pair] for pair in expected], rtol=1e-5)


def test_the_blur_is_torchvisions_away_from_the_edge():
    images = cut(scenes(3)).double()
    matrix = audit.gaussian_blur(32, 1.0).double()
    inside = (..., slice(6, 26), slice(6, 26))
    expected = torchvisions_blur(images, [13, 13], [1.0, 1.0])
    assert_allclose((matrix @ images @ matrix.T)[inside], expected[inside], rtol=1e-6)


def test_whitened_vectors_vary_alike_in_every_direction():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.eye(8) + torch.randn(8, 8, generator=generator) / 8
    vectors = torch.randn(5000, 8, generator=generator) @ mixed
    white = vectors @ audit.whitening(vectors)
    assert_allclose(white.T @ white / 5000, torch.eye(8), atol=0.05)


def test_embeddings_of_one_class_are_not_alike_for_that():
    generator = torch.Generator().manual_seed(0)
    classes = 3 * torch.randn(10, 32, generator=generator)
    features = classes[torch.arange(4000) % 10] + torch.randn(4000, 32, generator=generator)
    features[77] = features[33] + 0.02
    pairs = audit.similar_embeddings(features)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([33], [77])
