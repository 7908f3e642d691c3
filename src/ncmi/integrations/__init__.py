"""Thin adapters to other libraries' conventions; each is imported by its own name, so that none needs the others."""
