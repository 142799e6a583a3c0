"""python -m benchmarks.gpu_day: what only a GPU can show, within nine minutes on one that is lent for fifteen.

::

    __main__ --starts, with a deadline--> stage_process.py: one stage in a process of its own --appends--> rows, as JSON lines
                                                 \\--starts--> speed_worker.py, training_process.py

A stage that breaks, hangs or takes the CUDA context with it costs its own rows and nobody else's. What a row is, and how a
check is made, says result_rows.py. The stages, the cheapest truths first:

gpu_environment.py   versions, clocks, ceilings of arithmetic and memory; the corpus that the trainings read
attention.py     every kernel against fp64: outputs, gradients, dropout
loss_head.py     every kernel against fp64: losses, gradients
resume.py        20 steps against 10 + 10, and against themselves, tensor by tensor
faults.py        fp16 overflow, a loss that is not finite, synchronisations within a step
speed.py         GPT-2 124M against the peers; speed_candidates.py defines them, speed_worker.py is the process of one
trainer.py       the real train.py against the bare loop, and against plan.py's memory
generation.py    tokens per second against transformers
ranks.py         DDP and FSDP on one rank
profile.py       the kernels that a step spends its time in

json_subprocess.py   processes that answer in JSON
small_runs.py    small runs of the real train.py, and the callbacks that watch them
wheels.py        a folder of the packages that a machine without a network lacks
table.py         the results as a table
"""
