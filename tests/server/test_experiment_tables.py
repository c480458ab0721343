"""Tables and plots of an experiment say what was measured."""

import csv
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

from fedlmg_server.bench import rows
from fedlmg_server.bench.rows import Row
from fedlmg_server.report import plots

ROW = Row(
    **{"setting": "skew", "method": "plain", "seed": 0, "accuracy": 0.5, "per_client": {"a": 0.5}},
    **{"num_images": 4, "server_seconds": 2.0, "upload_bytes": 10**6},
)


def test_table_has_mean_spread_published_figure_and_what_does_not_apply():
    several = [ROW, replace(ROW, seed=1, accuracy=0.7, per_client={"a": 0.7})]
    refused = Row(setting="skew", method="fedavg", seed=0, note="unlike architectures")

    table = rows.markdown([*several, refused], {"skew": {"plain": 61.5}})

    assert "| plain | 60.0 ± 14.1 | 61.5 | 0 | 0 | 1.0 | 0.0 | 0 | 2 | 4 |" in table
    assert "- fedavg does not apply: unlike architectures" in table


def test_rows_are_compared_with_the_default_seed_by_seed():
    base = [replace(ROW, method="default", seed=seed, accuracy=accuracy) for seed, accuracy in ((0, 0.5), (1, 0.7))]
    other = [replace(ROW, seed=seed, accuracy=accuracy) for seed, accuracy in ((0, 0.52), (1, 0.76), (2, 0.1))]

    table = rows.markdown([*base, *other], {})

    assert "| plain | 46.0 ± 33.4 | +4.0 ± 2.8 |" in table


def test_table_and_csv_have_balanced_accuracies_and_intervals_of_few_test_images():
    known = replace(ROW, balanced_accuracy=0.4, balanced_per_client={"a": 0.4}, test_images={"a": 39})

    table, (line,) = rows.markdown([known], {}), csv.DictReader(StringIO(rows.as_csv([known])))

    assert "| plain | 50.0 | 40.0 | 0 |" in table
    assert "| plain | 50.0 (35\N{EN DASH}65) |" in table
    assert "| plain | 40.0 |\n" in table
    assert (line["balanced_accuracy"], line["balanced accuracy a"]) == ("0.4", "0.4")


def test_csv_has_a_line_a_row_and_a_column_a_client():
    text = rows.as_csv([ROW, replace(ROW, per_client={"b": 0.25})])

    first, second = csv.DictReader(StringIO(text))
    assert (first["accuracy a"], second["accuracy b"], second["accuracy a"]) == ("0.5", "0.25", "")


def test_every_setting_gets_its_four_plots(tmp_path: Path):
    rows.write([ROW, replace(ROW, method="other", num_images=0, server_seconds=3.0, upload_bytes=1)], {}, tmp_path)

    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"skew-{kind}.svg" for kind in ("clients", "images", "seconds", "bytes")}


def test_plot_by_client_shows_balanced_accuracies_where_all_rows_have_them(tmp_path: Path):
    known = replace(ROW, balanced_accuracy=0.4, balanced_per_client={"a": 0.4})

    rows.write([known, replace(known, setting="mixed"), replace(ROW, setting="mixed", method="other")], {}, tmp_path)

    shown = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "plots").iterdir()}
    assert ">balanced accuracy, %; the bar is the mean<" in shown["skew-clients.svg"]
    assert ">accuracy, %; the bar is the mean<" in shown["mixed-clients.svg"]


def test_a_cost_that_all_share_has_no_plot(tmp_path: Path):
    rows.write([ROW, replace(ROW, method="other", num_images=0)], {}, tmp_path)

    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"skew-clients.svg", "skew-images.svg"}


def test_costs_are_written_as_numbers_on_their_axis():
    svg = plots.scatter({"few": (50.0, 60.0), "many": (3000.0, 80.0)}, "synthetic images").decode()

    assert {">50<", ">100<", ">2 k<"} <= set(re.findall(r">[^<>]+<", svg))
