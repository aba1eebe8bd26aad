"""ImageBind: the model and its inputs, made so that official weights give official vectors. In: sizes, media. Out: vectors."""

from encoders.imagebind.model import build, reference_forward

__all__ = ["build", "reference_forward"]
