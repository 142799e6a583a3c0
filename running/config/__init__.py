"""Settings: from the command line and conf/ to checked values.

command_line_check, quote_for_hydra  what the user typed, checked before anything is imported or written
job_names, sweep_axis_choices        the jobs of a sweep: which settings vary, the name of each job
command_help                         `--help` and `--version`
compose, path_and_name_settings      Hydra's composition as plain dicts; which settings are paths or names
settings_parser                      composed settings to frozen dataclasses
run_config, command_configs,         the dataclasses for train.py, for the commands that do not train, for plan.py and
plan_and_verify_configs,             verify.py, and for the callbacks
callback_configs
allowed_targets, renamed_targets     allow-list for `_target_`; names of targets in earlier versions
own_imports, registered_targets      `+imports=[my_package]`: the user's own modules; their classes and functions for `_target_`
refused_lightning_callbacks          Lightning's callbacks that do not work in a run, and our replacements
source_builders                      conf/source/*.yaml as corpora and preparation settings
init_from_architecture               `init_from`: the architecture comes from the given weights
changed_settings                     settings that differ between two starts of a run
copy_with_changes                    the same run with other values of some settings
"""
