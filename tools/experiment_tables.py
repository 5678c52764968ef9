"""Tables and plots of docs/experiments.md from docs/experiments/results.json, see experiments.py.

A table stands between <!-- name --> and <!-- /name -->; what nobody has measured yet leaves its place as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from omnialpha.evaluation.measures import Measure, deciding, is_open, measure
from omnialpha.tasks import FAMILIES, TASKS

PAGE, PLOTS = Path("docs/experiments.md"), Path("docs/experiments")
TEST, AWAY = "data/test", "data/cross"
# tables that have a plot -> what it shows
PICTURES = {
    "rope": "MSRoPE-BiL against 2D positions",
    "interference": "What leaving a family out does to the others",
    "stacks": "Quality by number of layers",
}

Results = Mapping[str, dict]


def write(results: Results) -> None:
    """Put every table that can be made into the page, and draw its plot."""
    text = PAGE.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        table = make(results)
        if table:
            if name in PICTURES:
                table += f"\n\n![{PICTURES[name]}](experiments/{name}.png)"
            before, after = text.split(f"<!-- {name} -->\n")[0], text.split(f"<!-- /{name} -->")[1]
            text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
            print(f"{name}\n{table}\n")
    PAGE.write_text(text, encoding="utf-8")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def over_seeds(results: Results, run: str, data: str, task: str, name: str) -> list[float]:
    """A measure of every seed of a run, in the seeds' order."""
    names = sorted(key for key in results if re.fullmatch(re.escape(run) + r"-\d+", key))
    return [results[key][data][task]["model"][name][0] for key in names if task in results[key].get(data, {})]


def words(values: Sequence[float], factor: float = 1) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    spread = f" ± {stdev(values) * factor:.2g}" if len(values) > 1 else ""
    return f"{fmean(values) * factor:.3g}{spread}"


def seeds(columns: Iterable[Sequence[float]]) -> str:
    """Of how many seeds the columns of a row are."""
    counts = sorted({len(values) for values in columns if values})
    return " to ".join(map(str, counts[:: max(1, len(counts) - 1)]))


def verdict(ours: Sequence[float], theirs: Sequence[float], row: Measure) -> str:
    """Which is better: said only where the means differ by more than both spreads together."""
    if len(ours) < 3 or len(theirs) < 3:
        return "-"
    if not differ(ours, theirs):
        return "no difference"
    return "yes" if (fmean(ours) > fmean(theirs)) == row.higher_is_better else "no"


def differ(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Are there three seeds of each, and the means further apart than both spreads together?"""
    enough = min(len(ours), len(theirs)) >= 3
    return enough and abs(fmean(ours) - fmean(theirs)) > stdev(ours) + stdev(theirs)


def rows_of(tasks) -> list[tuple[str, Measure]]:
    """(task, measure) for every measure that decides."""
    return [(task, measure(name, task)) for task in tasks for name in deciding(task)]


def arrow(row: Measure) -> str:
    """What the measure is called, and which way is better."""
    return f"{row.words} {'↑' if row.higher_is_better else '↓'}"


def compare(results: Results, tasks, runs: Mapping[str, Callable[[str], str]], asked: str, ours: str, theirs: str):
    """A table of runs side by side: one row per task and measure, and a verdict about two of them."""
    rows = []
    for task, row in rows_of(tasks):
        found = {title: over_seeds(results, run(task), TEST, task, row.name) for title, run in runs.items()}
        if found[ours] and found[theirs]:
            cells = [words(values, row.factor) for values in found.values()]
            rows.append([task, arrow(row), seeds(found.values()), *cells, verdict(found[ours], found[theirs], row)])
    return markdown(["task", "measure", "seeds", *runs, asked], rows)


def vae(results: Results) -> str:
    """Experiment 1."""
    names = {
        "nine_psnr": "nine colours, PSNR dB ↑",
        "colour_psnr": "colour alone, PSNR dB ↑",
        "alpha_mse": "alpha MSE ×1000 ↓",
        "opaque_psnr": "opaque pictures, PSNR dB ↑",
    }
    runs = [value for key, value in sorted(results.items()) if key.startswith("vae-")]
    count = [str(len(runs))]
    rows = []
    for when, title in (("before", "opaque initialisation"), ("after", "after fine-tuning")):
        found = [next(iter(run[when].values())) for run in runs]
        if found:
            factor = {"alpha_mse": 1000}
            cells = [words([one[name] for one in found], factor.get(name, 1)) for name in names]
            rows.append([title, *count, *cells])
    return markdown(["VAE", "seeds", *names.values()], rows)


def rope(results: Results) -> str:
    """Experiment 2."""
    tasks = [task for task in TASKS if len(TASKS[task].inputs) + len(TASKS[task].targets) > 1]
    runs = {"MSRoPE-BiL": lambda task: "joint-long", "2D (z = 0)": lambda task: "flat-long"}
    table = compare(results, tasks, runs, "layer axis better?", *runs)
    pairs = [(task, row) for task, row in rows_of(tasks) if not is_open(task)]
    bars = {
        title: [over_seeds(results, run(task), TEST, task, row.name) for task, row in pairs]
        for title, run in runs.items()
    }
    if table:
        _bars("rope", [(f"{task}\n{row.words}", row.factor) for task, row in pairs], bars)
    return table


def joint(results: Results) -> str:
    """Experiment 3: joint training against single-task models."""
    singles = [task for task in TASKS if any(key.startswith(f"single-{task}-") for key in results)]
    runs = {
        "single task": lambda task: f"single-{task}",
        "21 tasks, equal steps": lambda task: "joint",
        "21 tasks, equal total compute": lambda task: "joint-long",
    }
    return compare(
        results, singles, runs, "joint better at equal total compute?", "21 tasks, equal total compute", "single task"
    )


def interference(results: Results) -> str:
    """Experiment 3: what leaving a family out does to the error of every task of the others."""
    left_out = [family for family in FAMILIES if any(key.startswith(f"without-{family}-") for key in results)]
    rows, heat = [], {}
    for task, row in rows_of(TASKS):
        whole = errors(over_seeds(results, "joint-long", TEST, task, row.name), row)
        cells = []
        for family in left_out:
            without = errors(over_seeds(results, f"without-{family}", TEST, task, row.name), row)
            if not without or not whole or TASKS[task].family == family:
                cells.append("")
                continue
            change = 100 * (fmean(without) / fmean(whole) - 1)
            clear = differ(whole, without)
            cells.append(f"**{change:+.0f} %**" if clear else f"{change:+.0f} %")
            heat[f"{task}, {row.words}", family] = (change, clear)
        rows.append([task, row.words, *cells])
    if heat:
        _heat("interference", heat, left_out)
    return markdown(["task", "measure", *(f"without {family}" for family in left_out)], rows if left_out else [])


def errors(values: Sequence[float], row: Measure) -> list[float]:
    """Values as errors, lower is better: a PSNR as the root mean square error it stands for."""
    return [10 ** (-value / 20) for value in values] if row.higher_is_better else list(values)


def stacks(results: Results) -> str:
    """Experiment 4."""
    data = sorted({name for key in results if key.startswith("stack") for name in results[key]})
    row, rows, lines = measure("layers_nine_psnr", "stack"), [], {"MSRoPE-BiL": [], "2D (z = 0)": []}
    for name in data:
        layers = int(name.split("-")[1])
        ours, flat = (over_seeds(results, run, name, "stack", row.name) for run in ("stack", "stack-flat"))
        for values, line in zip((ours, flat), lines.values()):
            line.append((layers + 1, values))
        seen = "yes" if layers <= 3 else "no"
        rows.append([str(layers + 1), seen, seeds((ours, flat)), words(ours), words(flat), verdict(ours, flat, row)])
    if rows:
        _curves("stacks", lines, row.words)
    head = ["layers in the sequence", "seen in training", "seeds", *(f"{name}, {arrow(row)}" for name in lines)]
    return markdown([*head, "layer axis better?"], rows)


def cross(results: Results) -> str:
    """Experiment 5."""
    found, rows = results.get("cross", {}), []
    if not found:
        return ""
    for task, row in rows_of(task for task in TASKS if not is_open(task)):
        cells = []
        for data in (TEST, AWAY):
            methods = found[data][task]
            naive = next(name for name in ("copy", "opaque") if name in methods)
            cells += [words([methods[name][row.name][0]], row.factor) for name in ("model", naive)]
        rows.append([task, arrow(row), *cells])
    return markdown(["task", "measure", "micro, home", "naive, home", "micro, away", "naive, away"], rows)


TABLES = {"vae": vae, "rope": rope, "joint": joint, "interference": interference, "stacks": stacks, "cross": cross}


def _figure(width: float, height: float):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def _save(figure, name: str) -> None:
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOTS / f"{name}.png", dpi=80)


def _bars(name: str, titles: Sequence[tuple[str, float]], bars: Mapping[str, list[list[float]]]) -> None:
    figure, axes = _figure(11, 4.5)
    width = 0.8 / len(bars)
    for k, (title, groups) in enumerate(bars.items()):
        heights = [fmean(values) * factor for values, (_, factor) in zip(groups, titles)]
        spread = [stdev(values) * factor if len(values) > 1 else 0 for values, (_, factor) in zip(groups, titles)]
        axes.bar([i + k * width for i in range(len(titles))], heights, width, yerr=spread, capsize=2, label=title)
    axes.set_xticks(
        [i + 0.2 for i in range(len(titles))], [title for title, _ in titles], rotation=60, ha="right", fontsize=7
    )
    axes.set_yscale("log")
    axes.legend()
    _save(figure, name)


def _heat(name: str, values: Mapping[tuple[str, str], tuple[float, bool]], columns: Sequence[str]) -> None:
    """(row, column) -> (change in per cent, is it clear)."""
    lines = list(dict.fromkeys(row for row, _ in values))
    figure, axes = _figure(8, 0.28 * len(lines) + 1.4)
    grid = [[values.get((row, column), (float("nan"),))[0] for column in columns] for row in lines]
    axes.imshow(grid, cmap="RdYlGn_r", vmin=-50, vmax=50, aspect="auto")
    for (row, column), (change, clear) in values.items():
        axes.text(
            columns.index(column),
            lines.index(row),
            f"{change:+.0f}",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if clear else "normal",
            color="white" if abs(change) > 40 else "black",
        )
    axes.set_xticks(range(len(columns)), [f"without\n{column}" for column in columns], fontsize=8)
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    figure.suptitle("change of the error in %: below 0 is better without; bold where three seeds show it", fontsize=9)
    _save(figure, name)


def _curves(name: str, lines: Mapping[str, list[tuple[int, list[float]]]], title: str) -> None:
    figure, axes = _figure(6, 4)
    for label, points in lines.items():
        points = [(x, values) for x, values in points if values]
        spread = [stdev(values) if len(values) > 1 else 0 for _, values in points]
        axes.errorbar(
            [x for x, _ in points], [fmean(values) for _, values in points], spread, marker="o", capsize=3, label=label
        )
    axes.axvline(4.5, linestyle=":", color="grey")
    axes.set_xlabel("layers in the sequence (more than 4: never seen in training)")
    axes.set_ylabel(title)
    axes.legend()
    _save(figure, name)
