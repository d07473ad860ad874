"""The project from Python: what the commands use, in a few typed functions."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.training.inference import Classifier, Predictions
from cifar_lightning.training.loading import load_classifier
from cifar_lightning.training.precision import resolve_accelerator

__all__ = ["Classifier", "Predictions", "load"]


def load(path: str | Path, *, accelerator: str = "auto", trusted: Sequence[str] = ()) -> Classifier:
    """The classifier in a checkpoint file, which is all that is needed; ready for `.predict(images)`.

    `load("best.ckpt").predict(["cat.jpg", "dog.png"]).names` is `["cat", "dog"]`, with luck.

    Of what the file names only networks of this package and torch's own layers are built, and classes of the modules
    that are `trusted` by name, such as "my_models".
    Raises UserError for a file that is no checkpoint, or is damaged or doctored.
    """
    return Classifier(load_classifier(path, trusted), resolve_accelerator(accelerator))
