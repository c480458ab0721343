"""Plots as SVG bytes that follow the reader's light or dark colours; no window system, no global state.

Texts from clients are shown as plain text: never as mathematics, and without control characters.
"""

import io
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, SymmetricalLogLocator

INK, INK_DARK = "#1f2430", "#e4e7ee"
PALETTE = ("#3b7dd8", "#e0863a", "#3a9d6e", "#c8508a", "#8a6fd1", "#b59a2b", "#2fa3b5", "#d1605e")
FAMILIES = {"fedlmg": "#3b7dd8", "prompts-only": "#d99a4e", "centralised": "#3a9d6e", "": "#8b93a3"}
"""Bar colour by the start of a method's name."""
STYLE: dict[Any, object] = {
    "svg.hashsalt": "fedlmg",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
} | {key: INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
MAX_LABEL = 32

Curve = list[tuple[float, float]]


def bars(accuracies: dict[str, float]) -> bytes:
    """Horizontal bars, one a method in the given order; accuracies are fractions in [0, 1]."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 0.6 + 0.36 * len(accuracies)), layout="constrained")
        axes = figure.subplots()
        colors = [next(color for start, color in FAMILIES.items() if name.startswith(start)) for name in accuracies]
        values = [100 * value for value in accuracies.values()]
        shown = axes.barh([_label(name) for name in accuracies], values, color=colors, height=0.68)
        axes.bar_label(shown, fmt="%.1f", padding=4)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("mean accuracy, %")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def curves(title: str, lines: dict[str, Curve], across: str = "epoch") -> bytes:
    """A line plot: line's name -> (`across`, value) points, colours in the order of names."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3 + 0.11 * len(lines)), layout="constrained")
        axes = figure.subplots()
        for number, (name, curve) in enumerate(lines.items()):
            dash = ("-", "--", ":")[number // len(PALETTE) % 3]
            marker = "o" if len(curve) == 1 else None
            color = PALETTE[number % len(PALETTE)]
            axes.plot(*zip(*curve, strict=True), dash, color=color, label=_label(name), linewidth=1.6, marker=marker)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel(across)
        axes.grid(axis="y", alpha=0.25)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9.5)
        return _svg(figure)


def dots(accuracies: dict[str, dict[str, float]], measure: str = "accuracy") -> bytes:
    """A row a method, in the given order, with a dot for each client and a bar to their mean; fractions in [0, 1] of
    `measure`."""
    clients = list(dict.fromkeys(client for per_client in accuracies.values() for client in per_client))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.2 + 0.34 * len(accuracies)), layout="constrained")
        axes = figure.subplots()
        names = [_label(name) for name in accuracies]
        means = [100 * sum(per_client.values()) / len(per_client) for per_client in accuracies.values()]
        axes.barh(names, means, color=INK, alpha=0.15, height=0.6)
        for number, client in enumerate(clients):
            found = [(100 * values[client], row) for row, values in enumerate(accuracies.values()) if client in values]
            color = PALETTE[number % len(PALETTE)]
            axes.plot(*zip(*found, strict=True), "o", color=color, markersize=5, label=_label(client))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel(f"{measure}, %; the bar is the mean")
        figure.legend(loc="outside lower center", ncols=4, fontsize=9.5)
        return _svg(figure)


def scatter(points: dict[str, tuple[float, float]], across: str) -> bytes:
    """A named dot a method: (`across`, accuracy in %); the axis is logarithmic where it is above 0."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        least = max(1.0, min((x for x, _ in points.values() if x > 0), default=1.0))
        axes.set_xscale("symlog", linthresh=least)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=least, subs=[1, 2, 5]))
        axes.xaxis.set_major_formatter(EngFormatter())
        for number, (name, (x, y)) in enumerate(points.items()):
            color = PALETTE[number % len(PALETTE)]
            axes.plot([x], [y], "o", color=color)
            axes.annotate(_label(name), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8.5, color=color)
        axes.set_ylabel("mean accuracy, %")
        axes.set_xlabel(across)
        axes.margins(x=0.25)
        axes.grid(alpha=0.25)
        return _svg(figure)


def _label(text: str) -> str:
    clean = "".join(character if character.isprintable() else "·" for character in text).lstrip("_") or "·"
    return clean if len(clean) <= MAX_LABEL else clean[: MAX_LABEL - 1] + "…"


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    style = f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:{INK_DARK}}}}}</style>"
    svg = buffer.getvalue().decode().replace(INK, "currentColor").replace("<defs>", f"{style}<defs>", 1)
    return svg.encode()
