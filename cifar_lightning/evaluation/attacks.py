"""Attack a network with small changes of its images, and check that its gradients are of use for that.

FGSM: Goodfellow et al. 2015 (arXiv 1412.6572). PGD: Madry et al. 2018 (arXiv 1706.06083). The check: Athalye et al.
2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv 1902.06705).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cifar_lightning.data.loader import Split

Network = Callable[[Tensor], Tensor]  # from images in [0, 1] to logits
Norm = Literal["linf", "l2"]
BATCH = 100
STEP = 2.5  # of the radius, over all steps together: a path may reach the border and follow it (Madry et al.)


@dataclass(frozen=True)
class Attack:
    """Changes of at most `radius` in a norm, of images in [0, 1]; one step without a random start is FGSM."""

    words: str
    norm: Norm
    radius: float
    steps: int = 20
    restarts: int = 1


ATTACKS = {
    "fgsm_linf_8": Attack("FGSM, l∞ 8/255", "linf", 8 / 255, steps=1),
    "pgd_linf_8": Attack("PGD-20, l∞ 8/255", "linf", 8 / 255),
    "fgsm_linf_2": Attack("FGSM, l∞ 2/255", "linf", 2 / 255, steps=1),
    "pgd_linf_2": Attack("PGD-20, l∞ 2/255", "linf", 2 / 255),
    "pgd_l2_05": Attack("PGD-20, l2 0.5", "l2", 0.5),
}
LONGER = Attack("PGD-50 with 2 restarts, l∞ 2/255", "linf", 2 / 255, steps=50, restarts=2)
BOUNDLESS = Attack("PGD-20, l∞ 1", "linf", 1.0)
SEARCH = Attack("random search without gradients, 100 queries, l∞ 2/255", "linf", 2 / 255, steps=100)
TOLERATED = 0.02  # of the images: what chance and a few more steps may change


def survivors(network: Network, split: Split, attack: Attack, method: str = "gradient", seed: int = 0) -> Tensor:
    """Whether each image is still classified correctly, bool [N], whatever the attack tried.

    method: gradient or search. An image counts as lost as soon as one of the changed images is classified wrongly.
    """
    find = {"gradient": by_gradient, "search": by_search}[method]
    draws = torch.Generator().manual_seed(seed)
    kept = []
    for images, labels in zip(split.images.split(BATCH), split.labels.split(BATCH), strict=True):
        alive = torch.ones(len(labels), dtype=torch.bool)
        images = images.float() / 255
        with torch.no_grad():
            alive &= network(images).argmax(1).cpu() == labels
        for _ in range(attack.restarts):
            rows = alive.nonzero()[:, 0]
            if len(rows):
                alive[rows] = find(network, images[rows], labels[rows], attack, draws)
        kept.append(alive)
    return torch.cat(kept)


def by_gradient(network: Network, images: Tensor, labels: Tensor, attack: Attack, draws: torch.Generator) -> Tensor:
    """Steps along the gradient of the cross entropy, projected to the ball around each image; survivors, bool [N]."""
    alive, rows = torch.ones(len(labels), dtype=torch.bool), torch.arange(len(labels))
    start = torch.zeros_like(images) if attack.steps == 1 else random_start(images, attack, draws)
    size = attack.radius if attack.steps == 1 else STEP * attack.radius / attack.steps
    changed = (images + start).clamp(0, 1)
    for _ in range(attack.steps):
        changed = step(network, images[rows], changed, labels[rows], attack, size)
        with torch.no_grad():
            lost = network(changed).argmax(1).cpu() != labels[rows]
        alive[rows[lost]] = False
        rows, changed = rows[~lost], changed[~lost]
        if not len(rows):
            break
    return alive


def step(network: Network, images: Tensor, changed: Tensor, labels: Tensor, attack: Attack, size: float) -> Tensor:
    changed = changed.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(changed)
        loss = cross_entropy(logits.float(), labels.to(logits.device), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, changed)
    if attack.norm == "linf":
        away = (changed.detach() + size * gradient.sign() - images).clamp(-attack.radius, attack.radius)
    else:
        moved = changed.detach() + size * gradient / lengths(gradient).clamp(min=1e-12) - images
        away = moved * (attack.radius / lengths(moved).clamp(min=1e-12)).clamp(max=1)
    return (images + away).clamp(0, 1)


def random_start(images: Tensor, attack: Attack, draws: torch.Generator) -> Tensor:
    if attack.norm == "linf":
        return attack.radius * (2 * torch.rand(images.shape, generator=draws) - 1)
    direction = torch.randn(images.shape, generator=draws)
    return attack.radius * direction / lengths(direction) * torch.rand((len(images), 1, 1, 1), generator=draws)


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]


@torch.no_grad()
def by_search(network: Network, images: Tensor, labels: Tensor, attack: Attack, draws: torch.Generator) -> Tensor:
    """Random squares at the border of the l∞ ball, kept where the margin shrinks; survivors, bool [N].

    A simple form of the square attack (Andriushchenko et al. 2020, arXiv 1912.00049), which needs no gradients. Every
    image of a batch gets a square in the same place, in colours of its own.
    """
    n, channels, height, width = images.shape

    def colours(*shape: int) -> Tensor:
        return attack.radius * (2.0 * torch.randint(0, 2, shape, generator=draws) - 1)

    best = (images + colours(n, channels, 1, width).expand_as(images)).clamp(0, 1)  # stripes
    least = margin(network(best), labels)
    for query in range(attack.steps):
        side = max(1, round(height * (0.5 * 0.1 ** (query / attack.steps))))
        top, left = (int(torch.randint(0, size - side + 1, (1,), generator=draws)) for size in (height, width))
        tried, place = best.clone(), (..., slice(top, top + side), slice(left, left + side))
        tried[place] = (images[place] + colours(n, channels, 1, 1)).clamp(0, 1)
        found = margin(network(tried), labels)
        better = found < least
        best[better], least[better] = tried[better], found[better]
    return least > 0


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of the true class less the highest other one, [N]; negative for a wrong prediction."""
    logits = logits.float().cpu()
    true = logits.gather(1, labels[:, None])[:, 0]
    return true - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def masking(fgsm: Tensor, pgd: Tensor, longer: Tensor, searched: Tensor, boundless: Tensor) -> list[str]:
    """Signs that gradients hide what can be changed, in words; from the survivors, bool [N], of each attack.

    fgsm and pgd within the same radius; longer, searched: LONGER and SEARCH; boundless: BOUNDLESS.
    """

    def share(hits: Tensor) -> float:
        return hits.double().mean().item()

    signs = []
    if share(fgsm) < share(pgd) - TOLERATED:
        signs.append("one step (FGSM) finds more than twenty (PGD)")
    if share(pgd) - share(pgd & longer) > TOLERATED:
        signs.append(f"more steps and restarts find {share(pgd & ~longer):.1%} more: PGD-20 had not converged")
    if share(pgd & ~searched) > TOLERATED:
        signs.append(f"a search without gradients changes {share(pgd & ~searched):.1%} that PGD does not")
    if share(boundless) > TOLERATED:
        signs.append(f"{share(boundless):.1%} withstand changes without a bound")
    return signs
