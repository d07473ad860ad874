"""What must hold for the training batches of every augmentation, by whichever pipeline they are made."""

import pytest
import torch
from helpers.digit_loaders import AUGMENTATIONS, augmentation, digits, joined, loader, same
from scipy.stats import chisquare

from cifar_lightning.data.augmentation import AlternatingFlip
from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.data.loader import epoch_generator
from cifar_lightning.errors import UserError

every_augmentation = pytest.mark.parametrize("name", AUGMENTATIONS)


def is_mixing(name):
    return any(hasattr(transform, "apply_labels") for transform in augmentation(name)[1])


@every_augmentation
def test_batches_have_the_promised_shapes_and_types_and_leave_the_data_alone(name):
    split = digits(70)
    images, labels = split.images.clone(), split.labels.clone()
    batches = list(loader(name, split, batch_size=32))
    assert [len(some_labels) for _, some_labels in batches] == [32, 32, 6]
    for some_images, some_labels in batches:
        assert some_images.shape[1:] == (3, 32, 32)
        assert some_images.dtype == torch.uint8 or 0 <= some_images.min() <= some_images.max() <= 1
        if is_mixing(name):
            assert some_labels.shape == (len(some_images), 10)
            assert some_labels.dtype == torch.float32
            torch.testing.assert_close(some_labels.sum(1), torch.ones(len(some_images)))
        else:
            assert some_labels.dtype == torch.int64
    assert torch.equal(split.images, images)
    assert torch.equal(split.labels, labels)


@every_augmentation
def test_an_epoch_depends_on_seed_and_epoch_alone(name):
    def batches(seed, epoch):
        torch.randint(9, (5,))  # the global generator is not asked
        return list(loader(name, digits(70), batch_size=32, seed=seed, current_epoch=lambda: epoch))

    first = batches(1, 4)
    assert same(first, batches(1, 4))
    assert not same(first, batches(1, 5))
    assert not same(first, batches(2, 4))


@every_augmentation
def test_global_generators_are_left_alone(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(loader(name, digits(20), batch_size=10))
    assert torch.equal(torch.get_rng_state(), before)


@every_augmentation
def test_each_image_has_a_draw_of_its_own(name):
    split = digits(1)
    split = type(split)(split.images.repeat(64, 1, 1, 1), split.labels.repeat(64))
    images, _ = joined(list(loader(name, split, batch_size=64)))
    # One image, 64 times: alike only where nothing is drawn (none) or where it mixes with itself.
    kinds = len(images.flatten(1).unique(dim=0))
    assert kinds == 1 if name == "none" else kinds == 2 if name == "flip" else kinds > 20


@pytest.mark.parametrize("batch_size", [32, 7])
def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs(batch_size):
    split = digits(70)
    split = type(split)(split.images, torch.arange(70))

    def epoch(number):
        keys = {"batch_size": batch_size, "seed": 5, "current_epoch": lambda: number}
        images, indices = joined(list(DeviceLoader(split, transforms=[AlternatingFlip()], **keys)))
        return images[indices.argsort()]

    first, second, third = epoch(0), epoch(1), epoch(2)
    assert torch.equal(second, first.flip(-1))
    assert torch.equal(third, first)
    mirrored = [not torch.equal(image, given) for image, given in zip(first, split.images, strict=True)]
    assert 20 < sum(mirrored) < 50


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if not is_mixing(name)])
def test_images_depend_neither_on_batch_size_nor_on_number_of_processes(name):
    split = digits(70)
    images, labels = joined(list(loader(name, split, batch_size=16)))
    assert same([(images, labels)], [joined(list(loader(name, split, batch_size=35)))])
    ranks = [loader(name, split, batch_size=8, rank=rank, world_size=2) for rank in range(2)]
    # A global batch is rank 0's slice followed by rank 1's.
    assert same([(images, labels)], [joined([batch for step in zip(*ranks, strict=True) for batch in step])])


@every_augmentation
@pytest.mark.parametrize("position", [1, 4])
def test_a_resumed_loader_hands_out_the_remaining_batches(name, position):
    def fresh():
        return loader(name, digits(70), batch_size=16, current_epoch=lambda: 2)

    interrupted, resumed = fresh(), fresh()
    batches = iter(interrupted)
    for _ in range(position):
        next(batches)
    resumed.load_state_dict(interrupted.state_dict())
    assert len(resumed) == 5  # Lightning counts on the length of a whole epoch
    iter(resumed)  # an iterator that is thrown away resumes nothing
    rest = list(resumed)
    assert same(rest, list(fresh())[position if interrupted.state_dict()["epoch"] == 2 else 0 :])
    assert same(list(resumed), list(fresh()))  # and the next time from the start


def test_a_position_in_chunks_resumes_bit_for_bit(monkeypatch):
    monkeypatch.setattr("cifar_lightning.data.device_loader.CHUNK", 24)
    whole = list(loader("affine_jitter", digits(70), batch_size=8))
    for position in range(9):
        resumed = loader("affine_jitter", digits(70), batch_size=8)
        resumed.load_state_dict({"epoch": 0, "position": position, "global_batch_size": 8})
        assert same(list(resumed), whole[position:])


@pytest.mark.parametrize("saved_position", [5, 2])
def test_a_finished_epoch_does_not_shorten_the_next(saved_position):
    epoch = 0
    done = loader("none", digits(70), batch_size=16, current_epoch=lambda: epoch)
    batches = iter(done)
    for _ in range(saved_position):  # 2: as with limit_train_batches
        next(batches)
    epoch = 1
    resumed = loader("none", digits(70), batch_size=16, current_epoch=lambda: epoch)
    resumed.load_state_dict(done.state_dict())
    assert len(list(resumed)) == 5


def test_a_batch_that_was_handed_out_but_not_trained_on_is_repeated():
    interrupted = loader("none", digits(70), batch_size=16, batches_trained=lambda: 2)
    batches = iter(interrupted)
    for _ in range(3):
        last = next(batches)
    resumed = loader("none", digits(70), batch_size=16)
    resumed.load_state_dict(interrupted.state_dict())
    assert same([next(iter(resumed))], [last])


def test_a_finished_epoch_has_no_more_batches():
    resumed = loader("none", digits(70), batch_size=16)
    resumed.load_state_dict({"epoch": 0, "position": 5, "global_batch_size": 16})
    assert list(resumed) == []
    assert len(list(resumed)) == 5


def test_resuming_in_mid_epoch_with_other_batches_is_refused():
    state = {"epoch": 0, "position": 2, "global_batch_size": 32}
    resumed = loader("none", digits(70), batch_size=16)
    resumed.load_state_dict(state)
    with pytest.raises(UserError, match=r"32 images per step .* 16.*data\.batch_size"):
        list(resumed)


def test_a_state_that_is_saved_before_the_first_batch_is_the_loaded_one():
    resumed = loader("none", digits(70), batch_size=16)
    state = {"epoch": 0, "position": 2, "global_batch_size": 16}
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("name", "world_size", "n"),
    [("trivial_augment", 2, 61), *(("none", world, n) for world in (1, 2, 3, 4) for n in (60, 61, 62, 63, 71))],
)
def test_every_image_once_an_epoch_over_all_processes(name, drop_last, world_size, n):
    split = digits(n)
    split = type(split)(split.images, torch.arange(n))
    keys = {"batch_size": 5, "drop_last": drop_last, "world_size": world_size}
    ranks = [list(loader(name, split, rank=rank, **keys)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(loader(name, split, **keys))}
    sizes = [[len(labels) for _, labels in step] for step in zip(*ranks, strict=True)]
    assert all(max(step) - min(step) <= 1 <= min(step) for step in sizes)
    seen = joined([batch for batches in ranks for batch in batches])[1].tolist()
    expected = n // (5 * world_size) * (5 * world_size) if drop_last else n
    assert len(seen) == len(set(seen)) == expected


def test_order_without_shuffling():
    split = digits(20)
    assert same([joined(list(loader("none", split, batch_size=8, shuffle=False)))], [(split.images, split.labels)])


def test_the_order_is_uniform():
    # Where the first image ends up, over many epochs.
    ends_up = [int((torch.randperm(10, generator=epoch_generator(0, epoch)) == 0).nonzero()) for epoch in range(3000)]
    assert chisquare(torch.bincount(torch.tensor(ends_up), minlength=10)).pvalue > 0.001


@pytest.mark.parametrize(("batch_size", "world_size"), [(71, 1), (36, 2)])
def test_a_batch_larger_than_the_training_part_is_refused(batch_size, world_size):
    with pytest.raises(UserError, match=rf"data\.batch_size={batch_size}.*70"):
        loader("none", digits(70), batch_size=batch_size, world_size=world_size)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_size_is_a_positive_number(batch_size):
    with pytest.raises(UserError, match=r"data\.batch_size="):
        loader("none", digits(70), batch_size=batch_size)
