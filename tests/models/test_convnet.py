import pytest
import torch
from helpers.model_configs import build
from torch import nn
from torch.nn import functional as F

from cifar_lightning.errors import UserError
from cifar_lightning.models.convnet import ConvNet


class TutorialNet(nn.Module):
    """As in PyTorch's "Training a classifier"."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


def batchnorm_dropout_net():
    """cnn_batchnorm_dropout in its author's order: dropout before ReLU."""
    layers, width = [], 3
    for out in (8, 16, 32, 64):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh(), nn.MaxPool2d(2)]
        width = out
    layers += [nn.Flatten(), nn.Linear(256, 64), nn.Dropout(0.2), nn.ReLU()]
    layers += [nn.Linear(64, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


def alexnet():
    """The recipe's layers, one after the other, with the last dropout before ReLU."""
    layers, width = [], 3
    for out, dropout, pool in ((96, 0, True), (256, 0, True), (384, 0.1, False), (384, 0.3, False), (256, 0.1, True)):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.Dropout(dropout)] * (dropout > 0) + [nn.MaxPool2d(3, 2)] * pool
        width = out
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(2304, 512), nn.BatchNorm1d(512), nn.Dropout(0.1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 10))


@pytest.mark.parametrize(
    ("network", "as_published"),
    [
        (lambda: build("tutorial_net"), TutorialNet),
        (lambda: build("cnn4_bn", "tanh"), batchnorm_dropout_net),
        (lambda: build("alexnet"), alexnet),
    ],
    ids=["tutorial_net", "cnn4_bn", "alexnet"],
)
def test_network_computes_what_its_author_wrote(network, as_published):
    ours, theirs = network(), as_published()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 32, 32)
    outputs = []
    for net in (ours, theirs):  # training mode and one seed: the same units are dropped
        torch.manual_seed(1)
        logits = net(images)
        logits.square().sum().backward()
        outputs.append((logits, *(p.grad for p in net.parameters())))
    torch.testing.assert_close(*outputs)


def test_numbers_may_differ_from_layer_to_layer():
    network = ConvNet(channels=[4, 8, 8], kernel=[5, 3, 1], stride=[2, 1, 1], padding=[2, 0, 0], hidden=[], pooling=1)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [5, 3, 1]
    assert [conv.stride[0] for conv in convs] == [2, 1, 1]
    assert [conv.padding[0] for conv in convs] == [2, 0, 0]
    assert network.classifier[0].in_features == 8 * 14 * 14
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_other_inputs_and_classes():
    network = ConvNet(channels=[4], hidden=[8], in_channels=1, input_size=9, num_classes=3)
    assert network(torch.randn(2, 1, 9, 9)).shape == (2, 3)


def test_a_list_of_the_wrong_length_is_refused():
    with pytest.raises(UserError, match=r"model\.stride has 3 entries for 2 model\.channels"):
        ConvNet(channels=[8, 16], hidden=[], stride=[2, 1, 1])


def test_convolutions_that_leave_nothing_are_refused():
    with pytest.raises(
        UserError, match=r"model\.channels: nothing is left of a 32 px image after the convolution to 66"
    ):
        ConvNet(channels=[8, 16, 32, 64, 65, 66], padding=1, hidden=[])
