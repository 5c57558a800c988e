"""The figures as a picture: how many a second, and what each costs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from bench.cpu import KINDS
from bench.figures import Line

BAR = 0.35  # inches


def draw(file: Path, found: Sequence[Line]) -> None:
    """Write a PNG: a bar for each contender and workload, with the least and the most of its runs."""
    names = [f"{line.workload}: {line.contender}" for line in found]
    height = 1.5 + BAR * len(found)
    figure, (speed, cost) = plt.subplots(1, 2, figsize=(13, height), sharey=True)
    rates = [line.rate for line in found]
    spread = [
        [line.rate - line.least for line in found],
        [line.most - line.rate for line in found],
    ]
    speed.barh(names, rates, xerr=spread, capsize=3)
    speed.set_xscale("log")
    speed.set_xlabel("a second (logarithmic), with the least and the most")
    speed.invert_yaxis()
    begin = [0.0] * len(found)
    for kind in KINDS:
        widths = [line.cost.get(kind, 0.0) for line in found]
        cost.barh(names, widths, left=begin, label=kind)
        begin = [at + width for at, width in zip(begin, widths, strict=True)]
    for at, total in enumerate(begin):
        cost.text(total, at, f" {total:,.0f}", va="center", fontsize="small")
    cost.set_xlabel("CPU time for each, µs")
    cost.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
