import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fedlmg_server import method_names, results
from fedlmg_server.report import table
from tests.report.tiny import HOSTILE, figures, warm_figures


def test_methods_come_in_the_order_they_are_shown():
    built = results.make_results(**figures())

    assert list(built.methods) == ["local-all", "fedlmg-fine-tuning", "fedavg", "centralised"]


def test_what_was_not_measured_is_none():
    built = results.make_results(**figures())

    assert built.clients[HOSTILE].own_accuracy_all_clients is None


@pytest.mark.parametrize(
    ("section", "key"), [("aggregated", "accuracy"), ("synthesis", "seconds"), ("clients", "upload_bytes")]
)
def test_missing_key_is_named(section: str, key: str):
    bad = figures()
    del (bad["clients"]["mnist"] if section == "clients" else bad[section])[key]

    with pytest.raises(ValueError, match=rf"results.json lacks '{section}\..*{key}'"):
        results.make_results(**bad)


@pytest.mark.parametrize("value", [-0.1, 1.1, 87.3, float("nan"), "0.5", True])
def test_accuracy_outside_zero_to_one_is_named(value: object):
    bad = figures()
    bad["methods"]["local-all"]["per_client"]["mnist"] = value

    with pytest.raises(ValueError, match=r"methods\.local-all\.per_client\.mnist"):
        results.make_results(**bad)


def test_negative_seconds_are_named():
    bad = figures() | {"stages": {"upload": -1.0}}

    with pytest.raises(ValueError, match=r"stages\.upload"):
        results.make_results(**bad)


def test_best_leaves_out_the_upper_bound():
    built = results.make_results(**figures())

    assert built.best_accuracy() == 0.75


@pytest.mark.parametrize("bound", method_names.UPPER_BOUNDS)
def test_upper_bounds_come_last(bound: str):
    many = figures()
    for name in ("personal", "fedlmg-merge", "prompts-only-same-seconds", "no-federation", "general", bound):
        many["methods"][name] = {"accuracy": 0.5, "per_client": {}}

    shown = list(results.make_results(**many).methods)

    before = ["local-all", "general", "no-federation", "prompts-only-same-seconds", "fedlmg-fine-tuning"]
    assert shown[:8] == [*before, "fedlmg-merge", "personal", "fedavg"]
    assert shown[8:] == [name for name in method_names.UPPER_BOUNDS if name in many["methods"]]


def test_results_of_a_version_without_a_warm_start_are_read(tmp_path: Path):
    results.write_results(tmp_path, results.make_results(**figures()))
    old = json.loads((tmp_path / "results.json").read_text())
    del old["general"]
    for client in old["clients"].values():
        for key in [key for key in client if key.startswith(("general", "no_federation", "personal"))]:
            del client[key]
    (tmp_path / "results.json").write_text(json.dumps(old))

    read = results.read_results(tmp_path)

    assert read == results.make_results(**figures())
    assert not read.warm_started


def test_terminal_shows_figures_names_and_path():
    output = io.StringIO()

    table.print_results(results.make_results(**figures()), Path("report/index.html"), Console(file=output, width=160))

    shown = output.getvalue()
    assert all(text in shown for text in ("87.3", "95.2", HOSTILE, "no answer by the <deadline>"))
    assert shown.rstrip().endswith("Report: report/index.html")


@pytest.mark.parametrize(("kept", "told"), [(159, True), (160, False)])
def test_terminal_says_of_whom_few_images_are_learned_from(kept: int, told: bool):
    output, few = io.StringIO(), figures()
    few["clients"]["mnist"]["images"] = {"generated": 320, "read_as_asked": 320, "kept": kept}

    table.print_results(results.make_results(**few), Path("index.html"), Console(file=output, width=200))

    assert (f"mnist: {kept} of 320 are learned from" in output.getvalue()) == told


def test_terminal_gets_no_control_characters_from_clients():
    output, hostile = io.StringIO(), figures() | {"missing": {"late\x1b[2J": "[red]lost\x07"}}

    table.print_results(results.make_results(**hostile), Path("index.html"), Console(file=output, width=160))

    assert "late [2J" in output.getvalue()
    assert "[red]lost " in output.getvalue()


def test_results_are_read_as_they_were_written(tmp_path: Path):
    built = results.make_results(**figures())

    results.write_results(tmp_path, built)

    assert results.read_results(tmp_path) == built
    assert results.read_results(tmp_path).to_json() == built.to_json()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 99}, "'schema' = 99: this version reads schema 1"),
        ({"seed": True}, "'seed' = True: it must be a whole number"),
        ({"clients": []}, r"'clients' = \[\]: it must be an object"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_with_its_key(tmp_path: Path, changes: dict, reason: str):
    content = results.make_results(**figures()).to_json() | changes
    (tmp_path / "results.json").write_text(json.dumps(content))

    with pytest.raises(ValueError, match=f"^results.json has {reason}"):
        results.read_results(tmp_path)


def test_every_client_has_an_outcome():
    late = {"refused": {"broken": "a NaN"}, "unevaluated": {"mnist": "it went away"}}

    made = results.make_results(**figures() | late)

    assert {name: outcome.state for name, outcome in made.outcomes.items()} == {
        "mnist": "not evaluated",
        HOSTILE: "answered",
        "late": "missing",
        "broken": "refused",
    }
    assert made.missing["broken"] == made.outcomes["broken"].reason == "a NaN"


def test_terminal_says_what_became_of_each_client():
    output = io.StringIO()
    figures_of_loss = figures() | {"unevaluated": {"mnist": "it went away"}}

    table.print_results(results.make_results(**figures_of_loss), Path("index.html"), Console(file=output, width=160))

    assert all(text in output.getvalue() for text in ("not evaluated  it went away", "missing        no answer"))


def shown_in_terminal(content: dict, width: int = 100) -> str:
    output = io.StringIO()
    table.print_results(results.make_results(**content), Path("index.html"), Console(file=output, width=width))
    return output.getvalue()


def sure_figures() -> dict:
    sure = warm_figures()
    told = {"num_test_images": 39, "balanced_accuracy": {"own": 0.6123, "aggregated": 0.7345}}
    sure["clients"]["mnist"] |= told | {"own_accuracy": 0.5}
    return sure


def test_terminal_says_how_sure_the_accuracies_are():
    shown = shown_in_terminal(sure_figures()).partition("balanced accuracy")[2].splitlines()
    first = next(number for number, line in enumerate(shown) if line.startswith(" mnist "))

    assert shown[first].split()[:3] == ["mnist", "39", "35\N{EN DASH}65"]
    assert shown[first + 1].split()[0] == "61.2"


def test_intervals_are_written_with_the_results(tmp_path: Path):
    results.write_results(tmp_path, results.make_results(**sure_figures()))

    written = json.loads((tmp_path / results.FILE).read_text())["clients"]
    assert written["mnist"]["accuracy_interval"]["own"] == pytest.approx([0.35, 0.65], abs=0.01)
    assert written[HOSTILE]["accuracy_interval"] == {}
    assert results.read_results(tmp_path) == results.make_results(**sure_figures())


def test_terminal_says_what_the_round_was_worth():
    shown = " ".join(shown_in_terminal(warm_figures(mnist=0.8)).split())

    assert "Without the round the mean client would have 81.2 %, with it 81.7" in shown
    assert f"{HOSTILE}: Without the round you would have 81.2 %, with it 83.4; on everybody's images 71.0" in shown
    assert "mnist: On your own images the round cost you 1.2 points" in shown
    assert "1 of 2 clients gained nothing on their own images." in shown


def test_terminal_of_a_run_without_a_warm_start_says_nothing_of_it():
    shown = shown_in_terminal(figures())

    assert not any(text in shown for text in ("Without the round", "alone", "gain"))


def test_of_many_clients_only_those_that_gained_nothing_have_a_sentence():
    many = warm_figures()
    client = many["clients"]["mnist"]
    many["clients"] = {f"site-{number}": client for number in range(20)} | {"poor": client | {"personal_accuracy": 0.6}}

    shown = shown_in_terminal(many)

    assert "poor: On your own images the round cost you" in shown
    assert "site-3: " not in shown


def test_table_of_clients_fits_a_terminal_of_100_columns():
    wide = warm_figures()
    client = wide["clients"]["mnist"] | {"num_examples": 12_000, "upload_bytes": 12_300_000}
    client |= {key: 1.0 for key in client if "accuracy" in key} | {"no_federation_accuracy": 0.812}
    wide["clients"] = {"optdigits": client | {"architecture": "small_shufflenet_v2"}}

    lines = shown_in_terminal(wide).splitlines()

    row = next(line for line in lines if "optdigits" in line)
    figures_of_client = ["100.0", "100.0", "81.2", "100.0", "100.0", "+18.8", "100.0"]
    assert row.split() == ["optdigits", "small_shufflenet_v2", "12000", "12.3", *figures_of_client]
