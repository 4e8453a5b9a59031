"""Draws normalization.png: which pixels share a mean and a variance, for each of the four normalizations.

python docs/images/normalization.py
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

IMAGES, CHANNELS, GROUP, PIXELS = 3, 4, 2, 3
"""Images of the batch, channels, channels of a group, and a map's height and width."""
TOGETHER, APART = "#d9642c", "#dfe5ec"
KINDS = (
    ("batch", "one channel, all images", lambda _, channel: channel == 1),
    ("layer", "one image, all channels", lambda image, _: image == 1),
    ("group", "one image, the channels of a group", lambda image, channel: image == 1 and channel // GROUP == 0),
    ("instance", "one image, one channel", lambda image, channel: image == 1 and channel == 1),
)


def draw(axes: Axes, name: str, words: str, together: Callable[[int, int], bool]) -> None:
    """One normalization: a map for each image (row) and channel (column), the pixels of one average in colour."""
    for image in range(IMAGES):
        for channel in range(CHANNELS):
            colour = TOGETHER if together(image, channel) else APART
            for row in range(PIXELS):
                for column in range(PIXELS):
                    corner = (channel + 0.85 * column / PIXELS, image + 0.85 * row / PIXELS)
                    axes.add_patch(
                        Rectangle(corner, 0.85 / PIXELS, 0.85 / PIXELS, facecolor=colour, edgecolor="white", lw=1)
                    )
    axes.set(xlim=(-0.05, CHANNELS), ylim=(IMAGES, -0.05), aspect="equal")
    axes.set_xticks([channel + 0.425 for channel in range(CHANNELS)], [str(channel) for channel in range(CHANNELS)])
    axes.set_yticks([image + 0.425 for image in range(IMAGES)], [str(image) for image in range(IMAGES)])
    axes.tick_params(length=0, labelsize=9, colors="#555555")
    axes.set_xlabel("channel", fontsize=10, color="#555555")
    axes.set_title(name, fontsize=14, fontweight="bold", pad=24)
    axes.text(0.5, 1.03, words, transform=axes.transAxes, ha="center", va="bottom", fontsize=10, color="#333333")
    axes.spines[:].set_visible(False)


def main() -> None:
    """Write the picture beside this file."""
    figure = Figure(figsize=(12, 3.6), dpi=120, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 4), KINDS, strict=True):
        draw(axes, *kind)
    figure.axes[0].set_ylabel("image of the batch", fontsize=10, color="#555555")
    figure.supxlabel(
        "Each small square is a pixel. The coloured ones share one mean and one variance; "
        "so does every other set of the same form.",
        fontsize=10,
    )
    figure.savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
