"""Lines of JSON that a crash may cut short."""

from pathlib import Path

import pytest

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


def test_a_tail_gives_out_each_line_once_and_waits_for_the_end_of_the_last(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    tail = json_lines.Tail(file)
    assert list(tail.read_new()) == []

    json_lines.append(file, [{"a": 1}, {"b": 2}])
    with open(file, "ab") as lines:
        lines.write(b'{"c": ')
    assert list(tail.read_new()) == [{"a": 1}, {"b": 2}]

    with open(file, "ab") as lines:
        lines.write(b"3}\n")
    assert list(tail.read_new()) == [{"c": 3}]


def test_a_tail_may_skip_what_the_file_holds_already(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    json_lines.append(file, [{"a": 1}])
    tail = json_lines.Tail(file, skips_existing=True)

    json_lines.append(file, [{"b": 2}])

    assert list(tail.read_new()) == [{"b": 2}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_line_that_finds_no_room_names_its_file():
    with pytest.raises(OSError, match="/dev/full"):
        json_lines.append(Path("/dev/full"), [{"a": 1}])
