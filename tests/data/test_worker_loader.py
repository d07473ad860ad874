import random
from itertools import count

import numpy as np
import pytest
import torch
from helpers.digit_loaders import augmentation, digits, joined, same
from torch.utils.data import get_worker_info
from torchvision.transforms import v2

from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.data.worker_loader import WorkerLoader

RANDOM = augmentation("rand_augment")[1]


class SomeOfEachGenerator:
    """Adds noise of three sources, as a person's own transform may."""

    def __call__(self, image):
        noise = np.random.randint(9) + random.randrange(9) + int(torch.randint(9, ()))
        return image // 2 + noise


class WhichWorker:
    def __call__(self, image):
        info = get_worker_info()
        return torch.full_like(image, 255 if info is None else info.id)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("keys", [{}, {"drop_last": True}, {"rank": 1, "world_size": 2}, {"shuffle": False}])
def test_without_augmentation_batches_are_the_device_pipelines(num_workers, keys):
    split = digits(70)
    keys |= {"batch_size": 16, "seed": 3, "current_epoch": lambda: 1}
    assert same(list(WorkerLoader(split, num_workers=num_workers, **keys)), list(DeviceLoader(split, **keys)))


@pytest.mark.parametrize("transforms", [RANDOM, [SomeOfEachGenerator()]])
def test_results_do_not_depend_on_the_number_of_workers(transforms):
    def two_epochs(num_workers):
        keys = {"batch_size": 16, "num_workers": num_workers, "current_epoch": count().__next__}
        loader = WorkerLoader(digits(70), transforms=transforms, **keys)
        first, second = list(loader), list(loader)
        loader.close()
        return first, second

    first, second = two_epochs(0)
    assert not same(first, second)
    for num_workers in (1, 3):
        others = two_epochs(num_workers)
        assert same(others[0], first)
        assert same(others[1], second)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_of_the_main_process_are_left_alone(num_workers):
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    expected = torch.rand(3), np.random.rand(3), random.random()
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    list(WorkerLoader(digits(20), transforms=[SomeOfEachGenerator()], batch_size=10, num_workers=num_workers))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


def test_an_image_has_its_own_randomness_whatever_comes_before_it():
    keys = {"transforms": RANDOM, "num_workers": 0, "shuffle": False}
    images, _ = next(iter(WorkerLoader(digits(40), batch_size=20, **keys)))
    alone = WorkerLoader(digits(40), batch_size=1, **keys)
    alone.load_state_dict({"epoch": 0, "position": 3, "global_batch_size": 1})
    assert torch.equal(next(iter(alone))[0], images[3:4])


@pytest.mark.parametrize(("num_workers", "where"), [(0, {255}), (1, {0}), (2, {0, 1})])
def test_num_workers_takes_effect(num_workers, where):
    loader = WorkerLoader(digits(40), transforms=[WhichWorker()], batch_size=10, num_workers=num_workers)
    assert set(joined(list(loader))[0].unique().tolist()) == where
    loader.close()


@pytest.mark.parametrize("persistent", [True, False])
def test_persistent_workers_live_on_until_the_loader_is_closed(persistent):
    loader = WorkerLoader(digits(40), batch_size=10, num_workers=2, persistent_workers=persistent)
    pids = []
    for _ in range(2):
        batches = iter(loader)
        next(batches)
        workers = loader._loader._iterator._workers if persistent else []
        pids.append({worker.pid for worker in workers})
        list(batches)
    assert pids[0] == pids[1]
    assert bool(pids[0]) is persistent
    loader.close()
    assert not any(worker.is_alive() for worker in workers)


def test_an_abandoned_epoch_does_not_leak_into_the_next():
    epoch = 0
    loader = WorkerLoader(digits(40), batch_size=4, num_workers=2, current_epoch=lambda: epoch)
    batches = iter(loader)
    next(batches)
    epoch = 1
    assert same(list(loader), list(DeviceLoader(digits(40), batch_size=4, current_epoch=lambda: 1)))
    loader.close()


@pytest.mark.parametrize(
    "last",
    [v2.ToPILImage(), v2.ToImage(), v2.Identity(), v2.ToDtype(torch.float32, scale=True)],
    ids=lambda t: type(t).__name__,
)
def test_any_kind_of_image_may_come_out(last):
    split = digits(8)
    images, labels = next(iter(WorkerLoader(split, transforms=[last], batch_size=8, num_workers=0, shuffle=False)))
    assert type(images) is torch.Tensor
    scale = 255 if images.is_floating_point() else 1
    assert torch.equal((images * scale).round().to(torch.uint8), split.images)
    assert torch.equal(labels, split.labels)


@pytest.mark.gpu
def test_pin_memory_takes_effect():
    images, labels = next(iter(WorkerLoader(digits(8), batch_size=8, num_workers=2, pin_memory=True)))
    assert images.is_pinned()
    assert labels.is_pinned()
