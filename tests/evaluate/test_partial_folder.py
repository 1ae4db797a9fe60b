from etils import epath

from vis_jax.evaluate import partial_folder
from vis_jax.evaluate.partial_folder import PartialFolder
from vis_jax.evaluate.shares import WHOLE, partial_name


def test_a_copy_that_fails_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(partial_folder, "_EVERY", -1.0)
    (tmp_path / partial_name(WHOLE)).write_text("partial")
    output = tmp_path / "output"
    output.write_text("no folder")
    folder, told = PartialFolder(epath.Path(output), tmp_path, remote=True), []
    tell = folder.keeping(WHOLE, told.append)
    tell(1)
    assert "output: results up to here are not there yet: " in capsys.readouterr().err
    output.unlink()
    tell(2)
    assert (output / partial_name(WHOLE)).read_text() == "partial"
    assert told == [1, 2]
    assert not capsys.readouterr().err
