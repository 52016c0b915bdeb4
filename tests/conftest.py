"""The fixtures of all tests; what they are is told in the modules named here."""

from hypothesis import settings

# How long an example takes says more about what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = [
    "tests.fixtures.hygiene",
    "tests.fixtures.network",
    "tests.fixtures.nameservers",
    "tests.fixtures.keys",
    "tests.fixtures.hostile",
]
