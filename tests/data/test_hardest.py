import pytest
import torch
from helpers.digit_loaders import digits
from torchvision.transforms.v2.functional import resize

from cifar_lightning.data.augmentation import AlternatingFlip, HorizontalFlip
from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.data.hardest import Hardest
from cifar_lightning.data.worker_loader import WorkerLoader
from cifar_lightning.reporting.files import read_json

N = 100


def epoch_of(hardest, epoch, losses):
    """Train an epoch; the indices of its images."""
    hardest.begin(epoch)
    chosen = hardest.chosen.nonzero().flatten()
    for indices in chosen.split(16):
        hardest.hand_out(indices)
        hardest.note(losses[indices])
    return chosen


def test_all_images_are_seen_before_the_easy_ones_are_left_out():
    hardest, losses = Hardest(N, 0.6), torch.linspace(0, 1, N)
    assert epoch_of(hardest, 0, losses).tolist() == list(range(60))
    second = epoch_of(hardest, 1, losses)
    assert set(range(60, 100)) <= set(second.tolist())  # not seen before
    assert second.tolist() == list(range(40, 100))  # of the others the hardest
    assert len(epoch_of(hardest, 2, losses)) == 60


def test_no_image_is_left_out_for_more_than_two_epochs():
    hardest, losses = Hardest(N, 0.5), torch.linspace(0, 1, N)
    seen = torch.stack([torch.isin(torch.arange(N), epoch_of(hardest, epoch, losses)) for epoch in range(12)])
    missed_three = (~seen).unfold(0, 3, 1).all(-1)
    assert not missed_three.any()
    assert seen.float().mean(0)[-20:].mean() > seen.float().mean(0)[:20].mean()


def test_a_state_that_is_saved_in_mid_epoch_goes_on_with_the_same_images():
    losses = torch.rand(N, generator=torch.Generator().manual_seed(0))
    whole, part = Hardest(N, 0.5), Hardest(N, 0.5)
    for epoch in range(3):
        epoch_of(whole, epoch, losses)
    for epoch in range(2):
        epoch_of(part, epoch, losses)
    part.begin(2)
    resumed = Hardest(N, 0.5)
    resumed.load_state_dict(part.state_dict())
    epoch_of(resumed, 2, losses)
    assert torch.equal(epoch_of(resumed, 3, losses), epoch_of(whole, 3, losses))


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_an_epoch_has_the_chosen_images_and_only_these(kind):
    split, hardest = digits(N), Hardest(N, 0.3)
    hardest.losses = torch.rand(N, generator=torch.Generator().manual_seed(1))
    keys = {"num_workers": 0} if kind is WorkerLoader else {}
    loader = kind(split, batch_size=8, hardest=hardest, **keys)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 6]
    assert len(loader) == 4
    expected = split.images[hardest.losses.topk(30).indices]
    given = torch.cat([images for images, _ in batches])
    assert {tuple(image.flatten().tolist()) for image in given} == {tuple(i.flatten().tolist()) for i in expected}


def test_an_image_is_augmented_the_same_whichever_others_are_left_out():
    """Of transforms whose draws belong to the image."""
    split = digits(N)
    whole = DeviceLoader(split, batch_size=N, transforms=[AlternatingFlip()], current_epoch=lambda: 1)
    part = DeviceLoader(
        split, batch_size=30, transforms=[AlternatingFlip()], current_epoch=lambda: 1, hardest=Hardest(N, 0.3)
    )
    everything = {tuple(image.flatten().tolist()) for image in next(iter(whole))[0]}
    assert {tuple(image.flatten().tolist()) for image in next(iter(part))[0]} <= everything


def test_images_grow_with_the_training():
    split, epoch = digits(N), 0
    loader = DeviceLoader(
        split,
        batch_size=25,
        transforms=[HorizontalFlip(0.0)],
        current_epoch=lambda: epoch,
        epochs=lambda: 2,
        sizes=[(0.25, 12), (0.75, 20)],
        shuffle=False,
    )
    sizes = []
    for epoch in range(2):  # noqa: B007
        for i, (images, _) in enumerate(loader):
            sizes.append(images.shape[-1])
            own = split.images[i * 25 : (i + 1) * 25]
            expected = own if sizes[-1] == 32 else resize(own, [sizes[-1]] * 2, antialias=True)
            assert torch.equal(images, expected)
    assert sizes == [12, 12, 20, 20, 20, 20, 32, 32]


def test_the_command_trains_on_small_and_hard_images(command):
    tiny = ["model=resnet", "model.stem_width=4", "model.widths=[4,8]", "model.blocks=1"]
    methods = ["data.size_schedule=[[0.5,16]]", "data.keep_hardest=0.5"]
    given = ["data=digits", "data.batch_size=128", "trainer.max_epochs=2", "hydra.run.dir=run"]
    assert command(*given, *tiny, *methods).code == 0
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 2 * -(-575 // 128)  # half of 1,149 images
    assert read_json("run/metrics.json")["test/acc"] > 0
