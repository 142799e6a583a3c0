"""Training callbacks. They only observe, with these exceptions: `AdoUpdater` changes mix weights if the curriculum says
so, `MedianPruning` and `EarlyStopping` end a run, `KillAtStep` kills it for verify.py, and `WeightAveraging` and
`EMAWeightAveraging` determine which weights are validated and loaded from a checkpoint.

    Throughput             speed/…, memory/…
    MixLedger              mix/…: planned and realised shares, epochs, drift
    ValidationPerplexity   val/…
    ZeroShotEvaluation     zero_shot/…
    Samples                samples.jsonl
    StepLog                train/…, a line for the console and the log file
    EndMetricsRow          the end of each row of metrics.jsonl
    CsvMetrics             metrics.csv
    ExperimentTracker      Weights & Biases, MLflow
    SkippedStepLog         faults.jsonl: skipped steps, losses that are not finite
    Checkpoints            checkpoints/; truncates the logs on resume
    GracefulStop           termination signals and max_hours
    MedianPruning          pruned.json: ends a run of a sweep that is worse than the median of the others
    EarlyStopping          ends a run whose validation stops improving
    EarlyEndRecorder       ended_early.json
    AdoUpdater             mix_weights.jsonl: updates of the mix weights
    StartStepAgreement     all ranks start from the same step
    SampleOrderLog         diet/: every sequence, for verify.py
    KillAtStep             SIGKILL, for verify.py

Everything that belongs to a step is on disk before the checkpoint of that step: metrics and samples are written at the
end of the step, including its validation, and the checkpoint is saved when the next step starts.
"""

from callbacks.ado_updater import AdoUpdater
from callbacks.checkpoints import Checkpoints, CheckpointWriteError
from callbacks.csv_metrics import CsvMetrics
from callbacks.early_stopping import EarlyEndRecorder, EarlyStopping
from callbacks.experiment_tracker import ExperimentTracker
from callbacks.graceful_stop import GracefulStop, RunStopped
from callbacks.median_pruning import MedianPruning, RunPruned
from callbacks.mix_ledger import MixLedger
from callbacks.samples import Samples
from callbacks.skipped_step_log import SkippedStepLog
from callbacks.start_step_agreement import StartStepAgreement
from callbacks.step_log import EndMetricsRow, StepLog
from callbacks.throughput import Throughput
from callbacks.validation_perplexity import ValidationPerplexity
from callbacks.verify_callbacks import KillAtStep, SampleOrderLog
from callbacks.weight_averaging import EMAWeightAveraging, WeightAveraging
from callbacks.zero_shot_evaluation import ZeroShotEvaluation

__all__ = [
    "AdoUpdater",
    "CheckpointWriteError",
    "Checkpoints",
    "CsvMetrics",
    "EMAWeightAveraging",
    "EarlyEndRecorder",
    "EarlyStopping",
    "EndMetricsRow",
    "ExperimentTracker",
    "GracefulStop",
    "KillAtStep",
    "MedianPruning",
    "MixLedger",
    "RunPruned",
    "RunStopped",
    "SampleOrderLog",
    "Samples",
    "SkippedStepLog",
    "StartStepAgreement",
    "StepLog",
    "Throughput",
    "ValidationPerplexity",
    "WeightAveraging",
    "ZeroShotEvaluation",
]
