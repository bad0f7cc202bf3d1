"""Programs that behave as five older tools did, on the same files: one package for each tool.

In each, ``command.py`` is its command line, in the tool's own manner, and belongs to the layer of ``cli``;
everything else is a library without terminal, environment and clock.
"""
