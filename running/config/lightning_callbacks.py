"""Lightning callbacks that cannot be used in a run, and Lightning callbacks that a class of this project replaces."""

_PACKAGE = "lightning.pytorch.callbacks"
_OURS = ("EarlyStopping", "EMAWeightAveraging", "WeightAveraging")
_INSTEAD = {
    "BackboneFinetuning": "a run trains all weights: begin with those of another by init_from=…",
    "BaseFinetuning": "a run trains all weights: begin with those of another by init_from=…",
    "BasePredictionWriter": "a run predicts nothing: use evaluate.py or generate.py",
    "BatchSizeFinder": "the batch is part of what a run is: set global_batch and micro_batch, for which plan.py shows the memory",
    "EarlyStopping": "derive it from callbacks.EarlyStopping",
    "GradientAccumulationScheduler": "the batch is part of what a run is: set global_batch and micro_batch",
    "LearningRateFinder": "it trains before the run: take experiment=lr_search, with -m hydra/sweeper=optuna",
    "ModelCheckpoint": "callbacks.checkpoints saves: set its every, keep, best=true or permanent_every",
    "ModelPruning": "it changes the names of the weights, so that no checkpoint could be read again",
    "ModelSummary": "the run says its parameters as it begins, and plan.py says more",
    "OnExceptionCheckpoint": "callbacks.checkpoints saves, also when a signal ends the run",
    "ProgressBar": "a terminal has a bar already, and log_every sets its lines",
    "SpikeDetection": "set on_spike=skip",
    "StochasticWeightAveraging": "it sets the learning rate by epochs: take callbacks.WeightAveraging or "
    "callbacks.EMAWeightAveraging, and schedule=constant or schedule=wsd",
    "ThroughputMonitor": "callbacks.throughput measures that",
    "Timer": "set max_hours",
    "WeightAveraging": "derive it from callbacks.WeightAveraging",
}


def replaced_callback(target: str) -> str:
    """Name of this project's replacement of a Lightning callback; any other name is returned unchanged."""
    name = target.rpartition(".")[2]
    return f"callbacks.{name}" if target.startswith(f"{_PACKAGE}.") and name in _OURS else target


def check_lightning_callbacks(callback: type) -> None:
    """Check that a callback is not a Lightning callback that conflicts with a run.

    Raises:
        ValueError: it is one of them, or derived from one; the message says what to use instead.
    """
    for base in callback.__mro__:
        if base.__module__ == "callbacks" or base.__module__.startswith("callbacks."):
            return
        if base.__module__.startswith(_PACKAGE) and base.__name__ in _INSTEAD:
            name = f"{callback.__module__}.{callback.__qualname__}"
            kind = name if callback is base else f"{name}, a {base.__name__}"
            raise ValueError(f"{kind} has no place in a run: {_INSTEAD[base.__name__]}.")
