"""Formats of corpora, one file each, found by its place. In: a place. Out: how sure a format is of it, and its sources.

A module here has `certainty(place) -> int`: 0 it is none of mine; 1 if nobody else knows it; 2 by what lies there; 3 by its
name. And `open_format(place, wanted) -> Opened`. The surest one opens the place.
"""
