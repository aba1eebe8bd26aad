"""An evaluation in pictures. In: scores, a training's history. Out: matplotlib figures, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from encoders.evaluation import Evaluation, Retrieval

INK, SOFT, LINE, CLOTH, YES, PAPER = "#23262d", "#6b6f78", "#e4dfd5", "#9c3d2a", "#2c6e49", "#ffffff"
SHADES = LinearSegmentedColormap.from_list("paper to green", ["#faf8f4", "#8fb8a0", YES])
DPI = 150
BAR_COLOURS = {"R@10": "#cfe0d6", "R@5": "#8fb8a0", "R@1": YES}  # drawn over each other, widest first


def matrix_picture(evaluation: Evaluation) -> bytes:
    """R@1 of every query modality (rows) in every other (columns); a frame where the two never met in training."""
    modalities = list(evaluation.items)
    cells = {(one.query, one.target): one for one in evaluation.retrieval}
    values = np.full((len(modalities), len(modalities)), np.nan)
    for (query, target), one in cells.items():
        values[modalities.index(query), modalities.index(target)] = one.recall["R@1"]
    figure = Figure(figsize=(1.6 + 0.78 * len(modalities), 1.2 + 0.62 * len(modalities)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    for (query, target), one in cells.items():
        row, column = modalities.index(query), modalities.index(target)
        colour = "white" if values[row, column] > 0.6 else INK
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=9)
        if one.relation == "emergent":
            frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor=CLOTH, linewidth=1.4)
            axes.add_patch(frame)
    axes.set_xticks(range(len(modalities)), modalities, color=INK)
    axes.set_yticks(range(len(modalities)), modalities, color=INK)
    axes.set_xlabel("gallery", color=SOFT)
    axes.set_ylabel("query", color=SOFT)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    return _png(figure)


def recall_picture(evaluation: Evaluation, focus: Sequence[str], control: Evaluation | None) -> bytes:
    """R@1, R@5 and R@10 as bars, a group for each pair of modalities; a tick at chance, a ring where the control's R@10 is."""
    chosen = [one for one in evaluation.retrieval if not focus or {one.query, one.target} & set(focus)]
    chosen = sorted(chosen, key=lambda one: (one.relation == "emergent", one.query not in focus))
    controls = {(one.query, one.target): one for one in control.retrieval} if control else {}
    figure = Figure(figsize=(7.6, 0.9 + 0.36 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    for place, one in enumerate(chosen):
        _bar(axes, place, one, controls.get((one.query, one.target)))
    axes.set_yticks(range(len(chosen)), [f"{one.query} → {one.target}" for one in chosen])
    for label, one in zip(axes.get_yticklabels(), chosen, strict=True):
        label.set_color(CLOTH if one.relation == "emergent" else INK)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of queries whose own partner is among the first k", color=SOFT, fontsize=9)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in BAR_COLOURS.values()]
    figure.legend(handles[::-1], list(BAR_COLOURS)[::-1], loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return _png(figure)


def curve_picture(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss against the step on the left, recall on held-out pairs on the right, the learning rate as a grey shape behind.

    Args:
        history: points with `step`, `loss` and perhaps `lr` and `recall`.
    """
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.subplots()
    rates = [(h["step"], h["lr"]) for h in history if h.get("lr") is not None]
    if rates:
        behind = axes.twinx()
        steps, values = zip(*rates, strict=True)
        behind.fill_between(steps, values, color=LINE, alpha=0.6, linewidth=0)
        behind.set_ylim(0, 1.15 * max(max(values), 1e-12))
        behind.axis("off")
        behind.set_zorder(0)
    axes.set_zorder(1)
    axes.patch.set_visible(False)
    axes.plot([h["step"] for h in history], [h["loss"] for h in history], color=CLOTH, linewidth=1.8, marker=_marker(history))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step", color=SOFT, fontsize=9)
    axes.set_ylabel("loss", color=CLOTH, fontsize=9)
    _plain(axes)
    found = [(h["step"], h["recall"]) for h in history if h.get("recall") is not None]
    if found:
        right = axes.twinx()
        right.plot(*zip(*found, strict=True), color=YES, linewidth=1.8, marker=_marker(found))
        right.set_ylim(0, 1)
        right.set_ylabel("recall on held-out pairs", color=YES, fontsize=9)
        right.spines[:].set_visible(False)
        right.tick_params(length=0, labelsize=9, colors=SOFT)
    return _png(figure)


def shots_picture(shots: Mapping[int, Sequence[float]], lines: Mapping[str, float], label: str, modality: str) -> bytes:
    """Accuracy of a probe against the number of examples of each class: the mean over seeds, and a band from worst to best.

    Args:
        shots: examples a class -> accuracy of each seed.
        lines: what is drawn across, by name, such as chance.
        label: what is told.
        modality: from what.
    """
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    counts = sorted(shots)
    axes.fill_between(counts, [min(shots[k]) for k in counts], [max(shots[k]) for k in counts], color="#cfe0d6", linewidth=0)
    axes.plot(counts, [float(np.mean(shots[k])) for k in counts], color=YES, linewidth=2, marker="o", markersize=5)
    for (name, value), style in zip(lines.items(), ("--", ":", "-."), strict=False):
        colour = CLOTH if style == "--" else SOFT
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.2, label=f"{name} {value:.3f}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(k) for k in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1.05)
    axes.set_xlabel(f"examples of each {label}", color=SOFT, fontsize=9)
    axes.set_ylabel(f"{label} told from {modality}: accuracy", color=SOFT, fontsize=9)
    figure.legend(loc="outside upper right", ncols=len(lines), fontsize=8, frameon=False)  # outside: lines may coincide
    _plain(axes)
    return _png(figure)


def _bar(axes: Axes, place: int, one: Retrieval, control: Retrieval | None) -> None:
    for name, colour in BAR_COLOURS.items():
        axes.barh(place, one.recall[name], height=0.62, color=colour)
    axes.plot([one.chance["R@10"]] * 2, [place - 0.4, place + 0.4], color=INK, linewidth=1.2)
    first, inside = one.recall["R@1"], one.recall["R@1"] > 0.15
    colour, side = ("white", "right") if inside else (INK, "left")
    axes.text(first + (-0.008 if inside else 0.008), place, f"{first:.2f}", va="center", ha=side, fontsize=8, color=colour)
    if control is not None:
        axes.plot(control.recall["R@10"], place, marker="o", markersize=6, markerfacecolor="none", markeredgecolor=CLOTH)


def _marker(points: Sequence[Any]) -> str:
    return "o" if len(points) <= 30 else ""


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="both", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, colors=SOFT)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor=PAPER)
    return file.getvalue()
