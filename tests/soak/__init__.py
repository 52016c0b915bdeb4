"""Durable delivery while everything that takes part is killed again and again."""
