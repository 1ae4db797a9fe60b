from data_pipeline.datasets.ytvis_tfds import TfdsVideos
from tests.command_line import call, error_of
from tests.commands.folder import cut, write_folder


def test_a_folder_is_packed_once(tmp_path):
    folder, output = write_folder(tmp_path / "shapes"), tmp_path / "packed"
    words = ("data", "build_tfds", "--source", folder, "--output", output)
    image = sorted(folder.rglob("*.jpg"))[5]
    whole = image.read_bytes()
    cut(image)
    message = error_of(*words)
    assert message.startswith(f"{image}, video ")
    assert "expected a whole image" in message
    assert not list(output.iterdir())

    image.write_bytes(whole)
    outcome = call(*words, "--split=train")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[:2] == [
        f"data          {output}, split train",
        "videos        2, 8 frames",
    ]
    assert lines[2].startswith("files         1, 0.1 MiB of frames")
    assert len(TfdsVideos(output, "train").videos) == 2
    assert "expected no files in" in error_of(*words)


def test_flags_that_are_wrong_are_named(tmp_path):
    words = ("data", "build_tfds", "--source", tmp_path)
    assert error_of(*words) == "--output: expected a folder, got none"
    words = (*words, "--output", tmp_path / "packed")
    assert "--shard_mib: expected 1 or more" in error_of(*words, "--shard_mib=0")
    assert "expected split 'train' as one of" in error_of(*words)
    assert "split: expected a word" in error_of(*words, "--split=a-b")
