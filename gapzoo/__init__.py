"""gapzoo: generative assimilation and prediction for weather and climate (arXiv 2503.03038)."""

__version__ = "0.1.0"
