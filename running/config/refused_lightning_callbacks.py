"""Lightning's callbacks in a run: callbacks that our classes replace, and callbacks that do not work in a run."""

_PACKAGE = "lightning.pytorch.callbacks"
_OURS = ("EarlyStopping", "EMAWeightAveraging", "WeightAveraging")
_INSTEAD = {
    "BackboneFinetuning": "a run trains all weights: start from other weights with init_from=…",
    "BaseFinetuning": "a run trains all weights: start from other weights with init_from=…",
    "BasePredictionWriter": "a run makes no predictions: use evaluate.py or generate.py",
    "BatchSizeFinder": "the batch size defines a run: set global_batch and micro_batch; plan.py estimates the memory",
    "EarlyStopping": "derive it from callbacks.EarlyStopping",
    "GradientAccumulationScheduler": "the batch size defines a run: set global_batch and micro_batch",
    "LearningRateFinder": "it trains before the run: use experiment=lr_search with -m hydra/sweeper=optuna",
    "ModelCheckpoint": "callbacks.checkpoints saves checkpoints: set its every, keep, best or permanent_every",
    "ModelPruning": "it renames the weights, so checkpoints could not be loaded",
    "ModelSummary": "a run prints its parameters when it starts, and plan.py prints more",
    "OnExceptionCheckpoint": "callbacks.checkpoints saves a checkpoint, also when a signal ends the run",
    "ProgressBar": "a run has its own progress bar, and log_every sets how often it prints a line",
    "SpikeDetection": "set on_spike=skip",
    "StochasticWeightAveraging": "it sets the learning rate by epochs: use callbacks.WeightAveraging or "
    "callbacks.EMAWeightAveraging, and schedule=constant or schedule=wsd",
    "ThroughputMonitor": "callbacks.throughput already measures this",
    "Timer": "set max_hours",
    "WeightAveraging": "derive it from callbacks.WeightAveraging",
}


def replaced_callback(target: str) -> str:
    """The name of our class that replaces one of Lightning's; any other name unchanged.

    Args:
        target: dotted name of a callback.
    """
    name = target.rpartition(".")[2]
    return f"callbacks.{name}" if target.startswith(f"{_PACKAGE}.") and name in _OURS else target


def check_lightning_callbacks(callback: type) -> None:
    """Refuse a callback of Lightning that conflicts with a function of the run.

    Args:
        callback: the class.

    Raises:
        ValueError: the class is such a callback or derives from one. The message says what to use instead.
    """
    for base in callback.__mro__:
        if base.__module__ == "callbacks" or base.__module__.startswith("callbacks."):
            return
        if base.__module__.startswith(_PACKAGE) and base.__name__ in _INSTEAD:
            name = f"{callback.__module__}.{callback.__qualname__}"
            kind = name if callback is base else f"{name}, a {base.__name__}"
            raise ValueError(f"{kind} does not work in a run: {_INSTEAD[base.__name__]}.")
