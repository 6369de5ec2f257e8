"""The application: one module a step, and the command line that runs them."""
