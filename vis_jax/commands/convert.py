"""Converts published weights to a checkpoint.

Training starts from the checkpoint with --config.init_from, and evaluate reads it with
--checkpoint. With --categories the output is a workdir for evaluate and predict. No
code in the file is executed. Parameters missing from the file are initialised at
random, or from the checkpoint --config.init_from.

examples:
  python -m vis_jax.main convert --config configs/ifr_r50.py --kind mask2former \\
      --source model_final_3c8ec9.pkl --output weights/coco_r50
  python -m vis_jax.main convert --config configs/mask2former_vis_r50.py \\
      --kind mask2former --source model_final_34112b.pkl --output weights/vis_r50 \\
      --categories ytvis2019/train.json
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath

from vis_jax.commands import parts
from vis_jax.commands.config_flag import define_config, read_config

if TYPE_CHECKING:
    from vis_jax.commands.run_settings import RunSettings
    from vis_jax.converters.files import WeightsSource
    from vis_jax.systems.system import System

RECORD = "conversion.json"


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    define_config(values, arguments)
    texts = {
        "source": "weights: a .pkl, .pth, .pt, .ckpt, .bin or .safetensors file, the"
        " .index.json of shards, or a Hugging Face folder",
        "output": "folder for the checkpoint; must not exist",
        "kind": "source of the names in the file: mask2former (also the video models),"
        " huggingface, mask_track_rcnn (also Mask R-CNN of mmdetection 1.x),"
        " mask_rcnn_detectron2, mask_rcnn_torchvision, yolact, condinst, iai, rgnn_vis,"
        " htc, eomt, videomt, videomt_huggingface (also EoMT), pmt (also LVMT), or, for"
        " the backbone alone, resnet, swin or dino (DINOv2, DINOv3); osmn, or vgg16 for"
        " its trunks alone",
        "categories": "annotation file with the classes of the weights, which makes the"
        " output a workdir; default: the classes of the config.json beside the weights",
        "style": "torch or caffe: training convention of the backbone, if the file does"
        " not tell",
        "key": "entry of the file to read, such as model_ema; default: the usual one",
        "base": "Meta's DINOv3 weights to which an EoMT file stores differences, with"
        " any names that --kind dino knows",
        "prefix": "read only names with this prefix, such as ema_model., and strip it",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_bool(
        "warm_start",
        False,
        "initialise IFR's decoder from the similar Mask2Former layers; the paper"
        " initialises it at random",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "resize_windows",
        False,
        "allow a Swin window size in the config that differs from the file's, to start"
        " training",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> None:
    """Runs the conversion."""
    output = _check(values)
    from vis_jax.commands.run_settings import with_classes
    from vis_jax.converters.files import read_source
    from vis_jax.converters.load import convert_source
    from vis_jax.converters.report import format_report, record_of

    config = read_config(values)
    source = read_source(
        values.source, key=values.key or "", prefix=values.prefix or ""
    )
    base = read_source(values.base) if values.base else None
    given = parts.annotated_categories(values.categories) if values.categories else ()
    try:
        categories = given or _labels(values, source, config)
        if categories:
            config = with_classes(config, len(categories))
        notes = _check_unseen(values, source, config)
        system = parts.build_system(config)
        variables, report = convert_source(
            source,
            parts.shapes_of(system),
            values.kind,
            warm_start=values.warm_start,
            base=base,
        )
    except ValueError as error:
        raise ValueError(f"{values.source}: {error}") from error
    report = report._replace(notes=(*notes, *report.notes))
    variables = _with_initial(system, variables, report.new, config)
    record = record_of(
        report, source.files, values.kind, base=base.files if base else ()
    )
    _write(output, variables, record=record, categories=categories, config=config)
    print(f"{format_report(report)}\ncheckpoint    {output}")


def _check(values: flags.FlagValues) -> epath.Path:
    """Returns the output folder; raises ValueError if a required flag is missing."""
    from vis_jax.converters.load import KINDS
    from vis_jax.converters.style import STYLES

    if values.config is None:
        raise ValueError(
            "--config: expected a file such as configs/ifr_r50.py, got none"
        )
    for name in ("source", "output", "kind"):
        if not getattr(values, name):
            raise ValueError(f"--{name}: expected a value, got none")
    if values.kind not in KINDS:
        raise ValueError(f"--kind: expected one of {[*KINDS]}, got {values.kind!r}")
    if values.style not in (None, *STYLES):
        raise ValueError(f"--style: expected one of {STYLES}, got {values.style!r}")
    output = epath.Path(values.output)
    if output.exists():
        raise ValueError(f"--output: expected a new folder, got {output}, which exists")
    return output


def _check_unseen(
    values: flags.FlagValues, source: "WeightsSource", config: "RunSettings"
) -> tuple[str, ...]:
    """Checks properties not visible in shapes; returns lines for the report.

    Raises:
      ValueError: the config describes another model than the file.
    """
    from vis_jax.converters.sizes import check_config, check_window, unseen
    from vis_jax.converters.style import check_style

    fields = fields_of_model(config)
    style = check_style(source, values.kind, fields, values.style)
    check_window(source.tensors, fields, resize=values.resize_windows)
    if values.kind not in ("mask2former", "huggingface"):
        return style
    if source.config is None:
        return (*style, *unseen(fields))
    if values.resize_windows:
        fields.pop("model.backbone.window", None)
    clip = fields.get("model.mask_decoder.kind") == "m2f_vis"
    decoder = clip or values.warm_start
    return (*style, *check_config(source.config, fields, decoder=decoder))


def fields_of_model(config: "RunSettings") -> dict[str, Any]:
    """Returns the model fields by path, with None replaced by actual sizes."""
    from vis_jax.backbones import swin
    from vis_jax.settings import to_dict

    model = to_dict(config.model)
    backbone = getattr(config.model, "backbone", None)
    if isinstance(backbone, swin.Settings):
        model["backbone"] |= swin.sizes_of(backbone)._asdict()
    for part in ("pixel_decoder", "mask_decoder"):
        if part in model and model[part].get("mask_dim") is None:
            model[part]["mask_dim"] = model[part]["dim"]
    return {
        f"model.{part}.{name}": value
        for part, fields in model.items()
        if isinstance(fields, dict)
        for name, value in fields.items()
    }


def _labels(
    values: flags.FlagValues, source: "WeightsSource", config: "RunSettings"
) -> tuple:
    """Reads the classes from the config.json beside the weights, with ids 1, 2, ..

    They are used only for a model with the same number of classes.
    """
    from data_pipeline.datasets.dataset import Category
    from vis_jax.converters.sizes import labels_of

    names = labels_of(source.config or {}) if values.kind == "huggingface" else ()
    if config.model.num_classes not in (0, len(names)):
        return ()
    return tuple(Category(label, name) for label, name in enumerate(names, start=1))


def _with_initial(
    system: "System",
    variables: dict,
    new: tuple[str, ...],
    config: "RunSettings",
) -> dict:
    """Initialises variables missing from the file as a run of this config would."""
    import jax
    import jax.numpy as jnp

    from vis_jax.params import flatten, unflatten
    from vis_jax.training.dry_run import batch_shapes
    from vis_jax.training.initial import load_initial

    def initial(key):
        shapes = batch_shapes(B=1, T=1, M=1, H=64, W=64)
        batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        flat = flatten(system.init(key, batch))
        # XLA eliminates the other variables, which only need the right shape here.
        return {
            path: x if path in new else jnp.zeros_like(x) for path, x in flat.items()
        }

    converted = flatten(variables)
    if new:
        key = jax.random.key(config.seed)
        begin = unflatten(jax.jit(initial)(key))
        if config.init_from:
            begin = load_initial(config.init_from, begin, fresh=config.init_fresh)
        values = jax.device_get(flatten(begin))
        converted |= {path: values[path] for path in new}
    return {name: {} for name in variables} | unflatten(converted)


def _write(
    output: epath.Path,
    variables: dict,
    *,
    record: str,
    categories: tuple,
    config: "RunSettings",
) -> None:
    """Writes the folder atomically."""
    from vis_jax.training.checkpoint import save_variables
    from vis_jax.training.run_config import write_config

    temporary = output.with_name(f"{output.name}.tmp")
    if temporary.exists():  # left by an interrupted conversion
        temporary.rmtree()
    try:
        save_variables(str(temporary), variables)
        (temporary / RECORD).write_text(record)
        if categories:
            parts.write_categories(temporary, categories)
            # In case a training run starts in this folder.
            config = dataclasses.replace(config, init_from=str(output), init_fresh=())
            write_config(config, str(temporary))
        temporary.rename(output)
    finally:
        if temporary.exists():
            temporary.rmtree()
