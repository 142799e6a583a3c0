"""Benchmarks against other libraries on the same work: `make bench`.

__main__.py      what is measured, and in which order; each measurement has its own process, and contestants take turns
training.py      a training step: ours through the Trainer with all callbacks, the peers in a bare loop
generation.py    tokens per second, and a comparison of the greedy tokens
loss_head.py     the loss head alone against cross-entropy on whole logits
callback_overhead.py  what the callbacks add to a step
linear.py        matrix products without gradients against torch's own
gpu_day/         what needs a GPU, within nine minutes: correctness, resume, speed, MFU, memory
count_cuda_calls.py  launches, waits and copies of training, counted without a GPU by cuda_call_counter.py
roofline.py      an upper bound of the MFU
mix_law.py       mix laws on RegMix's runs: the table of docs/explanation/mix_laws.md
architecture_ablation.py  the effect of each choice of model=modern_124m: the table of docs/explanation/model.md
machine.py       description of the machine, and measurement of memory
tables.py        tables for a terminal and for the docs
write_docs_tables.py  results/*.json as tables, and the tables in docs/speed.md
"""
