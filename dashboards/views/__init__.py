"""The pages, one module each: what it shows, from tables that `dashboards.sources` reads."""
