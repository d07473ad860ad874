"""Export a checkpoint's network as one file for use elsewhere, verified against the checkpoint."""

import copy
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cifar_lightning
from cifar_lightning.checkpoints.load import find_root, load_classifier, load_data
from cifar_lightning.checkpoints.members import Member, ensemble_of, load_members
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.data.arrays import with_channels
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.inference import Classifier
from cifar_lightning.reporting.files import atomic_path
from cifar_lightning.training.classifier import ImageClassifier

INPUTS = {
    "uint8": "images: uint8 [batch, {}], RGB, 0 to 255",
    "float": "images: float32 [batch, {}], RGB, 0 to 1",
}
# Relative to the largest logit; single precision in another order of operations differs by a hundredth of this.
TOLERANCE = 1e-3
LARGEST_ONNX = 2**31  # bytes: a limit of protobuf, the format of ONNX files
CHECKED_IMAGES = 32
FREE_BATCH = {"images": {0: torch.export.Dim("batch", min=1)}}

Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """Normalization and network in one module, from images of one dtype to logits."""

    scale: Tensor
    shift: Tensor

    def __init__(self, classifier: ImageClassifier, dtype: str) -> None:
        super().__init__()
        self.network = copy.deepcopy(classifier.network).to(memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(values)[:, None, None] for values in (classifier.mean, classifier.std))
        self.register_buffer("scale", 1 / std / (255 if dtype == "uint8" else 1))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.float() * self.scale + self.shift)


@dataclass(frozen=True)
class Exported:
    """What was written, and the largest difference of a logit from the checkpoint's, on `images`."""

    notes: Mapping[str, Any]
    difference: float
    images: str


def export(
    checkpoints: Sequence[Path],
    out: Path,
    *,
    format: str = "onnx",
    dtype: str = "uint8",
    root: str | None = None,
    trusted: Sequence[str] = (),
) -> Exported:
    """Write the file `out` and verify it on real images; `root`: the data's folder, if not that of training.

    Several checkpoints are averaged in one file.
    Raises UserError, and leaves `out` as it was, if the file can't be written or its logits differ too much.
    """
    members = load_members(checkpoints, trusted)
    classifier, checkpoint = ensemble_of(members), checkpoints[0]
    images, what = sample_images(classifier.config, classifier.image_shape or (3, 32, 32), root, checkpoint)
    expected = Classifier(classifier).logits(images)
    inputs = images if dtype == "uint8" else images.float() / 255
    notes = metadata(members, dtype)
    with atomic_path(out) as temporary:
        if format == "state_dict":
            write_weights(checkpoint, temporary, notes)
            run: Run = Classifier(load_classifier(temporary, trusted)).logits
        else:
            write = {"onnx": write_onnx, "torch_export": write_torch_export}[format]
            run = write(Deployed(classifier, dtype).eval(), inputs[:2], temporary, notes)
        # One image, then all others: the batch size is free.
        logits = torch.cat([run(inputs[:1]), run(inputs[1:])])
        origin = "checkpoint" if len(members) == 1 else "ensemble"
        difference = (logits - expected).abs().max().item()
        if not difference <= TOLERANCE * max(0.01, expected.abs().max().item()):
            raise UserError(f"{out} is not written: its logits differ by up to {difference:.2g} from the {origin}'s")
    return Exported(notes, difference, f"{len(images)} {what}")


def metadata(members: Sequence[Member], dtype: str) -> dict[str, Any]:
    """What a user of the file needs to know, in plain values."""
    classifiers = [member.classifier for member in members]
    first, several = classifiers[0], len(members) > 1
    networks = [str(classifier.config["model"].get("_target_")) for classifier in classifiers]
    output = f"logits: float32 [batch, {len(first.class_names)}]; their softmax are "
    return {
        "class_names": list(first.class_names),
        "input": INPUTS[dtype].format(", ".join(map(str, first.image_shape or ()))),
        "output": output + (f"the mean probabilities of {len(members)} networks" if several else "probabilities"),
        "normalization": "included: " + "; ".join(dict.fromkeys(map(normalization, classifiers))),
        "network": networks if several else networks[0],
        "checkpoint": [str(member.path) for member in members] if several else members[0].path.name,
        "versions": {"cifar_lightning": cifar_lightning.__version__, "torch": version("torch")},
    }


def normalization(classifier: ImageClassifier) -> str:
    mean, std = ([float(f"{value:.5g}") for value in values] for values in (classifier.mean, classifier.std))
    return f"mean {mean}, standard deviation {std} of images in [0, 1]"


def write_onnx(deployed: nn.Module, example: Tensor, path: Path, notes: Mapping[str, Any]) -> Run:
    """Write an ONNX file; returns a function that runs it in ONNX Runtime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"format=onnx needs {error.name}: pip install 'cifar-lightning[export]'") from error
    if sum(tensor.nbytes for tensor in deployed.state_dict().values()) >= LARGEST_ONNX:
        raise UserError("format=onnx: the network is larger than the 2 GB of one ONNX file; use format=torch_export")
    with tracing("onnx"):
        program = torch.onnx.export(
            deployed, (example,), dynamo=True, dynamic_shapes=FREE_BATCH, input_names=["images"],
            output_names=["logits"], verbose=False,
        )  # fmt: skip
        assert program is not None
    for key, value in notes.items():
        program.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def write_torch_export(deployed: nn.Module, example: Tensor, path: Path, notes: Mapping[str, Any]) -> Run:
    """Write a torch.export program; returns a function that runs the file."""
    with tracing("torch_export"):
        program = torch.export.export(deployed, (example,), dynamic_shapes=FREE_BATCH)
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"metadata.json": json.dumps(notes, indent=2)})
    with path.open("rb") as file:
        run = torch.export.load(file).module()
    return torch.inference_mode()(run)


@contextmanager
def tracing(format: str) -> Iterator[None]:
    """Turn whatever a tracer raises for the user's own network into one line."""
    try:
        # torch.export prints the whole graph before it raises.
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"format={format}: can't export this network: {type(error).__name__}: {reason}") from error


def write_weights(checkpoint: Path, path: Path, notes: Mapping[str, Any]) -> None:
    """Write the checkpoint without its training state; the commands and `load` accept it like any other."""
    whole = read_checkpoint(checkpoint)
    ours = {key: value for key, value in whole["cifar_lightning"].items() if key != "resume"}
    # Lightning needs its version and the training progress even for a test.
    kept = ("state_dict", "pytorch-lightning_version", "epoch", "global_step")
    slim = {key: whole[key] for key in kept if key in whole}
    torch.save(slim | {"cifar_lightning": ours, "metadata": dict(notes)}, path)


def sample_images(
    config: Mapping[str, Any], shape: Sequence[int], root: str | None, checkpoint: Path
) -> tuple[Tensor, str]:
    """Some images [N, C, H, W] of this shape, and what they are: of the checkpoint's test set if that is there."""
    root = root or find_root(config, checkpoint)
    official = SETS[config["data"]["name"]].official if config["data"].get("name") in SETS else None
    if official and root and Path(root, official.folder).is_dir():
        with suppress(UserError):  # damaged data is no reason not to export
            return load_data(config, root).test.images[:CHECKED_IMAGES], f"images of {official.title}'s test set"
    digits = with_channels(load_digits().test.images[:CHECKED_IMAGES], shape[0])
    if digits.shape[1:] == tuple(shape):
        return torch.from_numpy(digits), "images of handwritten digits"
    noise = torch.randint(0, 256, (CHECKED_IMAGES, *shape), generator=torch.Generator().manual_seed(0))
    return noise.to(torch.uint8), "random images"
