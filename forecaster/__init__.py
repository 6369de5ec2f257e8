"""Daily forecasts of financial time series, and the truth about how good they are."""
