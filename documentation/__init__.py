"""The site of the documentation: pages of settings from conf/, then a strict build.

    conf/*.yaml --settings_pages--> docs/reference/settings/*.md --zensical--> site/

Nothing here is installed with the package. `make docs` runs it.
"""
