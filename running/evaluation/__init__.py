"""What evaluate.py and generate.py do.

task_loading     conf/task with its records, texts and prompts
result_store     a folder of results: finished work is kept, whoever did it
lm_eval_harness  our models under EleutherAI's lm-evaluation-harness
chat_repl        interactive or piped session: one prompt a line
"""
