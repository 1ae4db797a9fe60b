"""Names in a model card are plain text, wherever they come from."""

import pytest

from vis_jax.export.card import Facts, _cell, card_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("a|b", r"a\|b"),
        ("<img>", r"\<img>"),
        ("[x](y)", r"\[x](y)"),
        (r"a_b*`\ ".strip(), r"a\_b\*\`\\"),
        ("two\n\n# lines \t here ", "two # lines here"),
    ],
)
def test_a_cell_is_one_line_of_text(text, expected):
    assert _cell(text) == expected


def test_a_card_without_scores_says_so():
    facts = Facts("ifr", [], 1, ["a\n# b"], "shapes", [], None, {})
    card = card_of(facts, licence="unknown", usage="..")
    assert "No scores of this checkpoint were recorded during training." in card
    assert "Classes: a # b." in card and "| updates | unknown |" in card
