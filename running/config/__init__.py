"""Settings: from the command line and conf/ to checked values.

command_line_check, quote_for_hydra   check the command line before anything is imported or written; quote text for Hydra
command_help                          `--help` and `--version`
compose, path_and_name_settings       compose configs with Hydra as plain dicts; which settings are paths or names
settings_parser                       parse composed settings into frozen dataclasses
run_config                            dataclasses of a training run
command_configs, callback_configs     dataclasses of the other commands, and of callbacks
allowed_targets, renamed_targets      allow-list for `_target_`; names that targets had in earlier versions
own_imports                           `+imports=[…]`: modules of the user
lightning_callbacks                   Lightning callbacks that do not work in a run, and what replaces them
source_builders                       conf/source/*.yaml -> corpora
init_from_architecture                `init_from`: take the architecture from the given weights
changed_settings                      settings that differ between two starts of a run
"""
