"""SPEEDY physics on a spectral core, through the optional package ``jcm`` (extra ``speedy``).

Only its data source and its forecaster import this room. Nothing here is imported with gapzoo
itself: JAX starts when a model is built.
"""
