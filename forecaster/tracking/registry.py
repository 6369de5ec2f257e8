"""The model registry: versions of a job's model, and which of them is in use."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.errors import TrackingError
from forecaster.tracking.place import SERVER, tracking_uri
from forecaster.tracking.saved import folder_hash

# Below `place`, which silences MLflow before it is imported.
from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["BASELINE", "CHALLENGER", "CHAMPION", "HASH", "PREVIOUS", "Registry", "Version"]

CHAMPION, CHALLENGER, PREVIOUS, BASELINE = "champion", "challenger", "previous", "baseline"
HASH = "forecaster.sha256"
SERVED = Path(__file__).with_name("served.py")
REQUIREMENTS = (
    "keras",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "skops",
    "tensorflow",
)


@dataclass(frozen=True)
class Version:
    """A registered version.

    Parameters
    ----------
    number : int
    run_id : str
        Run that it belongs to.
    tags : mapping of str to str
        What was said of it when it was registered.
    """

    number: int
    run_id: str
    tags: Mapping[str, str]

    @property
    def model(self) -> str:
        """Name of the model in its job."""
        return self.tags.get("forecaster.model", "")

    @property
    def fitted_until(self) -> str:
        """The evening up to which it had learned, YYYY-MM-DD; empty where that was not said."""
        return self.tags.get("forecaster.fitted_until", "")


class Registry:
    """The versions of one registered model, in the store of a workspace or on a server.

    Parameters
    ----------
    workspace : Path
        Folder of ``mlflow.db`` and ``mlartifacts``, where no server is named, and of copies of versions in
        use (``models``).
    name : str
        Name of the registered model.

    Attributes
    ----------
    healed : list of str
        Copies of versions that were damaged and have been fetched again, and answers that were remembered.

    Raises
    ------
    TrackingError
        If the store cannot be opened. Every method raises it where the store does not answer.
    """

    def __init__(self, workspace: Path, name: str) -> None:
        self.uri, self.name = tracking_uri(workspace), name
        self.healed: list[str] = []
        self._named: dict[str, int] | None = None
        self._silent = False
        self._copies = workspace / "models" / name
        self._memory = self._copies / "aliases.json"
        with self._errors():
            self._client = MlflowClient(self.uri, self.uri)

    def version(self, number: int) -> Version:
        """Give a version by its number."""
        with self._errors():
            return _version(self._client.get_model_version(self.name, str(number)))

    def versions(self) -> list[Version]:
        """Give all versions, the newest first."""
        with self._errors():
            found = list(self._client.search_model_versions(f"name = '{self.name}'"))
            return sorted(map(_version, found), key=lambda version: -version.number)

    def aliased(self, alias: str) -> Version | None:
        """Give the version that an alias names; None where there is none.

        Where the store does not answer, it is the version that the alias named when it last did, and `healed`
        says so: an evening does not fail because a server is down.
        """
        if not self._silent:
            try:
                with self._errors():
                    number = self._aliases().get(alias)
                version = None if number is None else self.version(number)
            except TrackingError as error:
                if not self._memory.exists():
                    raise
                self._silent = True
                self.healed.append(f"{error}; the versions in use are those of its last answer")
            else:
                self._remember(alias, version)
                return version
        known = self._remembered().get(alias)
        return None if known is None else Version(**known)

    def _remembered(self) -> dict[str, dict[str, Any]]:
        try:
            known: dict[str, dict[str, Any]] = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known

    def _remember(self, alias: str, version: Version | None) -> None:
        known = self._remembered()
        now = {**known, alias: asdict(version)} if version is not None else dict(known)
        if version is None:
            now.pop(alias, None)
        if now == known:
            return
        # What cannot be kept is asked again.
        with suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._memory.parent, delete=False) as file:
                json.dump(now, file)
            Path(file.name).replace(self._memory)

    def register(
        self, run_id: str, folder: Path, example: pd.DataFrame, tags: Mapping[str, str], alias: str
    ) -> Version:
        """Register a saved model under an alias.

        Parameters
        ----------
        run_id : str
            Run that the model belongs to.
        folder : Path
            What `forecaster.tracking.saved.write_model` wrote.
        example : DataFrame
            Prices as an example of the input.
        tags : mapping of str to str
            Of the version; the hash of the folder is added.
        alias : str
            `CHALLENGER` or `BASELINE`; only `promote` makes a champion.
        """
        from importlib.metadata import version

        import mlflow
        import mlflow.pyfunc

        from forecaster.tracking.signature import SIGNATURE

        whole = {**tags, HASH: folder_hash(folder)}
        with self._errors(), _as_default(self.uri):
            with mlflow.start_run(run_id=run_id):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(SERVED),
                    artifacts={"model": str(folder)},
                    signature=SIGNATURE,
                    input_example=example,
                    pip_requirements=[
                        f"{package}=={version(package)}" for package in ("mlflow", *REQUIREMENTS)
                    ],
                )
            if not self._client.search_registered_models(f"name = '{self.name}'"):
                self._client.create_registered_model(self.name)
            created = self._client.create_model_version(
                self.name, logged.model_uri, run_id, tags=whole, model_id=logged.model_id
            )
            self._name(alias, int(created.version))
        return Version(int(created.version), run_id, whole)

    def set_alias(self, alias: str, number: int) -> None:
        """Let an alias name a version."""
        with self._errors():
            self._name(alias, number)

    def promote(self, number: int) -> None:
        """Make a version the champion; the one until now becomes the previous one.

        A process that dies between the two leaves an old champion that is also the previous one.
        """
        with self._errors():
            champion = self._aliases().get(CHAMPION)
            if champion is not None and champion != number:
                self._name(PREVIOUS, champion)
            self._name(CHAMPION, number)

    def rollback(self) -> tuple[Version, Version]:
        """Let champion and previous change places.

        Returns
        -------
        champion, previous : Version
            As they are now.

        Raises
        ------
        TrackingError
            If there is no previous version.
        """
        champion, previous = self.aliased(CHAMPION), self.aliased(PREVIOUS)
        if champion is None or previous is None or champion.number == previous.number:
            raise TrackingError(
                f"a rollback goes to the version before the champion, and {self.name} has none; "
                "train another, or name the champion in the registry"
            )
        self.promote(previous.number)
        return previous, champion

    def folder(self, version: Version) -> Path:
        """Give the saved model of a version: a copy in the workspace, which is fetched once.

        Raises
        ------
        TrackingError
            If neither the copy nor what the registry holds is what was registered.
        """
        wanted = version.tags.get(HASH)
        copy = self._copies / str(version.number)
        if wanted is not None and copy.is_dir() and folder_hash(copy) == wanted:
            return copy
        damaged = copy.is_dir() and wanted is not None
        try:
            with _as_default(self.uri):
                fetched = self._fetch(version, wanted, copy)
        except (OSError, MlflowException) as error:
            raise TrackingError(
                f"version {version.number} of {self.name} cannot be fetched: {_first_line(error)}; "
                "see that the registry and its files can be reached, or train again"
            ) from error
        if damaged:
            self.healed.append(f"the copy of version {version.number} was damaged and is fetched again")
        return fetched

    def _fetch(self, version: Version, wanted: str | None, copy: Path) -> Path:
        from mlflow.artifacts import download_artifacts

        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=copy.parent) as temporary:
            source = self._client.get_model_version_download_uri(self.name, str(version.number))
            whole = download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=self.uri)
            found = sorted(Path(whole).glob("artifacts/*/job.json"))
            if not found:
                raise TrackingError(
                    f"version {version.number} of {self.name} holds no saved model; "
                    "restore it from a backup, or train again"
                )
            fetched = found[0].parent
            if wanted is not None and folder_hash(fetched) != wanted:
                raise TrackingError(
                    f"version {version.number} of {self.name} is damaged: its files are not those that were "
                    "registered; restore them from a backup, or train again"
                )
            shutil.rmtree(copy, ignore_errors=True)
            fetched.replace(copy)
        return copy

    def _aliases(self) -> dict[str, int]:
        """Ask for the aliases once: an evening uses what they named when it first asked."""
        if self._named is None:
            try:
                found = self._client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                found = {}
            self._named = {alias: int(number) for alias, number in found.items()}
        return self._named

    def _name(self, alias: str, number: int) -> None:
        self._client.set_registered_model_alias(self.name, alias, str(number))
        self._named = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what MLflow raises, which is long and of many types, into one line."""
        try:
            yield
        except TrackingError:
            raise
        # The database's own errors come through MLflow.
        except Exception as error:
            raise TrackingError(
                f"the registry {self.name} does not answer: {_first_line(error)}; "
                "see that it can be reached and is undamaged"
            ) from error


@contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Let MLflow's functions without a client use a store, and leave nothing of it in the environment."""
    import mlflow

    before = os.environ.get(SERVER)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        # It had written the address into the environment, where the next workspace would find it.
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[SERVER] = before


def _version(found: ModelVersion) -> Version:
    return Version(int(found.version), str(found.run_id), dict(found.tags))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
