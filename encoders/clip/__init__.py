"""What CLIP-style encoders share: pixels, tokens and sounds as their libraries prepare them, towers of their modules."""
