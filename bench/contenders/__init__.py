"""Contenders: their interface, heads on stored features, and a colour histogram baseline.

`bench.evaluation` runs them; `bench.finetune` adds the fine-tuned one.
"""
