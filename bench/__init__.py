"""Realistic databases, and Perdure measured beside its peers on them."""
