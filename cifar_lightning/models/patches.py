"""Check how networks of patches divide an image."""

from cifar_lightning.errors import UserError


def check_patch(patch: int, input_size: int) -> None:
    """Raise UserError unless an image consists of more than one patch."""
    valid = [size for size in range(1, input_size) if input_size % size == 0]
    if patch not in valid:
        choices = ", ".join(map(str, valid))
        raise UserError(f"model.patch={patch}: must divide the image's {input_size} px: choose from {choices}")
