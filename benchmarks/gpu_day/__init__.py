"""python -m benchmarks.gpu_day: the measurements and checks that need a GPU, within nine minutes.

::

    __main__ --starts, with a deadline--> stage_worker.py: one stage in its own process --appends--> JSON rows
                                                 \\--starts--> speed_worker.py, training_worker.py

A stage that fails, hangs or breaks the CUDA context loses its own rows only. result_rows.py defines rows and checks.
The stages, with the cheapest first:

gpu_environment.py   versions, clocks, peak arithmetic and memory bandwidth; the corpus of the training runs
attention.py     every kernel against fp64: outputs, gradients, dropout
loss_head.py     every kernel against fp64: losses, gradients
resume.py        20 steps against 10 + 10, and against a repeat, tensor by tensor
faults.py        fp16 overflow, a loss that is not finite, synchronisations within a step
speed.py         GPT-2 124M against the peers; speed_candidates.py defines them, speed_worker.py runs one of them
trainer.py       the real train.py against the bare loop, and against plan.py's memory estimate
generation.py    tokens per second against transformers
ranks.py         DDP and FSDP on one rank
profile.py       the kernels that take most of a step's time

json_subprocess.py   processes that answer in JSON
small_run_config.py  small runs of the real train.py, and the callbacks that observe them
download_wheels.py   collect the packages that a machine without a network lacks
table.py         the results as a table
"""
