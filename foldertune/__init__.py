"""Foldertune: a folder of pictures in, a fine-tuned ResNet-50 out that can be trusted, explained, shipped and served."""

__version__ = "0.1.0"
