"""Parameter trees by path, and regex rules that must cover every parameter."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

Tree = Mapping  # nested: name -> Tree or leaf

Rules = Sequence[tuple[str, object]]


def flatten(tree: Tree) -> dict[str, object]:
    """Returns the leaves by path, names joined by '/'; empty branches vanish."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[str(name)] = value
    return flat


def unflatten(flat: Mapping[str, object]) -> dict:
    """Returns the nested dict with these leaves; inverse of `flatten`.

    Raises:
      ValueError: one path is a leaf and also a prefix of another.
    """
    tree: dict = {}
    for path, leaf in flat.items():
        *branches, name = path.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise ValueError(f"path {path!r}: {branch!r} is a leaf of another path")
        if name in node:
            raise ValueError(f"path {path!r} is given twice or starts another path")
        node[name] = leaf
    return tree


def check_regexes(field: str, patterns: Iterable[str]) -> None:
    """Raises ValueError, which begins with `field`, unless all patterns are regexes."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{field}: expected regexes, got {pattern!r}: {error}"
            ) from error


def check_matches(field: str, patterns: Iterable[str], paths: Collection[str]) -> None:
    """Checks that each regex matches at least one whole path.

    Args:
      field: setting that has the regexes, for the error.
      patterns: regexes, such as 'backbone/.*'.
      paths: paths of parameters, names joined by '/'.

    Raises:
      ValueError: a regex matches no path.
    """
    for pattern in patterns:
        if not any(map(re.compile(pattern).fullmatch, paths)):
            raise ValueError(
                f"{field}: expected regexes that match whole paths of parameters, got"
                f" {pattern!r}, which matches none; {_nearest(pattern, paths)}"
            )


def _nearest(pattern: str, paths: Collection[str]) -> str:
    """Returns a hint: the path, or all paths of a module, most similar to a regex."""
    parts = [path.split("/") for path in paths]
    modules = {"/".join(p[:depth]) + "/.*" for p in parts for depth in range(1, len(p))}
    near = difflib.get_close_matches(pattern, sorted({*modules, *paths}), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    first = sorted({"/".join(p[:1]) + "/.*" * (len(p) > 1) for p in parts})
    return f"at the top there are {first}"


def match_rules(tree: Tree, rules: Rules, *, field: str = "rules") -> dict:
    """Returns a tree like `tree` with each leaf's value from its first matching rule.

    Args:
      tree: nested dict of parameters.
      rules: pairs (regex, value); a regex must match a full path, such as
        'backbone/res2_0/conv1/kernel'.
      field: setting that has the rules, for the error.

    Raises:
      ValueError: a parameter matches no rule.
    """
    compiled = [(re.compile(pattern), value) for pattern, value in rules]
    values, missed = {}, []
    for path in flatten(tree):
        for pattern, value in compiled:
            if pattern.fullmatch(path):
                values[path] = value
                break
        else:
            missed.append(path)
    if missed:
        patterns = [pattern for pattern, _ in rules]
        raise ValueError(
            f"{field}: expected a rule for each parameter, but {len(missed)} parameters"
            f" match none, such as {missed[:5]}; got {patterns}"
        )
    return unflatten(values)
