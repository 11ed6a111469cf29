"""Functions that all benchmarks share: recorded commands, rounds, Markdown."""

from benchmarks import report


def test_a_recorded_command_has_no_folder_outside_of_the_repository(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    files = [f"{tmp_path}/a.txt", f"news={tmp_path}/a.txt,{tmp_path}/b.txt"]
    own = ["--model", "runs/x", "--output", "benchmarks/results/domain.json", "--seed", "1"]
    recorded = report.command("language_models.domain", ["--data", *files, *own])
    assert recorded == (
        "python -m benchmarks.language_models.domain --data a.txt news=a.txt,b.txt --model runs/x "
        "--output benchmarks/results/domain.json --seed 1"
    )


def test_calls_take_turns_after_the_warm_up():
    turns = []
    calls = {name: lambda number, name=name: turns.append((name, number)) or number for name in "ab"}
    assert report.in_turns(calls, rounds=2, warmup=1) == {"a": [1, 2], "b": [1, 2]}
    assert turns == [(name, number) for number in range(3) for name in "ab"]
    assert report.spread([3.0, 1.0, 2.00004]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_blocks_are_filled_by_name():
    text = "<!-- x: a-b -->\nold\n<!-- /x -->\n<!-- y: a -->\nkept\n<!-- /y -->\n"
    filled = report.fill_blocks(text, "x", lambda name: report.markdown_table(["", name], [["row", "1"]]))
    table = "|  | a-b |\n| --- | ---: |\n| row | 1 |"
    assert filled == text.replace("old\n", f"\n{table}\n\n")
    assert report.fill_blocks(filled, "x", lambda name: table) == filled
