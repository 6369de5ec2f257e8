"""Training on several devices of one host gives what one gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forecaster.errors import JobError
from forecaster.job import parse_job

CODE = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from forecaster.errors import ParameterError
from forecaster.models.convolution.chunks import runs_of
from forecaster.models.convolution.model import ConvolutionForecaster
from forecaster.models.convolution.network import Network, Objective, squared_error
from forecaster.models.convolution.training import Data, Schedule, Trainer
from forecaster.models.convolution.geometry import KernelConvolution
from forecaster.liftings import Lagged

series = np.random.default_rng(0).standard_normal((3000, 2)).astype(np.float32)
network = Network(
    Lagged(rows=2), 16, (KernelConvolution(4, (2, 3), activation="gelu"),), channels=2, outputs=2, head="last"
)
trainer = Trainer(network, Objective(squared_error, columns=2), 64)
data = Data.of(series, np.roll(np.abs(series), -1, axis=0))
runs = runs_of(np.arange(100, 2900), np.array([0, 3000]))
fits = {}
for devices in (1, 2):
    fits[devices] = trainer.fit(data, runs, Schedule(3, 8, devices=devices), seed=1)
assert trainer.traces["train", 8] == 2, trainer.traces
again = trainer.fit(data, runs, Schedule(3, 8, devices=2), seed=1)
assert again.tobytes() == fits[2].tobytes()
start = trainer.function.first_weights(1)
moved = np.abs(fits[1] - start).max()
print(moved, np.abs(fits[1] - fits[2]).max())
assert moved > 0.01
np.testing.assert_allclose(fits[2], fits[1], rtol=0, atol=1e-4 * moved)
try:
    trainer.fit(data, runs, Schedule(1, 9, devices=3), seed=1)
except ParameterError as error:
    assert "while TensorFlow sees 2 of a kind" in str(error), error
else:
    raise AssertionError("three devices are not there")
"""


def test_two_devices_train_what_one_trains() -> None:
    """In a process of its own: logical devices are made before TensorFlow starts."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def test_devices_divide_the_chunks_of_a_step() -> None:
    job = """
name: devices
prices: {kind: sample}
backtest: {start: 2008-01-01}
models: [{kind: mlp, training: {devices: 3}}]
"""
    with pytest.raises(
        JobError, match="devices divide the chunks of a step evenly; received 3 devices for 4"
    ):
        parse_job(job, "job.yaml")
