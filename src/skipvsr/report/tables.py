"""The paper's tables, in its layout, with the paper's numbers beside ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.results import markdown
from skipvsr.evaluation.scores import Row
from skipvsr.evaluation.settings import Setting
from skipvsr.models.vsr import SkipVSR
from skipvsr.report import published
from skipvsr.report.experiment import BUDGETS, HALF, Experiment
from skipvsr.report.presets import TestSet
from skipvsr.video.files import write_whole

_PATCH_FULL = Setting("full", 1.0, "patch")
# Ratios of blocks that the fixed strategies of Table 4 run: 278 of 338.5 G is three quarters of the blocks, and the words
# ("only the second half of the model") are half of them.
_FIXED_RATIOS = (0.75, 0.5)
# "Skip randomly"; "only execute the second half of the model"; "the first half": in that order in the caption of Table 4.
_FIXED = {"uniform skip": "random", "shallow skip": "shallow", "deep skip": "deep"}

# Clips on which the lines of a table are timed, and how notes say it.
_TIMED_CLIPS = 2
_TIMED = f"of its first {_TIMED_CLIPS} clips, all lines in turn"


@dataclass(frozen=True)
class Table:
    """A table, to be written as Markdown and as JSON."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: str

    def markdown(self) -> str:
        """Heading, notes and table."""
        return f"## {self.title}\n\n{self.notes}\n\n{markdown([self.header, *self.rows])}"

    def save(self, stem: Path) -> list[Path]:
        """Write STEM.md and STEM.json; return the files."""
        files = [stem.with_suffix(".md"), stem.with_suffix(".json")]
        write_whole(files[0], self.markdown())
        write_whole(
            files[1], json.dumps({"header": self.header, "rows": self.rows, "notes": self.notes}, indent=1) + "\n"
        )
        return files


def table1(experiment: Experiment) -> Table:
    """Methods: parameters, cost, time and quality."""
    tests = experiment.preset.tests
    rows = [
        (f"{line.method} (paper)", line.parameters, line.gmacs, line.milliseconds, *_quoted(line, tests))
        for line in published.TABLE_1
    ]
    bicubic = [experiment.rows("bicubic", Setting("full"), test) for test in tests]
    rows.append(("Bicubic (ours)", "-", "-", "-", *(score(row) for row in bicubic)))
    ours = {"BasicVSR (ours)": "backbone", "SkipVSR (ours)": "paper", "our router (ours)": "ours"}
    found = {variant: [experiment.rows(variant, _PATCH_FULL, test) for test in tests] for variant in ours.values()}
    times = _milliseconds(experiment, [(variant, sets[0]) for variant, sets in found.items()], tests[0])
    for (name, variant), time in zip(ours.items(), times, strict=True):
        model = experiment.model(variant)
        gmacs = cost_per_frame(model.config, 180, 320).without_flow / 1e9
        rows.append((name, f"{_millions(model):.2f}", f"{gmacs:.1f}", time, *map(score, found[variant])))
    return Table(
        "Table 1: methods", ("method", "parameters (M)", "GMAC", "ms", *(test.name for test in tests)), tuple(rows),
        "PSNR/SSIM on RGB, patch testing, threshold 0; with several seeds, mean and standard deviation. Lines marked (paper) "
        "are quoted from it: another machine, other training, and other clips where the column is not one of its own. "
        "Parameters and GMAC (of a 180x320 frame) are without the flow network, as the paper counts; ms a frame of the first "
        f"test set, {_TIMED}.",
    )  # fmt: skip


def table2(experiment: Experiment) -> Table:
    """One network at six thresholds."""
    tests, model = experiment.preset.tests, experiment.model("paper")
    cost = cost_per_frame(model.config, 180, 320)
    measured = [[experiment.rows_at("paper", budget, test) for test in tests] for budget in BUDGETS]
    times = _milliseconds(experiment, [("paper", found[0]) for found in measured], tests[0])
    rows = []
    for line, budget, found, time in zip(published.TABLE_2, BUDGETS, measured, times, strict=True):
        ratio = mean(row.active_ratio for row in found[0])
        spent = (cost.without_flow - round((1 - ratio) * cost.blocks)) / cost.without_flow
        threshold = found[0][0].value if budget < 1 else 0
        rows.append(
            (
                f"{line.method} / {threshold:.3g}", f"{float(line.gmacs) / 338.5:.0%} / {spent:.0%}",
                f"{budget:.1%} / {ratio:.1%}", f"{line.milliseconds} / {time}",
                *(f"{_quoted(line, (test,))[0]} / {score(seeds)}" for test, seeds in zip(tests, found, strict=True)),
            )
        )  # fmt: skip
    return Table(
        "Table 2: thresholds", ("threshold", "cost", "blocks asked / ran", "ms", *(test.name for test in tests)), tuple(rows),
        "Each cell: the paper's number / ours, with several seeds mean and standard deviation. Thresholds are chosen on the LR "
        "frames of each test set so that the cost is the paper's; those of the first seed and set are shown. PSNR/SSIM on RGB, "
        f"patch testing; ms a frame of the first test set, {_TIMED}.",
    )  # fmt: skip


def table3(experiment: Experiment) -> Table:
    """Components: uniform skipping, the confidence estimator, temporal feature alignment."""
    test = experiment.preset.tests[0]
    parts = {
        "VSR1": ("aligned", lambda: experiment.rows("aligned", Setting("random", _FIXED_RATIOS[0], "patch"), test)),
        "VSR2": ("paper-alone", lambda: experiment.rows_at("paper-alone", HALF, test)),
        "VSR3": ("aligned", lambda: experiment.rows("aligned", _PATCH_FULL, test)),
        "VSR4": ("paper", lambda: experiment.rows_at("paper", HALF, test)),
        "VSR2, all": ("paper-alone", lambda: experiment.rows("paper-alone", _PATCH_FULL, test)),
        "VSR4, all": ("paper", lambda: experiment.rows("paper", _PATCH_FULL, test)),
    }
    ticks = {"VSR1": ("x", "", "x"), "VSR2": ("", "x", ""), "VSR3": ("", "", "x"), "VSR4": ("", "x", "x")}
    quoted = dict(published.TABLE_3)
    rows = []
    for name, (network, measure) in parts.items():
        if not experiment.has(network):
            continue
        found, variant = measure(), name.partition(",")[0]
        rows.append((name, *ticks[variant], quoted[variant], score(found, with_ssim=False), _ran(found)))
    header = (
        "variant",
        "uniform skip",
        "confidence estimator",
        "temporal alignment",
        "paper PSNR",
        "our PSNR",
        "our blocks",
    )
    return Table(
        "Table 3: components", header, tuple(rows),
        f"On {test.name}, RGB, patch testing. VSR3 is trained by itself: alignment alone, every block running. VSR1 is the "
        "same network with blocks skipped at random, the first row of Table 4, as in the paper, whose two numbers are the "
        "same. The paper does not say at which threshold its VSR2 and VSR4 are; ours are shown with half of the blocks and "
        "with all.",
    )  # fmt: skip


def table4(experiment: Experiment) -> Table:
    """Skip strategies."""
    test = experiment.preset.tests[0]
    quoted = {name: line for name, *line in published.TABLE_4}
    lines: list[tuple[str, str, list[str] | None, list[Row]]] = []
    for variant, label in (
        ("aligned", ""),
        ("backbone", ", backbone that never saw alignment or a mask"),
        ("paper", ", SkipVSR"),
    ):
        for name, policy in (*_FIXED.items(), ("evenly spread", "uniform")):
            for ratio in _FIXED_RATIOS:
                setting = Setting(policy, ratio, "patch")  # pyright: ignore[reportArgumentType]
                paper = quoted.get(name) if variant == "aligned" and ratio == _FIXED_RATIOS[0] else None
                lines.append((f"{name}{label}", variant, paper, experiment.rows(variant, setting, test)))
    for name, ratio in (("SkipVSR 0.94", BUDGETS[4]), ("SkipVSR 0.95", BUDGETS[5])):
        lines.append((name, "paper", quoted[name], experiment.rows_at("paper", ratio, test)))
    lines += [
        (f"our router, {ratio:.0%}", "ours", None, experiment.rows_at("ours", ratio, test))
        for ratio in (BUDGETS[4], BUDGETS[5])
    ]
    times = _milliseconds(experiment, [(variant, found) for _, variant, _, found in lines], test)
    rows: list[tuple[str, ...]] = []
    for (name, _, paper, found), time in zip(lines, times, strict=True):
        flops, ms, quality = paper or ("", "-", "-")
        rows.append((name, flops, f"{ms} / {time}", _ran(found), f"{quality} / {score(found)}"))
    return Table(
        "Table 4: strategies", ("strategy", "paper FLOPs", "ms (paper / ours)", "our blocks", "PSNR/SSIM (paper / ours)"),
        tuple(rows),
        f"On {test.name}, RGB, patch testing. As the paper's caption has it, uniform skips at random, shallow runs only the "
        "last blocks, deep only the first. Its words say half of the blocks, its 278 G three quarters: both are shown. "
        "They are run on the network of VSR1 and VSR3, on the backbone before any of it, and on SkipVSR. The paper's 293 G and "
        f"270 G contradict its Table 2 (216.6 G and 145.5 G), whose costs are taken here. ms a frame, {_TIMED}.",
    )  # fmt: skip


def table5(experiment: Experiment) -> Table:
    """Supervision of the confidence estimator."""
    names = {"feature-interval": "paper"} | {name: f"paper-{name}" for name in ("psnr", "psnr-interval", "feature")}
    lines = [(name, names[name], quality) for name, _, _, quality in published.TABLE_5]
    return _ablation(experiment, "Table 5: supervision", "supervision", lines)


def table6(experiment: Experiment) -> Table:
    """Blocks between the target layers of the alignment."""
    intervals = experiment.preset.intervals
    variants = [*(f"paper-every-{every}" for every in intervals[:-1]), "paper"]
    blocks = experiment.preset.network.blocks
    lines = [
        (f"{paper} of 30 / {ours} of {blocks}", variant, quality)
        for (paper, quality), ours, variant in zip(published.TABLE_6, intervals, variants, strict=True)
    ]
    return _ablation(experiment, "Table 6: alignment interval", "interval", lines)


def ablations(experiment: Experiment) -> Table:
    """The choices that the paper's text leaves open, each against the method's own."""
    lines = [
        ("the method (square-sum, warped, per pixel, joint, weight 0.1)", "paper", ""),
        ("mapping: sum", "paper-sum", ""), ("mapping: square-max", "paper-square-max", ""),
        ("difference as it lies", "paper-raw", ""), ("literal equation 7", "paper-literal", ""),
        ("cells of 4x4", "paper-cells", ""), ("mask loss detached", "paper-detached", ""),
        ("mask weight 1", "paper-mask-1", ""), ("mask weight 10", "paper-mask-10", ""),
        ("alignment weight 0", "paper-alone", ""),
    ]  # fmt: skip
    table = _ablation(experiment, "Ablations", "change", lines)
    without_paper = tuple((row[0], *row[2:]) for row in table.rows)
    return Table(table.title, (table.header[0], *table.header[2:]), without_paper, table.notes)


def _ablation(experiment: Experiment, title: str, what: str, lines: list[tuple[str, str, str]]) -> Table:
    test = experiment.preset.tests[0]
    rows = []
    for label, variant, paper in lines:
        if not experiment.has(variant):
            continue
        full = experiment.rows(variant, _PATCH_FULL, test)
        half = experiment.rows_at(variant, HALF, test, with_ssim=False)
        quarter = experiment.rows_at(variant, BUDGETS[5], test, with_ssim=False)
        rows.append(
            (
                label, paper, score(full), score(half, with_ssim=False), _ran(half), score(quarter, with_ssim=False),
                _ran(quarter), _luma(full), _luma(half),
            )
        )  # fmt: skip
    header = (
        what, "paper", "ours, all blocks", "ours, half", "blocks at half", "ours, a quarter", "blocks at a quarter",
        "luma, all", "luma, half",
    )  # fmt: skip
    return Table(
        title, header, tuple(rows),
        f"On {test.name}, patch testing; PSNR/SSIM on RGB, then luma PSNR. The paper's numbers are at threshold 0. Rows with a "
        "standard deviation are means over seeds, the others have the first seed alone; differences below that deviation mean "
        "nothing.",
    )  # fmt: skip


def score(rows: list[Row], *, with_ssim: bool = True) -> str:
    """PSNR/SSIM, or PSNR, on RGB: the mean over seeds, and their standard deviation where there are several."""
    text = _with_spread([row.psnr_rgb for row in rows])
    return f"{text}/{mean(row.ssim_rgb or 0 for row in rows):.4f}" if with_ssim else text


def _luma(rows: list[Row]) -> str:
    return _with_spread([row.psnr_y for row in rows])


def _with_spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f"±{stdev(values):.2f}" if len(values) > 1 else "")


def _ran(rows: list[Row]) -> str:
    return f"{mean(row.active_ratio for row in rows):.1%}"


def _milliseconds(experiment: Experiment, lines: list[tuple[str, list[Row]]], test: TestSet) -> list[str]:
    """Of a frame of each variant where its first seed was measured."""
    runs = [(variant, Setting(row.policy, row.value, row.tiling)) for variant, (row, *_) in lines]  # pyright: ignore[reportArgumentType]
    return [f"{1000 * seconds:.0f}" for seconds in experiment.seconds(runs, test, clips=_TIMED_CLIPS)]


def _millions(model: SkipVSR) -> float:
    flow = {id(weight) for weight in model.flow.parameters()}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in flow) / 1e6


def _quoted(line: published.Quoted, tests: tuple[TestSet, ...]) -> tuple[str, ...]:
    known = dict(zip(published.SETS, line.scores, strict=True))
    # Test sets that the paper does not have are compared with its REDS4 column.
    reds4 = known["REDS4 BI"]
    return tuple(known.get(test.name, reds4 if reds4 == "-" else f"{reds4} (REDS4)") for test in tests)


TABLES = {
    "table1": table1, "table2": table2, "table3": table3, "table4": table4, "table5": table5, "table6": table6,
    "ablations": ablations,
}  # fmt: skip
