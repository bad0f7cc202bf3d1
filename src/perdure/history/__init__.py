"""Histories (formats/history.py) where they are kept: written to, read from, and turned into files again.

``deciding`` says how a run reads a source, ``advancing`` carries that out, ``recording`` stores what was
read. ``reading`` says what a history offers, ``in_repository`` and ``in_directory`` offer it,
``rebuilding`` gives the file back, ``losses`` says what damage means for it.
"""
