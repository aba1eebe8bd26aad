"""Small models of the real architectures with random weights, saved as directories in Hugging Face's layout.

In: a kind and a folder. Out: the folder, as `save_pretrained` of the model, its processor and a tokenizer made here leaves it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

WORDS = "a red train in the snow, two dogs bark; waves of the sea: a photo of an old violin 42 times"
LAYERS = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
CLAP_AUDIO = {
    "spec_size": 128,
    "patch_embeds_hidden_size": 16,
    "hidden_size": 32,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
}
CLAP_SOUND = {"feature_size": 64, "sampling_rate": 48_000, "max_length_s": 1, "hop_length": 480, "fft_window_size": 1024}
DAC = {"downsampling_ratios": [2, 4, 8], "encoder_hidden_size": 8, "hidden_size": 64, "codebook_dim": 8, "hop_length": 64}


def byte_pairs(special: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer trained on a sentence; the special tokens come first: padding, start, end, unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token=special[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing((special[2], 2), (special[1], 1))
    return tokenizer


def unigram(end: str) -> Tokenizer:
    """A sentencepiece-style Unigram tokenizer that closes a text with `end` (id 1) and pads with id 0."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<pad>", end, "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return tokenizer


def save_tokenizer(kind: str, folder: Path, length: int) -> None:
    """The tokenizer of a kind of model, in the folder."""
    if kind in ("siglip", "siglip2"):
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        seen = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
        made = hf.PreTrainedTokenizerFast(
            tokenizer_object=unigram("</s>"), model_max_length=length, model_input_names=seen, **names
        )
    else:
        names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        made = hf.PreTrainedTokenizerFast(tokenizer_object=byte_pairs(list(names.values())), model_max_length=length, **names)
    made.save_pretrained(folder)


def model_of(kind: str, fusion: bool = False) -> Any:
    """A model of the kind with random weights; its numbers are large enough to tell vectors apart."""
    text = {**LAYERS, "vocab_size": 400}
    if kind == "clip":
        text |= {"max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        vision = {**LAYERS, "image_size": 32, "patch_size": 8}
        return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    if kind == "siglip":
        text |= {"max_position_embeddings": 16, "projection_size": 64}
        vision = {**LAYERS, "image_size": 32, "patch_size": 8}
        return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision))
    if kind == "siglip2":
        text |= {"max_position_embeddings": 16, "projection_size": 64}
        vision = {**LAYERS, "patch_size": 8, "num_patches": 16}
        return hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config=vision))
    if kind == "clap":
        text |= {"max_position_embeddings": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        fused = {"enable_fusion": True, "fusion_type": "aff_2d"} if fusion else {}
        audio = {**CLAP_AUDIO, **fused, "num_mel_bins": 64}
        return hf.ClapModel(hf.ClapConfig(text_config=text, audio_config=audio, projection_dim=24))
    return _pe_model(kind)


def save_model(kind: str, folder: Path, fusion: bool = False) -> Path:
    """A whole directory, as a user has it."""
    torch.manual_seed(5)
    model = model_of(kind, fusion).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "logit" in name or "projection" in name or "bias" in name:
                value.add_(torch.randn_like(value) * 0.3)
            elif kind.startswith("pe_") and value.dim() > 1:  # as initialised, what goes in hardly matters
                value.copy_(torch.randn_like(value) * 1.5 / value[0].numel() ** 0.5)
        for name, value in model.named_buffers():
            if "running" in name:
                value.copy_(torch.rand_like(value) * 3 + 1)
    model.save_pretrained(folder)
    save_tokenizer(kind, folder, 16 if kind in ("clip", "siglip", "siglip2") else 64)
    for processor in _processors(kind, fusion):
        processor.save_pretrained(folder)
    return folder


def _processors(kind: str, fusion: bool) -> list[Any]:
    if kind == "clip":
        return [hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})]
    if kind == "siglip":
        return [hf.SiglipImageProcessor(size={"height": 32, "width": 32})]
    if kind == "siglip2":
        return [hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)]
    if kind == "clap":
        return [hf.ClapFeatureExtractor(**CLAP_SOUND, truncation="fusion" if fusion else "rand_trunc")]
    sound = hf.PeAudioFeatureExtractor(sampling_rate=16_000, hop_length=64)
    on = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    frames = hf.PeVideoVideoProcessor(**on, size={"height": 28, "width": 28}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return {"pe_audio": [sound], "pe_video": [frames], "pe_audio_video": [sound, frames]}[kind]


def _pe_model(kind: str) -> Any:
    """PE-AV small enough: a codec of three strides, two layers each, one timm ViT block."""
    text = {**LAYERS, "model_type": "modernbert", "vocab_size": 400, "pad_token_id": 0, "max_position_embeddings": 64}
    shared = {**LAYERS, "head_dim": 16}
    timm = {"architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 64, "do_pooling": True, "global_pool": "map"}
    timm |= {
        "model_args": {"img_size": 28, "patch_size": 14, "embed_dim": 64, "depth": 1, "num_heads": 4, "dynamic_img_size": False}
    }
    audio = {**shared, "dac_config": {"model_type": "dac", **DAC}}
    video = {**shared, "vision_config": {"model_type": "timm_wrapper", **timm}}
    if kind == "pe_audio":
        return hf.PeAudioModel(hf.PeAudioConfig(text_config=text, audio_config=audio))
    if kind == "pe_video":
        return hf.PeVideoModel(hf.PeVideoConfig(text_config=text, video_config=video))
    both = {**shared, "audio_config": audio, "video_config": video}
    return hf.PeAudioVideoModel(hf.PeAudioVideoConfig(text_config=text, audio_video_config=both))
