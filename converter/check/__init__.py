"""Comparison of the stages of a conversion, blob by blob."""
