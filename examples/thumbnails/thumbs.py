"""The function of the demo: a contrast-stretched thumbnail of an image, and its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_thumbnail(path: str, side: int = 256) -> dict[str, Any]:
    """Write `<name>.thumb.png` beside the image at `path`, its longer side at most `side` pixels; return statistics.

    The contrast is stretched from the 2nd to the 98th percentile. Values are those of the image itself.
    """
    import numpy as np
    from skimage import color, exposure, io, transform

    image = io.imread(path)
    grey = image if image.ndim == 2 else color.rgb2gray(image[..., :3])
    low, high = np.percentile(grey, (2, 98))
    stretched = exposure.rescale_intensity(grey, in_range=(low, high), out_range=(0.0, 1.0))
    scale = min(1.0, side / max(grey.shape))
    shape = tuple(max(1, round(length * scale)) for length in grey.shape)
    small = transform.resize(stretched, shape, anti_aliasing=scale < 1)
    thumbnail = Path(path).with_suffix(".thumb.png")
    io.imsave(thumbnail, (small * 255).astype(np.uint8), check_contrast=False)
    return {
        "shape": list(image.shape),
        "mean": round(float(image.mean()), 2),
        "std": round(float(image.std()), 2),
        "min": image.min().item(),
        "max": image.max().item(),
        "thumbnail": str(thumbnail),
    }
