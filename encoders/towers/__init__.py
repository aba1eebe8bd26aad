"""Encoder architectures, one a file; each registers itself when imported. In: settings. Out: untrained encoders."""
