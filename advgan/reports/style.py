"""How every figure looks: size of letters, colours that colour-blind readers can tell apart, axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Drawing = TypeVar("Drawing", bound=Callable[..., Figure])
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of Okabe and Ito (2008)."""
REACHED, MISSED, UNCOUNTED = "#007a5a", "#c24a00", "#57606a"
"""The attack succeeded, failed, or the image does not count: the third and second colour, darker, for letters."""
STYLE = {
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.framealpha": 0.9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def styled(draw: Drawing) -> Drawing:
    """Have a function draw its figure in this style, whatever the program around it has set."""

    @wraps(draw)
    def drawn(*arguments: Any, **named: Any) -> Figure:
        with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": matplotlib.rcParams["backend"]}):
            return draw(*arguments, **named)

    return drawn  # type: ignore[return-value]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour_of(number: int) -> str:
    """The colour of a series, by its number."""
    return COLOURS[number % len(COLOURS)]


def plain_axes(axis: Any, rates: bool = True) -> None:
    """A grid, no frame above and at the right; a vertical axis of shares from 0 to 100 % unless ``rates`` is off."""
    axis.grid(visible=True)
    axis.spines[["top", "right"]].set_visible(False)
    if rates:
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
