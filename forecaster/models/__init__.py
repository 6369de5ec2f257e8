"""The models: naive, econometric, learned and convolutional, behind one protocol."""
