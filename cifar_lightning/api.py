"""The project from Python: what the commands use, in a few typed functions."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.training.inference import Classifier, Predictions
from cifar_lightning.training.loading import load_classifier
from cifar_lightning.training.precision import resolve_accelerator

__all__ = ["Classifier", "Predictions", "load"]


def load(path: str | Path, *, accelerator: str = "auto", trusted: Sequence[str] = ()) -> Classifier:
    """The classifier in a checkpoint, ready for `.predict(images)`.

        classifier = load("logs/train/runs/…/checkpoints/best.ckpt")
        for name, confidence in zip(*classifier.predict(["cat.jpg", "dog.png"]).…)

    Nothing but the file is needed. Of what it names only networks of this package and torch's own layers are built,
    and classes in the modules that are `trusted` by name, e.g. "my_models".

    Raises UserError for a file that is no checkpoint, or is damaged or doctored.
    """
    return Classifier(load_classifier(path, trusted), resolve_accelerator(accelerator))
