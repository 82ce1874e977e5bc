"""Makes the first picture of README from others in assets: curves by node, a Description, a terminal.

    python scripts/make_readme_picture.py

Needs Pillow, which matplotlib brings. Make the pictures of cluster, report and watch first.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ASSETS = Path(__file__).parents[1] / "assets"
OUTPUT = ASSETS / "three_views.png"
HEIGHT, RIGHT, GAP = 941, 800, 24  # pixels
DESCRIPTION = (0, 780, 792, 945)  # the part of that picture


def main() -> None:
    """Places the curves at the left, and the Description above the terminal at the right."""
    curves = Image.open(ASSETS / "cluster_nodes.png").convert("RGB")
    description = Image.open(ASSETS / "report_description.png").convert("RGB").crop(DESCRIPTION)
    terminal = Image.open(ASSETS / "watch_run.png").convert("RGB")
    width = curves.width * HEIGHT // curves.height
    picture = Image.new("RGB", (width + GAP + RIGHT, HEIGHT), "white")
    picture.paste(curves.resize((width, HEIGHT), Image.Resampling.LANCZOS), (0, 0))
    top = 40
    for part in (description, terminal):
        height = part.height * RIGHT // part.width
        picture.paste(part.resize((RIGHT, height), Image.Resampling.LANCZOS), (width + GAP, top))
        top += height + 3 * GAP
    picture.quantize(192).save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()
