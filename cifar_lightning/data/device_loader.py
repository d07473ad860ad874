"""Batches sliced from one uint8 tensor on the training device; each image is augmented by its own random draw."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.data.loader import Batch, Split, TrainingLoader, epoch_generator, run_generator

Parameters = Tensor | tuple[Tensor, ...]

# Images augmented at once. Small batches would be dominated by dispatch (20 operations of 5 µs each); on a CPU larger
# chunks exceed the cache.
CHUNK = 2_000


class Augmentation(Protocol):
    """Per-image randomness as values: `draw` returns random parameters, `apply` is a function of images and these.

    An augmentation that mixes the images of a batch also has `apply_labels(targets float [B, K], parameters)`. One
    whose draws depend on earlier epochs has `draw_by_image(n, generator, epoch) -> parameters` instead of `draw`: the
    parameters of the images in the data set's order, from a generator with the same seed in every epoch.
    """

    def draw(self, n: int, generator: torch.Generator) -> Parameters: ...

    def apply(self, images: Tensor, parameters: Any) -> Tensor: ...


class DeviceLoader(TrainingLoader):
    """Training batches (images uint8 [B, C, H, W], labels int64 [B]) on `device`.

    All draws of an epoch are made on the CPU for all images, in the order of `transforms`, then sliced. From the
    first mixing transform on, batches are processed one by one and labels are float [B, num_classes].
    """

    def __init__(
        self,
        split: Split,
        *,
        transforms: Sequence[Augmentation] = (),
        num_classes: int = 10,
        device: torch.device | str = "cpu",
        **keys: Any,
    ) -> None:
        self.device = torch.device(device)
        super().__init__(split.to(self.device), **keys)
        self.transforms = list(transforms)
        self.num_classes = num_classes

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        order, draws = self._plan(epoch)
        ends = [0, *accumulate(end - begin for begin, end in map(self.bounds, range(len(self))))]
        mixing = next((i for i, t in enumerate(self.transforms) if hasattr(t, "apply_labels")), len(self.transforms))
        per_chunk = max(1, -(-CHUNK // self.batch_size))
        # Chunks start at multiples of their size even after a resume: rounding may depend on a chunk's shape.
        for start in range(first - first % per_chunk, len(self), per_chunk):
            chunk = ends[start : start + per_chunk + 1]
            chosen = order[chunk[0] : chunk[-1]]
            images, labels = (part.index_select(0, chosen) for part in (self.split.images, self.split.labels))
            for transform, drawn in zip(self.transforms[:mixing], draws[:mixing], strict=True):
                images = transform.apply(images, _rows(drawn, slice(chunk[0], chunk[-1])))
            for begin, end in list(pairwise(chunk))[max(0, first - start) :]:
                here = slice(begin - chunk[0], end - chunk[0])
                batch = images[here], labels[here]
                yield self._mix(batch, mixing, draws, slice(begin, end)) if mixing < len(self.transforms) else batch

    def _plan(self, epoch: int) -> tuple[Tensor, list[Parameters]]:
        """Image indices and every transform's draws for this process's positions of the epoch."""
        generator = epoch_generator(self.seed, epoch)
        order = self.order(generator)
        draws = [self._draw(transform, epoch, order, generator) for transform in self.transforms]
        mine = torch.cat([torch.arange(*self.bounds(batch)) for batch in range(len(self))])
        return order[mine].to(self.device), [_to(_rows(drawn, mine), self.device) for drawn in draws]

    def _draw(self, transform: Augmentation, epoch: int, order: Tensor, generator: torch.Generator) -> Parameters:
        """A transform's draws by position in the epoch."""
        draw_by_image = getattr(transform, "draw_by_image", None)
        if draw_by_image is None:
            return transform.draw(len(order), generator)
        return _rows(draw_by_image(len(self.split), run_generator(self.seed), epoch), order)

    def _mix(self, batch: Batch, mixing: int, draws: list[Parameters], rows: slice) -> Batch:
        images, targets = batch[0], F.one_hot(batch[1], self.num_classes).float()
        for transform, drawn in zip(self.transforms[mixing:], draws[mixing:], strict=True):
            parameters = _rows(drawn, rows)
            images = transform.apply(images, parameters)
            if hasattr(transform, "apply_labels"):
                targets = transform.apply_labels(targets, parameters)
        return images, targets


class EvaluationLoader:
    """Each image once over all processes, in order: even global batches, of which process r gets the r-th slice.

    Every process gets the same number of batches, none larger than `batch_size`, and nothing is padded.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        length = -(-len(split) // (batch_size * world_size))
        images, labels = (
            [batch.tensor_split(world_size)[rank].to(torch.device(device)) for batch in part.tensor_split(length)]
            for part in (split.images, split.labels)
        )
        self._batches = list(zip(images, labels, strict=True))

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def _rows(parameters: Parameters, rows: slice | Tensor) -> Parameters:
    return tuple(p[rows] for p in parameters) if isinstance(parameters, tuple) else parameters[rows]


def _to(parameters: Parameters, device: torch.device) -> Parameters:
    return tuple(p.to(device) for p in parameters) if isinstance(parameters, tuple) else parameters.to(device)
