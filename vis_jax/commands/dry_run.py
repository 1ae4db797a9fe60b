"""`train --dry_run`: prints the resources a config needs, without training."""

from typing import TYPE_CHECKING

from etils import epath

from vis_jax.commands.dry_run_mesh import dry_run_mesh, read_mesh
from vis_jax.commands.numbers import short_number
from vis_jax.commands.train_checks import training_shapes, training_system

if TYPE_CHECKING:
    from data_pipeline.datasets.dataset import Dataset
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.training.dry_run import Estimate

_FRAME_16_9 = (720, 1280)  # height, width in pixels of a typical video


def dry_run(
    config: "RunSettings", *, mesh: str | None = None, seconds: int = 0
) -> None:
    """Prints parameters, FLOPs, memory, epochs and the arrays of a batch.

    Args:
      config: config of the run.
      mesh: mesh to simulate instead of the config's, such as data=64,fsdp=8.
      seconds: see `dry_run_mesh`.

    Raises:
      ValueError: a setting is invalid, or the number of classes depends on a missing
        data set.
    """
    import jax

    from data_pipeline.clip_sampling import local_batch_size
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.evaluate.clips import place_frames
    from vis_jax.training.dry_run import estimate

    dataset = _dataset(config)
    if dataset is not None:
        config = with_classes(config, len(dataset.categories))
    if mesh is not None:
        dry_run_mesh(read_mesh(config, mesh), seconds=seconds)
        return
    system = training_system(config)
    clips, devices = config.data, jax.device_count()
    share = local_batch_size(clips.batch_size, host_index=0, host_count=devices)
    place = place_frames(_FRAME_16_9, config.test, multiple=system.window.multiple)
    batch = training_shapes(config, system, clips=share)
    found = estimate(config, system, batch, canvas=place.canvas)
    _print_model(found, place.canvas)
    _print_memory(found.memory, share, devices)
    _print_steps(config, dataset)
    for name, field in batch._asdict().items():
        if field is not None:
            shape = [clips.batch_size, *field.shape[1:]]
            print(f"batch         {name:<15} {field.dtype!s:<8} {shape}")


def _dataset(config: "RunSettings") -> "Dataset | None":
    """Opens the data set; None if its folder is missing. Moving shapes need none."""
    from data_pipeline.datasets.by_name import make_dataset, make_training_set

    if not epath.Path(config.data.root).is_dir():
        return None
    if config.data.joint.root:
        return make_training_set(config.data)
    return make_dataset(config.data, "train")


def _print_model(found: "Estimate", canvas: tuple[int, int]) -> None:
    total = sum(found.parameters.values())
    print(f"parameters    {_count(total)}; not trained: {_count(found.constants)}")
    width = max(len(f"{number:,}") for number in found.parameters.values())
    for name, number in found.parameters.items():
        print(f"              {_count(number, width)}  {name}")
    count = "unknown" if found.flops is None else short_number(found.flops)
    print(
        f"FLOPs         {count} for a frame on {canvas[0]} x {canvas[1]}, 16:9 at the"
        " test size; a multiply-add\n              is 2, any other operation 1,"
        " gathers are not counted"
    )


def _print_memory(memory: dict[str, int], share: int, devices: int) -> None:
    total = short_number(sum(memory.values()))
    print(
        f"memory        {total}B for {share} clips on each of"
        f" {devices} devices, an estimate: all that\n              autodiff stores; XLA"
        " may recompute some of it, and needs working space"
    )
    for name, size in memory.items():
        print(f"              {short_number(size):>6}B  {name}")


def _print_steps(config: "RunSettings", dataset: "Dataset | None") -> None:
    clips = config.num_steps * config.data.batch_size
    epochs = f"epochs unknown: no folder {config.data.root}"
    if dataset is not None:
        videos = len(dataset.videos)
        of_videos = clips * (1 - config.data.stills.share)
        epochs = f"{of_videos / videos:.1f} epochs of {videos} videos, a clip of each"
    print(
        f"steps         {config.num_steps} of {config.data.batch_size} clips,"
        f" {clips} in all; {epochs}"
    )


def _count(number: int, width: int = 0) -> str:
    """Formats a number in full and abbreviated: 7,370,031 (7.37 M)."""
    return f"{number:>{width},} ({short_number(number).strip()})"
