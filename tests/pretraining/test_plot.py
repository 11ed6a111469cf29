"""The plot of a run's log: its content and its legibility."""

import json
import struct
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.pretraining.log import read_log
from elmo_hf.pretraining.plot import BLACK, BLUE, GREEN, GREY, ORANGE, draw, make_figure, running_mean
from tests.helpers.run_logs import evaluation, start, step, whole_run, write


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "log.jsonl"


# ---- what is drawn


def lines_of(panel):
    return {line.get_label(): np.asarray(line.get_xydata(), float) for line in panel.get_lines()}


def test_each_panel_shows_its_numbers():
    log = whole_run(softmax="sampled", name="my-run")
    figure = make_figure(log, name="folder")
    loss, perplexity, speed = figure.axes
    assert figure.get_suptitle() == "my-run: 1,000 steps, 2.56M words"
    assert loss.get_title("left") == "training loss (sampled softmax)"
    steps = [entry for entry in log if entry["kind"] == "step"]
    for panel, name in ((loss, "loss"), (speed, "words_per_second")):
        raw, mean = [line.get_xydata() for line in panel.get_lines()[-2:]]
        np.testing.assert_array_equal(raw, [(entry["step"], entry[name]) for entry in steps])
        assert mean[-1, 1] == pytest.approx(np.mean(raw[-5:, 1]))
    assert f"mean of the last 5 entries: {np.mean([entry['loss'] for entry in steps[-5:]]):.3f}" in lines_of(
        loss
    )
    assert "mean of the last 5 entries: 4,980" in lines_of(speed)
    assert perplexity.get_yscale() == "log"
    evaluations = [entry for entry in log if entry["kind"] == "evaluation"]
    for name, label in (("forward", "44.20"), ("backward", "36.16"), ("mean", "40.18")):
        points = [(entry["step"], entry[name]) for entry in evaluations]
        np.testing.assert_array_equal(lines_of(perplexity)[f"{name} {label}"], points)
    resumed = [line.get_xdata()[0] for panel in figure.axes for line in panel.get_lines()[:1]]
    assert resumed == [500, 500, 500]


def test_the_title_without_a_name_in_the_settings():
    assert (
        make_figure([start(), step(20_000)], "folder").get_suptitle() == "folder: 20,000 steps, 51.2M words"
    )
    assert make_figure([step(4)]).get_suptitle() == "pretraining: 4 steps, 10.2k words"
    assert (
        make_figure([start(softmax="full"), step(4)]).axes[0].get_title("left")
        == "training loss (full softmax)"
    )
    assert make_figure([step(4)]).axes[0].get_title("left") == "training loss"


def test_the_running_mean_by_hand():
    mean = running_mean(np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0, 7.0, 8.0]), 3)
    np.testing.assert_allclose(mean, [1, 2, 3, 3, 5, 5.5, 6.5, 7])  # at first over a quarter of the values
    assert np.isnan(running_mean(np.array([np.nan]), 5)).all()


LOGS = {
    "one step": [start(), step(1)],
    "step 0": [start(), step(0)],
    "no evaluation": [start(name="x"), step(10), step(20)],
    "one evaluation": [start(), step(10), evaluation(10)],
    "close figures": [start(), step(10), evaluation(10, 40.0), step(20), evaluation(20, 39.9)],
    "large figures": [start(), step(10), evaluation(10, 793_471.0), step(20), evaluation(20, 793_470.0)],
    "whole": whole_run(softmax="sampled"),
    "long name": whole_run(name=r"a name of $\frac$ that " + "is long " * 40),
    "no numbers": [
        start(),
        step(10, float("nan")),
        step(20, float("inf")),
        step(30),
        evaluation(10, float("inf")),
    ],
    "all no numbers": [start(), step(10, float("nan"), float("nan")), evaluation(10, float("nan"))],
    "many words": [start(), step(10), step(10**7, speed=123_456.0)],
    "resumes": [start(), step(10)] + [{"kind": "resume", "step": 10 + number} for number in range(30)],
}


@pytest.mark.parametrize("name", LOGS)
def test_nothing_is_cut_off_and_nothing_covers_a_title(name):
    figure = make_figure(LOGS[name], "folder")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for panel in figure.axes:
        title, legend = panel._left_title.get_window_extent(renderer), panel.get_legend()
        if legend:
            box = legend.get_window_extent(renderer)
            assert box.x0 > title.x1
            assert box.height < 40  # one line
        boxes = [label.get_window_extent(renderer) for label in panel.get_yticklabels()]
        drawn = [box for box in boxes if panel.bbox.y0 <= (box.y0 + box.y1) / 2 <= panel.bbox.y1]
        assert all(high - low > 10 for low, high in pairwise(sorted(box.y0 for box in drawn)))
        texts = [figure._suptitle, panel.xaxis.label, panel.yaxis.label, panel._left_title, legend]
        for box in drawn + [text.get_window_extent(renderer) for text in texts if text]:
            assert 0 <= box.x0 <= box.x1 <= 1200
            assert 0 <= box.y0 <= box.y1 <= 900


@pytest.mark.parametrize("name", ["close figures", "large figures", "one evaluation", "whole"])
def test_perplexity_ticks_are_plain_numbers(name):
    figure = make_figure(LOGS[name])
    FigureCanvasAgg(figure).draw()
    panel = figure.axes[1]
    low, high = panel.get_ylim()
    shown = [
        tick.label1.get_text() for tick in panel.yaxis.get_major_ticks() if low <= tick.get_loc() <= high
    ]
    assert len(shown) >= 3
    assert all(float(text.replace(",", "")) for text in shown)


def test_the_picture_has_all_colours(tmp_path):
    path = tmp_path / "log.png"
    draw(iter(whole_run()), path)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 900)
    pixels = imread(path)[:, :, :3]
    for colour in (BLUE, ORANGE, GREEN, BLACK, GREY):
        assert (np.abs(pixels - to_rgb(colour)).max(axis=2) < 0.02).sum() > 20, colour


# ---- mistakes, and the command


def test_mistakes_are_found_before_anything_is_written(tmp_path):
    for output, message in (("log.jpg", "should end in .png"), ("no/log.png", "there is no folder")):
        with pytest.raises(ValueError, match=message):
            draw(whole_run(), tmp_path / output)
    with pytest.raises(ValueError, match="the log has no step and no evaluation yet"):
        draw([start()], tmp_path / "log.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_one_sentence(log_file, monkeypatch):
    write(log_file, whole_run())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = CliRunner().invoke(app, ["plot", str(log_file.parent)])
    assert result.exit_code == 1
    assert result.stderr == (
        "elmo-hf: a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.\n"
    )


def test_the_command(log_file, tmp_path):
    write(log_file, [start(), step(10)])
    result = CliRunner().invoke(app, ["plot", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, f"Wrote {tmp_path}/log.png.\n")
    first = (tmp_path / "log.png").read_bytes()
    other = tmp_path / "other.png"
    result = CliRunner().invoke(app, ["plot", str(log_file), str(other)])
    assert result.exit_code == 0, result.output
    assert other.read_bytes() == first
    result = CliRunner().invoke(app, ["plot", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"elmo-hf: there is no log {tmp_path}/nowhere; name the folder of a pretraining run.\n"
    )


def test_each_held_out_text_has_its_own_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    entry = {"kind": "evaluation", "forward": 90.0, "backward": 110.0, "mean": 100.0}
    lines = [entry | {"step": step, "text": text} for step in (1, 2) for text in ("books.txt", "wiki.txt.xz")]
    step = {"kind": "step", "step": 2, "words": 2, "loss": 1.0, "words_per_second": 5.0}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, step]), encoding="utf-8")
    panel = make_figure(read_log(path)).axes[1]
    assert [line.get_xydata().tolist() for line in panel.lines[::3]] == [[[1.0, 100.0], [2.0, 100.0]]] * 2
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "books, mean 100.00",
        "wiki, mean 100.00",
    ]


def test_texts_of_a_log_are_no_formulas_and_steer_nothing(tmp_path):
    """Of names that matplotlib would read as mathematics; a seventh text is not drawn."""
    texts = ["$\\frac{", "a\u202eb", *"cdefgh"]
    log = [*whole_run(name="$\\x{", softmax="$_{"), *[evaluation(7) | {"text": text} for text in texts]]
    draw(log, tmp_path / "a.png")
    panel = make_figure(log).axes[1]
    labels = [label.get_text() for label in panel.get_legend().get_texts()]
    assert labels[1:3] == ["$\\frac{, mean 50.00", "a\ufffdb, mean 50.00"]
    assert len(labels) == 6


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    draw(whole_run(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(_, path, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        draw(whole_run(), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


# ---- short runs, late evaluations, states


def texts_of(panel):
    return [text.get_text() for text in panel.texts]


def test_evaluations_after_the_last_logged_step_are_inside_the_picture():
    figure = make_figure([start(), step(20), evaluation(20), evaluation(33, 30.0)])
    assert figure.axes[1].get_xlim()[1] > 33
    assert figure.get_suptitle() == "pretraining: 33 steps"
    log = [start(), step(20), evaluation(33), {"kind": "end", "step": 33, "words": 84_480}]
    assert make_figure(log).get_suptitle() == "pretraining: 33 steps, 84.5k words"


def test_a_run_that_is_too_short_to_log_a_step():
    figure = make_figure(
        [start(log_every=20), evaluation(3), evaluation(6), {"kind": "end", "step": 6, "words": 9}]
    )
    loss, perplexity, speed = figure.axes
    assert texts_of(loss) == texts_of(speed) == ["no step is logged before step 20 (--log-every)"]
    assert lines_of(perplexity)["mean 50.00"].tolist() == [[3, 50], [6, 50]]
    assert figure.get_suptitle() == "pretraining: 6 steps, 9 words"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "no evaluation yet"),
        ({"heldout": [], "heldout_every": None}, "the run has no held-out text (--heldout, --heldout-every)"),
        ({"heldout": [], "heldout_every": 100, "evaluate_every": 0}, "no evaluation yet"),
        ({"heldout": ["a"], "evaluate_every": 500}, "no evaluation before step 500 (--evaluate-every)"),
    ],
)
def test_a_panel_without_evaluations_says_why(settings, reason):
    assert texts_of(make_figure([start(**settings), step(20)]).axes[1]) == [reason]


def test_the_states_stand_in_the_title_or_beside_each_number():
    zero, carried = (
        {**evaluation(number), "text": "a.txt", "states": states}
        for number, states in ((1, "zero"), (2, "carried"))
    )
    panel = make_figure([zero]).axes[1]
    assert panel.get_title("left") == "held-out perplexity, zero states"
    panel = make_figure([zero, carried]).axes[1]
    assert panel.get_title("left") == "held-out perplexity"
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert [label for label in labels if "mean" in label] == [
        "zero states, mean 50.00",
        "carried states, mean 50.00",
    ]
    assert make_figure([evaluation(1)]).axes[1].get_title("left") == "held-out perplexity"  # of an old log
