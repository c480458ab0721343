"""Lines of JSON that a crash may cut short."""

from pathlib import Path

from common.storage import json_lines


def test_what_was_written_is_read(tmp_path: Path):
    json_lines.append(tmp_path / "a.jsonl", [{"a": 1}, {"b": "\u00e9"}])
    json_lines.append(tmp_path / "a.jsonl", [{"c": 3}], is_durable=True)

    assert list(json_lines.read(tmp_path / "a.jsonl")) == [{"a": 1}, {"b": "\u00e9"}, {"c": 3}]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3


def test_a_line_cut_short_costs_no_other(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    json_lines.append(file, [{"a": 1}])
    with open(file, "ab") as lines:
        lines.write(b'{"time": 1795690715.06,')

    json_lines.append(file, [{"b": 2}])

    assert list(json_lines.read(file)) == [{"a": 1}, {"b": 2}]
