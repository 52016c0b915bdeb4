"""The ways in which messages can travel."""
