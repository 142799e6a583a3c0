"""Multi-run sweeps.

multirun, sweep_job   jobs as processes, in order or several at once
machine_shares        GPUs or threads for each of several jobs
sweep_state           <sweep_dir>/.jobs/: the state of each job
propose_mixes         plan.py mix_design=20: which mixes to train for a mix law
"""
