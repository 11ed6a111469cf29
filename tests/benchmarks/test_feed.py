"""The benchmark of the feed runs at a small size."""

import json

from benchmarks import feed, growth
from benchmarks.report import fill_blocks


def test_feed(tmp_path, capsys, monkeypatch):
    class Pool:  # in this process, which has torch already
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def apply(self, function, arguments):
            return function(*arguments)

    monkeypatch.setattr(
        feed.multiprocessing, "get_context", lambda _: type("Context", (), {"Pool": lambda self, _: Pool()})()
    )
    output = tmp_path / "feed.json"
    options = [
        "--readers",
        "1",
        "3",
        "--rows",
        "6",
        "--words",
        "2000",
        "--sentences",
        "500",
        "--shuffle",
        "50",
    ]
    feed.main([*options, "--output", str(output)])
    content = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == content
    assert content["sentences"] == 500
    assert list(content["kinds"]) == list(feed.KINDS)
    for kind in content["kinds"].values():
        one, three = kind["readers"]["1"], kind["readers"]["3"]
        assert one["words"] == 2000 // 120 * 120
        assert three["words"] == 2000 // 40 * 40
        assert one["times_one_reader"] == 1.0
        assert three["words_per_second_of_all"] == 3 * three["words_per_second"]
    paragraphs = content["kinds"]["paragraphs"]["readers"]
    of_all = {int(number): run["words_per_second_of_all"] for number, run in paragraphs.items()}
    assert growth.measured_feed(output) == of_all


def test_the_table_of_the_page_is_that_of_the_json():
    content = json.loads((feed.RESULTS / "feed.json").read_text(encoding="utf-8"))
    text = feed.PAGE.read_text(encoding="utf-8")
    assert fill_blocks(text, "feed", lambda _: feed.table(content)) == text
    assert f"{content['kinds']['words']['readers']['64']['words_per_second_of_all']:,} (" in text
