"""distbal: one place that knows every distcc server of a farm, and lends each job the best one free now."""

__version__ = "0.1.0"
