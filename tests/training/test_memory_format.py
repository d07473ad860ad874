"""Networks whose convolutions are not safe in channels_last are trained in the other format."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small import small_classifier

from cifar_lightning.models.resnet import ResNet

# Three images for two threads. Without the other format torch 2.15 ends here on a CPU with AVX-512: memory corrupted.
NARROW = """
import torch
from helpers.small import small_classifier
from cifar_lightning.models.resnet import ResNet

torch.set_num_threads(2)
classifier = small_classifier(ResNet(stem_width=8, widths=[8, 16], blocks=1))
images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
gradients = set()
for _ in range(100):
    classifier.zero_grad()
    classifier(images).sum().backward()
    gradients.add(tuple(classifier.network.blocks[1].shortcut[0].weight.grad.flatten().tolist()))
print(len(gradients))
"""


@pytest.mark.parametrize(("stem_width", "expected"), [(8, torch.contiguous_format), (16, torch.channels_last)])
def test_a_narrow_convolution_with_stride_is_kept_out_of_channels_last(stem_width, expected):
    classifier = small_classifier(ResNet(stem_width=stem_width, widths=[stem_width, 32], blocks=1))
    assert classifier.memory_format == expected
    assert classifier.normalized(torch.zeros(2, 3, 8, 8)).is_contiguous(memory_format=expected)


@pytest.mark.slow
def test_a_narrow_network_has_the_same_gradients_each_time():
    done = subprocess.run([sys.executable, "-c", NARROW], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
