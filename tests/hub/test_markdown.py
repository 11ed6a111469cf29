"""Values as Markdown: numbers, tables, and texts that cannot end what they stand in."""

import pytest

from elmo_hf.hub.markdown import blocks, code, escape, fenced, inline, link, number, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (7, "7"),
            (1234567, "1,234,567"),
            (0.0, "0.0000"),
            (0.5, "0.5000"),
            (1.0, "1.000"),
            (12.375, "12.38"),
        ],
        *[(999.96, "1000.0"), (1234.6, "1,235"), (-3.25, "-3.250"), (0.00012, "0.00012")],
        *[(1e16, "1e+16"), (10**20, "1e+20")],
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_a_table():
    rows = [{"shape": "a", "words_per_second": 3}, {"shape": "b", "words_per_second": 4, "unknown": 0.5}]
    assert table(rows).splitlines() == [
        "| shape | words/s | unknown |",
        "| --- | ---: | ---: |",
        "| a | 3 | – |",
        "| b | 4 | 50.00% |",
    ]
    assert table([{"a": True, "b": [1, None, "x"]}], ["b", "a"]).endswith("\n| 1 / – / x | yes |")


def test_a_table_cannot_be_broken_by_its_words():
    assert "| a \\| b c | 3 |" in table([{"name": "a | b\nc", "x": 3}])
    assert table([{"a|b\n<i>": 1}]).startswith("| a\\|b &lt;i> |\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with 3 > 2 & more", "plain, with 3 > 2 & more"),
        ("a\n---\n# b", "a --- # b"),
        ("a `b` <b> [c](d)", "a \\`b\\` &lt;b> \\[c\\](d)"),
        ("a\\|b", "a\\\\\\|b"),
        ("a\x00b\ud83d", "a\ufffdb\ufffd"),
        ("a\u202eb\u2066c\x1b[2J\U000e0041", "a\ufffdb\ufffdc\ufffd\\[2J\ufffd"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
    ],
)
def test_plain_text(text, expected):
    assert escape(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[("\n# x\n", "\\# x"), ("\r###### x", "\\###### x"), ("\u2028#", "\\#"), ("\x85 # #", "\\# #")],
        *[("> x", "\\> x"), (">x", "\\>x"), ("- x", "\\- x"), ("+\tx", "\\+ x"), ("*", "\\*")],
        *[("1. x", "1\\. x"), ("27)", "27\\)"), ("~~~ x", "\\~~~ x"), ("```\n# x", "\\`\\`\\` # x")],
        *[("---", "\\---"), ("_ __", "\\_ __"), ("***", "\\***"), ("==", "\\=="), ("--", "\\--")],
        *[
            (text, text)
            for text in ("#1 of 2", "-5", "1.5 x", "a - b", "*x* y", "~ 5", "a # b", "= x", "1st.")
        ],
    ],
)
def test_plain_text_begins_no_block(text, expected):
    assert escape(text) == expected


def test_a_dash_for_a_missing_number_keeps_a_column_of_numbers():
    rule = table([{"name": "a", "x": 1}, {"name": "b", "x": "-"}]).splitlines()[1]
    assert rule == "| --- | ---: |"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see `<UNK>` and <b>\n\n# x", "see `<UNK>` and &lt;b> # x"),
        ("``a ` <b>`` <b>", "``a ` <b>`` &lt;b>"),
        ("an open ` and <b>", "an open \\` and &lt;b>"),
        ("an escaped \\` and <b> ` <b>", "an escaped \\` and &lt;b> \\` &lt;b>"),
        ("[x](javascript:alert(1))", "[x\\](javascript:alert(1))"),
        ("[x]( JavaScript:alert(1))", "[x\\]( JavaScript:alert(1))"),
        ("![x](data:image/svg+xml,a)", "![x\\](data:image/svg+xml,a)"),
        ("[x](<javascript:alert(1)>)", "[x\\](&lt;javascript:alert(1)>)"),
        ("[x](java&#115;cript:a)", "[x\\](java&#115;cript:a)"),
        ("<javascript:alert(1)> [x]: javascript:a", "&lt;javascript:alert(1)> [x\\]: javascript:a"),
        ("[x](results/a.png) [y](#z) `[a](b:c)`", "[x](results/a.png) [y](#z) `[a](b:c)`"),
        (
            "<https://example.org/a> [x](https://example.org)",
            "<https://example.org/a> [x](https://example.org)",
        ),
    ],
)
def test_one_line_of_markdown(text, expected):
    assert inline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <b>\n\n- `<c>`\n", "a &lt;b>\n\n- `<c>`"),
        ("```xml\n<b>\n```\n<b>", "```xml\n<b>\n```\n&lt;b>"),
        ("````\n```\n<b>\n ````\n<b>", "````\n```\n<b>\n ````\n&lt;b>"),
        ("```\nnever closed", "```\nnever closed\n```"),
        ("- x\n  ```\n<b>", "- x\n  \\`\\`\\`\n&lt;b>"),  # the list ends, and its code with it
        ("an open `\n<b> ` <b>", "an open \\`\n&lt;b> \\` &lt;b>"),
        ("a\n---\nb\n```\n---\n```", "a\n\\---\nb\n```\n---\n```"),
        ("~~~\n<b>\n~~~~\n<b>", "~~~\n<b>\n~~~~\n&lt;b>"),
        ("a\n ~~~\n<b>\n   ~~~~ x", "a\n \\~~~\n&lt;b>\n   \\~~~~ x"),  # nothing would end this code
        ("a\n--- \nb\n ----", "a\n\\---\nb\n \\----"),
        ("a\r\nb\rc", "a\nb\ufffdc"),
    ],
)
def test_lines_of_markdown(text, expected):
    assert blocks(text) == expected


def test_code():
    assert fenced("shell", "a\n```\n<b>") == "````shell\na\n```\n<b>\n````"
    assert fenced("shell", "") == ""
    assert code("a\nb") == "`a b`"
    assert code(" \n") == "`–`"  # two backticks would begin other code
    assert code("a`b``c") == "``` a`b``c ```"


def test_links():
    assert link("https://example.org/a_(b)") == "https://example.org/a_%28b%29"
    for url in (
        "javascript:alert(1)",
        "https://a b",
        "https://a>b",
        "",
        "ftp://a",
        "https://a\u202eb",
        "https://a\x00",
    ):
        with pytest.raises(ValueError, match="must be an address"):
            link(url)
