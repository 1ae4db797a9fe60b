import itertools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compilations import count_compilations
from tests.training.processes import finish, start
from tests.training.toy_run import Recorder
from tests.training.toy_system import CLIPS, toy_batches, toy_config, toy_system
from vis_jax.structures import Batch, LossAux
from vis_jax.training.best import Best
from vis_jax.training.checkpoint import load_variables
from vis_jax.training.evaluations import Evaluation
from vis_jax.training.loop import train
from vis_jax.training.monitor import NonFiniteLossError
from vis_jax.training.profile import ProfileWindow
from vis_jax.training.run import open_run


def run(
    workdir, *, system=None, batches=toy_batches, evaluate=None, more=(), draw=None,
    window=None, **changes,
):  # fmt: skip
    """The final state and what was recorded."""
    recorder, config = Recorder(), toy_config(**changes)
    own = Evaluation("", config.train.eval_every, evaluate)
    state = train(
        config, system or toy_system(), batches, str(workdir),
        evaluations=[own, *more] if evaluate else more, draw=draw, writer=recorder,
        window=window,
    )  # fmt: skip
    return state, recorder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Six steps: workdir, state, record, and what was compiled."""
    workdir = tmp_path_factory.mktemp("unbroken")
    jax.clear_caches()
    with count_compilations() as names:
        state, recorder = run(workdir)
    return workdir, state, recorder, names


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)
    jax.tree.map(np.testing.assert_array_equal, a.opt_state, b.opt_state)


def test_a_run_compiles_three_functions_each_once(unbroken):
    *_, names = unbroken
    assert len(names) == 3, names  # init, the state around it, the update


def test_more_steps_compile_nothing_more(tmp_path):
    jax.clear_caches()
    with count_compilations() as names:
        run(tmp_path, num_steps=9)
    assert len(names) == 3, names


def test_variables_are_checked_before_the_first_update(tmp_path):
    recorder, seen = Recorder(), []

    def check(variables):
        seen.append(sorted(variables))
        raise ValueError("other weights")

    with pytest.raises(ValueError, match="^other weights$"):
        train(
            toy_config(), toy_system(), toy_batches, str(tmp_path), writer=recorder,
            check=check,
        )  # fmt: skip
    assert seen == [["batch_stats", "constants", "params"]]
    assert not recorder.losses


def test_an_update_waits_for_no_copy_between_host_and_device(tmp_path):
    """State and batch are on the devices before it; it leaves its metrics there."""
    config = toy_config()
    opened = open_run(
        config, toy_system(), toy_batches, workdir=str(tmp_path), writer=Recorder()
    )
    with opened as run:
        state = run.state
        for step in (1, 2, 3):
            host, batch = next(run.batches)
            with jax.transfer_guard("disallow"):
                state, metrics = run.update(state, batch)
                run.monitor.add(step, metrics)
        with jax.transfer_guard("disallow"):
            run.monitor.check()  # copies, but says so
            with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
                run.update(state, Batch(**host))
    assert int(state.step) == 3


def test_optimises_parameters_only(unbroken):
    _, state, recorder, _ = unbroken
    assert sorted(recorder.losses) == [1, 2, 3, 4, 5, 6]
    assert recorder.losses[6] < recorder.losses[1]
    assert sorted(recorder.notes) == [1, 2, 3, 4, 5, 6]
    assert 0 < recorder.notes[1]["dark"] < CLIPS
    assert int(state.step) == 6
    np.testing.assert_allclose(state.variables["constants"]["target_scale"], 0.1)
    assert float(state.variables["batch_stats"]["updates"]) == 6.0


def test_statistics_of_batch_norm_are_kept_with_the_state(unbroken):
    """And saved with it; that a resumed run has the same bits is tested below."""
    workdir, state, *_ = unbroken
    stats = state.variables["batch_stats"]["norm"]
    assert np.any(stats["mean"] != 0)
    assert np.all(stats["var"] != 1)
    saved = load_variables(str(workdir))["batch_stats"]["norm"]
    jax.tree.map(np.testing.assert_array_equal, saved, stats)


def test_writes_the_config_and_the_last_checkpoint(unbroken):
    workdir, state, *_ = unbroken
    assert json.loads((workdir / "config.json").read_text())["num_steps"] == 6
    kernel = load_variables(str(workdir))["params"]["head"]["kernel"]
    np.testing.assert_array_equal(kernel, state.variables["params"]["head"]["kernel"])


def test_a_killed_run_goes_on_to_the_same_bits(unbroken, tmp_path):
    _, expected, recorder, _ = unbroken
    options = {"workdir": str(tmp_path), "signal": signal.SIGKILL, "signal_at": 5}
    finish(start(options), code=-signal.SIGKILL)
    assert not (tmp_path / "checkpoints" / "6").exists()
    state, resumed = run(tmp_path)
    assert min(resumed.losses) > 1  # it did not start again
    assert_same(state, expected)
    for step, loss in resumed.losses.items():
        assert loss == recorder.losses[step]


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)],
)
def test_a_signal_saves_and_exits_with_its_code(unbroken, tmp_path, number, name, code):
    _, expected, _, _ = unbroken
    options = {"workdir": str(tmp_path), "signal": number, "signal_at": 2}
    (report,) = finish(start(options), code=code)
    assert report["messages"][1:] == [
        f"{name}: saved step 3; to go on: python -m vis_jax.main --workdir {tmp_path}"
    ]
    assert list(report["losses"]) == ["1", "2", "3"]
    state, resumed = run(tmp_path)
    assert sorted(resumed.losses) == [4, 5, 6]
    assert_same(state, expected)


def test_a_resumed_run_makes_up_for_the_evaluation_that_a_sigterm_left_out(tmp_path):
    def batches(start):
        for number, batch in enumerate(toy_batches(start), start):
            if number == 1:  # of the second update
                signal.raise_signal(signal.SIGTERM)
            yield batch

    def evaluate(variables, step):
        return {"AP": float(variables["batch_stats"]["updates"])}

    options = {"evaluate": evaluate, "train.eval_every": 2}
    with pytest.raises(SystemExit):
        run(tmp_path, batches=batches, **options)
    _, recorder = run(tmp_path, **options)
    assert recorder.evaluations == {2: {"AP": 2.0}, 4: {"AP": 4.0}, 6: {"AP": 6.0}}


def test_several_processes_save_before_an_evaluation(tmp_path, monkeypatch):
    """A signal does not end them during the evaluation."""
    monkeypatch.setattr("vis_jax.training.evaluations.has_company", lambda: True)
    changes = {"train.eval_every": 2, "train.checkpoint_every": 100, "train.keep": 9}
    run(tmp_path, evaluate=lambda variables, step: {"AP": 1.0}, num_steps=5, **changes)
    saved = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert saved == {"2", "4", "5"}


def test_a_finished_run_evaluates_again_and_trains_no_more(unbroken):
    workdir, expected, *_ = unbroken
    state, recorder = run(workdir, evaluate=lambda variables, step: {"AP": 1.0})
    assert recorder.losses == {}
    assert recorder.evaluations == {6: {"AP": 1.0}}
    assert_same(state, expected)


def test_another_model_in_the_workdir_is_an_error(unbroken):
    workdir, *_ = unbroken
    with pytest.raises(ValueError, match=r"params/head/bias \(expected float32\[5\]"):
        run(workdir, system=toy_system(features=5), num_steps=9)
    assert json.loads((workdir / "config.json").read_text())["num_steps"] == 6


def test_fewer_steps_than_are_done_is_an_error(unbroken):
    workdir, *_ = unbroken
    with pytest.raises(ValueError, match="num_steps: expected at least 6, .* got 4"):
        run(workdir, num_steps=4)


def test_calls_evaluate_and_draw_when_due(tmp_path):
    def evaluate(variables, step):
        return {"AP": float(variables["batch_stats"]["updates"])}

    def draw(variables, batch, step):
        return {"clip": batch["images"][0, 0]}

    _, recorder = run(
        tmp_path, num_steps=5, evaluate=evaluate, draw=draw,
        **{"train.eval_every": 2, "train.image_every": 4},
    )  # fmt: skip
    assert recorder.evaluations == {2: {"AP": 2.0}, 4: {"AP": 4.0}, 5: {"AP": 5.0}}
    expected = next(toy_batches(3))["images"][0, 0]
    np.testing.assert_array_equal(recorder.drawn[4]["clip"], expected)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    def batches(start):
        for number, batch in enumerate(toy_batches(start), start):
            batch["sizes"] = batch["sizes"] * (0 if number == 3 else 1)
            yield batch

    toy = toy_system()

    def loss(variables, batch, rng):
        value, aux = toy.loss(variables, batch, rng)
        bad = jnp.where(batch.sizes.sum() == 0, jnp.nan, 0.0)
        terms = aux.terms | {"shape": bad}
        return value + bad, LossAux(terms, aux.batch_stats, aux.notes)

    with pytest.raises(NonFiniteLossError, match="step 4: loss term 'shape' is nan"):
        run(
            tmp_path, system=toy._replace(loss=loss), batches=batches, num_steps=9,
            **{"train.log_every": 100, "train.checkpoint_every": 3},
        )  # fmt: skip
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_batches_that_end_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected an endless iterator"):
        run(tmp_path, batches=lambda start: itertools.islice(toy_batches(start), 2))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_steps", 0), ("train.log_every", 0), ("train.eval_every", -1)],
)
def test_a_wrong_config_is_an_error_before_anything_is_written(tmp_path, field, value):
    with pytest.raises(ValueError, match=f"{field}: expected int, at least"):
        run(tmp_path, **{field: value})
    assert not list(tmp_path.iterdir())


def test_a_run_begins_with_a_table_of_its_parameters(unbroken):
    *_, recorder, _ = unbroken
    table = [line.split() for line in recorder.messages[0].splitlines()]
    assert table == [
        ["part", "parameters", "rate", "decay"],
        ["head", "12", "0.001", "0.05"],
        ["norm", "6", "0.01", "0"],
        ["all", "18"],
    ]


def test_several_evaluations_each_when_it_is_due(tmp_path):
    def score(name):
        return lambda variables, step: {name: float(step)}

    more = [Evaluation("hard", 3, score("AR")), Evaluation("last", 0, score("x"))]
    _, recorder = run(tmp_path, evaluate=score("AP"), more=more)
    assert recorder.scores == [
        (3, "eval_hard", {"AR": 3.0}),
        (6, "eval", {"AP": 6.0}),
        (6, "eval_hard", {"AR": 6.0}),
        (6, "eval_last", {"x": 6.0}),
    ]


def test_the_best_checkpoint_by_a_metric_is_kept(tmp_path):
    """Also when the run is taken up again; ties go to the earlier one."""
    values = {1: 0.1, 2: 0.5, 3: 0.5, 4: 0.2, 5: 0.3, 6: 0.4, 7: 0.6}
    kept = {}

    def score(variables, step):
        kept[step] = np.asarray(variables["params"]["head"]["kernel"])
        return {"AP": values[step]}

    more = [Evaluation("hard", 1, score)]
    best = {"train.best": "hard/AP", "train.keep": 1}
    _, recorder = run(tmp_path, more=more, num_steps=5, **best)
    assert recorder.messages[1:] == [
        f"step {step}: best hard/AP so far, kept in best/" for step in (1, 2)
    ]
    assert json.loads((tmp_path / "best" / "best.json").read_text()) == {
        "metric": "hard/AP", "value": 0.5, "step": 2
    }  # fmt: skip
    found = load_variables(str(tmp_path / "best"))["params"]["head"]["kernel"]
    np.testing.assert_array_equal(found, kept[2])
    _, recorder = run(tmp_path, more=more, num_steps=7, **best)
    assert recorder.messages[0] == "setting changed  num_steps: 5 -> 7"
    assert recorder.messages[2:] == ["step 7: best hard/AP so far, kept in best/"]
    found = load_variables(str(tmp_path / "best"))["params"]["head"]["kernel"]
    np.testing.assert_array_equal(found, kept[7])


def test_a_best_checkpoint_survives_a_kill_before_its_last_rename(tmp_path):
    (tmp_path / "best.tmp").mkdir()
    Best(str(tmp_path), "AP", {"": ()})  # not whole: the record comes last
    assert not (tmp_path / "best").exists()
    (tmp_path / "best.tmp" / "best.json").write_text('{"metric": "AP", "value": 0.5}')
    best = Best(str(tmp_path), "AP", {"": ()})
    assert (tmp_path / "best" / "best.json").exists()
    assert not best.offer(3, {"AP": 0.5})
    (tmp_path / "best" / "best.json").write_text("{")
    with pytest.raises(ValueError, match=r"best\.json: expected the metric and value"):
        Best(str(tmp_path), "AP", {"": ()})


def test_a_metric_that_no_evaluation_has_is_named(tmp_path):
    def score(variables, step):
        return {"AP": 1.0}

    with pytest.raises(
        ValueError, match=r"train.best: expected one of \['AP'\], got 'AR"
    ):
        run(tmp_path, evaluate=score, **{"train.best": "AR"})
    with pytest.raises(
        ValueError, match=r"train.best: .* evals, \['hard'\], got 'easy/AP'"
    ):
        more = [Evaluation("hard", 0, score)]
        run(tmp_path, evaluate=score, more=more, **{"train.best": "easy/AP"})


def test_a_misspelt_metric_is_named_before_the_first_update(tmp_path):
    def score(variables, step):
        raise AssertionError

    more = [Evaluation("hard", 2, score, ("AP", "IDF1"))]
    expected = r"train.best: expected one of \['hard/AP', 'hard/IDF1'\], got 'hard/AR'"
    with pytest.raises(ValueError, match=expected):
        run(tmp_path, more=more, **{"train.best": "hard/AR"})
    assert not list(tmp_path.iterdir())
    Best(str(tmp_path), "hard/AP", {"hard": ("AP", "IDF1")})


def test_a_window_of_updates_is_profiled(tmp_path):
    run(tmp_path, num_steps=4, window=ProfileWindow(2, 3))
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0
    # It ends with the run, should that be earlier.
    run(tmp_path / "short", num_steps=2, window=ProfileWindow(2, 9))
    assert list((tmp_path / "short" / "profile").rglob("*.xplane.pb"))


def test_toy_batches_divide_into_shares():
    half = next(toy_batches(0, share=slice(CLIPS // 2, None)))
    whole = next(toy_batches(0))
    np.testing.assert_array_equal(half["images"], whole["images"][CLIPS // 2 :])
