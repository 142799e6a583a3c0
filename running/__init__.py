"""What the verbs are made of.

    command_line                  what is typed, checked before anything is done
    composing, allowed_targets    configs as dicts, and what they may set off
    lightnings_callbacks          those that ours stand for, and those that have no place in a run
    source_config, run_config     a config's values as objects
    weights_record                weights that were updated before, by a checkpoint's word or a record's
    data_folder, run_directory    the folder that a run reads, and the one that it writes
    beginning, training           where a start of a run begins, and all of it to the last step
    agreement, revision           what all ranks have in common before the first step; which code this is
    changed_settings              what differs between two starts, of which an older version may have made one
    ranks, strategies             the processes that train one run, and how it is spread over them
    interrupts, thread_waiting    Ctrl-C before there is anything to save; set before what takes seconds to import
    further_logger                which run this one is to Weights & Biases or MLflow
    multirun, hydra_job           the jobs of a sweep: their processes, and what becomes of each
    machine_shares, sweep_record  what each gets of the machine, and what is known of it

Hydra and OmegaConf are known here and in the verbs alone.
"""
