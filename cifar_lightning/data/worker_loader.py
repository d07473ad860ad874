"""Batches transformed image by image in `DataLoader` workers, by any `torchvision.transforms.v2`."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from cifar_lightning.data.loader import Batch, Split, TrainingLoader, epoch_generator

Transform = Callable[[Any], Any]


class WorkerLoader(TrainingLoader):
    """Training batches whose images go through `transforms` one by one, on the CPU.

    The order is that of DeviceLoader. An image's randomness is seeded by (seed, epoch, index), so it depends neither
    on the number of workers nor on other images. The main process's global generators of torch, NumPy and Python are
    not changed.
    """

    def __init__(
        self,
        split: Split,
        *,
        transforms: Sequence[Transform] = (),
        num_workers: int | None = None,
        pin_memory: bool = False,
        persistent_workers: bool = True,
        **keys: Any,
    ) -> None:
        super().__init__(split, **keys)
        workers = min(_cpu_count(), 8) if num_workers is None else num_workers
        self._batches: list[list[tuple[int, int]]] = []
        self._loader: DataLoader[Batch] = DataLoader(
            _TransformedImages(split, transforms),
            batch_sampler=self._batches,
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers and workers > 0,
            generator=torch.Generator(),  # otherwise each epoch would draw a seed from the global one
        )

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        generator = epoch_generator(self.seed, epoch)
        order = self.order(generator)
        seeds = torch.randint(2**32, (len(self.split),), generator=generator)  # one an image, by its index
        examples = list(zip(order.tolist(), seeds[order].tolist(), strict=True))
        self._batches[:] = [examples[slice(*self.bounds(batch))] for batch in range(first, len(self))]
        yield from self._loader

    def close(self) -> None:
        """Stop the workers; another epoch would start them again."""
        self._loader._iterator = None


class _TransformedImages(Dataset[Batch]):
    """Indexed by (index, seed), so that workers are stateless."""

    def __init__(self, split: Split, transforms: Sequence[Transform]) -> None:
        self.split = split
        self.transforms = transforms

    def __getitems__(self, examples: list[tuple[int, int]]) -> Batch:
        with _global_generators_restored():
            images = [self._transformed(index, seed) for index, seed in examples]
        return torch.stack(images), self.split.labels[[index for index, _ in examples]]

    def _transformed(self, index: int, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        image = self.split.images[index]
        for transform in self.transforms:
            image = transform(image)
        # A plain tensor, whether the last transform returned a tensor, a torchvision Image or a PIL image.
        return image.as_subclass(Tensor) if isinstance(image, Tensor) else pil_to_tensor(image)


@contextmanager
def _global_generators_restored() -> Iterator[None]:
    """With 0 workers the transforms run in the main process. Once per batch, as it takes 0.1 ms."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _as_it_is(batch: Any) -> Any:
    return batch


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
