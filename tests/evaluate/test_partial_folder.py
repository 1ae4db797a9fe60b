from etils import epath

from tests.stand_in_bucket import Bucket
from vis_jax.evaluate import partial_folder as module
from vis_jax.evaluate.partial_folder import PartialFolder, partial_folder
from vis_jax.evaluate.shares import WHOLE, Share, partial_files, partial_name


def test_a_copy_that_fails_is_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_EVERY", -1.0)
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


def test_a_share_is_predicted_without_the_files_of_the_other_shares(
    tmp_path, monkeypatch
):
    """Those of a job with another number of shares are used by all."""
    monkeypatch.setattr(Bucket, "folder", tmp_path, raising=False)
    shares = [Share(1, 3), Share(2, 3), Share(3, 3), Share(1, 2)]
    (tmp_path / "out").mkdir()
    for share in shares:
        (tmp_path / "out" / partial_name(share)).write_text(str(share))
    (tmp_path / "out" / "results.json").touch()
    with partial_folder("bucket://out", Share(2, 3)) as folder:
        assert [*partial_files(folder.path)] == [Share(1, 2), Share(2, 3)]
        folder.fetch()  # to merge
        assert {*partial_files(folder.path)} == {*shares}
        assert (folder.path / partial_name(shares[2])).read_text() == "3/3"
