"""Build the documentation as a website: generate the pages of settings from conf/, then run a strict build.

    conf/*.yaml --settings_pages--> docs/reference/settings/*.md --zensical--> site/

This package is not installed with the project. `make docs` runs it.
"""
