"""One training run.

run_training                       from the config to the last step
check_settings, resolve            what settings and device decide, also for plan.py and verify.py; with data and checkpoints
build, fit                         build model, data and Trainer; train
builders, callback_builders        model config, optimizer, schedule and sample order; callbacks
prepared_data, find_tokenizer      open data/<tokenizer>/<source>/, prepare missing sources; which tokenizer a model has
resume, why_ended_early            where a start continues: step 0, a checkpoint or another run; whether a run has ended
run_directory                      the run's folder
start_and_end_messages             what the run prints at its start and end
rank_processes, rank_agreement     ranks: how they start, stop together and compare their settings
rank_checks                        whether a run can be trained on its ranks
distributed_strategy               Lightning's strategy for one device, DDP or FSDP
code_identity                      git revision and digest of the training code
cost_estimate                      FLOPs, hours, memory and disk space of a run
memory_estimate, activation_memory bytes of checkpoints, of training, and of activations
replay_evidence                    what verify.py compares between two runs
lightning_warnings                 Lightning's warnings that do not apply here
external_logger                    Weights & Biases, MLflow
bus_error, out_of_memory           messages for two failures of the machine
"""
