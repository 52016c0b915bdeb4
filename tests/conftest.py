"""The fixtures of all tests; what they are is told in the modules named here."""

pytest_plugins = [
    "tests.fixtures.hygiene",
    "tests.fixtures.network",
    "tests.fixtures.nameservers",
    "tests.fixtures.keys",
    "tests.fixtures.hostile",
]
