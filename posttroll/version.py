"""The version of the package."""

__version__ = version = "2.0.0.dev0"
__version_tuple__ = version_tuple = (2, 0, 0, "dev0")
