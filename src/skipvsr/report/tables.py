"""The paper's tables, in its layout, with the paper's numbers beside ours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from skipvsr.evaluation.cost import cost_per_frame
from skipvsr.evaluation.evaluate import Row
from skipvsr.evaluation.results import markdown, write_text
from skipvsr.evaluation.settings import Setting
from skipvsr.report import published
from skipvsr.report.experiment import BUDGETS, HALF, Experiment
from skipvsr.report.presets import TestSet

_PATCH_FULL = Setting("full", 1.0, "patch")
# Ratio of blocks that the fixed policies of Table 4 run: 278 of 338.5 G is three quarters of the blocks.
_FIXED_RATIO = 0.75


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
        write_text(files[0], self.markdown())
        write_text(
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
    bicubic = [experiment.row("bicubic", Setting("full"), test) for test in tests]
    rows.append(("Bicubic (ours)", "-", "-", "-", *(_score(row) for row in bicubic)))
    for name, variant in (("BasicVSR (ours)", "backbone"), ("SkipVSR (ours)", "paper"), ("our router (ours)", "ours")):
        found = [experiment.row(variant, _PATCH_FULL, test) for test in tests]
        parameters = sum(weight.numel() for weight in experiment.model(variant).parameters()) / 1e6
        gmacs = cost_per_frame(experiment.model(variant).config, 180, 320).without_flow / 1e9
        rows.append((name, f"{parameters:.2f}", f"{gmacs:.1f}", _ms(found[0]), *(_score(row) for row in found)))
    return Table(
        "Table 1: methods", ("method", "parameters (M)", "GMAC", "ms", *(test.name for test in tests)), tuple(rows),
        "PSNR/SSIM on RGB, patch testing, threshold 0. Lines marked (paper) are quoted from it: another machine, other "
        "training, and other clips where the column is not one of its own. GMAC of a 180x320 frame without flow, as the "
        "paper counts; ms a frame of the first test set, measured here.",
    )  # fmt: skip


def table2(experiment: Experiment) -> Table:
    """One network at six thresholds."""
    tests, model = experiment.preset.tests, experiment.model("paper")
    cost = cost_per_frame(model.config, 180, 320)
    rows = []
    for line, budget in zip(published.TABLE_2, BUDGETS, strict=True):
        setting = _at_budget(experiment, "paper", budget)
        found = [experiment.row("paper", setting, test) for test in tests]
        ratio = found[0].active_ratio
        spent = (cost.without_flow - round((1 - ratio) * cost.blocks)) / cost.without_flow
        paper_ratio = f"{float(line.gmacs) / 338.5:.0%}"
        rows.append(
            (
                f"{line.method} / {setting.value if setting.policy == 'threshold' else 0:.3g}",
                f"{paper_ratio} / {spent:.0%}", f"{line.milliseconds} / {_ms(found[0])}",
                *(f"{_quoted(line, (test,))[0]} / {_score(row)}" for test, row in zip(tests, found, strict=True)),
            )
        )  # fmt: skip
    return Table(
        "Table 2: thresholds", ("threshold", "cost", "ms", *(test.name for test in tests)), tuple(rows),
        "Each cell: the paper's number / ours. Thresholds are chosen on training clips so that the cost is the paper's; a "
        "score on another scale has other thresholds. PSNR/SSIM on RGB, patch testing.",
    )  # fmt: skip


def table3(experiment: Experiment) -> Table:
    """Components: uniform skipping, the confidence estimator, temporal feature alignment."""
    test = experiment.preset.tests[0]
    parts = {
        "VSR1": ("paper", Setting("uniform", 0.5, "patch")),
        "VSR2": ("paper-alone", _at_budget(experiment, "paper-alone", HALF)),
        "VSR3": ("paper", _PATCH_FULL),
        "VSR4": ("paper", _at_budget(experiment, "paper", HALF)),
    }
    ticks = {"VSR1": ("x", "", "x"), "VSR2": ("", "x", ""), "VSR3": ("", "", "x"), "VSR4": ("", "x", "x")}
    rows = []
    for name, paper in published.TABLE_3:
        row = experiment.row(*parts[name], test)
        rows.append((name, *ticks[name], paper, f"{row.psnr_rgb:.2f}", f"{row.active_ratio:.0%}"))
    return Table(
        "Table 3: components",
        (
            "variant",
            "uniform skip",
            "confidence estimator",
            "temporal alignment",
            "paper PSNR",
            "our PSNR",
            "our blocks",
        ),
        tuple(rows),
        f"On {test.name}, RGB. The paper does not say at which threshold; its VSR3 and VSR4 are its network at threshold 0. "
        "Ours: about half of the blocks in each variant that skips, so that the estimator and the alignment matter.",
    )


def table4(experiment: Experiment) -> Table:
    """Skip strategies."""
    test = experiment.preset.tests[0]
    fixed = {"uniform skip": "uniform", "shallow skip": "shallow", "deep skip": "deep"}
    settings = {name: ("paper", Setting(policy, _FIXED_RATIO, "patch")) for name, policy in fixed.items()}  # pyright: ignore[reportArgumentType]
    settings |= {
        "SkipVSR 0.94": ("paper", _at_budget(experiment, "paper", BUDGETS[4])),
        "SkipVSR 0.95": ("paper", _at_budget(experiment, "paper", BUDGETS[5])),
    }
    rows = [
        (name, flops, f"{ms} / {_ms(row)}", f"{row.active_ratio:.0%}", f"{score} / {_score(row)}")
        for name, flops, ms, score in published.TABLE_4
        for row in [experiment.row(*settings[name], test)]
    ]
    for ratio in (BUDGETS[4], BUDGETS[5]):
        row = experiment.row("ours", _at_budget(experiment, "ours", ratio), test)
        rows.append((f"our router, {ratio:.0%}", "", _ms(row), f"{row.active_ratio:.0%}", _score(row)))
    return Table(
        "Table 4: strategies", ("strategy", "paper FLOPs", "ms (paper / ours)", "our blocks", "PSNR/SSIM (paper / ours)"),
        tuple(rows),
        f"On {test.name}, RGB, patch testing. The paper's 278 G are three quarters of its blocks; its 293 G and 270 G "
        "contradict its Table 2 (216.6 G and 145.5 G), whose costs are taken here.",
    )  # fmt: skip


def table5(experiment: Experiment) -> Table:
    """Supervision of the confidence estimator."""
    names = {"feature-interval": "paper"} | {name: f"paper-{name}" for name in ("psnr", "psnr-interval", "feature")}
    return _ablation(
        experiment,
        "Table 5: supervision",
        "supervision",
        [(name, names[name], s) for name, _, _, s in published.TABLE_5],
    )


def table6(experiment: Experiment) -> Table:
    """Blocks between the target layers of the alignment."""
    intervals = experiment.preset.intervals
    variants = [*(f"paper-every-{every}" for every in intervals[:-1]), "paper"]
    labels = [f"{paper} of 30 / {ours} of {experiment.preset.network.blocks}" for (paper, _), ours in
              zip(published.TABLE_6, intervals, strict=True)]  # fmt: skip
    scores = [score for _, score in published.TABLE_6]
    return _ablation(
        experiment, "Table 6: alignment interval", "interval", list(zip(labels, variants, scores, strict=True))
    )


def _ablation(experiment: Experiment, title: str, what: str, variants: list[tuple[str, str, str]]) -> Table:
    test = experiment.preset.tests[0]
    rows = []
    for label, variant, paper in variants:
        full, half = (
            experiment.row(variant, _PATCH_FULL, test),
            experiment.row(variant, _at_budget(experiment, variant, HALF), test),
        )
        rows.append((label, paper, _score(full), _score(half), f"{half.active_ratio:.0%}"))
    return Table(
        title, (what, "paper", "ours, all blocks", "ours, half", "blocks at half"), tuple(rows),
        f"On {test.name}, RGB, patch testing. The paper's numbers are at threshold 0.",
    )  # fmt: skip


def _at_budget(experiment: Experiment, variant: str, budget: float) -> Setting:
    """Patch testing at the threshold that the calibration table gives for the budget."""
    table = experiment.model(variant).calibration
    if budget == 1 or table is None:
        return _PATCH_FULL
    return Setting("threshold", round(table.threshold_for(budget), 6), "patch")


def _quoted(line: published.Quoted, tests: tuple[TestSet, ...]) -> tuple[str, ...]:
    known = dict(zip(published.SETS, line.scores, strict=True))
    # Test sets that the paper does not have are compared with its REDS4 column.
    reds4 = known["REDS4 BI"]
    return tuple(known.get(test.name, reds4 if reds4 == "-" else f"{reds4} (REDS4)") for test in tests)


def _score(row: Row) -> str:
    return f"{row.psnr_rgb:.2f}/{row.ssim_rgb or 0:.4f}"


def _ms(row: Row) -> str:
    return f"{1000 * row.seconds_per_frame:.0f}"


TABLES = {"table1": table1, "table2": table2, "table3": table3, "table4": table4, "table5": table5, "table6": table6}
