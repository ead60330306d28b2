"""The version of the package. It knows nothing else."""

VERSION = "0.1.0"
