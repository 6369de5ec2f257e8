"""The panel of all series, and windows into it: which sessions an origin may use and what it forecasts."""

from forecaster.windows.covariates import Covariate, Transform
from forecaster.windows.origins import Windows
from forecaster.windows.panel import Panel, PanelWriter, Universe

__all__ = ["Covariate", "Panel", "PanelWriter", "Transform", "Universe", "Windows"]
