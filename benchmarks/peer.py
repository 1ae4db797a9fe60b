"""The peers of the speed benchmarks, in PyTorch: Mask2Former and VidEoMT of Hugging
Face transformers, and Mask R-CNN of torchvision.

The peer runs in its own process, so that the libraries share neither threads nor
memory, and waits while ours is timed. The process may use another Python environment:
it needs torch, and transformers and scipy or torchvision, but nothing of this project.
Weights are random; both models have the same sizes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, cast


class Timing(NamedTuple):
    """Medians over the rounds."""

    ours: float  # seconds
    peer: float  # seconds
    ratio: float  # peer / ours within a round: above 1 if ours is faster
    least: float  # smallest ratio of a round
    most: float


class Peer:
    """Peer process that times one call per request."""

    def __init__(self, python: str, settings: dict) -> None:
        """Starts the process; `settings` are those of `make_call`.

        Raises:
          SystemExit: the process did not start; its message is on stderr.
        """
        command = [python, str(Path(__file__).resolve()), json.dumps(settings)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stdin = cast(IO[str], self._process.stdin)
        self._stdout = cast(IO[str], self._process.stdout)
        self.versions = self._answer()["versions"]

    def time(self) -> float:
        """Returns the seconds of one call."""
        self._stdin.write("go\n")
        self._stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        """Ends the process."""
        self._stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._stdout.readline()
        if not line:
            raise SystemExit(
                "peer: ended early; --peer_python must name a Python that has torch,"
                " transformers and scipy, or torchvision; pip install -e '.[peer]'"
            )
        return json.loads(line)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that all comparisons with the peer share."""
    parser.add_argument("--size", type=int, nargs=2, default=(384, 640))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--peer_python", default=sys.executable)
    parser.add_argument("--compile", action="store_true", help="torch.compile the peer")


def compare(
    call: Callable[[], object], args: argparse.Namespace, **settings: Any
) -> Timing:
    """Times `call` and the peer in turns.

    Args:
      call: one call of ours, compiled; it must block until its result is ready.
      args: from `add_arguments`.
      **settings: further settings of `make_call`.
    """
    common = dict(size=args.size, dtype=args.dtype, compile=args.compile)
    common["threads"] = len(os.sched_getaffinity(0))
    peer = Peer(args.peer_python, common | settings)
    call()
    pairs = [(seconds(call), peer.time()) for _ in range(args.rounds)]
    peer.close()
    print(f"# peer: {peer.versions}", file=sys.stderr)
    ours, theirs = zip(*pairs, strict=True)
    ratios = [b / a for a, b in pairs]
    middle = statistics.median
    return Timing(
        middle(ours), middle(theirs), middle(ratios), min(ratios), max(ratios)
    )


def seconds(call: Callable[[], object]) -> float:
    """Returns the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_machine(device: str) -> None:
    """Prints the platform, the number of cores and the device."""
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.platform()}, {cores} cores, device {device}")


def make_call(settings: dict) -> Callable[[], None]:
    """Returns a call: a forward pass, a training step, or a deformable attention.

    Args:
      settings: what (forward, train or deform_attn), network (mask2former, and forward
        only mask_rcnn and videomt), backbone (r50 or swint; vits, vitb or vitl of
        videomt), queries, detections (of an image, mask_rcnn only), size (height and
        width in pixels), batch (images), videos (that these are frames of, videomt
        only), instances (of an image, when training), dtype, threads, compile.
    """
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings["what"] == "deform_attn":
        return _deform_attn(settings, device)
    if settings["network"] == "mask_rcnn":
        return _mask_rcnn(settings, device)
    if settings["network"] == "videomt":
        return _videomt(settings, device)
    return _network(settings, device)


def _mask_rcnn(settings: dict, device: str) -> Callable[[], None]:
    """Returns Mask R-CNN with 200 proposals, as MaskTrack R-CNN."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=41,
        min_size=min(settings["size"]), max_size=max(settings["size"]),
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=200,
        # Scores of random weights are low: keep the maximum number of detections.
        box_score_thresh=0.0, box_detections_per_img=settings["detections"],
    ).to(device).eval()  # fmt: skip
    images = list(torch.rand(settings["batch"], 3, *settings["size"], device=device))
    return _forward(model, images, settings, device)


def _videomt(settings: dict, device: str) -> Callable[[], None]:
    """Returns VidEoMT with the published sizes of a plain ViT with DINOv2's form."""
    import torch
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    if settings["size"][0] != settings["size"][1]:
        raise SystemExit("--size: VidEoMT of transformers takes square images only")
    dim, depth, heads, blocks = _VITS[settings["backbone"]]
    config = VideomtConfig(
        hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads,
        num_blocks=blocks, num_labels=40, image_size=settings["size"][0],
    )  # fmt: skip
    model = VideomtForUniversalSegmentation(config).to(device).eval()
    frames = settings["batch"] // settings["videos"]
    clip = (settings["videos"], frames, 3, *settings["size"])
    return _forward(model, torch.rand(clip, device=device), settings, device)


# Channels, blocks, attention heads, and the last blocks, which queries enter.
_VITS = {"vits": (384, 12, 6, 3), "vitb": (768, 12, 12, 3), "vitl": (1024, 24, 16, 4)}


def _forward(
    model: Any, images: Any, settings: dict, device: str
) -> Callable[[], None]:
    """Returns a forward pass over the images."""
    import torch

    dtype = getattr(torch, settings["dtype"])
    cast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    run = torch.compile(model) if settings["compile"] else model

    def forward() -> None:
        with torch.no_grad(), cast:
            run(images)

    return forward


def _network(settings: dict, device: str) -> Callable[[], None]:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    config = _config(settings["backbone"], settings["queries"])
    model = Mask2FormerForUniversalSegmentation(config).to(device)
    images = torch.rand(settings["batch"], 3, *settings["size"], device=device)
    dtype = getattr(torch, settings["dtype"])
    cast = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    run = torch.compile(model) if settings["compile"] else model

    def forward() -> None:
        with torch.no_grad(), cast:
            run(pixel_values=images)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def train() -> None:
        masks, labels = _truth(settings, device)
        optimizer.zero_grad()
        with cast:
            out = run(pixel_values=images, mask_labels=masks, class_labels=labels)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    is_train = settings["what"] == "train"
    model.train(is_train)
    return train if is_train else forward


def _config(backbone: str, queries: int) -> Any:
    """Returns the published Mask2Former config, with backbones of our shapes."""
    from transformers import Mask2FormerConfig, ResNetConfig, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    if backbone == "r50":
        body = ResNetConfig(out_features=stages)
    else:
        body = SwinConfig(
            embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7,
            drop_path_rate=0.3, out_features=stages,
        )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=body, num_labels=40, num_queries=queries, train_num_points=12544
    )


def _truth(settings: dict, device: str) -> tuple[list, list]:
    """Returns the same overlapping rectangles for each image."""
    import torch

    height, width = settings["size"]
    count = settings["instances"]
    masks = torch.zeros(count, height, width, device=device)
    for i in range(count):
        masks[i, height // 4 : height // 2, i * width // count :] = 1.0
    labels = torch.arange(count, device=device)
    return [masks] * settings["batch"], [labels] * settings["batch"]


def _deform_attn(settings: dict, device: str) -> Callable[[], None]:
    import torch
    from transformers.models.mask2former import modeling_mask2former as peer

    height, width = settings["size"]
    shapes = [(height // s, width // s) for s in (32, 16, 8)]
    tokens = sum(h * w for h, w in shapes)
    back = settings["backward"]
    values = torch.randn(1, tokens, 8, 32, device=device, requires_grad=back)
    locations = torch.rand(1, tokens, 8, 3, 4, 2, device=device, requires_grad=back)
    weights = torch.rand(1, tokens, 8, 3, 4, device=device, requires_grad=back)

    def call() -> None:
        out = peer.multi_scale_deformable_attention(values, shapes, locations, weights)
        if back:
            torch.autograd.grad(out.sum(), (values, locations, weights))

    return call


def serve(settings: dict) -> None:
    """Times one call per line on stdin, after two warm-up calls."""
    import torch

    call = make_call(settings)

    def whole() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    whole()
    whole()
    loaded = [
        sys.modules.get(name) for name in ("torch", "torchvision", "transformers")
    ]
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in loaded if m)
    print(json.dumps({"versions": versions}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": seconds(whole)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", help="JSON; see make_call")
    serve(json.loads(parser.parse_args().settings))
