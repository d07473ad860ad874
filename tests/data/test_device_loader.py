import pytest
import torch
from helpers.digit_loaders import digits, joined
from torch.nn.functional import one_hot

from cifar_lightning.data.augmentation import CutMix, HorizontalFlip, Mixup, RandomCrop
from cifar_lightning.data.device_loader import DeviceLoader, EvaluationLoader
from cifar_lightning.data.loader import Split, epoch_generator


@pytest.mark.parametrize("chunk", [1, 48, 2000])
def test_draws_are_made_for_the_whole_epoch_in_the_order_of_the_transforms(chunk, monkeypatch):
    monkeypatch.setattr("cifar_lightning.data.device_loader.CHUNK", chunk)
    split, flip, crop = digits(70), HorizontalFlip(), RandomCrop(2)
    loader = DeviceLoader(split, transforms=[flip, crop], batch_size=16, seed=5, current_epoch=lambda: 3)
    generator = epoch_generator(5, 3)
    order = torch.randperm(70, generator=generator)
    flipped, corners = flip.draw(70, generator), crop.draw(70, generator)
    images, labels = joined(list(loader))
    assert torch.equal(images, crop.apply(flip.apply(split.images[order], flipped), corners))
    assert torch.equal(labels, split.labels[order])


@pytest.mark.parametrize("mixing", [Mixup(), CutMix()])
@pytest.mark.parametrize("world_size", [1, 2])
def test_mixing_pairs_the_images_of_a_batch_by_roll(mixing, world_size):
    split = digits(70)
    order_generator = epoch_generator(0, 0)
    order = torch.randperm(70, generator=order_generator)
    drawn = mixing.draw(70, order_generator)
    for rank in range(world_size):
        loader = DeviceLoader(split, transforms=[mixing], batch_size=16, rank=rank, world_size=world_size)
        for i, (images, targets) in enumerate(loader):
            rows = slice(*loader.bounds(i))
            chosen = order[rows]
            assert torch.equal(images, mixing.apply(split.images[chosen], drawn[rows]))
            expected = mixing.apply_labels(one_hot(split.labels[chosen], 10).float(), drawn[rows])
            assert torch.equal(targets, expected)


def test_what_follows_a_mixing_transform_is_applied_too():
    split = digits(20)
    loader = DeviceLoader(split, transforms=[Mixup(p=0), HorizontalFlip(1)], batch_size=20, shuffle=False)
    images, targets = next(iter(loader))
    assert torch.equal(images, split.images.flip(-1))
    assert torch.equal(targets, one_hot(split.labels, 10).float())


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("n", [41, 60])
@pytest.mark.parametrize("batch_size", [2, 7, 500])
def test_evaluation_sees_each_image_once_in_order(n, batch_size, world_size):
    split = Split(digits(n).images, torch.arange(n))
    ranks = [
        EvaluationLoader(split, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    batches = [list(loader) for loader in ranks]
    assert {len(loader) for loader in ranks} == {len(some) for some in batches} == {len(batches[0])}
    assert all(1 <= len(labels) <= batch_size for some in batches for _, labels in some)
    images, labels = joined([batch for step in zip(*batches, strict=True) for batch in step])
    assert torch.equal(labels, torch.arange(n))
    assert torch.equal(images, split.images)
    assert len(list(ranks[0])) == len(ranks[0])  # again from the start


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_on_a_cpu():
    split, transforms = digits(200), [HorizontalFlip(), RandomCrop(), CutMix()]
    batches = [
        joined(list(DeviceLoader(split, transforms=transforms, batch_size=64, device=device)))
        for device in ("cpu", "cuda")
    ]
    for on_cpu, on_gpu in zip(*batches, strict=True):
        assert on_gpu.device.type == "cuda"
        torch.testing.assert_close(on_gpu.cpu(), on_cpu)
