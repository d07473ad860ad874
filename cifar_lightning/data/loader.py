"""The base of both training loaders: the order of an epoch, each process's slice of it, and resuming in mid-epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from cifar_lightning.data.hardest import Hardest
from cifar_lightning.errors import UserError

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N] of the training, validation or test split."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A CPU generator seeded by (seed, epoch) alone, so that any epoch can be repeated without the ones before."""
    return _generator(seed, epoch)


def run_generator(seed: int) -> torch.Generator:
    """A CPU generator for draws that hold for all epochs, different from every epoch's."""
    return _generator(seed, 0, 1)  # [seed] alone would be [seed, 0], the first epoch's


def _generator(*entropy: int) -> torch.Generator:
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def check_batch_size(batch_size: int, n: int, world_size: int = 1) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"data.batch_size={batch_size!r} must be an integer of at least 1.")
    if batch_size * world_size > n:
        each = f" on each of {world_size} processes" if world_size > 1 else ""
        raise UserError(
            f"data.batch_size={batch_size}{each} is more than the {n:,} images of the training split: choose at most "
            f"{n // world_size:,}"
        )


class TrainingLoader(ABC):
    """Batches of the current epoch, resumable in mid-epoch (Lightning saves and restores `state_dict`).

    A global batch is `batch_size * world_size` consecutive positions of the epoch's order, of which each process takes
    its slice, so that order and draws depend neither on the batch size nor on the number of processes. A smaller last
    batch is divided evenly; with fewer images than processes, they are added to the batch before.

    hardest: chooses the images of each epoch. sizes: pairs of a share of the training and the size in pixels that
    images have up to there; `epochs` returns the length of the training.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int = 0,
        current_epoch: Callable[[], int] = lambda: 0,
        batches_trained: Callable[[], int] | None = None,
        epochs: Callable[[], float] = lambda: 1,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        hardest: Hardest | None = None,
        sizes: Sequence[tuple[float, int]] = (),
    ) -> None:
        self.images = hardest.count if hardest else len(split)  # in an epoch
        check_batch_size(batch_size, self.images, world_size)
        self.split = split
        self.hardest, self.sizes, self.epochs = hardest, sizes, epochs
        self.batch_size = batch_size
        self.seed = seed
        self.current_epoch = current_epoch
        self.batches_trained = batches_trained
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.take: Callable[[Batch], bool] = lambda batch: False  # returns True to take a batch out of the loop
        self._epoch = 0
        self._position = 0
        self._restored: dict[str, Any] | None = None

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches `first`, `first + 1`, … of an epoch."""

    def __len__(self) -> int:
        full, rest = divmod(self.images, self._global_batch)
        return full if self.drop_last or rest < self.world_size else full + 1

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that the epoch is read at the first batch: Lightning creates the iterator of a resumed run
        # before it restores its epoch counter (FitLoop.setup_data comes before FitLoop.reset).
        self._epoch = self.current_epoch()
        self._position = self._first_batch()
        if self.hardest:
            self.hardest.begin(self._epoch)
        length = self.epochs() if self.sizes else 1
        for batch in self.batches(self._epoch, self._position):
            if self.hardest:
                self.hardest.hand_out(self._order[slice(*self.bounds(self._position))])
            if size := self._size(length):
                batch = resize(batch[0], [size, size], antialias=True), batch[1]
            self._position += 1
            if not self.take(batch):
                yield batch

    def _size(self, epochs: float) -> int | None:
        """The size of the next batch's images; None for their own."""
        progress = (self._epoch + self._position / len(self)) / epochs
        return next((size for until, size in self.sizes if progress < until), None)

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the number of its batches that were trained on (not only handed out), as plain integers."""
        if self._restored is not None:
            return self._restored
        position = min(self._position, self.batches_trained()) if self.batches_trained else self._position
        state = {"epoch": self._epoch, "position": position, "global_batch_size": self._global_batch}
        return state | ({"hardest": self.hardest.state_dict()} if self.hardest else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = dict(state_dict)
        if self.hardest and "hardest" in state_dict:
            self.hardest.load_state_dict(state_dict["hardest"])

    def order(self, generator: torch.Generator) -> Tensor:
        """Image indices by position in the epoch, int64 [`images`]."""
        n = len(self.split)
        order = torch.randperm(n, generator=generator) if self.shuffle else torch.arange(n)
        self._order = order[self.hardest.chosen[order]] if self.hardest else order
        return self._order

    def bounds(self, batch: int) -> tuple[int, int]:
        """Start and end of this process's slice of a global batch, as positions in the epoch."""
        begin = batch * self._global_batch
        is_rest = batch == len(self) - 1 and not self.drop_last
        end = self.images if is_rest else begin + self._global_batch
        share, extra = divmod(end - begin, self.world_size)
        first = begin + self.rank * share + min(self.rank, extra)
        return first, first + share + (self.rank < extra)

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    def _first_batch(self) -> int:
        state, self._restored = self._restored, None
        if state is None or state["epoch"] != self._epoch:
            # The checkpoint is from the end of an epoch (perhaps a limited one), and this is the next.
            return 0
        if state["position"] > 0 and state["global_batch_size"] != self._global_batch:
            raise UserError(
                f"the checkpoint was written in mid-epoch with {state['global_batch_size']} images per step over all "
                f"processes, but now there would be {self._global_batch}. Resume with the same data.batch_size and "
                "number of processes, or from a checkpoint at the end of an epoch."
            )
        # May be all of them: with max_steps Lightning asks a finished epoch for one more batch, and gets none.
        return state["position"]
