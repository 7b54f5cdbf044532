"""Every code block of the README and the documentation is a test; tests/documents.py says what is done with it."""

from documents import code_blocks

pytest_collect_file = code_blocks.pytest()
