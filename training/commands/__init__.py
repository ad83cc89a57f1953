"""Sub-commands of ``python -m training`` that are more than one module's own."""
