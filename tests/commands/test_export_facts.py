"""Scores in a model card are those of the very checkpoint."""

import json

import pytest
from etils import epath

from vis_jax.commands.export_facts import _step


@pytest.fixture
def run(tmp_path):
    for name in ("run", "other"):
        for step in (2, 4):
            (tmp_path / name / "checkpoints" / str(step) / "variables").mkdir(
                parents=True
            )
    best = tmp_path / "run" / "best"
    (best / "variables").mkdir(parents=True)
    (best / "best.json").write_text(json.dumps({"step": 2}))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("checkpoint", "step", "own"),
    [
        (".", 4, True),
        ("checkpoints", 4, True),
        ("checkpoints/2", 2, True),
        ("../run/checkpoints/2", 2, True),
        ("best", 2, True),
        ("../other", 4, False),
        ("../other/checkpoints/2", 2, False),
    ],
)
def test_scores_are_of_the_run_itself(run, checkpoint, step, own):
    assert _step(epath.Path(run), epath.Path(run / checkpoint)) == (step, own)


@pytest.mark.parametrize("content", [None, "[]", '{"step": "2"}'])
def test_a_best_checkpoint_may_not_say_its_step(run, content):
    record = run / "best" / "best.json"
    record.unlink()
    if content:
        record.write_text(content)
    assert _step(epath.Path(run), epath.Path(run / "best")) == (None, True)
