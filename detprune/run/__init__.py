"""The application around the library: recipes, runs and their files, studies, reports, measurements, the commands.

The library does not import it. `detprune.load`, which has to know the adapters, is the one name that comes from here.
"""
