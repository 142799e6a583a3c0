"""One training run.

run_training                       from the config to the last step
resolve, build, fit                check everything; build model, data and Trainer; train
builders, callback_builders        model config, optimizer, schedule and sample order; callbacks
prepared_data, model_tokenizer     open data/<tokenizer>/<source>/, prepare what is missing
resume, recorded_mix_weights       where a start continues: from the beginning, a checkpoint, or another run
run_directory, run_summary         the run's folder; what the run prints at its start and end
process_group, rank_agreement      ranks: how they start, stop together and compare their settings
distributed_strategy               Lightning's strategy for one device, DDP or FSDP
code_revision                      git revision and digest of the code that trains
cost_estimate                      FLOPs, hours, memory and disk of a run
lightning_warnings                 Lightning's warnings that do not apply here
external_logger                    Weights & Biases, MLflow
bus_error, out_of_memory           messages for two failures of the machine
"""
