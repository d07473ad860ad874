"""Sort names with numbers in them as people do."""

import math
import re


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts numbers by size and before words: 0.02 < 0.1 < 10, cnn2 < cnn10."""
    try:
        return [(float(text), "")]
    except ValueError:
        return [(float(part), "") if i % 2 else (math.inf, part) for i, part in enumerate(re.split(r"(\d+)", text))]
