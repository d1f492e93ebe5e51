"""Floor 9: the demo's report as text and pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from inrbridge.data import FieldDataset
from inrbridge.errors import MissingDependency
from inrbridge.sampling import get_sampler

INK, ACCENT, SOFT = "#222233", "#3366cc", "#c8d4ee"


def write_report(out: Path, report: dict, test_set: FieldDataset, points: int) -> None:
    """Write report.md and the pictures fields.png, accuracy.png, points.png and confusion.png into the folder."""
    _draw_fields(out / "fields.png", test_set)
    _draw_accuracy(out / "accuracy.png", report)
    _draw_points(out / "points.png", test_set, points)
    _draw_confusion(out / "confusion.png", report["confusion"])
    (out / "report.md").write_text("\n".join(lines(report)) + "\n", encoding="utf-8")


def lines(report: dict) -> list[str]:
    """The report as Markdown."""
    percent = "{:.1f} %".format
    text = [
        "# Digits in mixed formats, one INR-Net", "",
        f"Test accuracy: **{percent(100 * report['accuracy'])}** on {sum(report['fields']['test'].values())} held-out fields, "
        f"{report['points']} lattice points.", "",
        "| format | train / test fields | PSNR of the fit | accuracy | accuracy when left out of training | the others then |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, accuracy in report["accuracy_by_format"].items():
        counts = f"{report['fields']['train'].get(name, 0)} / {report['fields']['test'].get(name, 0)}"
        psnr = report["psnr_by_format"][name]
        shown = "exact" if psnr >= 99 else f"{psnr:.1f} dB"
        held, rest = report["leave_one_format_out"][name], report["leave_one_format_out_rest"][name]
        text.append(
            f"| {name} | {counts} | {shown} | {percent(100 * accuracy)} | {percent(100 * held)} | {percent(100 * rest)} |"
        )
    for title, key in (
        ("points (lattice)", "accuracy_by_points"),
        (f"sampler ({report['points']} points)", "accuracy_by_sampler"),
    ):
        text += ["", f"| {title} | " + " | ".join(report[key]) + " |", "|---" * (1 + len(report[key])) + "|"]
        text.append("| accuracy | " + " | ".join(percent(100 * v) for v in report[key].values()) + " |")
    spent = ", ".join(f"{name.replace('_', ' ')} {value:.0f} s" for name, value in report["seconds"].items())
    text += ["", f"Time ({report['threads']['fit']} threads to fit, 1 to train): {spent}. Seed {report['seed']}."]
    text += [f"\nFormat {name} took no part: {why}" for name, why in report["formats_absent"].items()]
    text += ["", *(f"![{name}]({name}.png)" for name in ("fields", "points", "accuracy", "confusion"))]
    return text


def _figure(width: float, height: float):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency('The demo draws with matplotlib: pip install "inrbridge[demo]"') from error
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_fields(path: Path, data: FieldDataset, columns: int = 10, side: int = 64) -> None:
    """One row for each format, one digit of each class in it, rendered far finer than the 8x8 pixels."""
    names = sorted(set(data.formats))
    grid = get_sampler("grid")(data.domain, (side, side)).points
    labels = torch.as_tensor(data.labels).tolist()
    figure = _figure(columns * 0.9 + 0.6, len(names) * 0.95)
    axes = figure.subplots(len(names), columns, squeeze=False)
    for row, name in enumerate(names):
        for column in range(columns):
            axis = axes[row][column]
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(name, color=INK)
            found = [i for i, f in enumerate(data.formats) if f == name and labels[i] == column]
            if found:
                with torch.no_grad():
                    image = data.field(found[0])(grid).reshape(side, side)
                axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
    figure.savefig(path)


def _draw_accuracy(path: Path, report: dict) -> None:
    figure = _figure(11, 3.5)
    left, middle, right = figure.subplots(1, 3, sharey=True)
    points = {int(n): 100 * v for n, v in report["accuracy_by_points"].items()}
    left.plot(list(points), list(points.values()), "o-", color=ACCENT)
    left.set_xscale("log", base=2)
    left.set_xticks(list(points), [str(n) for n in points])
    left.minorticks_off()
    left.axvline(report["points"], color=SOFT, zorder=0)
    left.set(title="by number of points", xlabel="points (line: training)", ylabel="test accuracy, %")
    by_sampler = report["accuracy_by_sampler"]
    middle.bar(list(by_sampler), [100 * v for v in by_sampler.values()], color=SOFT, edgecolor=ACCENT)
    middle.set_title("by sampler")
    middle.tick_params(axis="x", rotation=30)
    names = list(report["accuracy_by_format"])
    place = torch.arange(len(names)).numpy()
    right.bar(
        place - 0.2, [100 * report["accuracy_by_format"][k] for k in names], 0.4, color=SOFT, edgecolor=ACCENT, label="trained on"
    )
    right.bar(place + 0.2, [100 * report["leave_one_format_out"][k] for k in names], 0.4, color=ACCENT, label="never seen")
    right.set_xticks(place, names)
    right.set_title("by format")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    every = [*points.values(), *(100 * v for k in ("accuracy_by_sampler", "accuracy_by_format", "leave_one_format_out")
                                 for v in report[k].values())]  # fmt: skip
    left.set_ylim(max(0, min(every) - 3), 100.5)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _draw_points(path: Path, data: FieldDataset, points: int) -> None:
    """A training discretization over a field, its prefixes (the points after each stride) larger and darker."""
    figure = _figure(4.2, 4.8)
    axis = figure.subplots()
    (top, left), (bottom, right) = data.domain.bounds
    grid = get_sampler("grid")(data.domain, (128, 128)).points
    with torch.no_grad():
        axis.imshow(
            data.field(0)(grid).reshape(128, 128).numpy(), cmap="gray", vmin=-0.3, vmax=1.6, extent=(left, right, bottom, top)
        )
    discretization = get_sampler("lattice")(data.domain, points, torch.Generator().manual_seed(0))
    for stride, size, colour in ((1, 5, "#7fb2ff"), (2, 16, "#ffb000"), (4, 45, "#ff3b6b")):
        x = discretization.thin(stride).points
        axis.scatter(*x.flip(1).T.numpy(), s=size, color=colour, label=f"{len(x)}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title="points at the start and after each stride")
    axis.set(xlim=(left, right), ylim=(bottom, top), xticks=(left, right), yticks=(bottom, top))
    figure.savefig(path)


def _draw_confusion(path: Path, confusion: list[list[int]]) -> None:
    counts = torch.tensor(confusion)
    figure = _figure(4.6, 4.2)
    axis = figure.subplots()
    axis.imshow(counts.float().sqrt().numpy(), cmap="Blues")
    for i, row in enumerate(confusion):
        for j, value in enumerate(row):
            if value:
                axis.text(j, i, str(value), ha="center", va="center", fontsize=8, color="white" if i == j else INK)
    axis.set(xlabel="predicted", ylabel="true", xticks=range(len(confusion)), yticks=range(len(confusion)))
    figure.savefig(path)
