"""Convolutions that apply a 2D kernel to a 1D series; the only place that imports Keras."""
