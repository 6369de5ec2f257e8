"""Convolutions that apply a 2D kernel to a 1D series; the only place that imports Keras."""

import os

# TensorFlow reads this once, when it is first imported: it then keeps its start-up notes to itself, and still
# says its errors. A value that the user has set stands.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
