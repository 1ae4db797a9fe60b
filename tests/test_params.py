import pytest

from vis_jax.params import check_matches, flatten, match_rules, unflatten

TREE = {"backbone": {"stem": {"kernel": 1}, "norm": {"scale": 2}}, "bias": 3}


def test_flatten_joins_names_and_unflatten_splits_them():
    flat = flatten(TREE)
    assert flat == {"backbone/stem/kernel": 1, "backbone/norm/scale": 2, "bias": 3}
    assert unflatten(flat) == TREE


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a")])
def test_a_path_that_starts_another_is_an_error(paths):
    with pytest.raises(ValueError, match="a"):
        unflatten(dict.fromkeys(paths, 0))


def test_first_matching_rule_wins():
    rules = ((".*norm.*", 0.0), ("backbone/.*", 0.1), (".*", 1.0))
    assert match_rules(TREE, rules) == {
        "backbone": {"stem": {"kernel": 0.1}, "norm": {"scale": 0.0}},
        "bias": 1.0,
    }


def test_a_rule_matches_whole_paths_and_misses_are_an_error():
    with pytest.raises(ValueError, match=r"2 parameters .*'backbone/norm/scale'"):
        match_rules(TREE, (("bias", 1.0), ("backbone/stem/.*", 1.0), ("norm", 2.0))[:1])


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("backbon/.*", r"did you mean 'backbone/\.\*'\?"),
        ("backbone/norms/scale", "did you mean 'backbone/norm/scale'"),
        ("bia", "did you mean 'bias'"),
        ("backbone", r"did you mean 'backbone/\.\*'"),  # not a whole path
        ("decoder/queries", r"at the top there are \['backbone/\.\*', 'bias'\]"),
    ],
)
def test_a_regex_that_matches_nothing_is_an_error_with_the_nearest_path(pattern, hint):
    check_matches("rates", ("bias", ".*norm.*"), flatten(TREE))
    with pytest.raises(ValueError, match=f"^rates: .* got {pattern!r}, .*; {hint}"):
        check_matches("rates", (".*", pattern), flatten(TREE))
