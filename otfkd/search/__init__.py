"""Searching for the settings that score best on dev."""
