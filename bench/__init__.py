"""Throughput, latency and scale of this package, beside released versions and other systems."""
