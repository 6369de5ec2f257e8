"""Where the work of a job runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import PositiveInt, model_validator

from forecaster.job.base import Spec, Text

if TYPE_CHECKING:
    from forecaster.engine import Engine

__all__ = ["EngineSpec"]


class EngineSpec(Spec):
    """Where the work of a job runs; the bits of a result do not depend on it."""

    kind: Literal["loky", "threading", "dask", "ray"] = "loky"
    """Processes (loky) or threads of this machine, or a Dask or Ray cluster (extra ``cluster``)."""
    workers: PositiveInt = 1
    """Tasks at once; of a cluster, for each of its cores. One process or thread is the job's own."""
    address: Text | None = None
    """Of the cluster: ``tcp://host:8786`` of a Dask scheduler, ``host:6379`` or ``auto`` of Ray."""

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        cluster = self.kind in ("dask", "ray")
        if cluster and self.address is None:
            raise ValueError(f"the engine {self.kind} needs the address of its cluster; name it as `address`")
        if not cluster and self.address is not None:
            raise ValueError(
                f"an address belongs to a cluster (dask, ray); {self.kind} runs here; received {self.address}"
            )
        return self

    def build(self, threads: int) -> Engine:
        """Make the engine, with so many threads in each worker; nothing is started or connected yet."""
        from forecaster.engine import Engine

        return Engine(self.kind, self.workers, self.address, threads)
