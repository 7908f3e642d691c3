"""A reproduced table or figure: its numbers, its words, its tables, and what it does with runs that are not there."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import CE, NCMI, POWER, FakeEntry, edit, set_results, write_bag_comparison, write_reproduction
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from ncmi.report.published import published_accuracy
from ncmi.report.records import Comparison, Reproduction, read_reproduction, read_run
from ncmi.report.reproduction import (
    associate,
    correlations,
    group_titles,
    overview,
    reproduction_rows,
    reproduction_verdict,
)
from ncmi.report.tables import print_table, to_csv, to_json, to_markdown
from ncmi.report.write import write_csv
from ncmi.training.schema import GroupRecord, ReproductionRecord, write_record


def networks(*names: str) -> dict[str, list[FakeEntry]]:
    return {
        name: [
            FakeEntry(f"{name}-{entry.name}", entry.label, entry.objective, entry.options, name)
            for entry in (CE, NCMI, POWER)
        ]
        for name in names
    }


@pytest.fixture
def table1(tmp_path: Path) -> Path:
    groups = networks("resnet18", "resnet34")
    return write_reproduction(tmp_path / "out", "table1", groups, missing=[("resnet34-ncmi-power", 2)])


def words(folder: Path | Reproduction) -> str:
    record = read_reproduction(folder) if isinstance(folder, Path) else folder
    return "\n".join(reproduction_verdict(record, reproduction_rows(record)))


def numbers(folder: Path) -> dict[str, object]:
    record = read_reproduction(folder)
    content: dict[str, object] = json.loads(to_json(record, reproduction_rows(record)))
    return content


# --- numbers


def test_numbers_against_numpy_and_scipy(table1: Path) -> None:
    frame = pd.read_csv(write_csv(table1, table1 / "t.csv"))
    runs = table1.parent / "runs"

    def accuracy(entry: str, readout: str) -> np.ndarray:
        files = [json.loads((runs / f"{entry}-seed{seed}/results.json").read_text("utf-8")) for seed in range(3)]
        return np.array([file["readouts"][readout]["test"]["accuracy"]["value"] for file in files])

    for network in ("resnet18", "resnet34"):
        ours, base = accuracy(f"{network}-ncmi-released", "lp"), accuracy(f"{network}-ce", "lp")
        chosen = frame[(frame["group"] == network) & (frame["method"] == "NCMI-LP (released)")]
        assert len(chosen) == 1
        row = chosen.iloc[0]
        expected = stats.ttest_rel(ours, base).confidence_interval(0.95)
        assert row["accuracy_mean"] == pytest.approx(ours.mean())
        assert row["accuracy_sd"] == pytest.approx(ours.std(ddof=1))
        assert row["difference_accuracy"] == pytest.approx((ours - base).mean())
        assert (row["difference_accuracy_low"], row["difference_accuracy_high"]) == pytest.approx(
            (expected.low, expected.high)
        )
        assert row["runs"].split() == [f"../runs/{network}-ncmi-released-seed{seed}" for seed in range(3)]
    # two groups, three entries, four read-outs
    assert len(frame) == 24
    # in the order of the paper, read-out by read-out
    assert frame["method"].tolist()[3:6] == ["Cross-entropy-CC", "NCMI-CC (released)", "NCMI-CC (p = −4, fixed)"]


def test_results_hold_every_run(table1: Path) -> None:
    content = json.loads(json.dumps(numbers(table1)))
    assert (content["experiment"], content["scale"], content["seeds"]) == ("table1", "paper", [0, 1, 2])
    assert content["machine"] == {"cpu": "Example CPU, 2 cores"}
    first, second = content["groups"]
    assert [len(first["runs"]), len(second["runs"])] == [9, 8]
    assert second["unfinished"] == [{"folder": "../runs/resnet34-ncmi-power-seed2", "state": "not started"}]
    for group in (first, second):
        for run in group["runs"]:
            results = read_run(table1 / run["folder"]).finished
            assert {name: scores["accuracy"] for name, scores in run["test"].items()} == {
                name: readout.test.accuracy.value for name, readout in results.readouts.items()
            }
            assert run["ncmi"] == results.information.ncmi
        for row in group["rows"]:
            assert row["accuracy_mean"] == pytest.approx(np.mean(list(row["values"]["accuracy"].values())))
    base = next(row for row in first["rows"] if row["method"] == "Cross-entropy")
    assert base["difference_accuracy"] is None
    assert base["differences"] == {"accuracy": {}}
    ours = next(row for row in first["rows"] if row["method"] == "NCMI-CC (released)")
    assert list(ours["differences"]["accuracy"]) == ["0", "1", "2"]


def test_published_figures_stand_beside_where_the_paper_has_them(table1: Path) -> None:
    frame = pd.read_csv(io.StringIO(to_csv(table1))).set_index(["group", "method"])["published_accuracy"]
    assert frame["resnet18", "NCMI-CC (released)"] == pytest.approx(0.7645)
    assert frame["resnet34", "NCMI-LP (released)"] == pytest.approx(0.7734)
    assert frame["resnet34", "Cross-entropy"] == pytest.approx(0.7642)
    # the paper knows no power of the separation, and no linear probe of cross-entropy
    assert math.isnan(frame["resnet18", "NCMI-CC (p = −4, fixed)"])
    assert math.isnan(frame["resnet18", "Cross-entropy-LP"])
    markdown = to_markdown(table1)
    assert markdown.count("*published 76.45*") == 1
    assert "enters no mean, difference or figure" in markdown
    edit(table1 / "reproduction.json", lambda content: content.update(scale="small"))
    assert "published 76" not in to_markdown(table1)
    assert "| published |" not in to_markdown(table1)
    assert pd.read_csv(io.StringIO(to_csv(table1)))["published_accuracy"].isna().all()


def test_figures_on_imagenet_stand_beside_a_thousand_classes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_reproduction(tmp_path / "out", "table2", networks("resnet50", "resnet101"))
    assert pd.read_csv(io.StringIO(to_csv(folder)))["published_accuracy"].isna().all()
    objective = {"name": "ncmi", "separation_power": 1.0, "distribution": "nsf", "center": "frozen"}
    assert published_accuracy("resnet101", objective, "cc", "imagenet") == 79.97
    assert published_accuracy("resnet50", {"name": "cross_entropy"}, "head", "imagenet") == 76.24
    assert published_accuracy("resnet18", {"name": "cross_entropy"}, "head", "imagenet") is None
    assert published_accuracy("resnet101", {"name": "supcon"}, "lp", "imagenet") is None
    assert published_accuracy("resnet50", {**objective, "separation_power": -4.0}, "cc", "imagenet") is None
    monkeypatch.setattr(Comparison, "class_names", [str(number) for number in range(1000)])
    frame = pd.read_csv(io.StringIO(to_csv(folder))).set_index(["group", "method"])["published_accuracy"]
    assert frame["resnet50", "Cross-entropy"] == pytest.approx(0.7624)
    assert frame["resnet101", "NCMI-LP (released)"] == pytest.approx(0.7983)
    assert "Table II" in to_markdown(folder)


# --- tables


def test_markdown_links_every_run(table1: Path) -> None:
    markdown = to_markdown(table1)
    links = re.findall(r"\[\d\]\(([^)]*)\)", markdown)
    # by the head cross-entropy alone, by CC and LP all three; one run is not there
    assert len(links) == 2 * 7 * 3 - 2
    assert all((table1 / target / "results.json").is_file() for target in links)
    assert "Not finished, and left out: resnet34-ncmi-power-seed2 (not started)." in markdown


def test_the_overview_is_methods_by_groups(table1: Path) -> None:
    record = read_reproduction(table1)
    lines = overview(record, reproduction_rows(record))
    assert list(lines) == [
        "Cross-entropy",
        "Cross-entropy-CC",
        "NCMI-CC (released)",
        "NCMI-CC (p = −4, fixed)",
        "Cross-entropy-LP",
        "NCMI-LP (released)",
        "NCMI-LP (p = −4, fixed)",
    ]
    assert all(row is not None and row.name == name for name, rows in lines.items() for row in rows)
    assert "| Method | resnet18 | resnet34 |" in to_markdown(table1)


def test_titles_of_groups_lose_what_all_begin_with(tmp_path: Path) -> None:
    groups = {f"resnet18-batch{size}": [CE] for size in (32, 64)}
    record = read_reproduction(write_reproduction(tmp_path, "figure3", groups, seeds=[0]))
    assert group_titles(record) == ["batch 32", "batch 64"]


def test_printed_tables_fit_100_columns(table1: Path) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_table(table1, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for part in ("resnet18: Test accuracy", "resnet34: Test accuracy", "NCMI-LP (p = −4, fixed)", "Highest mean"):
        assert part in text
    assert "unfinished: ../../runs/resnet34-ncmi-power-seed2, not started" in text


@pytest.mark.parametrize("name", ["<b>&", '"><script>alert(1)</script>', "a|b $x$"])
def test_names_are_no_markup(tmp_path: Path, name: str) -> None:
    entry = FakeEntry("odd", f"odd {name}", "focal")
    folder = write_reproduction(tmp_path, "table1", {"resnet18": [CE, entry]}, seeds=[0])
    edit(folder / "reproduction.json", lambda content: content.update(title=name))
    edit(folder / "reproduction.json", lambda content: content["groups"][0].update(title=name))
    lines = to_markdown(folder).splitlines()
    assert not any("<script" in line or "<b>" in line for line in lines)
    odd = [line for line in lines if line.startswith("| odd")]
    assert len(odd) == 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in odd} == {19}


def test_one_seed_and_an_empty_group(tmp_path: Path) -> None:
    groups = networks("resnet18", "resnet50")
    gone = [(entry.name, 0) for entry in groups["resnet50"]]
    folder = write_reproduction(tmp_path, "table1", groups, seeds=[0], missing=gone)
    assert "one pair has no interval, so nothing can be concluded" in words(folder)
    assert "3 of 6 runs have not finished" in words(folder)
    assert "No run has finished yet." in to_markdown(folder)
    assert pd.read_csv(io.StringIO(to_csv(folder)))["accuracy_sd"].isna().all()


# --- words


def test_verdict_names_the_highest_and_judges_the_difference(tmp_path: Path) -> None:
    folder = write_reproduction(tmp_path, "table1", {"resnet18": [CE, NCMI]})
    for seed, (base, ours) in enumerate([(0.700, 0.715), (0.705, 0.719), (0.698, 0.714)]):
        set_results(folder.parent / f"runs/ce-seed{seed}", "cc", accuracy=base)
        set_results(folder.parent / f"runs/ce-seed{seed}", "lp", accuracy=base)
        set_results(folder.parent / f"runs/ncmi-released-seed{seed}", "cc", accuracy=ours)
        set_results(folder.parent / f"runs/ncmi-released-seed{seed}", "lp", accuracy=ours - 0.03)
    text = words(folder)
    assert "by CC NCMI (released) (71.60 %, of 2 rows); by LP Cross-entropy (70.10 %, of 2 rows)" in text
    assert re.search(
        r"By CC NCMI \(released\) is above Cross-entropy by \+1\.50 points [^:]*: distinguishable from zero", text
    )
    # where the baseline is highest the best NCMI row is judged
    assert re.search(r"By LP NCMI \(released\) is below Cross-entropy by 1\.50 points [^:]*: distinguishable", text)


def test_a_missing_baseline_is_said(tmp_path: Path) -> None:
    folder = write_reproduction(tmp_path, "table1", {"resnet18": [CE, NCMI]}, missing=[("ce", k) for k in range(3)])
    assert "No run of the baseline (Cross-entropy) has finished" in words(folder)


def test_batch_sizes_say_who_is_highest_where(tmp_path: Path) -> None:
    groups = {
        f"resnet18-batch{size}": [
            FakeEntry(f"ce-{size}", CE.label, batch_size=size),
            FakeEntry(f"ncmi-{size}", NCMI.label, "ncmi", NCMI.options, batch_size=size),
        ]
        for size in (64, 32)
    }
    folder = write_reproduction(tmp_path, "figure3", groups)
    for size, ours in ((32, 0.80), (64, 0.60)):
        for seed in range(3):
            for readout in ("cc", "lp"):
                set_results(folder.parent / f"runs/ce-{size}-seed{seed}", readout, accuracy=0.70)
                value = ours + 0.001 * seed
                set_results(folder.parent / f"runs/ncmi-{size}-seed{seed}", readout, accuracy=value)
    text = words(folder)
    assert "ResNet-18, highest mean: by the trained head Cross-entropy at batch sizes 32 and 64" in text
    assert "by CC NCMI (released) at batch size 32" in text
    assert "by CC Cross-entropy at batch size 64" in text
    assert "NCMI-CC (released) is above Cross-entropy at batch size 32" in text
    assert "NCMI-LP (released) is below Cross-entropy at batch size 64" in text
    assert "NCMI-CC (released) 20.00" in text


def test_table_3_is_a_list_of_comparisons_of_bags(tmp_path: Path) -> None:
    folder = tmp_path / "table3"
    for name in ("camelyon17", "bracs"):
        write_bag_comparison(
            folder / name, ("abmil", "aem"), seeds=(0, 1), patients=20, epochs=2, simulation=name == "bracs"
        )
    groups = [GroupRecord(name=name, title=name) for name in ("camelyon17", "bracs")]
    write_record(
        folder / "reproduction.json",
        ReproductionRecord(experiment="table3", title="Table III", scale="paper", groups=groups),
    )
    record = read_reproduction(folder)
    text = words(record)
    assert "camelyon17: NCMI against CE, by the trained head: macro F1 is higher with" in text
    assert "bracs: NCMI against CE" in text
    assert "Simulation: no slide of this cohort is real." in text
    markdown = to_markdown(record)
    assert "| ABMIL, NCMI-LP |" in markdown
    assert len(pd.read_csv(io.StringIO(to_csv(record)))) == 2 * 2 * 2 * 3


# --- Figure 2


def correlated(tmp_path: Path, values: list[tuple[float, float]], **options: object) -> Path:
    """Networks with these NCMI and accuracies, by three seeds each a little apart."""
    entries = [
        FakeEntry(f"ce{k}", f"width {k}, {k + 3} epochs", network="resnet_small", width=k + 8, epochs=k + 3)
        for k in range(len(values))
    ]
    folder = write_reproduction(tmp_path, "figure2", {"networks": entries}, **options)  # type: ignore[arg-type]
    for k, (ncmi, accuracy) in enumerate(values):
        for seed in range(3):
            shift = 1 + 0.01 * (seed - 1)
            set_results(
                folder.parent / f"runs/ce{k}-seed{seed}",
                ncmi=ncmi * shift,
                cross_entropy_ncmi=2 * ncmi * shift,
                accuracy=accuracy * shift,
            )
    return folder


def test_correlation_over_networks_against_scipy(tmp_path: Path) -> None:
    values = [(0.30, 0.40), (0.20, 0.47), (0.12, 0.60), (0.02, 0.71), (0.25, 0.55)]
    record = read_reproduction(correlated(tmp_path, values))
    rows = reproduction_rows(record)
    one, other = correlations(record, rows)
    x, y = np.array([v[0] for v in values]), np.array([100 * v[1] for v in values])
    assert one.logarithmic
    expected = stats.pearsonr(np.log10(x), y)
    interval = expected.confidence_interval(0.95)
    assert one.plotted.r == pytest.approx(expected.statistic)
    assert one.plotted.interval == pytest.approx((interval.low, interval.high))
    assert one.raw.r == pytest.approx(stats.pearsonr(x, y).statistic)
    assert one.raw.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert [point.ncmi for point in other.points] == pytest.approx(2 * x)
    assert [point.accuracy for point in one.points] == pytest.approx(y)
    assert [(point.network, point.epochs, len(point.seeds)) for point in one.points] == [
        (f"width {k + 8}", k + 3, 3) for k in range(5)
    ]
    text = words(record)
    assert (
        "NCMI with Γ by centroid KL against test accuracy by the trained head over 5 networks: Pearson r = −0." in text
    )
    content = numbers(record.folder)
    assert [entry["separation"] for entry in content["correlations"]] == ["centroid_kl", "cross_entropy"]  # type: ignore[index,attr-defined]


def test_figure_2_is_in_the_order_of_its_entries_and_compares_with_none(tmp_path: Path) -> None:
    folder = correlated(tmp_path, [(0.3, 0.4), (0.2, 0.7), (0.1, 0.5)])
    record = read_reproduction(folder)
    rows = [row for row in reproduction_rows(record)["networks"] if row.readout == "head"]
    assert [row.entry.label for row in rows] == [entry.label for entry in record.groups[0].entries]
    assert all(row.scores["accuracy"].difference is None for row in rows)
    head = next(line for line in to_markdown(folder).splitlines() if line.startswith("| Network |"))
    scores = "Accuracy % | Balanced % | Macro F1 | Macro AUC | NLL | ECE %"
    assert head == f"| Network | n | {scores} | s/epoch | MB | CMI | Γ | NCMI | Γ (CE) | NCMI (CE) | runs |"


def test_networks_without_a_measure_are_left_out_and_named(tmp_path: Path) -> None:
    folder = correlated(tmp_path, [(0.3, 0.4), (0.2, 0.5), (0.1, 0.6)])
    for seed in range(3):
        set_results(folder.parent / f"runs/ce1-seed{seed}", cross_entropy_ncmi=None)
    record = read_reproduction(folder)
    one, other = correlations(record, reproduction_rows(record))
    assert (len(one.points), len(other.points)) == (3, 2)
    assert other.missing == ("width 1, 4 epochs",)
    assert "too few networks, or no spread, for a correlation" in words(record)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=4, max_size=12))
def test_associations_equal_scipy(pairs: list[tuple[float, float]]) -> None:
    x, y = (np.array(values) for values in zip(*pairs, strict=True))
    found = associate(x.tolist(), y.tolist())
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(found.r)
        return
    if np.ptp(x) < 1e-6 or np.ptp(y) < 1e-6:
        return
    expected = stats.pearsonr(x, y)
    assert found.r == pytest.approx(expected.statistic, abs=1e-9)
    if found.interval:
        interval = expected.confidence_interval(0.95)
        assert found.interval == pytest.approx((interval.low, interval.high), abs=1e-6)


@given(
    st.lists(
        st.tuples(st.floats(-5, 5).map(lambda v: round(v, 3)), st.floats(-5, 5).map(lambda v: round(v, 3))),
        min_size=4,
        max_size=30,
    )
)
def test_association_is_bounded_and_symmetric(pairs: list[tuple[float, float]]) -> None:
    x, y = map(list, zip(*pairs, strict=True))
    one, two = associate(x, y), associate(y, x)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(one.r)
        return
    assert -1 <= one.r <= 1
    assert one.r == pytest.approx(two.r)
    assert associate(x, [-value for value in y]).rho == pytest.approx(-one.rho)
    if one.interval is not None:
        assert one.interval[0] < one.r < one.interval[1]


def test_few_pairs_have_no_correlation_or_no_interval() -> None:
    assert math.isnan(associate([1, 2], [1, 2]).r)
    assert associate([1, 2, 3], [1, 2, 4]).interval is None
    assert associate([1, 2, 3, 4], [4, 3, 2, 1]).interval is None
