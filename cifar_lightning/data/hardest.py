"""Train each epoch on the images that are hardest so far, and leave out those that are learnt (`data.keep_hardest`).

Prior art: K. Jordan's airbench96_faster (github.com/KellerJordan/cifar10-airbench), which drops easy images by the loss
of a smaller network; here it is the latest loss of the network itself, which costs nothing.
"""

from typing import Any

import torch
from torch import Tensor

LEFT_OUT_AT_MOST = 2  # epochs in a row; the loss of an image that is long unseen says little


class Hardest:
    """Chooses `share` of N images for each epoch: those unseen for longest, then those with the highest latest loss.

    So the first epochs go through all images, as each of them is unseen before it is easy.
    """

    def __init__(self, n: int, share: float) -> None:
        self.count = max(1, round(share * n))
        self.losses = torch.full((n,), torch.inf)  # latest loss of each image
        self.left_out = torch.zeros(n, dtype=torch.int64)  # epochs in a row, without the current one
        self.chosen = torch.ones(n, dtype=torch.bool)  # the current epoch's
        self.epoch = -1
        self._batch = torch.empty(0, dtype=torch.int64)  # images of the current batch

    def begin(self, epoch: int) -> None:
        """Choose the images of an epoch, unless it goes on."""
        if epoch == self.epoch:
            return
        if self.epoch >= 0:
            self.left_out = torch.where(self.chosen, 0, self.left_out + 1)
        hardness = torch.where(self.left_out >= LEFT_OUT_AT_MOST, torch.inf, self.losses)
        self.chosen = torch.zeros_like(self.chosen)
        # Stable, so that ties (images not seen yet) are the same on every machine.
        self.chosen[hardness.sort(descending=True, stable=True).indices[: self.count]] = True
        self.epoch = epoch

    def hand_out(self, indices: Tensor) -> None:
        """Say which images the current batch has."""
        self._batch = indices

    def note(self, losses: Tensor) -> None:
        """Take the losses [B] of the current batch."""
        self.losses[self._batch] = losses.detach().float().cpu()

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": self.losses.clone(),
            "left_out": self.left_out.clone(),
            "chosen": self.chosen.clone(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.left_out, self.chosen = (state[key].clone() for key in ("losses", "left_out", "chosen"))
        self.epoch = state["epoch"]
