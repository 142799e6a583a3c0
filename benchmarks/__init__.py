"""The same work side by side with other libraries: `make bench`.

__main__.py      what is measured, and in which order: each figure in a process of its own, contestants in turn
training.py      a training step: ours through the Trainer with all callbacks, the peers in a bare loop
generation.py    tokens per second, and the greedy tokens compared
loss_head.py     the head alone against cross-entropy on whole logits
gpu.py           what only a GPU can show: backends, precisions, compilation, MFU
report.py        results/*.json as tables, and the table in the README
"""
