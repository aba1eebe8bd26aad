"""ImageBind, made so that official weights give official vectors. In: sizes, media. Out: the model, its inputs."""

from encoders.imagebind.model import build, reference_forward
from encoders.imagebind.preprocess import reference_input

__all__ = ["build", "reference_forward", "reference_input"]
