"""The same work side by side with other libraries: `make bench`.

__main__.py      what is measured, and in which order: each figure in a process of its own, contestants in turn
training.py      a training step: ours through the Trainer with all callbacks, the peers in a bare loop
generation.py    tokens per second, and the greedy tokens compared
loss_head.py     the head alone against cross-entropy on whole logits
callback_overhead.py  what the callbacks add to a step
linear.py        matrix products without gradients against torch's own
gpu_day/         what only a GPU can show, within nine minutes: correctness, resume, speed, MFU, memory
null_gpu.py      what a training asks of a GPU, counted without one by cuda_calls.py
roofline.py      the MFU that it could reach at most
mix_law.py       laws of mixes on RegMix's runs: the table of docs/explanation/mix_laws.md
architecture_ablation.py  what each choice of model=modern_124m is worth: the table of docs/explanation/model.md
machine.py       what the figures were made on, and how memory is measured
tables.py        tables for a terminal and for the docs
report.py        results/*.json as tables, and the tables in docs/speed.md
"""
