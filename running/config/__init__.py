"""Settings: from the command line and conf/ to checked values.

command_line, command_line_quoting   what the user typed, checked before anything is imported or written
command_help                         `--help` and `--version`
compose, path_settings               Hydra's composition as plain dicts; which settings are paths or names
allowed_targets, renamed_targets     allow-list for `_target_`; its names in earlier versions
own_imports, registered_targets      `+imports=[…]`; what the imported modules have registered for `_target_`
lightning_callbacks                  Lightning's callbacks that do not work in a run, and our replacements
source_settings                      conf/source/*.yaml as corpora
init_from_architecture               `init_from`: the architecture comes from the given weights
changed_settings                     settings that differ between two starts of a run
"""
