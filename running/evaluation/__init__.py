"""What evaluate.py, generate.py and convert.py do.

evaluate_model         run the tasks of a config: a table, and evaluation.json
task_loading           conf/task with its records, texts and prompts
resumable_task_runner  a folder of results: finished work of all processes is kept
lm_eval_harness        our models under EleutherAI's lm-evaluation-harness
model_text_generator   a loaded model with generation settings
chat_repl              interactive or piped session: one prompt per line
convert_model          convert a model between formats
"""
