"""The version of the package."""

__all__ = ["__version__", "__version_tuple__", "version", "version_tuple"]

__version__ = version = "2.0.0.dev0"
__version_tuple__ = version_tuple = (2, 0, 0, "dev0")
