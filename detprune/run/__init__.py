"""The application around the library: recipes, runs and their files, studies, reports, measurements, commands.

The library does not import it, with one exception: `detprune.load`, which has to know the adapters.
"""
