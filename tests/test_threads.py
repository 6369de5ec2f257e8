"""Threads are set in fresh processes, because what a library read when it was loaded stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from joblib import Parallel, delayed
from threadpoolctl import threadpool_info

from forecaster.errors import JobError, ParameterError
from forecaster.job import parse_job
from forecaster.threads import limit_threads, limited_threads, tensorflow_threads, thread_counts

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LOAD = "import numpy, scipy.linalg, sklearn.ensemble"


def fresh(code: str, **environment: str) -> dict[str, object]:
    """What ``code`` puts into ``seen``, in a new process whose shell asks for three threads of everything."""
    names = (*POOLS, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    shell = os.environ | dict.fromkeys(names, "3") | environment
    program = f"import json, os, sys\nseen = {{}}\n{code}\nprint(json.dumps(seen))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_libraries_that_are_loaded_later_are_limited() -> None:
    code = f"""
from forecaster.threads import limit_threads, thread_counts
limit_threads(2)
{LOAD}
seen.update(thread_counts())
seen["heavy"] = "tensorflow" in sys.modules
"""
    assert fresh(code) == {"blas": 2, "openmp": 2, "heavy": False}


def test_libraries_that_are_loaded_already_are_limited() -> None:
    code = f"""
{LOAD}
from forecaster.threads import limit_threads, thread_counts
seen["shell"] = thread_counts()
limit_threads(1)
seen["limited"] = thread_counts()
"""
    # OpenBLAS starts no more threads than there are cores.
    shell = {"blas": min(3, os.cpu_count() or 3), "openmp": 3}
    assert fresh(code) == {"shell": shell, "limited": {"blas": 1, "openmp": 1}}


def test_the_environment_of_later_processes_is_set() -> None:
    code = """
from forecaster.threads import limit_threads, tensorflow_threads
limit_threads(2)
seen.update({name: os.environ[name] for name in os.environ if name.endswith("_THREADS")})
seen["tensorflow"] = tensorflow_threads()
"""
    seen = fresh(code)
    assert seen.pop("tensorflow") == [2, 2]
    assert set(seen.values()) == {"2"}
    assert set(seen) >= {*POOLS, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"}


def test_a_block_is_limited_and_leaves_no_trace() -> None:
    __import__("sklearn.ensemble")
    environment, before = dict(os.environ), threadpool_info()
    with limited_threads(1):
        assert thread_counts()["blas"] == thread_counts()["openmp"] == 1
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert dict(os.environ) == environment
    assert threadpool_info() == before


def test_a_block_leaves_no_trace_of_a_variable_that_was_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with pytest.raises(ZeroDivisionError), limited_threads(1):
        1 / 0  # noqa: B018
    assert "OMP_NUM_THREADS" not in os.environ


def test_workers_of_joblib_take_the_limit() -> None:
    with limited_threads(2):
        counts = Parallel(n_jobs=2, backend="loky")(delayed(thread_counts)() for _ in range(2))
    assert counts == [{"blas": 2}] * 2  # joblib loads NumPy; without the block each would have one thread


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None])
def test_a_count_is_a_whole_number(count: object) -> None:
    expected = rf"^threads are a whole number of at least 1\. Received: {count!r}$"
    with pytest.raises(ParameterError, match=expected):
        limit_threads(count)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=expected), limited_threads(count):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("said", "expected"), [("4", 4), ("", 1), ("many", 1), ("0", 1), ("-2", 1), (None, 1)]
)
def test_tensorflow_starts_with_what_the_environment_says_or_one(
    said: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        if said is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, said)
    assert tensorflow_threads() == (expected, expected)


@pytest.mark.slow
def test_tensorflow_is_limited_until_it_starts_and_refuses_afterwards() -> None:
    code = """
import tensorflow as tf
from forecaster.errors import ParameterError
from forecaster.threads import limit_threads, thread_counts
seen["said"] = thread_counts()
limit_threads(2)
tf.constant(0.0) + 1.0
seen["limited"] = thread_counts()
limit_threads(2)  # the same number again is no change
try:
    limit_threads(1)
except ParameterError as error:
    seen["error"] = str(error)
seen["environment"] = os.environ["OMP_NUM_THREADS"]
"""
    seen = fresh(code, TF_CPP_MIN_LOG_LEVEL="3")
    tensorflow = {"tensorflow_within": 2, "tensorflow_across": 2}
    assert seen["limited"] == seen["limited"] | tensorflow  # type: ignore[operator]
    assert seen["said"] == seen["said"] | dict.fromkeys(tensorflow, 3)  # type: ignore[operator]
    assert seen["environment"] == "2"  # a refused number changes nothing
    assert seen["error"] == (
        "threads are set before TensorFlow starts. Received: 1, while it has started with 2 in an operation "
        "and 2 across operations (0 is one a core); call limit_threads first, or start a new process"
    )


JOB = """
name: small
prices: {kind: sample}
backtest: {start: 2010-01-01}
models: [{kind: zero}]
"""


def test_a_job_sets_its_threads_and_they_are_part_of_it() -> None:
    job, wide = parse_job(JOB, "job.yaml"), parse_job(f"{JOB}threads: 4", "job.yaml")
    assert (job.threads, wide.threads) == (1, 4)
    assert job.hash != wide.hash
    with pytest.raises(JobError, match=r"threads: Input should be greater than 0\. Received: '0'$"):
        parse_job(f"{JOB}threads: 0", "job.yaml")
