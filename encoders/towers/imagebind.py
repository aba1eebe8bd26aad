"""ImageBind's encoders, one a modality: preprocess, tower, registration. In: sizes, a profile. Out: encoders.

docs/imagebind.md tells what the two profiles are. Image and video are two views of one tower and share its weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from encoders.encoder import Encoder, Feature, register
from encoders.imagebind.inputs import CHANNELS, CONTEXT, FRAMES, PICTURES, STEPS
from encoders.imagebind.model import HUGE, MODALITIES, complete, official
from encoders.imagebind.preprocess import ImagePixels, LogMel, Profile, TokenIds, VideoViews
from encoders.imagebind.sensors import Brightness, Disparity, Motion
from encoders.imagebind.towers import (
    AudioTower,
    DepthTower,
    ImageTower,
    MotionTower,
    TextTower,
    ThermalTower,
    Tower,
    VideoTower,
)
from encoders.media.audio import decode_audio, describe_audio
from encoders.media.depth import describe_depth
from encoders.media.image import decode_image, describe_image
from encoders.media.imu import describe_imu
from encoders.media.text import decode_text
from encoders.media.thermal import describe_thermal
from encoders.media.video import decode_video, describe_video
from encoders.training.augment import flip_and_shift, roll_time, roll_time_and_pitch

SIDE = 224  # pixels
VIEWS = 15  # of a video: five clips, three crops each
SOUND_CLIPS, SPECTROGRAM = 3, PICTURES["audio"][2]  # mel bins x frames
SMALL = {
    "sizes": {"out_embed_dim": 64}
    | {f"{m}_embed_dim": 48 for m in MODALITIES}
    | {f"{m}_num_blocks": 2 for m in MODALITIES}
    | {f"{m}_num_heads": 4 for m in MODALITIES}
}


def _relevant(modality: str, sizes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of these sizes, those that shape this encoder and differ from the published ones: equal encoders have equal settings."""
    made = complete(sizes or {})
    prefixes = ("out_", f"{official(modality)}_")
    return {name: value for name, value in made.items() if name.startswith(prefixes) and value != HUGE[name]}


def _encoder(
    modality: str, sizes: Mapping[str, Any] | None, features: Mapping[str, Feature], tower: Callable[..., Tower], **parts: Any
) -> Encoder:
    """What the seven have in common; `preprocess` is a dataclass of settings."""
    sizes = _relevant(modality, sizes)
    settings = {"sizes": sizes, **json.loads(json.dumps(asdict(parts["preprocess"])))}  # as they come back from a file
    return Encoder(
        architecture=f"imagebind/{modality}",
        modality=modality,
        dim=complete(sizes)["out_embed_dim"],
        settings=settings,
        features=features,
        build_tower=partial(tower, modality, sizes),
        **parts,
    )


@register("imagebind/image", small=SMALL)
def imagebind_image(sizes: Mapping[str, Any] | None = None, profile: Profile = "bindery") -> Encoder:
    """Images.

    Args:
        sizes: what differs from the published model; see `encoders.imagebind.build`.
        profile: "reference" for the published loader's pixels, "bindery" for ours; see docs/imagebind.md.
    """
    return _encoder(
        "image",
        sizes,
        {"image": Feature("uint8", (3, SIDE, SIDE))},
        ImageTower,
        decode=decode_image,
        preprocess=ImagePixels(profile),
        describe=describe_image,
        augment=flip_and_shift,
    )


@register("imagebind/video", small=SMALL)
def imagebind_video(sizes: Mapping[str, Any] | None = None, profile: Profile = "bindery") -> Encoder:
    """Videos, as the mean of 15 views of two frames; takes the image encoder's weights. Arguments as there."""
    kind = "float32" if profile == "reference" else "uint8"
    return _encoder(
        "video",
        sizes,
        {"frames": Feature(kind, (VIEWS, 3, FRAMES, SIDE, SIDE))},
        VideoTower,
        decode=decode_video,
        preprocess=VideoViews(profile),
        describe=describe_video,
    )


@register("imagebind/audio", small=SMALL)
def imagebind_audio(sizes: Mapping[str, Any] | None = None, profile: Profile = "bindery") -> Encoder:
    """Sounds, as the mean of three clips of 2 s. Arguments as for images."""
    return _encoder(
        "audio",
        sizes,
        {"log_mel": Feature("float32", (SOUND_CLIPS, 1, *SPECTROGRAM))},
        AudioTower,
        decode=decode_audio,
        preprocess=LogMel(profile),
        describe=describe_audio,
        augment=roll_time_and_pitch,
    )


@register("imagebind/text", small=SMALL)
def imagebind_text(sizes: Mapping[str, Any] | None = None, profile: Profile = "bindery") -> Encoder:
    """Texts of up to 75 tokens; `spans` cuts longer ones. Arguments as for images."""
    preprocess = TokenIds(profile)
    return _encoder(
        "text",
        sizes,
        {"token_ids": Feature("int64", (CONTEXT,))},
        TextTower,
        decode=decode_text,
        preprocess=preprocess,
        describe=preprocess.describe,
        spans=preprocess.spans,
    )


@register("imagebind/depth", small=SMALL)
def imagebind_depth(sizes: Mapping[str, Any] | None = None, **settings: Any) -> Encoder:
    """Depth maps, as disparity.

    Args:
        sizes: as for images.
        settings: see `Disparity`; among them `profile`.
    """
    preprocess = Disparity(**settings)
    return _encoder(
        "depth",
        sizes,
        {"disparity": Feature("float32", (1, SIDE, SIDE))},
        partial(DepthTower, scaling=(preprocess.mean, preprocess.std)),
        decode=preprocess.decode,
        preprocess=preprocess,
        describe=describe_depth,
        augment=flip_and_shift,
    )


@register("imagebind/thermal", small=SMALL)
def imagebind_thermal(sizes: Mapping[str, Any] | None = None, **settings: Any) -> Encoder:
    """Thermal frames, as brightness.

    Args:
        sizes: as for images.
        settings: see `Brightness`; among them `profile`.
    """
    preprocess = Brightness(**settings)
    return _encoder(
        "thermal",
        sizes,
        {"thermal": Feature("float32", (1, SIDE, SIDE))},
        partial(ThermalTower, scaling=(preprocess.mean, preprocess.std)),
        decode=preprocess.decode,
        preprocess=preprocess,
        describe=describe_thermal,
        augment=flip_and_shift,
    )


@register("imagebind/imu", small=SMALL)
def imagebind_imu(sizes: Mapping[str, Any] | None = None, **settings: Any) -> Encoder:
    """IMU traces.

    Args:
        sizes: as for images.
        settings: see `Motion`. There are no profiles: nothing was ever published to be compared with.
    """
    preprocess = Motion(**settings)
    return _encoder(
        "imu",
        sizes,
        {"imu": Feature("float32", (CHANNELS, STEPS))},
        MotionTower,
        decode=preprocess.decode,
        preprocess=preprocess,
        describe=describe_imu,
        augment=roll_time,
    )
