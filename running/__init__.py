"""What the verbs are made of.

    composing, allowed_targets    configs as dicts, and what they may set off
    source_config, run_config     a config's values as objects
    data_folder, run_directory    the folder that a run reads, and the one that it writes
    beginning, training           where a start of a run begins, and all of it to the last step
    ranks, strategies             the processes that train one run, and how it is spread over them
    further_logger                which run this one is to Weights & Biases or MLflow
    multirun                      the jobs of a sweep

Hydra and OmegaConf are known here and in the verbs alone.
"""
