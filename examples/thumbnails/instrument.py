"""A stand-in for an instrument: writes real images into a folder one by one, slowly, as detectors do.

    python instrument.py FOLDER [SECONDS_PER_IMAGE]

Each image is one of those that scikit-image ships, as TIFF, written in pieces through one open file. For each it
prints a JSON line with the path and the moment at which the file was complete (ns since the epoch).
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import skimage
from skimage.io import imread
from tifffile import imwrite

NAMES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "color", "grass", "gravel",
    "horse", "ihc", "microaneurysms", "moon", "motorcycle_left", "motorcycle_right", "page", "phantom",
)  # fmt: skip
PIECES = 8


def expose(folder: Path, number: int, name: str, seconds: float) -> None:
    """Write one image in `PIECES` pieces over `seconds`, and say when it was complete."""
    image = imread(Path(skimage.__file__).parent / "data" / f"{name}.png")
    tiff = io.BytesIO()
    imwrite(tiff, image)
    data = tiff.getbuffer()
    path = folder / f"scan_{number:04}_{name}.tif"
    step = -(-len(data) // PIECES)
    with path.open("wb") as file:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            file.flush()
            time.sleep(seconds / PIECES)
    complete = time.time_ns()
    print(json.dumps({"path": str(path), "complete": complete}), flush=True)


def main() -> None:
    folder, seconds = Path(sys.argv[1]).resolve(), float(sys.argv[2]) if len(sys.argv) > 2 else 0.4
    for number, name in enumerate(NAMES, start=1):
        expose(folder, number, name, seconds)


if __name__ == "__main__":
    main()
